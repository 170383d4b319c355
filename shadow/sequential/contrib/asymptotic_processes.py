"""Asymptotic comparisons of means as processes, behind the gate of
:mod:`understudy.shadow.sequential.asymptotic`."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import ClassVar, Self

import numpy.typing as npt

from understudy.shadow.sequential.arms import of_arms
from understudy.shadow.sequential.asymptotic import (
    ALTERNATIVES,
    Gate,
    Readiness,
    asymptotic_precision,
    asymptotic_radius,
)
from understudy.shadow.sequential.central_moments import CentralMoments
from understudy.shadow.sequential.common import (
    Interval,
    MergeRule,
    Process,
    choice,
    positive,
    probability,
    real,
    reals,
)
from understudy.shadow.sequential.normal_mixture import log_normal_mixture
from understudy.shadow.state import Derived, Saved, Setting


class AsymptoticProcess(Process):
    """What all asymptotic comparisons share; a subclass says what was measured.

    ``planned`` records at which the interval shall be tightest, ``alpha`` to tune for,
    ``alternative`` ("greater": the challenger's is larger), ``gate``.
    """

    merge_rule: ClassVar[MergeRule] = MergeRule.ADDITIVE

    planned: Setting[float]
    alternative: Setting[str]
    alpha: Setting[float]
    gate: Setting[Gate]
    _precision: Derived[float]

    def __init__(self, planned: float, alternative: str, alpha: float, gate: Gate | None) -> None:
        self.planned = positive("planned", planned)
        self.alternative = choice("alternative", alternative, *ALTERNATIVES)
        self.alpha = probability("alpha", alpha)
        self.gate = gate if gate is not None else Gate()
        tuned = self.alpha if self.alternative == "two-sided" else min(2.0 * self.alpha, 0.999)
        self._precision = asymptotic_precision(self.planned, tuned)

    @abstractmethod
    def _summary(self) -> tuple[float, float, float] | None:
        """(t, estimate, standard deviation of one of the t terms); None without spread."""

    @property
    @abstractmethod
    def readiness(self) -> Readiness:
        """Whether the interval may be believed now, and why not."""

    @property
    def estimate(self) -> float | None:
        """The difference, challenger minus champion; None before there is any spread."""
        summary = self._summary()
        return None if summary is None else summary[1]

    def interval(self, alpha: float = 0.05) -> Interval:
        """The confidence sequence now; infinite unless :attr:`readiness` is ready.

        One-sided alternatives bound one end only. Intersect the intervals of successive looks to
        keep the running one.
        """
        level = probability("alpha", alpha)
        return self.unguarded_interval(level) if self.readiness.ready else Interval()

    def unguarded_interval(self, alpha: float = 0.05) -> Interval:
        """The same whatever the gate says: to be shown as provisional, never to decide."""
        summary = self._summary()
        if summary is None:
            return Interval()
        n, centre, deviation = summary
        sided = 2 if self.alternative == "two-sided" else 1
        radius = float(asymptotic_radius(n, deviation, alpha, self._precision, sided=sided))
        return Interval(
            -math.inf if self.alternative == "less" else centre - radius,
            math.inf if self.alternative == "greater" else centre + radius,
        )

    def log_e(self, margin: float = 0.0) -> float:
        """Asymptotic evidence against "the difference is ``margin``" (or beyond, one-sided).

        The normal mixture that equation 9 inverts; 0 unless ready.
        """
        summary = self._summary()
        if summary is None or not self.readiness.ready:
            return 0.0
        n, centre, deviation = summary
        s = n * (centre - real("margin", margin)) / deviation
        sided = 2 if self.alternative == "two-sided" else 1
        if self.alternative == "less":
            s = -s
        return float(log_normal_mixture(s, n, 1.0 / self._precision, sided=sided))

    def rejects(self, alpha: float = 0.05, margin: float = 0.0) -> bool:
        """Whether the interval excludes ``margin`` now (towards the alternative)."""
        return real("margin", margin) not in self.interval(alpha)


def summarise(
    parts: tuple[CentralMoments, CentralMoments], inflate: tuple[float, float] = (1.0, 1.0)
) -> tuple[float, float, float] | None:
    """t, difference of the means, and sqrt(t (s_0^2/n_0 + s_1^2/n_1)).

    ``inflate`` multiplies the arms' variances.
    """
    champion, challenger = parts
    if min(champion.n, challenger.n) < 2:
        return None
    n = float(champion.n + challenger.n)
    variance = sum(m.variance / m.n * f for m, f in zip(parts, inflate, strict=True))
    if variance <= 0.0:
        return None
    return n, challenger.mean - champion.mean, math.sqrt(n * variance)


class MeanDifference(AsymptoticProcess):
    """Difference of the means of two arms (split traffic), challenger minus champion.

    t is the number of records of both arms and s^2 = t (s_0^2/n_0 + s_1^2/n_1), which is what the
    augmented inverse-probability terms of section 3.1 of arXiv:2103.06476 amount to without
    covariates. No share needs to be known. Merge: additive in the moments.
    """

    kind: ClassVar[str] = "mean-difference"

    arms: Saved[tuple[CentralMoments, CentralMoments]]

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

    def update(self, arms: npt.ArrayLike, values: npt.ArrayLike) -> None:
        """Take records in their order of arrival; ``arms`` is 1 for the challenger, else 0."""
        arm, x = of_arms(arms, values)
        if arm.size == 1:
            self.arms[int(arm[0])].add(x)
            return
        chosen = arm == 1.0
        self.arms[0].add(x[~chosen])
        self.arms[1].add(x[chosen])

    def _summary(self) -> tuple[float, float, float] | None:
        return summarise(self.arms)

    @property
    def readiness(self) -> Readiness:
        """Whether the interval may be believed now, and why not."""
        return self.gate.check(dict(zip(("champion", "challenger"), self.arms, strict=True)))

    def merge(self, other: Self) -> Self:
        """Combine the moments."""
        both = self.begin_merge(other)
        both.arms = (self.arms[0].merge(other.arms[0]), self.arms[1].merge(other.arms[1]))
        return both


class PairedMean(AsymptoticProcess):
    """Mean of one stream: paired differences in shadow mode, or any single quantity.

    Merge: additive in the moments.

    ``planned`` is the number of records at which the interval is tightest, ``alternative`` is
    "greater", "less" or "two-sided", ``alpha`` only tunes; ``gate`` says when there are enough
    records for the asymptotics. Raises SequentialError, which names the argument. Source:
    Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas (2024), asymptotic confidence sequences.

    >>> import numpy as np
    >>> mean = PairedMean(planned=2_000)
    >>> mean.update(np.random.default_rng(0).normal(1.0, 2.0, 2_000))  # milliseconds, paired
    >>> found = mean.interval(0.05)
    >>> 0.5 < found.lower < 1.0 < found.upper < 1.5
    True
    """

    kind: ClassVar[str] = "paired-mean"

    moments: Saved[CentralMoments]

    def __init__(
        self,
        planned: float = 10_000,
        alternative: str = "two-sided",
        *,
        alpha: float = 0.05,
        gate: Gate | None = None,
    ) -> None:
        super().__init__(planned, alternative, alpha, gate)
        self.moments = CentralMoments()

    def update(self, differences: npt.ArrayLike) -> None:
        """Take differences, challenger minus champion, in their order of arrival."""
        self.moments.add(reals("differences", differences))

    def _summary(self) -> tuple[float, float, float] | None:
        m = self.moments
        if m.n < 2 or m.variance <= 0.0:
            return None
        return float(m.n), m.mean, math.sqrt(m.variance)

    @property
    def readiness(self) -> Readiness:
        """Whether the interval may be believed now, and why not."""
        return self.gate.check({"the difference": self.moments}, "pairs")

    def merge(self, other: Self) -> Self:
        """Combine the moments."""
        both = self.begin_merge(other)
        both.moments = self.moments.merge(other.moments)
        return both
