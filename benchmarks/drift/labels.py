"""Performance by labels alone: false findings, delays, and samples of labels that are not fair.

No stream has a labelled baseline, so the first labels are the reference of every metric. On
unchanged models any finding is false: its share is that of references whose error is larger than
allowed for, plus chance. After a change the delay is counted in labels. Then labels depend on the
prediction or the outcome, with unchanged models: the metrics must not be judged.

    python -m benchmarks drift-labels [--quick]
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.harness import Claim, Result, environment
from understudy.monitor.config.performance import Performance
from understudy.monitor.health.performance.signals import performance_signals
from understudy.monitor.health.performance.watch import PerformanceWatch
from understudy.monitor.labels.store import Joined

Array = npt.NDArray[np.float64]
Rng = np.random.Generator
RUN_LENGTH = 1_000_000.0
SEED = 61
BEFORE = 2_000
AFTER = 6_000
STATIONARY = 8_000
_STEP = 100


def scores(rng: Rng, rows: int) -> tuple[Array, Array]:
    """Calibrated scores and labels, 84 % of which are predicted right."""
    p = 1.0 / (1.0 + np.exp(-rng.normal(-1.0, 2.0, rows)))
    return p, (rng.random(rows) < p).astype(np.float64)


def numbers(rng: Rng, rows: int) -> tuple[Array, Array]:
    """Predictions of delays with errors of Student's t, three degrees of freedom."""
    y = rng.gamma(2.0, 15.0, rows)
    return y + 6.0 * rng.standard_t(3.0, rows), y


def classes(rng: Rng, rows: int) -> tuple[Array, Array]:
    """Four classes, the last with 4 % of the labels; 96 % are predicted right."""
    y = rng.choice(4, rows, p=[0.5, 0.3, 0.16, 0.04])
    wrong = rng.random(rows) < 0.05
    return np.where(wrong, rng.integers(0, 4, rows), y).astype(np.float64), y.astype(np.float64)


MAKE = {"scores": scores, "numbers": numbers, "classes": classes}


class Stream:
    """A watch without a baseline, and the row at which each finding came first."""

    def __init__(self, kind: str) -> None:
        threshold = 0.5 if kind == "scores" else None
        self.kind = kind
        self.watch = PerformanceWatch(
            Performance(prediction="p", threshold=threshold), None, RUN_LENGTH
        )
        self.rows = 0
        self.first: dict[str, int] = {}

    def send(self, predicted: Array, labels: Array, known: npt.NDArray[np.bool_]) -> None:
        cells: list[list[Any]] = [predicted.tolist(), labels.tolist()]
        if self.kind == "classes":
            cells = [[f"class {int(one)}" for one in column] for column in cells]
        for begin in range(0, len(predicted), _STEP):
            part = range(begin, min(begin + _STEP, len(predicted)))
            at = [float(self.rows + n) for n in part]
            ids = [b"r-%d" % int(time) for time in at]
            self.watch.take_rows([cells[0][n] for n in part], at, None, ids)
            for n, time in zip(part, at, strict=True):
                if known[n]:
                    self.watch.take_label(_joined(cells[0][n], cells[1][n], time))
            self.watch.flush()
            rows = self.rows + part.stop
            for signal in performance_signals(self.watch, "m", ""):
                self.first.setdefault(signal.key.removeprefix("performance/m///"), rows)
            if self.watch.selective is not None:
                self.first.setdefault(f"not judged: {self.watch.selective.reason}", rows)
        self.rows += len(predicted)


def _joined(predicted: object, label: object, at: float) -> Joined:
    return Joined(
        int(at), f"r-{int(at)}", "a", False, "m", 0.0, at, {"p": predicted}, 0, label, None,
        at + 1.0, 1.0,
    )  # fmt: skip


Change = Callable[[Array, Array, Rng], tuple[Array, Array]]
CHANGES: list[tuple[str, str, tuple[str, ...], Change]] = [
    ("scores", "right becomes wrong", ("realised",), lambda p, y, rng: (p, 1.0 - y)),
    (
        "scores", "half of the positives missed", ("recall",),
        lambda p, y, rng: (np.where((y > 0.5) & (rng.random(len(p)) < 0.5), 0.01, p), y),
    ),
    (
        "scores", "a tenth of the labels flipped", ("realised", "log_loss", "calibration"),
        lambda p, y, rng: (p, np.where(rng.random(len(y)) < 0.1, 1.0 - y, y)),
    ),
    (
        "scores", "too sure by a factor of 1.8", ("calibration",),
        lambda p, y, rng: (1.0 / (1.0 + ((1.0 - p) / p) ** 1.8), y),
    ),
    ("numbers", "40 too high (4 deviations)", ("bias",), lambda p, y, rng: (p + 40.0, y)),
    ("numbers", "5 too high (half a deviation)", ("bias",), lambda p, y, rng: (p + 5.0, y)),
    ("numbers", "errors larger by half", ("mae",), lambda p, y, rng: (y + 1.5 * (p - y), y)),
    (
        "classes", "60 % of the rare class missed", ("recall/class 3",),
        lambda p, y, rng: (np.where((y == 3.0) & (rng.random(len(p)) < 0.6), 0.0, p), y),
    ),
]  # fmt: skip
Which = Callable[[Array, Array, Rng], npt.NDArray[np.bool_]]
SAMPLES: list[tuple[str, bool, Which]] = [
    ("a third, at random", True, lambda p, y, rng: rng.random(len(p)) < 1 / 3),
    ("3 %, at random", True, lambda p, y, rng: rng.random(len(p)) < 0.03),
    ("positive predictions only", False, lambda p, y, rng: p > 0.5),
    ("negative predictions only", False, lambda p, y, rng: p <= 0.5),
    ("positive labels only", False, lambda p, y, rng: y > 0.5),
    (
        "all negatives, half of the positives", False,
        lambda p, y, rng: (y < 0.5) | (rng.random(len(p)) < 0.5),
    ),
]  # fmt: skip


def stationary(streams: int) -> list[list[Any]]:
    rows: list[list[Any]] = []
    for kind, make in MAKE.items():
        wrong: list[str] = []
        for number in range(streams):
            rng = np.random.default_rng((SEED, number))
            stream = Stream(kind)
            stream.send(*make(rng, STATIONARY), np.ones(STATIONARY, np.bool_))
            wrong += list(stream.first)[:1]
        rows.append([kind, streams, STATIONARY, len(wrong), ", ".join(sorted(set(wrong)))])
        print(f"  {kind}: {len(wrong)} of {streams}", file=sys.stderr, flush=True)
    return rows


def changed(streams: int) -> list[list[Any]]:
    rows: list[list[Any]] = []
    for kind, name, wanted, change in CHANGES:
        delays: list[float] = []
        for number in range(streams):
            rng = np.random.default_rng((SEED, 1, number))
            stream = Stream(kind)
            stream.send(*MAKE[kind](rng, BEFORE), np.ones(BEFORE, np.bool_))
            predicted, labels = change(*MAKE[kind](rng, AFTER), rng)
            stream.send(predicted, labels, np.ones(AFTER, np.bool_))
            found = [stream.first[key] for key in wanted if key in stream.first]
            delays.append(min(found) - BEFORE if found else np.inf)
        median = float(np.median(delays))
        missed = int(np.isinf(delays).sum())
        shown = median if np.isfinite(median) else None
        rows.append([kind, name, ", ".join(wanted), streams, shown, missed])
        print(f"  {name}: {shown}, missed {missed}", file=sys.stderr, flush=True)
    return rows


def sampled(streams: int) -> list[list[Any]]:
    rows: list[list[Any]] = []
    for name, fair, which in SAMPLES:
        delays: list[float] = []
        figures = 0
        for number in range(streams):
            rng = np.random.default_rng((SEED, 2, number))
            predicted, labels = scores(rng, STATIONARY)
            stream = Stream("scores")
            stream.send(predicted, labels, which(predicted, labels, rng))
            reasons = [row for key, row in stream.first.items() if key.startswith("not judged")]
            delays.append(min(reasons) if reasons else np.inf)
            figures += any(not key.startswith("not judged") for key in stream.first)
        median = float(np.median(delays))
        caught = int(np.isfinite(delays).sum())
        shown = median if np.isfinite(median) else None
        rows.append([name, "fair" if fair else "selective", streams, caught, shown, figures])
        print(f"  {name}: {caught} of {streams}, {figures} findings", file=sys.stderr, flush=True)
    return rows


def run(quick: bool = False) -> Result:
    """All of it; ``quick`` with few streams."""
    many, few = (6, 3) if quick else (40, 10)
    result = Result("drift-labels", environment(run_length=RUN_LENGTH, quick=quick))
    still, delays, samples = stationary(many), changed(few), sampled(few)
    result.tables = [
        (
            "Unchanged models: streams with a finding",
            ["predictions", "streams", "labels", "with a finding", "which"],
            still,
        ),
        (
            f"Delay in labels; change after {BEFORE:,}, missed after {AFTER:,}",
            ["predictions", "change", "finding", "streams", "median delay", "missed"],
            delays,
        ),
        (
            "Which predictions get a label, unchanged models",
            ["labels", "sample", "streams", "not judged", "median predictions", "with a finding"],
            samples,
        ),
    ]
    result.measurements = {"unchanged": still, "changed": delays, "samples": samples}
    fair = [row for row in samples if row[1] == "fair"]
    selective = [row for row in samples if row[1] == "selective"]
    result.claims = [
        Claim(
            "share of unchanged models with a finding",
            sum(row[3] for row in still) / sum(row[1] for row in still), 0.05, "<=",
        ),
        Claim("changes that were missed", float(sum(row[5] for row in delays)), 0.0, "<="),
        Claim(
            "share of selective samples that are not judged",
            sum(row[3] for row in selective) / sum(row[2] for row in selective), 1.0, ">=",
        ),
        Claim(
            "fair samples that are not judged", float(sum(row[3] for row in fair)), 0.0, "<=",
        ),
    ]  # fmt: skip
    return result


if __name__ == "__main__":
    print(run(True).markdown())
