"""E-detectors of rates: false alarms as stated, and delay beside oracles and river.

On stationary streams of 0 and 1 the Shiryaev-Roberts e-detector must alarm at most as often as is
stated, with a baseline that is known or estimated. After a change its median delay is compared
with a Bernoulli CUSUM that knows both rates and has the same run length, and with river's detectors
on the same streams. Then tiny rates, the calibration e-detector, and the cost.

    python -m benchmarks drift-rates [--quick]
"""

from __future__ import annotations

import math
import sys
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit
from scipy.stats import chi2

from benchmarks.harness import Claim, Result, environment
from understudy.monitor.detectors.calibration import CalibrationDetector
from understudy.monitor.detectors.edetector import SrDetector, null_rate

Floats = NDArray[np.float64]
RUN_LENGTH = 100_000.0
RATE = 0.1
CHANGED = (0.12, 0.15, 0.2)
TINY = 0.001
STREAMS = 200
ROWS = 100_000
BEFORE = 1_000
AFTER = 12_000
SEED = 43
_BATCH = 200
_RIVER = {
    "ADWIN": ("drift", "ADWIN"),
    "HDDM_A": ("binary", "HDDMA"),
    "HDDM_W": ("binary", "HDDMW"),
    "DDM": ("binary", "DDM"),
    "EDDM": ("binary", "EDDM"),
    "PageHinkley": ("drift", "PageHinkley"),
}


def bernoulli(rng: np.random.Generator, rate: float, rows: int, streams: int) -> Floats:
    found: Floats = (rng.random((rows, streams)) < rate).astype(np.float64)
    return found


def sr_alarms(null: Floats, run_length: float, streams: Floats) -> Floats:
    """Alarms of each stream; a detector restarts at the end of the batch of its alarm."""
    detector = SrDetector(null, run_length)
    found = np.zeros(streams.shape[1])
    for start in range(0, len(streams), _BATCH):
        over = detector.update(streams[start : start + _BATCH]).alarms
        found += over
        detector.reset(over)
    return found


def sr_delays(null: Floats, run_length: float, streams: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """Rows from the change to the alarm, infinite for none, and which alarmed before it."""
    detector = SrDetector(null, run_length)
    early = detector.update(streams[:BEFORE]).alarms
    crossed = detector.update(streams[BEFORE:]).crossed
    return np.where(crossed >= 0, crossed + 1.0, np.inf), early


def steps(before: float, after: float) -> tuple[float, float]:
    """Log likelihood ratios of a 0 and of a 1."""
    return math.log((1.0 - after) / (1.0 - before)), math.log(after / before)


def oracle_threshold(before: float, after: float, run_length: float, paths: int) -> float:
    """Of the CUSUM with that run length, by simulation.

    The time to a false alarm is all but exponential, so that the maximum over as many rows as the
    run length stays below the threshold with probability 1 / e.
    """
    rng = np.random.default_rng(SEED + 1)
    zero, one = steps(before, after)
    s, highest = np.zeros(paths), np.zeros(paths)
    for _ in range(int(run_length)):
        np.maximum(s + np.where(rng.random(paths) < before, one, zero), 0.0, out=s)
        np.maximum(highest, s, out=highest)
    return float(np.quantile(highest, math.exp(-1.0)))


def oracle_delays(before: float, after: float, threshold: float, streams: Floats) -> Floats:
    zero, one = steps(before, after)
    s = np.zeros(streams.shape[1])
    found = np.full(streams.shape[1], np.inf)
    for number, row in enumerate(streams):
        np.maximum(s + np.where(row > 0.0, one, zero), 0.0, out=s)
        if number >= BEFORE:
            new = (s >= threshold) & np.isinf(found)
            found[new] = number - BEFORE + 1
            if not np.isinf(found).any():
                break
        else:
            s[s >= threshold] = 0.0
    return found


def river_run(name: str, column: Floats) -> list[int]:
    """Rows at which it alarms; river restarts by itself."""
    from river import drift
    from river.drift import binary

    home, attribute = _RIVER[name]
    detector = getattr(drift if home == "drift" else binary, attribute)()
    update, alarms = detector.update, []
    for row, value in enumerate(column.astype(bool).tolist()):
        update(value)
        if detector.drift_detected:
            alarms.append(row)
    return alarms


def upper(alarms: float, rows: float) -> tuple[float, float, float]:
    """Alarms per 100,000 rows, and 99 % limits, each one-sided, of a Poisson count."""
    low = chi2.ppf(0.01, 2.0 * alarms) / 2.0 if alarms else 0.0
    high = chi2.ppf(0.99, 2.0 * alarms + 2.0) / 2.0
    return alarms / rows * 1e5, float(low) / rows * 1e5, float(high) / rows * 1e5


class Run:
    """Collects rows, claims and measurements of one run."""

    def __init__(self, quick: bool) -> None:
        self.quick = quick
        about = {"run length stated, rows": RUN_LENGTH}
        self.result = Result("drift-rates", environment(quick=quick, seed=SEED, **about))
        self.rng = np.random.default_rng(SEED)
        self.begin = time.perf_counter()
        self.false: list[list[Any]] = []
        self.delays: list[list[Any]] = []

    def note(self, text: str) -> None:
        print(f"  [{time.perf_counter() - self.begin:5.0f} s] {text}", file=sys.stderr, flush=True)

    def claim(self, text: str, value: float | None, target: float) -> None:
        self.result.claims.append(Claim(text, value, target, "<="))

    def false_alarms(self) -> None:
        rows = ROWS // 4 if self.quick else ROWS
        streams = bernoulli(self.rng, RATE, rows, STREAMS)
        for what, size in (("known", 0), ("of 10,000", 10_000), ("of 1,000", 1_000)):
            counts = self.rng.binomial(size or 1, RATE, STREAMS)
            nulls = np.array([null_rate(float(c), size) if size else RATE for c in counts])
            self._false(f"e-detector, baseline {what}", sr_alarms(nulls, RUN_LENGTH, streams), rows)
        tiny = bernoulli(self.rng, TINY, rows, STREAMS)
        nulls = np.array([null_rate(float(c), 1e4) for c in self.rng.binomial(10_000, TINY, 200)])
        alarms = sr_alarms(nulls, RUN_LENGTH, tiny)
        self._false(f"e-detector, rate {TINY:g}, baseline of 10,000", alarms, rows)
        few = streams[:, : 20 if self.quick else 50]
        for name in _RIVER:
            found = [len(river_run(name, column)) for column in few.T]
            self._false(f"river {name}", np.array(found, np.float64), rows, False)
        self.note("false alarms")

    def _false(self, name: str, alarms: Floats, rows: int, claimed: bool = True) -> None:
        rate, low, high = upper(float(alarms.sum()), float(rows * len(alarms)))
        self.false.append([name, len(alarms), rows, rate, low, high])
        if claimed:
            # Refuted only if the lower limit is above what is stated.
            self.claim(f"false alarms per 100,000: {name}, lower 99 % limit", low, 1.0)
            self.claim(f"false alarms per 100,000: {name}, upper 99 % limit", high, 1.0)

    def after_a_change(self) -> None:
        count = 300 if self.quick else 1_000
        pairs = [(RATE, after) for after in CHANGED] + [(TINY, 0.003), (TINY, 0.01)]
        for before, after in pairs:
            what = f"{before:g} → {after:g}"
            threshold = oracle_threshold(before, after, RUN_LENGTH, 300 if self.quick else 2_000)
            quiet = bernoulli(self.rng, before, BEFORE, count)
            streams = np.vstack([quiet, bernoulli(self.rng, after, AFTER, count)])
            oracle = oracle_delays(before, after, threshold, streams)
            best = float(np.median(oracle))
            self.delays.append([what, "oracle CUSUM", count, best, 1.0, 0.0, None])
            known = np.full(count, before)
            drawn = self.rng.binomial(10_000, before, count)
            estimated = np.array([null_rate(float(c), 1e4) for c in drawn])
            for name, nulls in (("known", known), ("of 10,000", estimated)):
                found, early = sr_delays(nulls, RUN_LENGTH, streams)
                ratio = self._delay(what, f"e-detector, baseline {name}", found, early, best)
                if name == "known" and before == RATE:
                    self.claim(f"median delay / oracle: {what}, baseline known", ratio, 1.35)
            few = streams[:, : 20 if self.quick else 100]
            for name in _RIVER if before == RATE else ():
                runs = [river_run(name, column) for column in few.T]
                late = [min((r - BEFORE + 1.0 for r in run if r >= BEFORE), default=math.inf)
                        for run in runs]  # fmt: skip
                before_it = np.array([bool(run) and run[0] < BEFORE for run in runs])
                self._delay(what, f"river {name}", np.array(late), before_it, best)
            self.note(what)

    def _delay(
        self, what: str, name: str, found: Floats, early: NDArray[np.bool_], best: float
    ) -> float | None:
        middle = float(np.median(found[~early])) if not early.all() else math.inf
        ratio = middle / best if math.isfinite(middle) else None
        missed, before = float(np.isinf(found).mean()), float(early.mean())
        shown = middle if math.isfinite(middle) else None
        self.delays.append([what, name, len(found), shown, ratio, missed, before])
        return ratio

    def calibration(self) -> None:
        """Scores of which the prior has moved by -0.5 in log odds."""
        count, taken, wrong = (100 if self.quick else 500), [], []
        for _ in range(count):
            p = expit(self.rng.normal(-0.5, 1.8, 4_000))
            y = (self.rng.random(4_000) < expit(logit(p) - 0.5)).astype(np.float64)
            row = CalibrationDetector(RUN_LENGTH).update(p, y)
            taken.append(row + 1.0 if row >= 0 else math.inf)
            wrong.append(np.mean((p >= 0.5) != (y > 0.5)))
        p = expit(self.rng.normal(-0.5, 1.8, 1_000_000))
        error = float(np.minimum(p, 1.0 - p).mean())
        self.result.measurements["calibration: error before, after"] = [error, np.mean(wrong)]
        self.claim("calibration, prior shift -0.5: median labels", float(np.median(taken)), 450.0)
        self.note("calibration")

    def costs(self) -> None:
        rng = np.random.default_rng(SEED)
        detector = SrDetector(np.full(60, 0.005), RUN_LENGTH)
        batches = [np.zeros((256, 60)) for _ in range(200)]
        for batch in batches:
            batch[rng.integers(0, 256, 4), rng.integers(0, 3, 4)] = 1.0
        for text, parts, target in (
            ("a batch of 256 × 60, mostly zeros", batches, 200.0),
            ("a row of 60 zeros", [np.zeros((1, 60))] * 4_000, 20.0),
        ):
            begin = time.process_time()
            for part in parts:
                detector.update(part)
            spent = (time.process_time() - begin) / len(parts) * 1e6
            self.claim(f"µs of CPU, {text}", spent, target)


def run(quick: bool = False) -> Result:
    this = Run(quick)
    this.costs()
    this.calibration()
    this.false_alarms()
    this.after_a_change()
    head = ["change", "detector", "streams", "median delay", "/ oracle", "missed", "alarm before"]
    this.result.measurements["false alarms"] = this.false
    this.result.measurements["delays"] = this.delays
    this.result.tables = [
        (
            "False alarms on stationary streams",
            ["detector", "streams", "rows", "per 100,000", "lower", "upper"],
            this.false,
        ),
        (f"Delay in rows; change after {BEFORE:,}, missed after {AFTER:,}", head, this.delays),
    ]
    return this.result
