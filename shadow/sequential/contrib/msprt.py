"""Mixture sequential probability ratio test for the difference of two normal means.

Johari, Koomen, Pekelis & Walsh, "Always valid inference: continuous monitoring of A/B tests",
Operations Research 70 (2022), arXiv:1512.04922, equation (6) with a normal mixing distribution. In
terms of the difference d of the arms' means and its variance V = sigma^2 (1/n_0 + 1/n_1):

    ln Lambda = 1/2 ln(V/(V + tau^2)) + tau^2 d^2 / (2 V (V + tau^2)),

which for n per arm is 1/2 ln(2 sigma^2/(2 sigma^2 + n tau^2)) + n^2 tau^2 d^2 / (4 sigma^2
(2 sigma^2 + n tau^2)). Arms of unequal size keep the guarantee: d/V is a Brownian motion in 1/V
(the canonical joint distribution of normal linear models).

Assumption: independent normal records of *known* variance. It is here for continuity with tools
that use it; :mod:`understudy.shadow.sequential.asymptotic` estimates the variance and refuses to
decide too early.
"""

from __future__ import annotations

import math
from typing import ClassVar, Self

import numpy as np
import numpy.typing as npt

from understudy.shadow.sequential.arms import of_arms
from understudy.shadow.sequential.common import (
    EProcess,
    Interval,
    MergeRule,
    positive,
    probability,
    real,
)
from understudy.shadow.sequential.normal_mixture import best_rho
from understudy.shadow.state import Count, Saved, Setting, Two


def log_msprt(
    difference: npt.ArrayLike, variance: npt.ArrayLike, tau: float
) -> npt.NDArray[np.float64]:
    """ln Lambda for a difference whose variance is ``variance``, with prior N(0, tau^2)."""
    d, v = np.asarray(difference, dtype=np.float64), np.asarray(variance, dtype=np.float64)
    total = v + positive("tau", tau) ** 2
    return np.asarray(0.5 * np.log(v / total) + 0.5 * (tau * d) ** 2 / (v * total))


def tune_tau(deviation: float, planned: float, alpha: float = 0.05) -> float:
    """The tau that makes the interval tightest at ``planned`` records per arm.

    tau^2 = 2 sigma^2/(planned r), r the normal mixture's best precision at intrinsic time 1.
    """
    v = 2.0 * positive("deviation", deviation) ** 2 / positive("planned", planned)
    return math.sqrt(v / best_rho(1.0, alpha))


class MixtureSPRT(EProcess):
    """mSPRT of "challenger's mean minus champion's mean is ``null``", two-sided.

    ``deviation``: the known standard deviation of a record in either arm. ``tau``: standard
    deviation of the mixing distribution, about the effect one hopes to see (:func:`tune_tau`).
    Merge: additive in counts and sums. The peak is looked at once per update, at its end.
    """

    kind: ClassVar[str] = "msprt"
    merge_rule: ClassVar[MergeRule] = MergeRule.ADDITIVE

    deviation: Setting[float]
    tau: Setting[float]
    null: Setting[float]
    counts: Saved[Two[Count]]
    sums: Saved[Two[float]]

    def __init__(self, deviation: float, tau: float, null: float = 0.0) -> None:
        self.deviation = positive("deviation", deviation)
        self.tau = positive("tau", tau)
        self.null = real("null", null)
        self.counts = [0, 0]
        self.sums = [0.0, 0.0]

    @property
    def estimate(self) -> float | None:
        """Challenger's minus champion's mean; None while an arm is empty."""
        if not (self.counts[0] and self.counts[1]):
            return None
        return self.sums[1] / self.counts[1] - self.sums[0] / self.counts[0]

    @property
    def _variance(self) -> float:
        return self.deviation**2 * (1.0 / self.counts[0] + 1.0 / self.counts[1])

    @property
    def log_e(self) -> float:
        """ln Lambda against ``null``; 0 while an arm is empty."""
        d = self.estimate
        return 0.0 if d is None else float(log_msprt(d - self.null, self._variance, self.tau))

    def update(self, arms: npt.ArrayLike, values: npt.ArrayLike) -> None:
        """Take records: ``arms`` is 1 for the challenger and 0 for the champion."""
        arm, x = of_arms(arms, values)
        served = int(arm.sum())
        second = float(np.dot(arm, x))
        self.counts = [self.counts[0] + arm.size - served, self.counts[1] + served]
        self.sums = [self.sums[0] + (float(x.sum()) - second), self.sums[1] + second]
        self._look()

    def interval(self, alpha: float = 0.05) -> Interval:
        """The differences not rejected now; infinite while an arm is empty."""
        d = self.estimate
        goal = -math.log(probability("alpha", alpha))
        if d is None:
            return Interval()
        v, t2 = self._variance, self.tau**2
        radius = math.sqrt(v * (v + t2) / t2 * (2.0 * goal + math.log((v + t2) / v)))
        return Interval(d - radius, d + radius)

    def merge(self, other: Self) -> Self:
        """Add counts and sums."""
        both = self.begin_merge(other)
        both.counts = [a + b for a, b in zip(self.counts, other.counts, strict=True)]
        both.sums = [a + b for a, b in zip(self.sums, other.sums, strict=True)]
        both._look()
        return both
