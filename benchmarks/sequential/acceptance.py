"""How often each method ever rejects a true null hypothesis, looking all the time.

For each method: streams under the null hypothesis at several splits, base rates and shapes, and the
share ever rejected at level 0.05. A method fails when the one-sided 99 % lower bound of that share
exceeds 0.05. Cases marked "strained" break the method's assumption on purpose: they are reported,
not claimed.

    python -m benchmarks sequential-acceptance [--quick]

Costly methods get a quarter or a tenth of the 2,000 streams (the table says how many). The full
form takes about an hour of two cores; UNDERSTUDY_BENCH_WORKERS limits how many processes it uses,
UNDERSTUDY_BENCH_RECORDS how long the streams are (the result says so).
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from benchmarks.harness import Claim, Result, environment
from benchmarks.sequential import asymptotic_null, dependence_null, exact_null, latency_null
from benchmarks.sequential.streams import measured_latencies

ALPHA = 0.05
SEED = 20_240_611
# Streams and records of a case; the measured trace is as long as the longest stream.
QUICK, FULL = (120, 4_000), (2_000, 100_000)

Run = Callable[[np.random.Generator, int], bool]


@dataclass(frozen=True)
class Case:
    """One method under one null hypothesis; ``run`` says whether a stream of n was rejected."""

    method: str
    setting: str
    run: Run
    claimed: bool = True
    weight: float = 1.0
    """Fewer streams for costly ones: this share of them."""


def lower_bound(rejected: int, streams: int, confidence: float = 0.99) -> float:
    """Clopper and Pearson's one-sided lower bound of a share."""
    if not rejected:
        return 0.0
    return float(stats.beta.ppf(1.0 - confidence, rejected, streams - rejected + 1))


def cases(records: int) -> list[Case]:
    """All cases, those of exact methods first."""
    trace = measured_latencies(max(20_000, records))
    rows = [
        *exact_null.cases(),
        *latency_null.cases(trace),
        *asymptotic_null.cases(trace),
        *dependence_null.cases(),
    ]
    return [Case(*row) for row in rows]


_CASES: list[Case] = []


def _chunk(job: tuple[int, int, int, int]) -> tuple[int, int, int, float]:
    """Run some streams of a case: (case, streams, rejected, seconds)."""
    index, first, last, records = job
    begin = time.perf_counter()
    case = _CASES[index]
    rejected = 0
    for stream in range(first, last):
        rejected += bool(case.run(np.random.default_rng([SEED, index, stream]), records))
    return index, last - first, rejected, time.perf_counter() - begin


def run(quick: bool = False) -> Result:
    """Simulate all cases on all cores; progress goes to standard error."""
    streams, records = QUICK if quick else FULL
    records = int(os.environ.get("UNDERSTUDY_BENCH_RECORDS", records))
    _CASES[:] = cases(records)
    jobs = []
    for index, case in enumerate(_CASES):
        total = max(20, round(streams * case.weight))
        step = max(1, total // (4 if quick else 40))
        jobs += [(index, a, min(a + step, total), records) for a in range(0, total, step)]
    done = np.zeros((len(_CASES), 3))
    begin = last = time.perf_counter()
    context = multiprocessing.get_context("fork")
    workers = int(os.environ.get("UNDERSTUDY_BENCH_WORKERS", os.cpu_count() or 1))
    with context.Pool(workers) as pool:
        for finished, (index, n, rejected, seconds) in enumerate(
            pool.imap_unordered(_chunk, jobs), 1
        ):
            done[index] += n, rejected, seconds
            now = time.perf_counter()
            if now - last > 5.0 or finished == len(jobs):
                last = now
                left = (now - begin) * (len(jobs) / finished - 1.0)
                case = _CASES[index]
                print(
                    f"  {finished}/{len(jobs)} parts, about {left:.0f} s left ({case.method}, "
                    f"{case.setting})",
                    file=sys.stderr,
                    flush=True,
                )
    return report(streams, records, done)


def report(streams: int, records: int, done: np.ndarray[Any, Any]) -> Result:
    """Shares, lower bounds and claims."""
    result = Result(
        "sequential-acceptance",
        environment(streams=streams, records=records, alpha=ALPHA, seed=SEED),
    )
    worst: dict[str, tuple[float, str]] = {}
    rows: list[list[Any]] = []
    for case, (n, rejected, seconds) in zip(_CASES, done, strict=True):
        low = lower_bound(int(rejected), int(n))
        rows.append(
            [
                case.method,
                case.setting,
                int(n),
                float(rejected / n),
                low,
                "yes" if case.claimed else "strained",
                float(seconds / n / records * 1e6),
            ]
        )
        if case.claimed:
            worst[case.method] = max(worst.get(case.method, (-1.0, "")), (low, case.setting))
    result.measurements["cases"] = [
        dict(
            zip(
                (
                    "method",
                    "setting",
                    "streams",
                    "rejected",
                    "lower_99",
                    "claimed",
                    "us_per_record",
                ),
                row,
                strict=True,
            )
        )
        for row in rows
    ]
    for method, (low, setting) in worst.items():
        result.claims.append(
            Claim(
                f"{method}: 99 % lower bound of the error rate (worst: {setting})", low, ALPHA, "<="
            )
        )
    header = [
        "method",
        "null hypothesis",
        "streams",
        "ever rejected",
        "99 % lower bound",
        "claimed",
        "µs per record of the simulation",
    ]
    result.tables.append(("Cases", header, rows))
    return result


def main() -> None:
    """Run by itself."""
    result = run("--quick" in sys.argv)
    result.write()
    print(result.markdown())


if __name__ == "__main__":
    main()
