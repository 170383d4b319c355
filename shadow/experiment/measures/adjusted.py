"""Means with less noise: what a field of the request explains is taken out, and totals of units.

CUPED (Deng, Xu, Kohavi & Walker 2013): y - theta (x - c) has the same difference between the arms
as y, since x was there before an arm was drawn, and a smaller variance. theta and c come from
earlier records only (a predictable fit), so the adjusted values can be looked at at any time as any
others: regression adjustment of confidence sequences, Lindon, Ham, Tingley & Bojinov,
arXiv:2210.08589.
"""

from __future__ import annotations

from typing import Self

import numpy as np

from understudy.shadow.experiment.hypothesis import Hypothesis
from understudy.shadow.experiment.measures.base import Array
from understudy.shadow.experiment.measures.joint import JointMoments
from understudy.shadow.experiment.measures.mean import Mean
from understudy.shadow.state import Count, Saved

_FIRST_FIT = 10
"""Records before the first fit, which count unadjusted: few, since their spread is that of another
distribution. Later fits come whenever the number of records has doubled, so that a fit does not
depend on how records were batched."""


class AdjustedMean(Mean):
    """The mean of y - theta (x - c), with values as rows (y, x); x is NaN where it is not known.

    Pairs are compared as they are: both arms answered the same request, so x is the same.
    """

    kind = "adjusted-mean"

    _fit: Saved[JointMoments]
    """Of y and x."""
    _seen: Saved[Count]
    _next: Saved[Count]
    """Records at which theta and c are fitted again."""
    _theta: Saved[float]
    _centre: Saved[float]

    def __init__(self, hypothesis: Hypothesis, paired: bool) -> None:
        super().__init__(hypothesis, paired)
        self._fit = JointMoments(2)
        self._seen = 0
        self._next = _FIRST_FIT
        self._theta = self._centre = 0.0

    def update_pairs(self, champion: Array, challenger: Array) -> None:
        super().update_pairs(_first(champion), _first(challenger))

    def update_split(self, arms: Array, values: Array, share: Array) -> None:
        if values.ndim == 1:
            super().update_split(arms, values, share)
            return
        keep = self._inside(values[:, 0])
        arms, values, share = arms[keep], values[keep], share[keep]
        for part in self._parts(len(values)):
            y, x = values[part].T
            self._add_split(arms[part], self._adjusted(y, x, np.ones(len(y))), share[part])
            self._learn(y, x)

    def update_units(self, arms: Array, sums: Array, counts: Array, share: Array) -> None:
        if sums.ndim == 1:
            super().update_units(arms, sums, counts, share)
            return
        for part in self._parts(len(sums)):
            y, x = sums[part].T
            of = counts[part]
            super().update_units(arms[part], self._adjusted(y, x, of), of, share[part])
            self._learn(y / of, x / of)

    def _parts(self, size: int) -> list[slice]:
        """The records of a batch, cut where the fit changes."""
        parts, begin, seen, following = [], 0, self._seen, self._next
        while begin < size:
            end = min(size, begin + following - seen)
            parts.append(slice(begin, end))
            seen += end - begin
            begin = end
            if seen == following:
                following *= 2
        return parts

    def _adjusted(self, y: Array, x: Array, counts: Array) -> Array:
        return y - self._theta * np.where(np.isnan(x), 0.0, x - self._centre * counts)

    def _learn(self, y: Array, x: Array) -> None:
        known = ~np.isnan(x)
        self._fit.add(np.stack((y[known], x[known]), axis=1))
        self._seen += len(y)
        if self._seen == self._next:
            self._next *= 2
            self._refit()

    def _refit(self) -> None:
        spread = float(self._fit.products[1, 1])
        self._theta = float(self._fit.products[0, 1]) / spread if spread > 0.0 else 0.0
        self._centre = float(self._fit.means[1])

    def _note(self) -> str:
        """The share of the variance that the covariate explains, once the gate is open."""
        not_ready = super()._note()
        squares = float(self._fit.products[0, 0] * self._fit.products[1, 1])
        if not_ready or not squares > 0.0:
            return not_ready
        explained = float(self._fit.products[0, 1]) ** 2 / squares
        name = self.hypothesis.covariate or "the unit's earlier requests"
        return f"adjusted for {name}, which explains {100.0 * explained:.0f} % of the variance"

    def _merge_into(self, both: Self, other: Self) -> None:
        super()._merge_into(both, other)
        both._fit = self._fit.merge(other._fit)
        both._seen = self._seen + other._seen
        both._next = max(self._next, other._next)
        while both._next <= both._seen:
            both._next *= 2
        both._refit()


class UnitTotal(AdjustedMean):
    """The mean over units of a unit's sum, such as revenue per user; a cap applies to the sums.

    It takes complete units only: a total of single requests, or of pairs, has no meaning.
    """

    kind = "unit-total"

    def update_pairs(self, champion: Array, challenger: Array) -> None:
        """Nothing: mirrored requests have no units."""

    def update_split(self, arms: Array, values: Array, share: Array) -> None:
        """Nothing: only complete units count."""

    def update_units(self, arms: Array, sums: Array, counts: Array, share: Array) -> None:
        cap = self.hypothesis.cap or (-np.inf, np.inf)
        if sums.ndim == 1:
            super().update_split(arms, np.clip(sums, *cap), share)
            return
        totals = np.clip(sums[:, 0], *cap)
        super().update_split(arms, np.stack((totals, sums[:, 1] / counts), axis=1), share)

    def _note(self) -> str:
        """That it takes split traffic, in the shadow."""
        return (
            "totals of units are measured on split traffic only" if self.paired else super()._note()
        )


def _first(values: Array) -> Array:
    return values if values.ndim == 1 else values[:, 0]
