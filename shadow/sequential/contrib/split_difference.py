"""Difference of means on split traffic, when the common level drifts: the design-based interval.

With the known probability rho of the challenger and any guess c made from the past,

    z = (y - c) (a/rho - (1-a)/(1-rho)),  a = 1 if the challenger served,

has the mean mu_1 - mu_0 given the past, whatever the level of both does over time, since only the
draw of a is random. z is bounded, so the betting confidence sequence for its mean applies
(Waudby-Smith & Ramdas 2024; the doubly robust pseudo-outcome of Waudby-Smith et al.,
arXiv:2103.06476, with a predictable fit).
"""

from __future__ import annotations

from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from understudy.shadow.sequential.betting import BettingInterval
from understudy.shadow.sequential.common import (
    Interval,
    MergeRule,
    Process,
    SequentialError,
    binary,
    probability,
    real,
    reals,
    same_length,
)
from understudy.shadow.sequential.moments import Bounds, Moments, OfBounds
from understudy.shadow.state import Saved, Setting


class SplitDifference(Process):
    """Confidence sequence for mu_1 - mu_0 of outcomes in [lower, upper] on split traffic.

    Assumption: the difference is the same for every record (the levels may move together), and
    each record's arm is an independent draw with the ``share`` given at each update. ``min_share``
    is the smallest probability any arm will have: the bounds of z, and so the early width, depend
    on it. Outcomes out of bounds are left out and counted.

    Merge: product, as for :class:`BettingInterval`.

    ``lower`` and ``upper`` bound the outcomes, in their unit; the interval holds at all times with
    probability 1 - ``alpha``. Raises SequentialError, which names the argument.

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> sequence = SplitDifference(min_share=0.5)
    >>> arms = (rng.random(5_000) < 0.5).astype(float)  # 1: the challenger served
    >>> sequence.update(arms, (rng.random(5_000) < 0.1 + 0.2 * arms).astype(float), share=0.5)
    >>> found = sequence.interval()
    >>> 0.1 < found.lower < 0.2 < found.upper < 0.3
    True
    """

    kind: ClassVar[str] = "split-difference"
    merge_rule: ClassVar[MergeRule] = MergeRule.PRODUCT

    min_share: Setting[float]
    bounds: Saved[OfBounds]
    alpha: Setting[float]
    _mean: Saved[BettingInterval]
    _level: Saved[Moments]

    def __init__(
        self, min_share: float, lower: float = 0.0, upper: float = 1.0, alpha: float = 0.05
    ) -> None:
        self.min_share = probability("min_share", min_share)
        if self.min_share > 0.5:
            raise SequentialError("min_share", f"must be at most 1/2, not {min_share}")
        self.bounds = Bounds(lower, upper)
        self.alpha = probability("alpha", alpha)
        reach = 1.0 / self.min_share
        self._mean = BettingInterval(-reach, reach, alpha)
        self._level = Moments()

    @property
    def n(self) -> int:
        """Records within the bounds so far."""
        return self._level.n

    @property
    def out_of_bounds(self) -> int:
        """Records left out because their outcome lay outside the declared bounds."""
        return self.bounds.outside

    @property
    def estimate(self) -> float | None:
        """The average of z in the outcomes' unit; None before any record."""
        mean = self._mean.mean
        return None if mean is None else mean * self.bounds.width

    def update(
        self, arms: npt.ArrayLike, outcomes: npt.ArrayLike, share: float | npt.ArrayLike
    ) -> None:
        """Take records in order of arrival; ``share`` as for :class:`LabelBetting`."""
        if np.ndim(arms) == 0 and np.ndim(outcomes) == 0 and np.ndim(share) == 0:
            self._take_one(arms, outcomes, share)
            return
        arm, y, rho = binary("arms", arms), reals("outcomes", outcomes), reals("share", share)
        same_length(("arms", "outcomes"), arm, y)
        rho = np.broadcast_to(rho, arm.shape) if rho.size == 1 else rho
        same_length(("arms", "share"), arm, rho)
        low = self.min_share * (1.0 - 1e-12)
        if arm.size and not ((rho >= low) & (rho <= 1.0 - low)).all():
            raise SequentialError(
                "share", f"must leave each arm at least min_share ({self.min_share})"
            )
        inside = (y >= self.bounds.lower) & (y <= self.bounds.upper)
        x = self.bounds.scale(y)
        if not x.size:
            return
        arm, rho = arm[inside], rho[inside]
        level, _ = self._level.step(x, 1.0)
        sign = np.where(arm == 1.0, 1.0 / rho, -1.0 / (1.0 - rho))
        self._mean.update((x - level) * sign)

    def _take_one(self, arm: Any, outcome: Any, share: Any) -> None:
        """A batch of one."""
        rho, y = probability("share", share), real("outcomes", outcome)
        if arm not in (0, 1):
            raise SequentialError("arms", "must hold only 0 and 1")
        low = self.min_share * (1.0 - 1e-12)
        if not low <= rho <= 1.0 - low:
            raise SequentialError(
                "share", f"must leave each arm at least min_share ({self.min_share})"
            )
        if not self.bounds.lower <= y <= self.bounds.upper:
            self.bounds.outside += 1
            return
        x = (y - self.bounds.lower) / self.bounds.width
        level = (0.5 + self._level.sum) / (self._level.n + 1)
        self._level.step_one(x, 1.0)
        self._mean.update((x - level) * (1.0 / rho if arm == 1 else -1.0 / (1.0 - rho)))

    def interval(self) -> Interval:
        """The running intersection, in the outcomes' unit."""
        scaled = self._mean.interval().scale(self.bounds.width)
        return scaled.intersect(Interval(-self.bounds.width, self.bounds.width))

    def merge(self, other: Self) -> Self:
        """Multiply the capitals; the running interval restarts."""
        both = self.begin_merge(other)
        both.bounds = self.bounds.merge(other.bounds)
        both._mean = self._mean.merge(other._mean)
        both._level = self._level.merge(other._level)
        return both
