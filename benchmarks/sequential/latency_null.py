"""Null hypotheses of the exact methods for latencies; see :mod:`exact_null` for the looks."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from benchmarks.sequential import streams
from benchmarks.sequential.exact_null import ALPHA, SPLITS, Rng, Row, looks
from understudy.shadow import sequential as sq
from understudy.shadow.sequential.contrib.msprt import log_msprt
from understudy.shadow.sequential.logspace import log_beta_mixture

EDGES = sq.edges_around(0.03, doublings=4.0, per_doubling=32)


def truth(level: float, sigma: float = 0.5) -> float:
    """The latency quantile of :func:`streams.latencies`."""
    return streams.MEDIAN_SECONDS * math.exp(sigma * float(stats.norm.ppf(level)))


def cases(trace: npt.NDArray[np.float64]) -> list[Row]:
    """Rows of (method, setting, run, claimed, weight)."""
    return [*_tail(trace), *_quantiles(trace), *_whole()]


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
