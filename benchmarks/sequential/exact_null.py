"""Null hypotheses of the exact methods, as streams that are run through the library itself.

Where a process looks at its peak after every record of a batch, the whole stream is one batch.
Where it looks at the end of a batch only, either the e-process is evaluated after every record by
its own formula at the true parameter (which can only reject more often than the process does), or
the stream is cut into some 150 looks at growing distances; the setting says which.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import stats

from benchmarks.sequential import streams
from understudy.shadow import sequential as sq
from understudy.shadow.experiment.measures.rate import SMALL_SHARE, WIDE

ALPHA = 0.05
SPLITS = (0.5, 0.05, 0.01)
RATES = (0.5, 0.1, 0.01, 0.001)
Rng = np.random.Generator
Row = tuple[Any, ...]


def looks(n: int, count: int = 150) -> list[tuple[int, int]]:
    """Cuts of a stream at about ``count`` growing distances, from 10 records on."""
    ends = np.unique(np.geomspace(10, n, count).astype(int))
    return list(itertools.pairwise([0, *ends.tolist()]))


def cases() -> list[Row]:
    """Rows of (method, setting, run, claimed, weight)."""
    return [
        *_paired(),
        *_split(),
        *_bounded(),
        *_counts(),
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
        (
            "paired",
            f"{side}, {d:g} discordant",
            plain(side, d),
            True,
            1.0 if side == "two-sided" else 0.25,
        )
        for side in ("two-sided", "greater")
        for d in (0.5, 0.1, 0.001)
    ]
    rows.append(("paired margin", "exactly at a margin of 0.01", margin, True, 0.25))
    return rows


def _halves(discordant: float) -> list[float]:
    return [discordant / 2, 1.0 - discordant, discordant / 2]


def _split() -> list[Row]:
    def labels(
        share: float,
        rate: float,
        side: str,
        *,
        wander: bool = False,
        bets: tuple[float, float] = (1.1, 0.5),
    ) -> Callable[[Rng, int], bool]:
        effect = sq.log_odds_effect(rate, 0.2 * rate)

        def run(rng: Rng, n: int) -> bool:
            p = streams.wandering_rate(rng, n, rate) if wander else rate
            test = sq.LabelBetting(effect, side, centre=bets[0], width=bets[1])
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
        if share < SMALL_SHARE:
            wide = labels(share, 0.01, "less", bets=WIDE)
            setting = f"{name}, rate 0.01, wide bets on fewer"
            rows.append(("label betting", setting, wide, True, 0.25))
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
