"""Whole distributions: has the challenger's prediction another one than the champion's?"""

from __future__ import annotations

from typing import ClassVar, Self

import numpy as np

from understudy.common.arrays import distinct
from understudy.shadow.experiment.hypothesis import Hypothesis
from understudy.shadow.experiment.measures.base import (
    Array,
    Contrast,
    InitialValues,
    Measure,
    NullBoundary,
    log_calibrated,
)
from understudy.shadow.sequential import Interval, KolmogorovSmirnov, dkw_radius, ks_p_value
from understudy.shadow.state import Saved

_FIRST = 200
"""Values whose quantiles become the edges; the band holds at any edges, so they count as well."""
_EDGES = 64
_LEAST = 100.0
_BY_BLOCKS = (0.25, 0.5, 0.75)
"""Where among the edges the distribution functions are also compared by blocks of time."""


class Distribution(Measure):
    """Kolmogorov-Smirnov distance with an anytime band (Howard & Ramdas 2022, Theorem 2).

    Each arm has a confidence band, so pairs and split traffic are treated alike. A margin is a
    distance that does not matter: 5 pp is a largest difference of 0.05 between the two
    distribution functions. The p-value is turned into an e-value.
    """

    kind = "distribution"
    block_columns: ClassVar[int] = len(_BY_BLOCKS)

    _first: Saved[InitialValues]
    _test: Saved[KolmogorovSmirnov | None]

    def __init__(self, hypothesis: Hypothesis, paired: bool) -> None:
        super().__init__(hypothesis, paired)
        self._first = InitialValues(_FIRST)
        self._test = None

    def update_pairs(self, champion: Array, challenger: Array) -> None:
        arms = np.tile(np.array((0.0, 1.0)), champion.size)
        values = np.stack((champion, challenger), axis=1).ravel()
        self._take(arms, values, np.full(values.size, 0.5))

    def update_split(self, arms: Array, values: Array, share: Array) -> None:
        self._take(arms, values, share)

    def _take(self, arms: Array, values: Array, share: Array) -> None:
        self._count_split(arms)
        if self._test is None:
            used = self._first.add(arms, values)
            if not self._first.complete:
                return
            first = self._place()
            self._add(*first, np.full(first[0].size, share[0]))
            arms, values, share = arms[used:], values[used:], share[used:]
        self._add(arms, values, share)

    def _place(self) -> tuple[Array, Array]:
        """Set the edges by the first values, which are returned."""
        arms, values = self._first.release()
        at = np.ceil(np.linspace(0.0, values.size - 1.0, _EDGES + 1)).astype(np.intp)
        inner = np.sort(values)[at]
        self._test = KolmogorovSmirnov(distinct(inner), _LEAST)
        return arms, values

    def _add(self, arms: Array, values: Array, share: Array) -> None:
        assert self._test is not None
        self._test.update(arms, values)
        edges = self._test.arms.edges
        at = [min(int(q * edges.size), edges.size - 1) for q in _BY_BLOCKS]
        columns = [(values <= edges[i]).astype(np.float64) for i in at]
        if not self.paired:
            self.time_blocks.add_split(arms, columns, share)
            return
        sides = [[column[arms == side] for column in columns] for side in (0.0, 1.0)]
        self.time_blocks.add_pairs(*sides)

    def _contrasts(self, side: int) -> list[Contrast]:
        margin = self.hypothesis.margin.value
        nulls = (NullBoundary(1.0, margin, "greater"), NullBoundary(1.0, -margin, "less"))
        columns = range(self.block_columns) if side else ()
        return [Contrast(column, null) for column in columns for null in nulls]

    def _log_es(self) -> tuple[float, float]:
        if self._test is None:
            return 0.0, 0.0
        n0, n1 = self._test.arms.totals
        if min(n0, n1) < _LEAST:
            return 0.0, 0.0
        beyond = max(0.0, self._test.distance[0] - self.hypothesis.margin.value)
        return 0.0, log_calibrated(ks_p_value(min(1.0, beyond), n0, n1, _LEAST))

    def begin_epoch(self) -> None:
        self._carry()
        if self._test is not None:
            self._test = KolmogorovSmirnov(self._test.arms.edges, _LEAST)

    def estimates(self) -> tuple[float | None, float | None]:
        return None, (self._test.distance[0] if self._test is not None else None)

    def difference(self, alpha: float) -> Interval:
        """For the distance itself."""
        if self._test is None:
            return Interval(0.0, 1.0)
        n0, n1 = self._test.arms.totals
        if min(n0, n1) < _LEAST:
            return Interval(0.0, 1.0)
        reach = float(dkw_radius(n0, alpha / 2.0, _LEAST) + dkw_radius(n1, alpha / 2.0, _LEAST))
        distance = self._test.distance[0]
        return Interval(max(0.0, distance - reach), min(1.0, distance + reach))

    def _merge_into(self, both: Self, other: Self) -> None:
        if self._test is not None and other._test is not None:
            both._test = self._test.merge(other._test)
        else:
            both._test = self._test or other._test
        for part in (self, other):
            for _, arms, values in part._first.by_arm():
                # Blocks do without them: their order among both arms is not known.
                if both._test is None:
                    used = both._first.add(arms, values)
                    if not both._first.complete:
                        continue
                    first, arms, values = both._place(), arms[used:], values[used:]
                    assert both._test is not None
                    both._test.update(*first)
                both._test.update(arms, values)
