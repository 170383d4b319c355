"""Mean and variance detectors: false alarms as stated, and delay beside oracles and rivals.

On stationary streams the union of CUSUMs must alarm as seldom as is stated, also with a baseline
that was estimated. After a change its median delay is compared with a one-sided CUSUM that knows
baseline, direction and size of the change and has the same run length, and with river on the same
streams (``drift-rivals``: with KSWIN and alibi-detect). Then rows that depend on each other, a
daily cycle, and the cost.

    python -m benchmarks drift-means [--quick]
"""

from __future__ import annotations

import json
import math
import sys
import time
from typing import Any

import numpy as np

from benchmarks.drift import rivals
from benchmarks.drift.dependent import realised
from benchmarks.drift.streams import (
    AFTER,
    BEFORE,
    CHANGES,
    SHARES,
    Array,
    Categorical,
    Change,
    Estimated,
    Flags,
    Known,
    OneSided,
    Paired,
    Ranked,
    SimulatedOracle,
    alarms,
    categories,
    changed,
    delays,
    rate,
    stationary,
)
from benchmarks.harness import Claim, Result, environment
from understudy.monitor.detectors.change_point import ChangePoint
from understudy.monitor.detectors.cusum import CusumUnion

RUN_LENGTH = 100_000.0
SEED = 41
RATIO = 1.30
STREAMS = 200
CHANGED = 1_000
ROWS = 100_000
ESTIMATED = (10_000, 1_000)
QUICK = ("river ADWIN", "river PageHinkley")
"""Those that see all streams; the slow ones have a separate benchmark, ``drift-rivals``."""
OURS = ("CUSUM union", "location and spread")


class Run:
    """Collects rows, claims and measurements of one run."""

    def __init__(self, quick: bool) -> None:
        self.quick = quick
        self.result = Result(
            "drift-means",
            environment(quick=quick, seed=SEED, **{"run length stated, rows": RUN_LENGTH}),
        )
        self.begin = time.perf_counter()
        self.false: list[list[Any]] = []
        self.delays: list[list[Any]] = []
        self.ours: dict[str, Array] = {}

    def note(self, text: str) -> None:
        print(f"  [{time.perf_counter() - self.begin:5.0f} s] {text}", file=sys.stderr, flush=True)

    def claim(self, text: str, value: float | None, target: float, op: str = "<=") -> None:
        self.result.claims.append(Claim(text, value, target, op))

    # False alarms -------------------------------------------------------------------------------

    def false_alarms(self) -> None:
        rows = ROWS // 5 if self.quick else ROWS
        baselines: list[tuple[str, Any]] = [("known", Known())]
        for n in ESTIMATED:
            baselines.append((f"estimated from {n:,} rows", Estimated(STREAMS, n, SEED + n)))
        for name, baseline in baselines:
            union = CusumUnion(STREAMS, RUN_LENGTH, baseline.rows, refine=True)
            chunks = (baseline.scores(x) for x in stationary(STREAMS, rows, SEED))
            self._false(f"CUSUM union, baseline {name}", alarms(union, chunks, STREAMS), rows)
        for n in ESTIMATED:
            ranked = Ranked(STREAMS, n, SEED + n)
            chunks = (ranked.scores(x) for x in stationary(STREAMS, rows, SEED))
            found = alarms(Paired(STREAMS, RUN_LENGTH, ranked), chunks, STREAMS)
            self._false(f"location and spread of ranks, baseline of {n:,} rows", found, rows)
        for n in ESTIMATED:
            rng = np.random.default_rng(SEED + 1)
            codes = (categories(rng, SHARES, (1_000, STREAMS)) for _ in range(rows // 1_000))
            found = alarms(Categorical(STREAMS, RUN_LENGTH, n, SEED + n), codes, STREAMS)
            self._false(f"watch of categories, baseline of {n:,} rows", found, rows)
        self._rivals_false(rows)

    def _false(self, name: str, found: Array, rows: int, us: float | None = None) -> None:
        figures = rate(found, rows)
        self.false.append(
            [name, len(found), rows, figures["per 100,000"], figures["lower"], figures["upper"], us]
        )
        self.result.measurements.setdefault("false alarms", {})[name] = {**figures, "rows": rows}
        if us is None:
            text = "false alarms per 100,000 rows, lower end of a one-sided 99 % interval"
            self.claim(f"{text}: {name}", figures["lower"], 1.0)
        self.note(f"{name}: {figures['per 100,000']:.2f} per 100,000")

    def _rivals_false(self, rows: int) -> None:
        x = np.concatenate(list(stationary(STREAMS, rows, SEED)))
        for name in QUICK:
            if rivals.river_class(rivals.RIVER[name][0]) is None:
                self.false.append([f"{name}: not installed", 0, 0, *[None] * 4])
                continue
            found, us = rivals.river_alarms(name, x)
            self._false(name, found, rows, us)

    # Delays -------------------------------------------------------------------------------------

    def after_a_change(self) -> None:
        streams = CHANGED
        baselines = {n: Estimated(streams, n, SEED + n + 1) for n in ESTIMATED}
        ranked = Ranked(streams, ESTIMATED[0], SEED + 7)
        small = Ranked(streams, ESTIMATED[1], SEED + 8)
        for number, change in enumerate(CHANGES):
            x = changed(change, streams, SEED + 100 + number)
            oracle = self._oracle(change, x)
            if change.shares:
                for n in ESTIMATED:
                    found = delays(Categorical(streams, RUN_LENGTH, n, SEED + n), x)
                    self._delay(change, f"watch of categories, baseline of {n:,}", *found, oracle)
                self._river_delays(change, x)
                self.note(change.name)
                continue
            known = delays(CusumUnion(streams, RUN_LENGTH), x)
            self._delay(change, "CUSUM union, baseline known", *known, oracle)
            self.ours[change.name] = known[0]
            for n, baseline in baselines.items():
                union = CusumUnion(streams, RUN_LENGTH, baseline.rows, refine=True)
                found = delays(union, baseline.scores(x))
                self._delay(change, f"CUSUM union, baseline of {n:,} rows", *found, oracle)
            for n, one in zip(ESTIMATED, (ranked, small), strict=True):
                pair = delays(Paired(streams, RUN_LENGTH, one), one.scores(x))
                name = f"location and spread of ranks, baseline of {n:,} rows"
                self._delay(change, name, *pair, oracle)
            self._river_delays(change, x)
            self.note(change.name)

    def _oracle(self, change: Change, x: Array) -> float | None:
        if change.ramp:
            return None
        streams = x.shape[1]
        oracle = (
            OneSided(streams, RUN_LENGTH, change.mean)
            if change.mean
            else SimulatedOracle(streams, RUN_LENGTH, change)
        )
        found, early = delays(oracle, x)
        median = float(np.median(found))
        self._delay(change, "oracle: one-sided, knows everything", found, early, median)
        return median

    def _delay(
        self, change: Change, name: str, found: Array, early: Flags, oracle: float | None
    ) -> None:
        median = float(np.median(found))
        shown = median if math.isfinite(median) else None
        ratio = median / oracle if oracle and shown is not None else None
        missed = float(np.isinf(found).mean())
        self.delays.append(
            [change.name, name, len(found), shown, ratio, missed, float(early.mean())]
        )
        if not change.mean or change.ramp or not name.startswith(OURS):
            return
        self.claim(f"median delay / oracle's: {change.name}, {name}", ratio, RATIO)

    def _river_delays(self, change: Change, x: Array) -> None:
        for name in QUICK:
            if rivals.river_class(rivals.RIVER[name][0]) is None:
                continue
            count = 50 if self.quick else 200
            self._delay(change, name, *rivals.river_delays(name, x[:, :count]), None)

    # Dependence, cost ---------------------------------------------------------------------------

    def dependence(self) -> list[list[Any]]:
        rows = ROWS // 5 if self.quick else ROWS
        run_length = RUN_LENGTH / 5 if self.quick else RUN_LENGTH
        table: list[list[Any]] = []
        for phi, height in ((0.2, 0.0), (0.5, 0.0), (0.0, 0.5), (0.3, 0.5)):
            what = f"AR(1) φ = {phi:g}" if phi else ""
            what += (", " if what else "") + f"daily cycle ± {height:g} σ" if height else ""
            for found in realised(phi, height, STREAMS, rows, run_length, SEED + 9):
                ratio = found["realised / stated"]
                table.append([what, found["method"], found["per 100,000"], ratio])
                known = "thresholds know" if not height else "profile"
                if found["method"].startswith((known, "means of")) and not (
                    height and found["method"].startswith("means of")
                ):
                    text = f"realised / stated run length: {what}, {found['method']}"
                    self.claim(text, ratio, 0.5, ">=")
            self.note(what)
        self.result.measurements["dependence"] = table
        return table

    def costs(self) -> list[list[Any]]:
        rng = np.random.default_rng(SEED)
        union, history = CusumUnion(20, RUN_LENGTH), ChangePoint(20)
        batches = rng.standard_normal((400, 256, 20))
        times = np.arange(256.0)
        table = []

        def timed(what: str, count: int, call: Any, arguments: Any) -> float:
            for one in arguments[: count // 4]:
                call(one)
            begin = time.process_time()
            for one in arguments[:count]:
                call(one)
            us = (time.process_time() - begin) / count * 1e6
            table.append([what, us])
            return us

        batch = timed("CUSUM union, a batch of 256 × 20", 400, union.update, batches)
        row = timed("CUSUM union, a row of 20", 4000, union.update, batches.reshape(-1, 1, 20))
        timed(
            "change points, a batch of 256 × 20", 400, lambda x: history.update(x, times), batches
        )
        begin = time.process_time()
        CusumUnion(20, 7e6, np.full(20, 7000.0))
        table.append(["making 20 CUSUM unions", (time.process_time() - begin) * 1e6])
        state = len(json.dumps(union.dump_state())), len(json.dumps(history.dump_state()))
        self.result.measurements["bytes of state, 20 series"] = {
            "CUSUM union": state[0],
            "change points": state[1],
        }
        self.claim("µs of CPU, a batch of 256 × 20", batch, 300.0)
        self.claim("µs of CPU, a row of 20", row, 25.0)
        self.claim("bytes of state at 20 series, CUSUM union and change points", sum(state), 8192.0)
        return table


def run(quick: bool = False) -> Result:
    this = Run(quick)
    costs = this.costs()
    this.false_alarms()
    this.after_a_change()
    dependence = this.dependence()
    result = this.result
    order = [change.name for change in CHANGES]
    this.delays.sort(key=lambda row: order.index(row[0]))
    result.measurements["delays"] = this.delays
    head = ["change", "detector", "streams", "median delay", "/ oracle", "missed", "alarm before"]
    result.tables = [
        (
            "False alarms on stationary streams",
            ["detector", "streams", "rows", "per 100,000", "lower", "upper", "µs per value"],
            this.false,
        ),
        (f"Delay in rows; change after {BEFORE:,}, missed after {AFTER:,}", head, this.delays),
        (
            "Run length where rows depend on each other, baseline of 10,000 rows",
            ["rows", "method", "alarms per 100,000", "realised / stated"],
            dependence,
        ),
        ("Cost in processor time", ["what", "µs"], costs),
    ]
    return result
