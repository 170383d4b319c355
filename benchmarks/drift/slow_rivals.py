"""River's KSWIN and alibi-detect's online CVM and MMD on the streams of ``drift-means``.

They take hundreds of microseconds for each value, so they see fewer of the streams, and have a run
of their own. alibi-detect's run length is as long as it can be asked for in minutes, not ours.

    python -m benchmarks drift-rivals [--quick]
"""

from __future__ import annotations

import math
import sys
import time
from typing import Any

import numpy as np

from benchmarks.drift import rivals
from benchmarks.drift.streams import AFTER, BEFORE, CHANGES, Array, Flags, changed, rate, stationary
from benchmarks.harness import Result, environment

SEED = 41
"""That of ``drift-means``, as are the numbers of streams that are drawn."""
STREAMS, CHANGED = 200, 1_000
ROWS = 100_000


class Run:
    """Collects rows of one run."""

    def __init__(self, quick: bool) -> None:
        self.quick = quick
        self.result = Result("drift-rivals", environment(quick=quick, seed=SEED))
        self.begin = time.perf_counter()
        self.false: list[list[Any]] = []
        self.delays: list[list[Any]] = []

    def note(self, text: str) -> None:
        print(f"  [{time.perf_counter() - self.begin:5.0f} s] {text}", file=sys.stderr, flush=True)

    def _false(self, name: str, found: Array, rows: int, us: float) -> None:
        figures = rate(found, rows)
        ends = figures["per 100,000"], figures["lower"], figures["upper"]
        self.false.append([name, len(found), rows, *ends, us])

    def _delay(self, change: str, name: str, found: Array, early: Flags) -> None:
        median = float(np.median(found))
        shown = median if math.isfinite(median) else None
        missed = float(np.isinf(found).mean())
        self.delays.append([change, name, len(found), shown, missed, float(early.mean())])

    def kswin(self) -> None:
        name = "river KSWIN"
        if rivals.river_class("kswin") is None:
            self.false.append([f"{name}: not installed", 0, 0, *[None] * 4])
            return
        rows, count = (20_000, 1) if self.quick else (ROWS, 8)
        x = np.concatenate(list(stationary(STREAMS, rows, SEED)))[:, :count]
        self._false(name, *_swapped(rivals.river_alarms(name, x), rows))
        self.note(f"{name}, false alarms")
        for number, change in enumerate(CHANGES):
            few = changed(change, CHANGED, SEED + 100 + number)[:, : 2 if self.quick else 20]
            self._delay(change.name, name, *rivals.river_delays(name, few))
            self.note(f"{name}, {change.name}")

    def alibi(self) -> None:
        python, missing = rivals.prepare()
        if python is None:
            self.false.append([f"alibi-detect: {missing}", 0, 0, *[None] * 4])
            return
        count, ert, bootstraps = (4, 500, 1_000) if self.quick else (40, 5_000, 10_000)
        # CVM compares continuous values; what it does not find takes it the longest.
        tried = {
            f"change {number}": change for number, change in enumerate(CHANGES) if not change.shares
        }
        reference = np.random.default_rng(SEED).standard_normal(1_000)
        streams = {}
        for name, change in tried.items():
            few = count if change.mean and not change.ramp else count // 4
            whole = changed(change, CHANGED, SEED + 100 + CHANGES.index(change))
            streams[name] = whole[:, :few]
        quiet = np.concatenate(list(stationary(count, 2_000 if self.quick else 20_000, SEED)))
        ends = {**dict.fromkeys(streams, BEFORE), "quiet": len(quiet)}
        for method, windows in (("cvm", [20, 100]), ("mmd", [100])):
            settings = {"ert": ert, "windows": windows, "bootstraps": bootstraps}
            name = f"alibi-detect online {method.upper()}, run length {ert:,}"
            answer = rivals.alibi(
                python, method, reference, {**streams, "quiet": quiet}, ends=ends, **settings
            )
            if "failed" in answer:
                self.false.append([f"{name}: {answer['failed']}", 0, 0, *[None] * 4])
                continue
            each = np.array([float(len(stops)) for stops in answer["stops"]["quiet"]])
            self._false(name, each, len(quiet), answer["us"])
            self.result.measurements[f"{name}: seconds to fit"] = answer["fit_seconds"]
            for key, change in tried.items():
                self._delay(change.name, name, *rivals.from_stops(answer["stops"][key]))
            self.note(name)


def _swapped(found: tuple[Array, float], rows: int) -> tuple[Array, int, float]:
    return found[0], rows, found[1]


def finished(result: Result, false: list[list[Any]], delays: list[list[Any]]) -> Result:
    """With the tables of what was found."""
    order = [change.name for change in CHANGES]
    delays.sort(key=lambda row: order.index(row[0]))
    result.measurements |= {"false alarms": false, "delays": delays}
    result.tables = [
        (
            "False alarms on stationary streams",
            ["detector", "streams", "rows", "per 100,000", "lower", "upper", "µs per value"],
            false,
        ),
        (
            f"Delay in rows; change after {BEFORE:,}, missed after {AFTER:,}",
            ["change", "detector", "streams", "median delay", "missed", "alarm before"],
            delays,
        ),
    ]
    return result


def run(quick: bool = False) -> Result:
    this = Run(quick)
    this.kswin()
    this.alibi()
    return finished(this.result, this.false, this.delays)
