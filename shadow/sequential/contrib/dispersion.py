"""Spread: is the challenger less even than the champion?

* :class:`BoundedVariance`, for values with declared bounds: (x_2k - x_2k-1)^2/2 of successive
  values lies in [0, (upper - lower)^2/2] and has the variance as its mean, so the betting
  confidence sequence for bounded means applies unchanged (Waudby-Smith & Ramdas, JRSS-B 2024,
  arXiv:2010.09686, Theorem 3). Exact at any n.
* :class:`SpreadDifference`, for unbounded values: the asymptotic confidence sequence of
  :mod:`understudy.shadow.sequential.asymptotic` on (x - past mean)^2, scaled to be unbiased.

A change that is only in the tail is found sooner by :mod:`understudy.shadow.sequential.tail`.

Assumption: within an arm, values are independent with a variance that does not change.
"""

from __future__ import annotations

import math
from typing import ClassVar, Self

import numpy as np
import numpy.typing as npt

from understudy.shadow.sequential.arms import of_arms
from understudy.shadow.sequential.asymptotic import Gate, Readiness
from understudy.shadow.sequential.betting import BettingInterval
from understudy.shadow.sequential.central_moments import CentralMoments
from understudy.shadow.sequential.common import (
    Array,
    Interval,
    MergeRule,
    Process,
)
from understudy.shadow.sequential.contrib.asymptotic_processes import AsymptoticProcess, summarise
from understudy.shadow.sequential.moments import Bounds, OfBounds
from understudy.shadow.state import Count, Saved, Setting, Two


class BoundedVariance(Process):
    """Confidence sequence for the variance of values in [lower, upper].

    ``alpha`` is fixed since the bets depend on it. Values outside the bounds are left out and
    counted in ``out_of_bounds``. Merge: product, as :class:`BettingInterval`; a value that waits
    for its partner in both replicas makes a pair of the two.
    """

    kind: ClassVar[str] = "bounded-variance"
    merge_rule: ClassVar[MergeRule] = MergeRule.PRODUCT

    bounds: Saved[OfBounds]
    alpha: Setting[float]
    _mean: Saved[BettingInterval]
    """Of halved squares in units of the range, which lie in [0, 1/2]."""
    _waiting: Saved[float | None]
    """A value without a partner."""

    def __init__(self, lower: float = 0.0, upper: float = 1.0, alpha: float = 0.05) -> None:
        self.bounds = Bounds(lower, upper)
        self.alpha = alpha
        self._mean = BettingInterval(0.0, 0.5, alpha)
        self._waiting = None

    @property
    def pairs(self) -> int:
        """Pairs of values so far."""
        return self._mean.n

    @property
    def out_of_bounds(self) -> int:
        """Values left out because they lay outside the declared bounds."""
        return self.bounds.outside

    @property
    def estimate(self) -> float | None:
        """The variance, in squared units; None before a pair."""
        mean = self._mean.mean
        return None if mean is None else mean * self.bounds.width**2

    def update(self, values: npt.ArrayLike) -> None:
        """Take values in their order of arrival, in their own unit."""
        x = self.bounds.scale(values)
        if self._waiting is not None:
            x = np.concatenate(([self._waiting], x))
        whole = x.size // 2 * 2
        self._waiting = float(x[-1]) if x.size > whole else None
        if whole:
            pairs = x[:whole].reshape(-1, 2)
            self._mean.update(0.5 * np.square(pairs[:, 1] - pairs[:, 0]))

    def interval(self) -> Interval:
        """The running confidence sequence for the variance, in squared units."""
        return self._mean.interval().scale(self.bounds.width**2)

    def deviation(self) -> Interval:
        """The same for the standard deviation, in the values' unit."""
        v = self.interval()
        return Interval(math.sqrt(max(v.lower, 0.0)), math.sqrt(max(v.upper, 0.0)))

    def merge(self, other: Self) -> Self:
        """Multiply the capitals."""
        both = self.begin_merge(other)
        both.bounds = self.bounds.merge(other.bounds)
        both._mean = self._mean.merge(other._mean)
        if self._waiting is not None and other._waiting is not None:
            both._mean.update(0.5 * (self._waiting - other._waiting) ** 2)
        else:
            both._waiting = self._waiting if other._waiting is None else other._waiting
        return both


class SpreadDifference(AsymptoticProcess):
    """Difference of the variances of two arms, challenger minus champion, for unbounded values.

    The i-th value of an arm contributes (x - mean of the i-1 before)^2 (i-1)/i, whose expectation
    is the variance exactly. ``interval`` is in squared units; the gate looks at the squares, whose
    kurtosis is high, so it opens late (some 800 records per arm for normal data).

    Merge: additive in the moments of the squares; each replica centres on its own past.
    """

    kind: ClassVar[str] = "spread-difference"

    arms: Saved[tuple[CentralMoments, CentralMoments]]
    """Of the squares."""
    _seen: Saved[Two[Count]]
    _means: Saved[Two[float]]

    def __init__(
        self,
        planned: float = 10_000,
        alternative: str = "two-sided",
        *,
        alpha: float = 0.05,
        gate: Gate | None = None,
    ) -> None:
        super().__init__(planned, alternative, alpha, gate)
        self.arms = (CentralMoments(), CentralMoments())
        self._seen = [0, 0]
        self._means = [0.0, 0.0]

    def update(self, arms: npt.ArrayLike, values: npt.ArrayLike) -> None:
        """Take records in their order of arrival; ``arms`` is 1 for the challenger, else 0."""
        arm, x = of_arms(arms, values)
        for side in (0, 1):
            mine = x[arm == side]
            if mine.size:
                self.arms[side].add(self._squares(side, mine))

    def _squares(self, side: int, x: Array) -> Array:
        """The contributions of the next values of one arm; none for the very first."""
        n, mean = self._seen[side], self._means[side]
        if not n:
            mean = float(x[0])  # only a reference for the sums below; the first has no past
        before = n + np.arange(x.size, dtype=np.float64)
        sums = np.cumsum(x - mean)  # about the old mean, so that a large mean cancels nothing
        past = np.concatenate(([0.0], sums[:-1])) / np.maximum(before, 1.0)
        squares = np.square(x - mean - past) * before / (before + 1.0)
        self._seen[side] = n + x.size
        self._means[side] = mean + float(sums[-1]) / (n + x.size)
        return squares if n else squares[1:]

    def _summary(self) -> tuple[float, float, float] | None:
        return summarise(self.arms)

    def variances(self) -> tuple[float | None, float | None]:
        """The variance of champion and challenger; None before two records."""
        first, second = (m.mean if m.n else None for m in self.arms)
        return first, second

    @property
    def readiness(self) -> Readiness:
        """Whether the interval may be believed now, and why not."""
        return self.gate.check(dict(zip(("champion", "challenger"), self.arms, strict=True)))

    def merge(self, other: Self) -> Self:
        """Combine the moments of the squares, and the means for what follows."""
        both = self.begin_merge(other)
        both.arms = (self.arms[0].merge(other.arms[0]), self.arms[1].merge(other.arms[1]))
        both._seen = [a + b for a, b in zip(self._seen, other._seen, strict=True)]
        for side in (0, 1):
            a, b = self._seen[side], other._seen[side]
            if a + b:
                total = self._means[side] * a + other._means[side] * b
                both._means[side] = total / (a + b)
        return both
