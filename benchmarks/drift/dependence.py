"""False alarms on streams as they are in production, beside the run length that is promised.

Rows of sessions, sources that take turns, daily, weekly and office-hours cycles with and without
known times, a slow component, autocorrelation and bursts: a watch of five features with a baseline
of such rows, run as the service runs it. A finding that opens counts as one alarm, from all
detectors of the model together. The baselines of some streams are shuffled, as training files are.
Then what that costs: the rows until a shift of half a standard deviation is found.

    python -m benchmarks drift-streams [--quick]
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.signal import lfilter

from benchmarks.drift.streams import Array
from benchmarks.harness import Claim, Result, environment
from understudy.monitor.baseline.builder import Builder
from understudy.monitor.baseline.cycles import learn_cycles
from understudy.monitor.baseline.encoder import Batch
from understudy.monitor.baseline.model import Baseline
from understudy.monitor.health.drift.signals import signals_of
from understudy.monitor.health.drift.watch import ModelWatch
from understudy.monitor.health.options import Options

FEATURES = 5
BASELINE = 20_000
ROWS = 100_000
RUN_LENGTH = 100_000.0
SEED = 71
BATCH = 250
BEGIN = 1_700_438_400.0  # a Monday
SHIFT = 0.5
NAMES = tuple(f"f{number}" for number in range(FEATURES))
_HOUR = 3600.0

Make = Callable[[np.random.Generator, Array], Array]
"""Rows (n, FEATURES) at unix times (n,)."""


def _ar(rng: np.random.Generator, phi: float, rows: int) -> Array:
    steps = rng.standard_normal((rows, FEATURES)) * math.sqrt(1.0 - phi * phi)
    steps[0] = rng.standard_normal(FEATURES)
    return np.asarray(lfilter([1.0], [1.0, -phi], steps, axis=0))


def autocorrelated(phi: float) -> Make:
    return lambda rng, times: _ar(rng, phi, len(times))


def independent(rng: np.random.Generator, times: Array) -> Array:
    return rng.standard_normal((len(times), FEATURES))


def sessions(rng: np.random.Generator, times: Array) -> Array:
    """Of eight rows on average, which share half of their variance."""
    rows = len(times)
    number = np.repeat(np.arange(rows), rng.geometric(1.0 / 8.0, rows))[:rows]
    shared = independent(rng, times)[number]
    result: Array = math.sqrt(0.5) * (shared + independent(rng, times))
    return result


def sources(rng: np.random.Generator, times: Array) -> Array:
    """Two sources take turns after 500 rows each."""
    source = (np.arange(len(times)) // 500) % 2
    return independent(rng, times) + 0.5 * source[:, None]


def daily(rng: np.random.Generator, times: Array) -> Array:
    cycle = 0.7 * np.sin(2.0 * np.pi * times / (24.0 * _HOUR))
    return independent(rng, times) + cycle[:, None]


def weekly(rng: np.random.Generator, times: Array) -> Array:
    """A daily cycle, and lower values at weekends."""
    weekend = ((times - BEGIN) // (24.0 * _HOUR)) % 7 >= 5
    return daily(rng, times) - 0.7 * weekend[:, None]


def office(rng: np.random.Generator, times: Array) -> Array:
    """Higher on Mondays, and in the afternoon; there are rows from 8 to 19 o'clock only."""
    monday = ((times - BEGIN) // (24.0 * _HOUR)) % 7 == 0
    hour = (times % (24.0 * _HOUR)) / _HOUR
    result: Array = independent(rng, times) + (1.5 * monday + 0.1 * hour)[:, None]
    return result


def slow(rng: np.random.Generator, times: Array) -> Array:
    """A fifth of the variance remembers a thousand rows."""
    return 0.9 * independent(rng, times) + 0.44 * _ar(rng, 0.999, len(times))


def bursts(rng: np.random.Generator, times: Array) -> Array:
    """Once in 4,000 rows some forty rows in a row are three standard deviations higher."""
    x = independent(rng, times)
    for start in np.flatnonzero(rng.random(len(times)) < 1.0 / 4_000.0).tolist():
        x[start : start + int(rng.geometric(1.0 / 40.0))] += 3.0
    return x


@dataclass(frozen=True)
class Stream:
    """``timed``: the baseline is built with the times of its rows; ``shuffled``: its rows are in
    random order; ``hours`` of the day that exist."""

    name: str
    make: Make
    timed: bool = False
    shuffled: bool = False
    hours: tuple[int, int] = (0, 24)
    promised: float = 1.0
    """False alarms per 100,000 rows."""


STREAMS = (
    Stream("independent", independent),
    Stream("AR .3", autocorrelated(0.3)),
    Stream("AR .6", autocorrelated(0.6)),
    Stream("AR .9", autocorrelated(0.9)),
    Stream("sessions of 8 rows", sessions),
    Stream("sources in blocks of 500 rows", sources),
    Stream("bursts", bursts),
    Stream("slow component", slow),
    Stream("daily cycle, --time", daily, timed=True),
    Stream("daily cycle, times not known", daily),
    Stream("weekly cycle, --time", weekly, timed=True),
    Stream("weekly cycle, times not known", weekly),
    Stream("office hours, --time", office, timed=True, hours=(8, 19)),
    Stream("office hours, times not known", office, hours=(8, 19)),
    Stream("sessions of 8 rows, shuffled baseline", sessions, shuffled=True),
    Stream("AR .6, shuffled baseline", autocorrelated(0.6), shuffled=True),
)


def times_of(stream: Stream, rows: int) -> Array:
    """A row each minute of the hours that exist."""
    first, last = stream.hours
    per_day = (last - first) * 60
    day, minute = np.divmod(np.arange(rows), per_day)
    result: Array = BEGIN + day * 24.0 * _HOUR + first * _HOUR + minute * 60.0
    return result


def baseline_of(stream: Stream, rng: np.random.Generator, x: Array, times: Array) -> Baseline:
    order = rng.permutation(len(x)) if stream.shuffled else np.arange(len(x))
    columns = [column.tolist() for column in x[order].T]
    builder = Builder(model="m")
    builder.begin(NAMES, columns)
    builder.add(NAMES, columns)
    baseline = builder.finish()
    if stream.timed:
        moments = times.tolist()
        baseline.seasons = learn_cycles(baseline, lambda: [(NAMES, columns, moments)])
    return baseline


def opened(watch: ModelWatch, x: Array, times: Array) -> list[int]:
    """Rows with which a finding opened."""
    result: list[int] = []
    open_: set[str] = set()
    for start in range(0, len(x), BATCH):
        part, moments = x[start : start + BATCH], times[start : start + BATCH]
        batch = Batch(NAMES, list(part.T), [b""] * len(part), moments, False)
        watch.evaluate(batch)
        keys = {signal.key for signal in signals_of(watch, "m", "", float(moments[-1]))}
        result += [start] * len(keys - open_)
        open_ = keys
    return result


def realised(stream: Stream, repeats: int, rows: int = ROWS, seed: int = SEED) -> dict[str, Any]:
    """False alarms per 100,000 rows, how many came with the first 10,000, by how much thresholds
    are raised, and the rows until a shift is found."""
    alarms: list[int] = []
    delays: list[float] = []
    factors: list[float] = []
    for repeat in range(repeats):
        rng = np.random.default_rng((seed, repeat))
        times = times_of(stream, BASELINE + rows)
        x = stream.make(rng, times)
        baseline = baseline_of(stream, rng, x[:BASELINE], times[:BASELINE])
        watch = ModelWatch(baseline, Options(run_length=RUN_LENGTH))
        alarms += opened(watch, x[BASELINE:], times[BASELINE:])
        factors.append(float(np.median(watch.inflation[:FEATURES])))
        later = times_of(stream, BASELINE + rows + 40_000)[-40_000:]
        after = opened(watch, stream.make(rng, later) + SHIFT, later)
        delays.append(float(after[0] + BATCH) if after else math.inf)
    return {
        "alarms": len(alarms),
        "rows": repeats * rows,
        "per 100,000": len(alarms) / (repeats * rows) * 1e5,
        "of the first 10,000 rows": sum(start < 10_000 for start in alarms),
        "thresholds raised": float(np.median(factors)),
        "rows to a shift of 0.5": float(np.median(delays)),
    }


def run(quick: bool = False) -> Result:
    repeats = 2 if quick else 10
    result = Result("drift-streams", environment(quick=quick, baseline=BASELINE))
    table: list[list[Any]] = []
    for stream in STREAMS:
        found = realised(stream, repeats)
        delay = found["rows to a shift of 0.5"]
        found["rows to a shift of 0.5"] = delay if math.isfinite(delay) else None
        result.measurements[stream.name] = found
        table.append([stream.name, *found.values()])
        # The lower end of a 99 % interval of a Poisson rate, so that chance does not fail it.
        count = found["alarms"]
        lower = max(0.0, count - 2.326 * math.sqrt(max(count, 1))) / found["rows"] * 1e5
        text = "false alarms per 100,000 rows, lower end of a one-sided 99 % interval"
        result.claims.append(Claim(f"{text}: {stream.name}", lower, stream.promised, "<="))
        print(f"{stream.name}: {found}", flush=True)
    head = ["stream", *next(iter(result.measurements.values()))]
    result.tables = [(f"A watch of {FEATURES} features, promised: 1 per 100,000 rows", head, table)]
    return result
