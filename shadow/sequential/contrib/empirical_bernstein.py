"""Mean of bounded values by the predictable plug-in empirical Bernstein confidence sequence.

Waudby-Smith & Ramdas, "Estimating means of bounded random variables by betting", JRSS-B 2024
(arXiv:2010.09686), Thm 2. Wider than the betting form (``betting.py``) but in closed form, with a
state of six numbers.
"""

from __future__ import annotations

import math
from typing import ClassVar, Self

import numpy as np
import numpy.typing as npt

from understudy.shadow.sequential.common import (
    Array,
    Ends,
    Interval,
    MergeRule,
    Packed,
    Process,
    probability,
)
from understudy.shadow.sequential.moments import BoundedMean, Bounds, Moments
from understudy.shadow.state import Saved, Setting

_CAP = 0.5


class EmpiricalBernstein(BoundedMean, Process):
    """Confidence sequence for the mean of values in [lower, upper], whatever their law.

    With x scaled to [0, 1]: centre sum(l_i x_i)/sum(l_i), half-width
    (ln(2/alpha) + sum v_i psi(l_i))/sum(l_i), where v_i = 4 (x_i - mu_{i-1})^2,
    psi(l) = (-ln(1-l) - l)/4 and l_i = min(sqrt(2 ln(2/alpha)/(s2_{i-1} i ln(1+i))), 1/2).

    Assumption: every value has the same mean given the past. Values outside the bounds are left
    out and counted in ``out_of_bounds``. ``alpha`` is fixed since the bets depend on it.

    Merge: product (the sums add), with the running interval restarted at the merged one.
    """

    kind: ClassVar[str] = "empirical-bernstein"
    merge_rule: ClassVar[MergeRule] = MergeRule.PRODUCT

    alpha: Setting[float]
    _sums: Saved[Packed]
    """Of l, l x, v psi(l)."""
    _running: Saved[Ends]

    def __init__(self, lower: float = 0.0, upper: float = 1.0, alpha: float = 0.05) -> None:
        self.bounds = Bounds(lower, upper)
        self.alpha = probability("alpha", alpha)
        self.moments = Moments()
        self._sums = np.zeros(3)
        self._running = Interval(0.0, 1.0)

    def update(self, values: npt.ArrayLike) -> None:
        """Take values in their order of arrival, in their own unit."""
        x = self.bounds.scale(values)
        if not x.size:
            return
        if x.size == 1:
            self._take_one(float(x[0]))
            return
        mean_before, bet = self.moments.step(x, math.log(2.0 / self.alpha))
        bet = np.minimum(bet, _CAP)
        v = (x - mean_before) ** 2  # the 4 of v cancels the 1/4 of psi
        steps = np.stack((bet, bet * x, v * (-np.log1p(-bet) - bet)), axis=1)
        steps[0] += self._sums
        np.cumsum(steps, axis=0, out=steps)
        self._sums = steps[-1].copy()
        centre, half = self._shape(steps)
        self._running = self._running.intersect(
            Interval(float((centre - half).max()), float((centre + half).min()))
        )

    def _take_one(self, x: float) -> None:
        """A batch of one."""
        log_term = math.log(2.0 / self.alpha)
        mean_before = (0.5 + self.moments.sum) / (self.moments.n + 1)
        bet = min(self.moments.step_one(x, log_term), _CAP)
        v = (x - mean_before) ** 2
        total, weighted, spread = self._sums.tolist()
        total += bet
        weighted += bet * x
        spread += v * (-math.log1p(-bet) - bet)
        self._sums = np.array((total, weighted, spread))
        centre, half = weighted / total, (log_term + spread) / total
        self._running = self._running.intersect(Interval(centre - half, centre + half))

    def _shape(self, sums: Array) -> tuple[Array, Array]:
        total = sums[:, 0]
        return sums[:, 1] / total, (math.log(2.0 / self.alpha) + sums[:, 2]) / total

    def interval(self) -> Interval:
        """The running intersection, in the values' unit."""
        return self.bounds.unscale_interval(self._running)

    def merge(self, other: Self) -> Self:
        """Add the sums; the running interval restarts."""
        both = self.begin_merge(other)
        both.bounds = self.bounds.merge(other.bounds)
        both.moments = self.moments.merge(other.moments)
        both._sums = self._sums + other._sums
        if both.n:
            centre, half = both._shape(both._sums[None, :])
            both._running = Interval(0.0, 1.0).intersect(
                Interval(float(centre[0] - half[0]), float(centre[0] + half[0]))
            )
        return both
