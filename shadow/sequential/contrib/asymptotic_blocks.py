"""Asymptotic comparison of means when records are not independent: by block and by unit.

When the records within an arm are correlated (a server with slow minutes, users who come back), the
variance of a mean is not that of a record over n, and the plain form rejects most A/A tests. Two
remedies, both with the interval and gate of :mod:`understudy.shadow.sequential.asymptotic`:

* :class:`BlockDifference`: means of blocks of successive records of an arm (batch means). Blocks
  that are longer than the memory of the stream are nearly independent; what correlation is left
  between neighbours widens the interval by that of an AR(1) sequence, (1 + r)/(1 - r), and
  too much of it is refused.
* :class:`UnitDifference`: sums and counts per unit of assignment (a user, a session), compared by
  the ratio of means with its linearised variance (Deng, Knoblich & Lu, "Applying the delta method
  in metric analytics", KDD 2018, equation 4).
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import ClassVar, Self

import numpy as np
import numpy.typing as npt

from understudy.shadow.sequential.arms import of_arms
from understudy.shadow.sequential.asymptotic import Gate, Readiness, Status
from understudy.shadow.sequential.central_moments import CentralMoments
from understudy.shadow.sequential.common import (
    Array,
    SequentialError,
    binary,
    count,
    real,
    reals,
    same_length,
)
from understudy.shadow.sequential.contrib.asymptotic_processes import AsymptoticProcess, summarise
from understudy.shadow.state import Saved, Setting, Two

_NAMES = ("champion", "challenger")
_MOST_CORRELATED = 0.3


class BlockDifference(AsymptoticProcess):
    """Difference of the means of two arms, by blocks of ``block`` successive records of an arm.

    ``planned`` counts records. :func:`understudy.shadow.sequential.asymptotic.enough_per_block`
    says how long a block has to be for a given lag-1 correlation. The last, incomplete block of
    each arm is not in the estimate. Neighbouring blocks may correlate up to 0.3, which is paid for;
    beyond that the status is "dependent".

    Merge: additive in the moments of blocks; of two incomplete blocks the longer one is kept.
    """

    kind: ClassVar[str] = "block-difference"

    block: Setting[int]
    arms: Saved[tuple[CentralMoments, CentralMoments]]
    _open: Saved[Two[tuple[int, float]]]
    """Records of each arm's incomplete block, and their sum."""

    def __init__(
        self,
        block: int,
        planned: float = 100_000,
        alternative: str = "two-sided",
        *,
        alpha: float = 0.05,
        gate: Gate | None = None,
    ) -> None:
        self.block = count("block", block)
        if self.block < 2:
            raise SequentialError("block", f"must be at least 2 records, not {block}")
        super().__init__(planned, alternative, alpha, gate)
        self._precision *= self.block
        self.arms = (CentralMoments(), CentralMoments())
        self._open = [(0, 0.0), (0, 0.0)]

    def update(self, arms: npt.ArrayLike, values: npt.ArrayLike) -> None:
        """Take records in their order of arrival; ``arms`` is 1 for the challenger, else 0."""
        arm, x = of_arms(arms, values)
        for side in (0, 1):
            mine = x[arm == side]
            if mine.size:
                self.arms[side].add(self._closed(side, mine))

    def _closed(self, side: int, x: Array) -> Array:
        """Means of the blocks that ``x`` completes; the rest stays open."""
        n, total = self._open[side]
        if n + x.size < self.block:
            self._open[side] = (n + x.size, total + float(x.sum()))
            return np.empty(0)
        first = self.block - n
        whole = (x.size - first) // self.block * self.block
        means = np.empty(1 + whole // self.block)
        means[0] = (total + float(x[:first].sum())) / self.block
        means[1:] = x[first : first + whole].reshape(-1, self.block).mean(axis=1)
        rest = x[first + whole :]
        self._open[side] = (int(rest.size), float(rest.sum()))
        return means

    def _inflation(self) -> tuple[float, float]:
        """What the correlation of neighbouring blocks adds to each arm's variance."""
        r = [min(max(m.autocorrelation, 0.0), _MOST_CORRELATED) for m in self.arms]
        return (1.0 + r[0]) / (1.0 - r[0]), (1.0 + r[1]) / (1.0 - r[1])

    def _summary(self) -> tuple[float, float, float] | None:
        return summarise(self.arms, self._inflation())

    @property
    def readiness(self) -> Readiness:
        """Whether the interval may be believed now, and why not."""
        gate = replace(self.gate, autocorrelation=_MOST_CORRELATED, records=0)
        total = self.block * (self.arms[0].n + self.arms[1].n)
        if total < self.gate.records:
            return Readiness(
                Status.NOT_YET, f"{total} of {self.gate.records} records before the start"
            )
        return gate.check(dict(zip(_NAMES, self.arms, strict=True)), f"blocks of {self.block}")

    def merge(self, other: Self) -> Self:
        """Combine the moments of blocks."""
        both = self.begin_merge(other)
        both.arms = (self.arms[0].merge(other.arms[0]), self.arms[1].merge(other.arms[1]))
        both._open = [max(a, b) for a, b in zip(self._open, other._open, strict=True)]
        return both


class UnitDifference(AsymptoticProcess):
    """Difference of the means of two arms, by unit of assignment.

    A unit (user, session, tenant) is in one arm and brings ``counts`` records that sum to ``sums``;
    it is fed once, when it is complete. The estimate is sum/count of the challenger minus that of
    the champion. ``planned`` counts units. ``typical`` is a guess at the mean of a record,
    subtracted before kurtosis is looked at by the gate (0 makes the gate stricter where units
    differ in size). Merge: additive.
    """

    kind: ClassVar[str] = "unit-difference"

    typical: Setting[float]
    arms: Saved[tuple[CentralMoments, CentralMoments]]
    """Of sum - typical * count."""
    sizes: Saved[tuple[CentralMoments, CentralMoments]]
    """Of count."""
    _cross: Saved[Two[float]]
    """Sums of the product of both, about their means."""

    def __init__(
        self,
        planned: float = 10_000,
        alternative: str = "two-sided",
        *,
        typical: float = 0.0,
        alpha: float = 0.05,
        gate: Gate | None = None,
    ) -> None:
        super().__init__(planned, alternative, alpha, gate)
        self.typical = real("typical", typical)
        self.arms = (CentralMoments(), CentralMoments())
        self.sizes = (CentralMoments(), CentralMoments())
        self._cross = [0.0, 0.0]

    def update(self, arms: npt.ArrayLike, sums: npt.ArrayLike, counts: npt.ArrayLike) -> None:
        """Take complete units: arm (0 or 1), sum of their values, and number of records (>= 1)."""
        arm, s, c = binary("arms", arms), reals("sums", sums), reals("counts", counts)
        same_length(("arms", "sums"), arm, s)
        same_length(("arms", "counts"), arm, c)
        if not ((c >= 1.0) & (c == np.floor(c))).all():
            raise SequentialError("counts", "must hold whole numbers of at least 1")
        rest = s - self.typical * c
        for side in (0, 1):
            chosen = arm == side
            u, v = rest[chosen], c[chosen]
            if u.size:
                inner = float(np.dot(u - u.mean(), v - v.mean()))
                self._join(side, int(u.size), float(u.mean()), float(v.mean()), inner)
                self.arms[side].add(u)
                self.sizes[side].add(v)

    def _join(self, side: int, n: int, u: float, v: float, inner: float) -> None:
        a = self.arms[side]
        if a.n:
            inner += (u - a.mean) * (v - self.sizes[side].mean) * a.n * n / (a.n + n)
        self._cross[side] += inner

    def _summary(self) -> tuple[float, float, float] | None:
        if min(m.n for m in self.arms) < 2:
            return None
        variance, means = 0.0, []
        for m, size, cross in zip(self.arms, self.sizes, self._cross, strict=True):
            ratio = m.mean / size.mean
            squares = m.m2 - 2.0 * ratio * cross + ratio * ratio * size.m2
            variance += max(squares, 0.0) / (m.n - 1) / size.mean**2 / m.n
            means.append(self.typical + ratio)
        if variance <= 0.0:
            return None
        n = float(self.arms[0].n + self.arms[1].n)
        return n, means[1] - means[0], math.sqrt(n * variance)

    @property
    def readiness(self) -> Readiness:
        """Whether the interval may be believed now, and why not."""
        return self.gate.check(dict(zip(_NAMES, self.arms, strict=True)), "units")

    def merge(self, other: Self) -> Self:
        """Combine the moments."""
        both = self.begin_merge(other)
        both._cross = list(self._cross)
        both.arms, both.sizes = self.arms, self.sizes
        for side in (0, 1):
            a, size = other.arms[side], other.sizes[side]
            if a.n:
                both._join(side, a.n, a.mean, size.mean, other._cross[side])
        both.arms = (self.arms[0].merge(other.arms[0]), self.arms[1].merge(other.arms[1]))
        both.sizes = (self.sizes[0].merge(other.sizes[0]), self.sizes[1].merge(other.sizes[1]))
        return both
