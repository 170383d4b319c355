"""Scores with a known accuracy, a baseline of them, and a stream of predictions and labels."""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence

import numpy as np
from scipy.special import expit

from understudy.monitor.baseline.builder import Builder
from understudy.monitor.baseline.model import Baseline
from understudy.monitor.findings.finding import Signal
from understudy.monitor.health.performance.signals import performance_signals
from understudy.monitor.health.performance.watch import PerformanceWatch
from understudy.monitor.labels.store import Joined


def scores(rng: np.random.Generator, count: int, mean: float = -1.0) -> np.ndarray:
    """Calibrated scores; nearer to the middle they are less sure."""
    return expit(rng.normal(mean, 2.0 if mean != 0.0 else 1.3, count))


def baseline(rng: np.random.Generator, rows: int = 20_000) -> Baseline:
    """Of a model whose scores are calibrated."""
    p = scores(rng, rows)
    y = (rng.random(rows) < p).astype(float)
    builder = Builder(model="m", roles={"p": "prediction", "y": "target"})
    builder.add(("p", "y"), [p.tolist(), y.tolist()])
    return builder.finish()


def joined(number: int, predicted: object, label: object, at: float, delay: float = 1.0) -> Joined:
    """A labelled prediction ``p`` of request ``r-{number}``."""
    return Joined(
        number, f"r-{number}", "champion", False, "m", 0.0, at, {"p": predicted}, 0, label, None,
        at + delay, delay,
    )  # fmt: skip


class Stream:
    """Predictions of single requests, a second apart, and their labels: ``delays`` (n,) in seconds
    are those of the labels, NaN for one that never comes."""

    def __init__(self, watch: PerformanceWatch) -> None:
        self.watch = watch
        self.number = 0
        self.first: dict[str, int] = {}
        """The row at which each finding was there first, and each reason not to judge."""
        self._waiting: list[tuple[float, int, Joined]] = []

    def send(
        self,
        predicted: Sequence[object],
        labels: Sequence[object],
        delays: np.ndarray | None = None,
        step: int = 50,
    ) -> Stream:
        for begin in range(0, len(predicted), step):
            part = range(begin, min(begin + step, len(predicted)))
            numbers = [self.number + n - begin for n in part]
            self.watch.take_rows(
                [predicted[n] for n in part],
                [float(n) for n in numbers],
                None,
                [f"r-{n}".encode() for n in numbers],
            )
            for n, number in zip(part, numbers, strict=True):
                delay = 1.0 if delays is None else float(delays[n])
                if math.isfinite(delay):
                    one = joined(number, predicted[n], labels[n], float(number), delay)
                    heapq.heappush(self._waiting, (number + delay, number, one))
            self.number += len(part)
            self.labels(float(self.number))
        return self

    def labels(self, now: float = math.inf) -> None:
        """The labels that have come by ``now``."""
        while self._waiting and self._waiting[0][0] <= now:
            self.watch.take_label(heapq.heappop(self._waiting)[2])
        self.watch.flush()
        for key in self.findings():
            self.first.setdefault(key, self.number)
        if self.watch.selective is not None:
            self.first.setdefault(self.watch.selective.reason, self.number)

    def findings(self) -> dict[str, Signal]:
        return {
            s.key.removeprefix("performance/m///"): s
            for s in performance_signals(self.watch, "m", "")
        }
