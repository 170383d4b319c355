"""Ratios of two columns: clicks per view, precision, cost per row."""

from __future__ import annotations

from typing import Self

import numpy as np

from understudy.shadow.experiment.hypothesis import Hypothesis
from understudy.shadow.experiment.measures.base import Array
from understudy.shadow.experiment.measures.joint import JointMoments
from understudy.shadow.experiment.measures.mean import Mean
from understudy.shadow.sequential import Interval
from understudy.shadow.sequential.central_moments import CentralMoments
from understudy.shadow.state import Count, Saved, Two

_FIRST_FIT = 100


class Ratio(Mean):
    """The sum of u over the sum of v of each arm, with values as rows (u, v).

    A row is a request, a pair or a unit of assignment; its u and v may depend on each other in any
    way. The ratio is linearised (delta method): its variance is that of (u - R v) / mean(v), and
    the confidence sequence is the asymptotic one of arXiv:2103.06476. The gate looks at these
    residuals, with R of earlier records.
    """

    kind = "ratio"

    _joint: Saved[JointMoments]
    """Of u and v of the champion and of the challenger, with pairs."""
    _residuals: Saved[Two[CentralMoments]]
    """Of u - R v of both arms; with pairs, of their difference and nothing."""
    _seen: Saved[Count]
    _next: Saved[Count]
    _fitted: Saved[Two[float]]
    """R of earlier records."""

    def __init__(self, hypothesis: Hypothesis, paired: bool) -> None:
        self._seen = 0
        self._next = _FIRST_FIT
        self._fitted = [0.0, 0.0]
        super().__init__(hypothesis, paired)

    def _restart(self) -> None:
        super()._restart()
        self._joint = JointMoments(4)
        self._residuals = [CentralMoments(), CentralMoments()]

    def update_pairs(self, champion: Array, challenger: Array) -> None:
        self._count_pairs(len(champion))
        for part in self._parts(len(champion)):
            first, second = champion[part], challenger[part]
            if self._next > _FIRST_FIT:
                gap = second @ (1.0, -self._fitted[1]) - first @ (1.0, -self._fitted[0])
                self._residuals[0].add(gap)
                self.time_blocks.add_pairs(
                    *([self._linear(side, rows)] for side, rows in enumerate((first, second)))
                )
            for side, rows in enumerate((first, second)):
                self._arms[side].add(rows[:, 0])
                self._sizes[side].add(rows[:, 1])
            self._joint.add(np.concatenate((first, second), axis=1))
            self._fit_after(len(first))

    def _linear(self, side: int, rows: Array) -> Array:
        """The ratio of an arm, linearised by earlier records: its mean is the ratio."""
        size, fitted = self._sizes[side].mean, self._fitted[side]
        rest: Array = rows @ (1.0, -fitted)
        return fitted + (rest / size if size else 0.0 * rest)

    def update_split(self, arms: Array, values: Array, share: Array) -> None:
        for part in self._parts(len(values)):
            rows, side = values[part], arms[part]
            if self._next > _FIRST_FIT:
                for arm in (0, 1):
                    residuals = rows[side == arm] @ (1.0, -self._fitted[arm])
                    self._residuals[arm].add(residuals)
            super().update_units(side, rows[:, 0], rows[:, 1], share[part])
            self._fit_after(len(rows))

    def update_units(self, arms: Array, sums: Array, counts: Array, share: Array) -> None:
        self.update_split(arms, sums, share)

    def _parts(self, size: int) -> list[slice]:
        """The rows of a batch, cut where R is fitted again: whenever their number has doubled."""
        parts, begin, seen, following = [], 0, self._seen, self._next
        while begin < size:
            end = min(size, begin + following - seen)
            parts.append(slice(begin, end))
            seen += end - begin
            begin = end
            if seen == following:
                following *= 2
        return parts

    def _fit_after(self, rows: int) -> None:
        self._seen += rows
        if self._seen == self._next:
            self._next *= 2
            self._fitted = [self._quotient(side) or 0.0 for side in (0, 1)]

    def _quotient(self, side: int) -> float | None:
        size = self._sizes[side]
        return self._arms[side].mean / size.mean if size.n and size.mean else None

    def _arm(self, side: int) -> tuple[float, float]:
        """Ratio of an arm and the variance of its estimate."""
        if not self.paired:
            return super()._arm(side)
        of = self._weights(side)
        return self._quotient(side) or 0.0, float(of @ self._joint.products @ of) / self._squared

    def _between(self) -> float:
        if not self.paired:
            return 0.0
        first, second = self._weights(0), self._weights(1)
        return float(first @ self._joint.products @ second) / self._squared

    def _weights(self, side: int) -> Array:
        """The linearised ratio of an arm as a combination of the four columns."""
        weights = np.zeros(4)
        size = self._sizes[side].mean
        weights[2 * side : 2 * side + 2] = (1.0 / size, -(self._quotient(side) or 0.0) / size)
        return weights

    @property
    def _squared(self) -> float:
        return float(self._joint.n * (self._joint.n - 1))

    def _summary(self, ratio: float) -> tuple[float, float, float] | None:
        return super()._summary(ratio) if self._defined else None

    @property
    def _defined(self) -> bool:
        return all(m.n > 1 and m.mean != 0.0 for m in self._sizes)

    def _readiness(self) -> tuple[bool, str]:
        if not self._defined:
            return False, "an arm has nothing to divide by yet"
        return super()._readiness()

    def _gated(self) -> tuple[dict[str, CentralMoments], str]:
        names = ("the difference",) if self.paired else ("champion", "challenger")
        unit = "pairs" if self.paired else "records"
        return dict(zip(names, self._residuals, strict=False)), unit

    def estimates(self) -> tuple[float | None, float | None]:
        return self._quotient(0), self._quotient(1)

    def ratio(self, alpha: float) -> Interval | None:
        """None before both arms have something to divide by."""
        return super().ratio(alpha) if self._defined else None

    def _merge_into(self, both: Self, other: Self) -> None:
        super()._merge_into(both, other)
        both._joint = self._joint.merge(other._joint)
        both._residuals = [
            a.merge(b) for a, b in zip(self._residuals, other._residuals, strict=True)
        ]
        both._seen = self._seen + other._seen
        both._next = max(self._next, other._next)
        while both._next <= both._seen:
            both._next *= 2
        both._fitted = [both._quotient(side) or 0.0 for side in (0, 1)]
