"""Null hypotheses of the exact methods, as streams that are run through the library itself.

Where a process looks at its peak after every record of a batch, the whole stream is one batch.
Where it looks at the end of a batch only, either the e-process is evaluated after every record by
its own formula at the true parameter (which can only reject more often than the process does), or
the stream is cut into some 150 looks at growing distances; the setting says which.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from benchmarks.sequential import streams
from shadow import sequential as sq
from shadow.sequential.logspace import log_beta_mixture
from shadow.sequential.msprt import log_msprt

ALPHA = 0.05
SPLITS = (0.5, 0.05, 0.01)
RATES = (0.5, 0.1, 0.01, 0.001)
EDGES = sq.edges_around(0.03, doublings=4.0, per_doubling=32)
Rng = np.random.Generator
Row = tuple[Any, ...]


def looks(n: int, count: int = 150) -> list[tuple[int, int]]:
    """Cuts of a stream at about ``count`` growing distances, from 10 records on."""
    ends = np.unique(np.geomspace(10, n, count).astype(int))
    return list(itertools.pairwise([0, *ends.tolist()]))


def truth(level: float, sigma: float = 0.5) -> float:
    """The latency quantile of :func:`streams.latencies`."""
    return streams.MEDIAN_SECONDS * math.exp(sigma * float(stats.norm.ppf(level)))


def cases(trace: npt.NDArray[np.float64]) -> list[Row]:
    """Rows of (method, setting, run, claimed, weight)."""
    return [
        *_paired(),
        *_split(),
        *_bounded(),
        *_counts(),
        *_tail(trace),
        *_quantiles(trace),
        *_whole(),
    ]


# --- binary outcomes ----------------------------------------------------------------------------


def _paired() -> list[Row]:
    def plain(side: str, discordant: float) -> Callable[[Rng, int], bool]:
        def run(rng: Rng, n: int) -> bool:
            test = sq.PairedTest(5.0, side)
            test.update(rng.choice([-1.0, 0.0, 1.0], n, p=_halves(discordant)))
            return test.rejects(ALPHA)

        return run

    def margin(rng: Rng, n: int) -> bool:
        test = sq.PairedMargin(-0.01, "greater")
        test.update(rng.choice([-1.0, 0.0, 1.0], n, p=[0.03, 0.95, 0.02]))
        return test.rejects(ALPHA)

    rows: list[Row] = [
        ("paired", f"{side}, {d:g} discordant", plain(side, d), True, 1.0)
        for side in ("two-sided", "greater")
        for d in (0.5, 0.1, 0.001)
    ]
    rows.append(("paired margin", "exactly at a margin of 0.01", margin, True, 0.25))
    return rows


def _halves(discordant: float) -> list[float]:
    return [discordant / 2, 1.0 - discordant, discordant / 2]


def _split() -> list[Row]:
    def labels(
        share: float, rate: float, side: str, *, wander: bool = False
    ) -> Callable[[Rng, int], bool]:
        effect = sq.log_odds_effect(rate, 0.2 * rate)

        def run(rng: Rng, n: int) -> bool:
            p = streams.wandering_rate(rng, n, rate) if wander else rate
            test = sq.LabelBetting(effect, side)
            test.update(streams.arms(rng, n, share), (rng.random(n) < p).astype(float), share)
            return test.rejects(ALPHA)

        return run

    def rates(share: float, rate: float, *, wander: bool = False) -> Callable[[Rng, int], bool]:
        def run(rng: Rng, n: int) -> bool:
            p = streams.wandering_rate(rng, n, rate) if wander else rate
            test = sq.RateTest(alternative="two-sided")
            events = rng.random(n) < p
            test.update(streams.arms(rng, n, share)[events], share)
            return test.rejects(ALPHA)

        return run

    rows: list[Row] = []
    for share in SPLITS:
        name = f"{share:.0%} split"
        for rate in RATES:
            rows.append(
                (
                    "label betting",
                    f"{name}, rate {rate:g}",
                    labels(share, rate, "greater"),
                    True,
                    0.25,
                )
            )
        rows.append(
            (
                "label betting",
                f"{name}, rate 0.1, AR(.99) bursts and drift",
                labels(share, 0.1, "two-sided", wander=True),
                True,
                0.25,
            )
        )
        rows.append(("rates", f"{name}, rate 0.1", rates(share, 0.1), True, 1.0))
        rows.append(
            (
                "rates",
                f"{name}, AR(.99) bursts and drift",
                rates(share, 0.1, wander=True),
                True,
                1.0,
            )
        )
    return rows


# --- bounded means, counts ----------------------------------------------------------------------


def _bounded() -> list[Row]:
    def betting(side: str) -> Callable[[Rng, int], bool]:
        def run(rng: Rng, n: int) -> bool:
            test = sq.BettingTest(2.0 / 7.0, side)
            test.update(rng.beta(2.0, 5.0, n))
            return test.rejects(ALPHA)

        return run

    def interval(rng: Rng, n: int) -> bool:
        cs = sq.BettingInterval()
        cs.update(rng.beta(2.0, 5.0, n))
        return 2.0 / 7.0 not in cs.interval()

    def bernstein(rng: Rng, n: int) -> bool:
        cs = sq.EmpiricalBernstein()
        x = rng.beta(2.0, 5.0, n)
        for a, b in looks(n):
            cs.update(x[a:b])
            if 2.0 / 7.0 not in cs.interval():
                return True
        return False

    def variance(rng: Rng, n: int) -> bool:
        cs = sq.BoundedVariance()
        cs.update(rng.beta(2.0, 5.0, n))
        return float(stats.beta(2, 5).var()) not in cs.interval()

    return [
        ("betting test", "Beta(2, 5), two-sided", betting("two-sided"), True, 1.0),
        ("betting test", "Beta(2, 5), greater", betting("greater"), True, 1.0),
        ("betting interval", "Beta(2, 5)", interval, True, 0.25),
        ("empirical Bernstein", "Beta(2, 5), 150 looks", bernstein, True, 1.0),
        ("bounded variance", "Beta(2, 5)", variance, True, 0.25),
    ]


def _counts() -> list[Row]:
    def srm(share: float) -> Callable[[Rng, int], bool]:
        def run(rng: Rng, n: int) -> bool:
            check = sq.SplitCheck([1.0 - share, share])
            arm = streams.arms(rng, n, share).astype(int)
            for a, b in looks(n):
                check.update(arm[a:b])
            return check.rejects(ALPHA)

        return run

    def bernoulli(rate: float) -> Callable[[Rng, int], bool]:
        def run(rng: Rng, n: int) -> bool:
            cs = sq.BernoulliInterval()
            y = (rng.random(n) < rate).astype(float)
            for a, b in looks(n):
                cs.update(y[a:b])
                if rate not in cs.interval(ALPHA):
                    return True
            return False

        return run

    rows: list[Row] = [
        ("split check", f"{s:.0%} split, 150 looks", srm(s), True, 1.0) for s in SPLITS
    ]
    rows += [
        ("Bernoulli interval", f"rate {r:g}, 150 looks", bernoulli(r), True, 0.25) for r in RATES
    ]
    return rows


# --- latency ------------------------------------------------------------------------------------


def _tail(trace: npt.NDArray[np.float64]) -> list[Row]:
    def tail(
        share: float, side: str, draw: Callable[[Rng, int], Any], values: Any = None
    ) -> Callable[[Rng, int], bool]:
        levels = np.array(sq.tail.LEVELS)
        thresholds = np.quantile(trace, levels) if values is None else values

        def run(rng: Rng, n: int) -> bool:
            detector = sq.TailDetector(thresholds, levels, side)
            detector.update(streams.arms(rng, n, share), draw(rng, n), share)
            return detector.rejects(ALPHA)

        return run

    def mirrored(rng: Rng, n: int) -> bool:
        detector = sq.TailDetector([truth(x) for x in sq.tail.LEVELS], alternative="two-sided")
        common = streams.bursty_latencies(rng, n)
        detector.update_pairs(
            common * np.exp(0.2 * rng.standard_normal(n)),
            common * np.exp(0.2 * rng.standard_normal(n)),
        )
        return detector.rejects(ALPHA)

    def own_pauses(rng: Rng, n: int) -> bool:
        level = np.stack((streams.ar1(rng, n, 0.99), streams.ar1(rng, n, 0.99)))
        arm = streams.arms(rng, n, 0.5)
        detector = sq.TailDetector([truth(x) for x in sq.tail.LEVELS])
        x = streams.latencies(rng, n) * np.exp(0.5 * np.where(arm == 1.0, level[1], level[0]))
        detector.update(arm, x, 0.5)
        return detector.rejects(ALPHA)

    rows: list[Row] = []
    normal = [truth(x) for x in sq.tail.LEVELS]
    heavy = [truth(x, 2.0) for x in sq.tail.LEVELS]
    for share in SPLITS:
        name = f"{share:.0%} split"
        rows += [
            (
                "tail detector",
                f"{name}, lognormal sigma 0.5",
                tail(share, "greater", streams.latencies, normal),
                True,
                0.5,
            ),
            (
                "tail detector",
                f"{name}, lognormal sigma 2",
                tail(share, "two-sided", lambda r, n: streams.latencies(r, n, 2.0), heavy),
                True,
                0.25,
            ),
            (
                "tail detector",
                f"{name}, AR(.99) bursts and drift",
                tail(share, "greater", streams.bursty_latencies, normal),
                True,
                0.25,
            ),
            (
                "tail detector",
                f"{name}, measured latencies",
                tail(share, "greater", lambda r, n: streams.measured_stream(n, trace)(r)),
                True,
                0.25,
            ),
        ]
    rows.append(("tail detector", "mirrored pairs, AR(.99) bursts", mirrored, True, 0.25))
    rows.append(("tail detector", "each arm has AR(.99) bursts of its own", own_pauses, False, 0.1))
    return rows


def _quantiles(trace: npt.NDArray[np.float64]) -> list[Row]:
    def one(p: float) -> Callable[[Rng, int], bool]:
        a, b = sq.quantile_shapes(p, 10_000)

        def run(rng: Rng, n: int) -> bool:
            k = np.cumsum(rng.random(n) <= p)
            return bool(
                (log_beta_mixture(k, np.arange(1, n + 1), p, a, b) >= -math.log(ALPHA)).any()
            )

        return run

    def two(p: float, share: float) -> Callable[[Rng, int], bool]:
        a, b = sq.quantile_shapes(p, 10_000)

        def run(rng: Rng, n: int) -> bool:
            arm, hit = streams.arms(rng, n, share) == 1.0, rng.random(n) <= p
            total = np.zeros(n)
            for side in (arm, ~arm):
                total += log_beta_mixture(np.cumsum(hit & side), np.cumsum(side), p, a, b)
            return bool((total >= -math.log(ALPHA)).any())

        return run

    def compared(
        p: float, share: float, side: str, draw: Callable[[Rng, int], Any], centre: float
    ) -> Callable[[Rng, int], bool]:
        edges = sq.edges_around(centre)

        def run(rng: Rng, n: int) -> bool:
            test = sq.QuantileComparison(edges, p, side, planned=5_000)
            arm, x = streams.arms(rng, n, share), draw(rng, n)
            for a, b in looks(n):
                test.update(arm[a:b], x[a:b])
            return test.rejects(ALPHA)

        return run

    rows: list[Row] = [
        ("quantile", f"p{100 * p:g}, every record", one(p), True, 1.0)
        for p in (0.5, 0.95, 0.99, 0.999)
    ]
    for share in SPLITS:
        name = f"{share:.0%} split"
        for p in (0.5, 0.99):
            rows.append(
                ("two quantiles", f"p{100 * p:g}, {name}, every record", two(p, share), True, 1.0)
            )
        rows.append(
            (
                "two quantiles",
                f"p99 one-sided, {name}, lognormal sigma 2, 150 looks",
                compared(
                    0.99,
                    share,
                    "greater",
                    lambda r, n: streams.latencies(r, n, 2.0),
                    truth(0.99, 2.0),
                ),
                True,
                0.5,
            )
        )
    for p in (0.5, 0.99):
        rows.append(
            (
                "two quantiles",
                f"p{100 * p:g}, 50% split, AR(.99) bursts and drift, 150 looks",
                compared(p, 0.5, "two-sided", streams.bursty_latencies, truth(p) * 1.3),
                False,
                0.5,
            )
        )
        rows.append(
            (
                "two quantiles",
                f"p{100 * p:g}, 50% split, measured latencies, 150 looks",
                compared(
                    p,
                    0.5,
                    "two-sided",
                    lambda r, n: streams.measured_stream(n, trace)(r),
                    float(np.quantile(trace, p)),
                ),
                False,
                0.5,
            )
        )
    return rows


def _whole() -> list[Row]:
    def ks(share: float) -> Callable[[Rng, int], bool]:
        def run(rng: Rng, n: int) -> bool:
            test = sq.KolmogorovSmirnov(EDGES, 100)
            arm, x = streams.arms(rng, n, share), streams.latencies(rng, n)
            for a, b in looks(n):
                test.update(arm[a:b], x[a:b])
                if test.rejects(ALPHA):
                    return True
            return False

        return run

    def msprt(share: float) -> Callable[[Rng, int], bool]:
        tau = sq.tune_tau(1.0, 5_000)

        def run(rng: Rng, n: int) -> bool:
            arm, x = streams.arms(rng, n, share), rng.standard_normal(n)
            n1 = np.cumsum(arm)
            n0 = np.arange(1, n + 1) - n1
            ok = (n1 > 0) & (n0 > 0)
            n1, n0 = n1[ok], n0[ok]
            d = np.cumsum(arm * x)[ok] / n1 - np.cumsum((1.0 - arm) * x)[ok] / n0
            return bool((log_msprt(d, 1.0 / n1 + 1.0 / n0, tau) >= -math.log(ALPHA)).any())

        return run

    rows: list[Row] = [
        ("Kolmogorov-Smirnov", f"{s:.0%} split, 150 looks", ks(s), True, 0.25) for s in SPLITS
    ]
    rows += [("mSPRT", f"{s:.0%} split, normal, every record", msprt(s), True, 1.0) for s in SPLITS]
    return rows
