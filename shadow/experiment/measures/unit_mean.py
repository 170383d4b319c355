"""Bounded means of units of assignment, each unit's own mean counting once."""

from __future__ import annotations

from typing import Self

import numpy as np

from understudy.shadow.experiment.hypothesis import Hypothesis, Statistic
from understudy.shadow.experiment.measures.base import Array, Measure, NullBoundary
from understudy.shadow.sequential import BettingInterval, BettingTest, Interval
from understudy.shadow.state import Config, Saved, Two

_PRIOR = 10.0
"""Units that the guess of the mean is worth at the start."""


class UnitMean(Measure):
    """Betting on the difference of two means of values within known bounds.

    For a unit with the value x that is drawn to the challenger (A = 1) with probability rho,
    z = A (x - c)/rho - r (1 - A)(x - c)/(1 - rho) + (1 - r) c has the mean mu_1 - r mu_0 for any c
    that was known before (here the mean of the units so far, which makes z vary little). So it is a
    bounded mean: hedged capital (Waudby-Smith & Ramdas 2024, Theorem 3) on it is valid from the
    first unit on, without a gate. It needs one rho: that of the current weights.
    """

    kind = "unit-mean"

    _lower: Config[float]
    _upper: Config[float]
    _tests: Saved[list[BettingTest]]
    """To pass and of harm; none before the first unit, with which the share is known."""
    _interval: Saved[list[BettingInterval]]
    _sums: Saved[Two[float]]

    def __init__(self, hypothesis: Hypothesis, paired: bool) -> None:
        super().__init__(hypothesis, paired)
        rate = hypothesis.metric.statistic is Statistic.RATE
        bounds = (0.0, 1.0) if rate else hypothesis.bounds
        if bounds is None:
            raise ValueError("bounds are needed")
        self._lower, self._upper = bounds
        self._tests = []
        self._interval = []
        self._sums = [0.0, 0.0]

    def update_pairs(self, champion: Array, challenger: Array) -> None:
        raise TypeError("units only")

    def update_split(self, arms: Array, values: Array, share: Array) -> None:
        inside = (values >= self._lower) & (values <= self._upper)
        self.outside += int(inside.size - np.count_nonzero(inside))
        arms, x, rho = arms[inside], values[inside], share[inside]
        if not x.size:
            return
        if not self._tests:
            self._begin(float(rho[0]))
        centre = self._centres(x)
        self._count_split(arms)
        self.time_blocks.add_split(arms, [x], rho)
        for side in (0, 1):
            self._sums[side] += float(x[arms == side].sum())
        for null, test in zip((self.to_pass, self.to_harm), self._tests, strict=True):
            test.update(_contrast(arms, x, rho, centre, null.ratio))
        self._interval[0].update(_contrast(arms, x, rho, centre, 1.0))

    def _begin(self, rho: float) -> None:
        self._tests = [self._test(null, rho) for null in (self.to_pass, self.to_harm)]
        low, high = self._range(1.0, rho)
        self._interval = [BettingInterval(low, high, self.hypothesis.alpha)]

    def _test(self, null: NullBoundary, rho: float) -> BettingTest:
        low, high = self._range(null.ratio, rho)
        alpha = self.hypothesis.alpha
        return BettingTest(null.shift, null.alternative, lower=low, upper=high, alpha=alpha)

    def _range(self, ratio: float, rho: float) -> tuple[float, float]:
        """The bounds of z."""
        reach = (self._upper - self._lower) * max(1.0 / rho, ratio / (1.0 - rho))
        rest = ((1.0 - ratio) * self._lower, (1.0 - ratio) * self._upper)
        return min(rest) - reach, max(rest) + reach

    def _centres(self, x: Array) -> Array:
        """For each value the mean of those before it, with a guess of the mean at the start."""
        guess = self.hypothesis.base_rate
        if self.hypothesis.metric.statistic is not Statistic.RATE:
            guess = 0.5 * (self._lower + self._upper)
        before = np.concatenate([[0.0], np.cumsum(x)[:-1]]) + sum(self._sums)
        n = np.arange(x.size) + sum(self.n)
        return np.asarray((before + _PRIOR * guess) / (n + _PRIOR))

    def _log_es(self) -> tuple[float, float]:
        return (self._tests[0].log_e, self._tests[1].log_e) if self._tests else (0.0, 0.0)

    def estimates(self) -> tuple[float | None, float | None]:
        first, second = (s / n if n else None for s, n in zip(self._sums, self.n, strict=True))
        return first, second

    def difference(self, alpha: float) -> Interval:
        """The running intersection; it was made for the hypothesis' own level."""
        return self._interval[0].interval() if self._interval else Interval()

    def _merge_into(self, both: Self, other: Self) -> None:
        if not (self._tests and other._tests):
            known = self if self._tests else other
            both._tests, both._interval = list(known._tests), list(known._interval)
        else:
            both._tests = [a.merge(b) for a, b in zip(self._tests, other._tests, strict=True)]
            both._interval = [self._interval[0].merge(other._interval[0])]
        both._sums = [a + b for a, b in zip(self._sums, other._sums, strict=True)]


def _contrast(arms: Array, x: Array, rho: Array, centre: Array, ratio: float) -> Array:
    """z of :class:`UnitMean`."""
    challenger = arms * (x - centre) / rho
    champion = (1.0 - arms) * (x - centre) / (1.0 - rho)
    return np.asarray(challenger - ratio * champion + (1.0 - ratio) * centre)
