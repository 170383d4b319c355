"""Rates: errors, timeouts, disagreement, accuracy."""

from __future__ import annotations

import math
from typing import Annotated, Self

import numpy as np

from understudy.common.arrays import distinct
from understudy.shadow.experiment.hypothesis import Hypothesis
from understudy.shadow.experiment.measures.base import Array, Measure, NullBoundary
from understudy.shadow.sequential import (
    BettingTest,
    Interval,
    LabelBetting,
    PairedMargin,
    PairedTest,
    RateTest,
    TwoProportions,
    bernoulli_interval,
    log_odds_effect,
    tuned_concentration,
)
from understudy.shadow.sequential.common import ANY_KIND
from understudy.shadow.state import Count, Saved, Two, settings_of

_LARGE_EFFECT = 0.9
"""On the logit scale: an error rate that is 2.5 times as high. Bets on harm cover a twentieth of it
up to two and a half times as much."""
SMALL_SHARE = 0.1
WIDE = (1.6, 0.65)
"""Centre and width of the bets on fewer events at a small share, in the smallest effect: few events
of the challenger are expected there, so that small effects are hardly seen and larger ones quickly.

No test that keeps its level finds a change from p_0 to p_1 in fewer than ln(1/alpha)/I records on
average, I = share KL(p_1, q) + (1 - share) KL(p_0, q) with q the pooled rate (Wald's bound). For
10 % to 6 % at a share of 5 % and alpha 0.05 that is 6,130 one-sided, or 7,540 with half of alpha on
each side. These bets need about 1.12 times the latter, and between 1.10 and 1.31 times for one to
two and a half times the smallest effect (``benchmarks/sequential``)."""


_RARE = 4.0
"""As in :mod:`understudy.shadow.sequential.time_blocks`."""


def _of_few(events: int) -> float:
    """The V (see :mod:`understudy.shadow.sequential.time_blocks`) that cannot be told from 1 by so
    few events: one outage of a second makes four errors, and no block shows it."""
    return 1.0 + _RARE / max(events, 1)


class RatePairs(Measure):
    """Shadow: discordant pairs decide (sequential McNemar), with the margin taken into account.

    An absolute margin is tested by :class:`PairedMargin` (:class:`PairedTest` when it is 0), a
    relative one by betting on y_1 - r y_0, which is bounded.
    """

    kind = "rate-pairs"

    _tests: Saved[Two[Annotated[PairedTest | PairedMargin | BettingTest, ANY_KIND]]]
    _interval: Saved[PairedMargin]
    _both: Saved[Count]
    """Pairs in which both values are 1."""

    def __init__(self, hypothesis: Hypothesis, paired: bool) -> None:
        super().__init__(hypothesis, paired)
        self._tests = [paired_test(null) for null in (self.to_pass, self.to_harm)]
        self._interval = PairedMargin()
        self._both = 0

    def update_pairs(self, champion: Array, challenger: Array) -> None:
        wins = int(np.count_nonzero(challenger > champion))
        losses = int(np.count_nonzero(challenger < champion))
        both = int(np.count_nonzero((challenger == 1.0) & (champion == 1.0)))
        self._count_pairs(champion.size)
        self.time_blocks.add_pairs([champion], [challenger])
        self._both += both
        self._interval.update_counts(wins, losses, champion.size - wins - losses)
        for null, test in zip((self.to_pass, self.to_harm), self._tests, strict=True):
            if isinstance(test, BettingTest):
                test.update(challenger - null.ratio * champion)
            else:
                test.update_counts(wins, losses, champion.size - wins - losses)

    def update_split(self, arms: Array, values: Array, share: Array) -> None:
        raise TypeError("pairs only")

    def _log_es(self) -> tuple[float, float]:
        return self._tests[0].log_e, self._tests[1].log_e

    def _few(self) -> float:
        lower = self.hypothesis.lower_is_better
        return _of_few(self._interval.wins if lower else self._interval.losses)

    def _ones(self) -> tuple[int, int]:
        return self._both + self._interval.losses, self._both + self._interval.wins

    def estimates(self) -> tuple[float | None, float | None]:
        n = self._interval.pairs
        champion, challenger = self._ones()
        return (champion / n, challenger / n) if n else (None, None)

    def difference(self, alpha: float) -> Interval:
        return self._interval.interval(alpha)

    def ratio(self, alpha: float) -> Interval | None:
        n = self._interval.pairs
        if not n:
            return Interval(0.0, math.inf)
        c = tuned_concentration(max(self.hypothesis.planned, 10.0), alpha / 2.0)
        first, second = (bernoulli_interval(k, n, alpha / 2.0, c) for k in self._ones())
        return Interval(
            second.lower / first.upper if first.upper > 0.0 else 0.0,
            second.upper / first.lower if first.lower > 0.0 else math.inf,
        )

    def _merge_into(self, both: Self, other: Self) -> None:
        both._tests = [a.merge(b) for a, b in zip(self._tests, other._tests, strict=True)]  # type: ignore[arg-type]
        both._interval = self._interval.merge(other._interval)
        both._both = self._both + other._both


def paired_test(null: NullBoundary) -> PairedTest | PairedMargin | BettingTest:
    """The test of a rate from pairs."""
    if null.ratio != 1.0:
        return BettingTest(0.0, null.alternative, lower=-null.ratio, upper=1.0)
    if null.shift == 0.0:
        return PairedTest(alternative=null.alternative)
    return PairedMargin(null.shift, null.alternative)


def split_test(
    hypothesis: Hypothesis, null: NullBoundary, harm: bool, share: float
) -> LabelBetting | RateTest:
    """The test of a rate on traffic that is split with this share of the challenger."""
    if null.ratio != 1.0:
        return RateTest(null.ratio, null.alternative, ramp=True)
    effect = _logit_effect(hypothesis)
    if harm:
        effect = max(effect, _LARGE_EFFECT)
    fewer = (null.alternative == "less") == (hypothesis.base_rate < 0.5)
    if fewer and share < SMALL_SHARE:
        centre, width = WIDE
        return LabelBetting(effect, null.alternative, margin=null.shift, centre=centre, width=width)
    return LabelBetting(effect, null.alternative, margin=null.shift)


class RateSplit(Measure):
    """Split traffic: label betting for an absolute margin, counts of events for a relative one.

    Both need only the share that was known when a record was assigned, so they continue over
    changes of the share; the interval restarts.
    """

    kind = "rate-split"

    _tests: Saved[Two[Annotated[LabelBetting | RateTest, ANY_KIND]]]
    _interval: Saved[TwoProportions]
    _harmful: Saved[Count]
    """The challenger's outcomes that are harm, over all epochs."""

    def __init__(self, hypothesis: Hypothesis, paired: bool) -> None:
        super().__init__(hypothesis, paired)
        self._tests = [self._test(False), self._test(True)]
        self._interval = TwoProportions(hypothesis.base_rate, 4.0)
        self._harmful = 0

    def _test(self, harm: bool, share: float = 0.5) -> LabelBetting | RateTest:
        return split_test(self.hypothesis, self.to_harm if harm else self.to_pass, harm, share)

    def update_pairs(self, champion: Array, challenger: Array) -> None:
        raise TypeError("split traffic only")

    def update_split(self, arms: Array, values: Array, share: Array) -> None:
        if not any(self.n) and share.size:
            self._tests = [self._test(harm, float(share[0])) for harm in (False, True)]
        records = self._count_split(arms)
        self.time_blocks.add_split(arms, [values], share)
        won = int(arms @ values)
        self._interval.update_counts(records, (int(values.sum()) - won, won))
        self._harmful += won if self.hypothesis.lower_is_better else records[1] - won
        bets = [test for test in self._tests if isinstance(test, LabelBetting)]
        if bets:
            LabelBetting.update_all(bets, arms, values, share)
        for side, test in enumerate(self._tests):
            if isinstance(test, RateTest):
                self._count_events(side, test, arms[values == 1.0], share[values == 1.0])

    def _count_events(self, side: int, test: RateTest, arms: Array, share: Array) -> None:
        for rho in distinct(share):
            if not test.has_room(float(rho)):
                # It keeps counts per share; its evidence so far is worth as much as a number.
                self._carried[side] += test.log_e
                test = RateTest(test.null, test.alternative, ramp=True)
                self._tests[side] = test
            of_share = arms[share == rho]
            challenger = int(of_share.sum())
            test.update_counts(challenger, of_share.size - challenger, float(rho))

    def _log_es(self) -> tuple[float, float]:
        return self._tests[0].log_e, self._tests[1].log_e

    def _few(self) -> float:
        return _of_few(self._harmful)

    def estimates(self) -> tuple[float | None, float | None]:
        return self._interval.rates()

    def difference(self, alpha: float) -> Interval:
        return self._interval.difference(alpha) if all(self._interval.n) else Interval(-1.0, 1.0)

    def ratio(self, alpha: float) -> Interval | None:
        return self._interval.ratio(alpha) if all(self._interval.n) else Interval(0.0, math.inf)

    def begin_epoch(self) -> None:
        self._interval = TwoProportions(self.hypothesis.base_rate, 4.0)

    def _merge_into(self, both: Self, other: Self) -> None:
        if not (any(self.n) and any(other.n)):
            both._tests = list((self if any(self.n) else other)._tests)
        else:
            for side, (a, b) in enumerate(zip(self._tests, other._tests, strict=True)):
                if any(not np.array_equal(x, y) for _, x, y in settings_of(a, b)):
                    # They began at other shares; both are evidence on their own records.
                    both._carried[side] += b.log_e
                    both._tests[side] = a
                else:
                    both._tests[side] = a.merge(b)  # type: ignore[arg-type]
        both._harmful = self._harmful + other._harmful
        both._interval = self._interval.merge(other._interval)


def _logit_effect(hypothesis: Hypothesis) -> float:
    """What is hoped for, on the logit scale: to be as good as the champion, which is the margin
    away from the null hypothesis' edge; or to be better by the effect."""
    base = hypothesis.base_rate
    guardrail = hypothesis.role == "guardrail"
    hoped = hypothesis.margin if guardrail else hypothesis.effect or hypothesis.margin
    size = hoped.value * base if hoped.relative else hoped.value
    upward = hypothesis.lower_is_better == guardrail
    largest = 0.9 * (1.0 - base if upward else base)
    step = min(size, largest) if size > 0.0 else 0.2 * largest
    return min(10.0, max(0.02, abs(log_odds_effect(base, step if upward else -step))))
