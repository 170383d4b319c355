"""What the sequential methods cost: per record in batches, single updates, intervals, state.

Processor time of this process; every process is fed one long stream in its order of arrival (never
the same batch twice), first to warm up, then timed. The peers' costs on the same kind of data are
in ``sequential-decisions``.

    python -m benchmarks sequential-costs [--quick]
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from benchmarks.harness import Claim, Result, environment
from benchmarks.sequential import streams
from understudy.shadow import sequential as sq
from understudy.shadow.sequential.tail import LEVELS

BATCH = 256
SHARE = 0.1
Array = npt.NDArray[np.float64]


class Traffic:
    """One stream of records of an experiment: arms, outcomes, latencies, a score, covariates."""

    def __init__(self, n: int) -> None:
        rng = np.random.default_rng(3)
        self.n = n
        self.arm = streams.arms(rng, n, SHARE)
        self.error = (rng.random(n) < 0.02).astype(np.float64)
        self.latency = streams.latencies(rng, n)
        self.score = rng.beta(2.0, 5.0, n)
        self.other = np.clip(self.score + 0.05 * rng.standard_normal(n), 0.0, 1.0)
        self.d = rng.choice([-1.0, 0.0, 1.0], n, p=[0.02, 0.96, 0.02])
        self.x = rng.standard_normal((n, 2))


Feed = Callable[[Any, Traffic, Any], None]
# Name, constructor, update, and whether it is among an experiment's default metrics.
Method = tuple[str, Callable[[], Any], Feed, bool]


def methods() -> list[Method]:
    """Everything in the library, the defaults of a split experiment marked."""
    thresholds = [streams.MEDIAN_SECONDS * np.exp(0.5 * stats.norm.ppf(p)) for p in LEVELS]
    effect = sq.log_odds_effect(0.02, 0.01)
    rows: list[Method] = [
        (
            "label betting (error rate)",
            lambda: sq.LabelBetting(effect, "greater"),
            lambda p, t, s: p.update(t.arm[s], t.error[s], SHARE),
            True,
        ),
        (
            "asymptotic mean (latency)",
            lambda: sq.MeanDifference(20_000),
            lambda p, t, s: p.update(t.arm[s], t.latency[s]),
            True,
        ),
        (
            "tail detector",
            lambda: sq.TailDetector(thresholds, LEVELS),
            lambda p, t, s: p.update(t.arm[s], t.latency[s], SHARE),
            True,
        ),
        (
            "split check",
            lambda: sq.SplitCheck([1.0 - SHARE, SHARE]),
            lambda p, t, s: p.update(np.atleast_1d(t.arm[s]).astype(np.int64)),
            True,
        ),
    ]
    for level in (0.5, 0.95, 0.99):
        centre = streams.MEDIAN_SECONDS * float(np.exp(0.5 * stats.norm.ppf(level)))
        rows.append(
            (
                f"two quantiles, p{100 * level:g}",
                lambda centre=centre, level=level: sq.QuantileComparison(
                    sq.edges_around(centre), level, "greater"
                ),
                lambda p, t, s: p.update(t.arm[s], t.latency[s]),
                True,
            )
        )
    rows += [
        ("paired", sq.PairedTest, lambda p, t, s: p.update(t.d[s]), False),
        (
            "paired margin",
            lambda: sq.PairedMargin(-0.01),
            lambda p, t, s: p.update(t.d[s]),
            False,
        ),
        ("betting interval", sq.BettingInterval, lambda p, t, s: p.update(t.score[s]), False),
        ("betting test", lambda: sq.BettingTest(0.3), lambda p, t, s: p.update(t.score[s]), False),
        ("empirical Bernstein", sq.EmpiricalBernstein, lambda p, t, s: p.update(t.score[s]), False),
        (
            "split difference",
            lambda: sq.SplitDifference(SHARE),
            lambda p, t, s: p.update(t.arm[s], t.score[s], SHARE),
            False,
        ),
        ("Bernoulli interval", sq.BernoulliInterval, lambda p, t, s: p.update(t.error[s]), False),
        (
            "two proportions",
            sq.TwoProportions,
            lambda p, t, s: p.update(t.arm[s], t.error[s]),
            False,
        ),
        ("rates", sq.RateTest, lambda p, t, s: p.update(t.arm[s], SHARE), False),
        (
            "quantile, p99",
            lambda: sq.QuantileSequence(sq.edges_around(0.06), 0.99),
            lambda p, t, s: p.update(t.latency[s]),
            False,
        ),
        (
            "Kolmogorov-Smirnov",
            lambda: sq.KolmogorovSmirnov(sq.edges_around(0.03)),
            lambda p, t, s: p.update(t.arm[s], t.latency[s]),
            False,
        ),
        (
            "mSPRT",
            lambda: sq.MixtureSPRT(1.0, 0.1),
            lambda p, t, s: p.update(t.arm[s], t.score[s]),
            False,
        ),
        ("paired mean", sq.PairedMean, lambda p, t, s: p.update(t.other[s]), False),
        (
            "asymptotic blocks",
            lambda: sq.BlockDifference(50),
            lambda p, t, s: p.update(t.arm[s], t.latency[s]),
            False,
        ),
        (
            "asymptotic adjusted",
            lambda: sq.AdjustedDifference(2),
            lambda p, t, s: p.update(t.arm[s], t.score[s], t.x[s].reshape(-1, 2), SHARE),
            False,
        ),
        (
            "asymptotic spread",
            sq.SpreadDifference,
            lambda p, t, s: p.update(t.arm[s], t.latency[s]),
            False,
        ),
        ("bounded variance", sq.BoundedVariance, lambda p, t, s: p.update(t.score[s]), False),
    ]
    return rows


READERS = ("interval", "difference", "ratio_interval", "band", "log_e", "p_value", "readiness")


def read(process: Any, name: str) -> None:
    """One of the figures that a status page would show."""
    value = getattr(process, name, None)
    if callable(value) and name != "log_e":  # reading the property was the work
        value(*((0.05,) if name == "band" else ()))


def timed(work: Callable[[], object]) -> float:
    """Processor seconds of a piece of work."""
    begin = time.process_time()
    work()
    return time.process_time() - begin


def measure(
    make: Callable[[], Any], feed: Feed, traffic: Traffic, singles: int
) -> dict[str, float]:
    """Microseconds per record in batches, per single update, per reading; bytes of state."""
    process = make()

    def feed_each(places: Iterable[slice | int]) -> None:
        for place in places:
            feed(process, traffic, place)

    whole = traffic.n - singles
    half = whole // 2 // BATCH * BATCH
    for a in range(0, half, BATCH):
        feed(process, traffic, slice(a, a + BATCH))
    rounds = []
    size = max(BATCH, half // 8 // BATCH * BATCH)
    for start in range(half, 2 * half - size + 1, size):
        spent = timed(
            lambda start=start: feed_each(
                slice(a, a + BATCH) for a in range(start, start + size, BATCH)
            )
        )
        rounds.append(spent / size * 1e6)
    one = timed(lambda: feed_each(range(whole, traffic.n)))
    reading = max(
        min(timed(lambda name=name: read(process, name)) for _ in range(9)) for name in READERS
    )
    return {
        "batch": float(np.median(rounds)),
        "single": one / singles * 1e6,
        "read": reading * 1e6,
        "state": float(len(json.dumps(process.dump_state()))),
    }


def run(quick: bool = False) -> Result:
    """Measure every method; claims on the sum of the defaults and on each alone."""
    traffic = Traffic(30_000 if quick else 400_000)
    result = Result("sequential-costs", environment(batch=BATCH, records=traffic.n, quick=quick))
    rows: list[list[Any]] = []
    for name, make, feed, default in methods():
        figures = measure(make, feed, traffic, 500 if quick else 5_000)
        rows.append([name, "yes" if default else "", *figures.values()])
        print(f"  {name}: {figures['batch']:.2f} µs per record", file=sys.stderr, flush=True)
    header = [
        "method",
        "default metric",
        "µs per record, batches of 256",
        "µs per single update",
        "µs to read the dearest figure",
        "bytes of state",
    ]
    result.tables.append(("Cost", header, rows))
    result.measurements["methods"] = [dict(zip(header, row, strict=True)) for row in rows]
    total = sum(row[2] for row in rows if row[1])
    result.claims.append(
        Claim("µs per record in batches, all default metrics together", total, 5.0, "<=")
    )
    for what, column, target in (
        ("µs of a single update", 3, 50.0),
        ("µs to read an interval or another figure", 4, 1_000.0),
        ("bytes of state", 5, 4_096.0),
    ):
        worst = max(rows, key=lambda row: row[column])
        result.claims.append(
            Claim(f"{what}, dearest method ({worst[0]})", worst[column], target, "<=")
        )
    return result


def main() -> None:
    """Run by itself."""
    result = run("--quick" in sys.argv)
    result.write()
    print(result.markdown())


if __name__ == "__main__":
    main()
