"""Whole distributions: has the challenger's prediction another one than the champion's?"""

from __future__ import annotations

from typing import Self

import numpy as np

from understudy.shadow.experiment.hypothesis import Hypothesis
from understudy.shadow.experiment.measures.base import Array, InitialValues, Measure, log_calibrated
from understudy.shadow.sequential import Interval, KolmogorovSmirnov, dkw_radius, ks_p_value
from understudy.shadow.state import Saved

_FIRST = 200
"""Values whose quantiles become the edges; the band holds at any edges, so they count as well."""
_EDGES = 64
_LEAST = 100.0


class Distribution(Measure):
    """Kolmogorov-Smirnov distance with an anytime band (Howard & Ramdas 2022, Theorem 2).

    Each arm has a confidence band, so pairs and split traffic are treated alike. A margin is a
    distance that does not matter: 5 pp is a largest difference of 0.05 between the two
    distribution functions. The p-value is turned into an e-value.
    """

    kind = "distribution"

    _first: Saved[InitialValues]
    _test: Saved[KolmogorovSmirnov | None]

    def __init__(self, hypothesis: Hypothesis, paired: bool) -> None:
        super().__init__(hypothesis, paired)
        self._first = InitialValues(_FIRST)
        self._test = None

    def update_pairs(self, champion: Array, challenger: Array) -> None:
        arms = np.tile(np.array((0.0, 1.0)), champion.size)
        self._take(arms, np.stack((champion, challenger), axis=1).ravel())

    def update_split(self, arms: Array, values: Array, share: Array) -> None:
        self._take(arms, values)

    def _take(self, arms: Array, values: Array) -> None:
        self._count_split(arms)
        if self._test is None:
            used = self._first.add(arms, values)
            if not self._first.complete:
                return
            arms, values = arms[used:], values[used:]
            first = self._first.release()
            inner = np.quantile(first[1], np.linspace(0.0, 1.0, _EDGES + 1), method="higher")
            self._test = KolmogorovSmirnov(np.unique(inner), _LEAST)
            self._test.update(*first)
        self._test.update(arms, values)

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
            for side, arms, values in part._first.by_arm():
                both.n[side] -= values.size  # they are counted once more
                both._take(arms, values)
