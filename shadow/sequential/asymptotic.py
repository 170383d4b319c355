"""Unbounded means (latency, revenue): asymptotic confidence sequences that wait until they hold.

Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas, "Time-uniform central limit theory and asymptotic
confidence sequences", Ann. Statist. 2024, arXiv:2103.06476: with t records, mean m and standard
deviation s,

    m -+ s sqrt(2 (t r + 1)/(t^2 r) ln(sqrt(t r + 1)/alpha))                      (equation 9)

covers the mean at all times, with error alpha in the limit; one-sided, ln(1 + sqrt(t r + 1)/(2
alpha)) replaces the logarithm (equation 134). r is tuned to a planned t.

"In the limit" is the catch. At a 5 % canary with heavy tails the plain form rejects a third of all
A/A tests. So nothing is decided before each arm's *effective* number of records (n / kurtosis:
the events, for a rare one) is large enough: the delayed start of Bibaut, Kallus & Lindon,
arXiv:2212.14411, with the start read off the data. Nor is anything decided while successive records
of an arm are correlated: then blocks or units have to be analysed instead
(:mod:`understudy.shadow.sequential.asymptotic_blocks`).
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from enum import Enum
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from understudy.shadow.sequential.arms import of_arms, read_arms
from understudy.shadow.sequential.central_moments import CentralMoments
from understudy.shadow.sequential.common import (
    Array,
    Interval,
    MergeRule,
    Process,
    SequentialError,
    State,
    choice,
    field,
    non_negative,
    positive,
    probability,
    real,
    reals,
)
from understudy.shadow.sequential.normal_mixture import log_normal_mixture

ALTERNATIVES = ("two-sided", "greater", "less")


def asymptotic_precision(planned: float, alpha: float = 0.05) -> float:
    """The r that makes equation 9 tightest at ``planned`` records.

    (-2 ln alpha + ln(1 - 2 ln alpha)) / planned, appendix B.2 of arXiv:2103.06476.
    """
    twice = -2.0 * math.log(probability("alpha", alpha))
    return (twice + math.log1p(twice)) / positive("planned", planned)


def asymptotic_radius(
    n: npt.ArrayLike, deviation: npt.ArrayLike, alpha: float, precision: float, *, sided: int = 2
) -> Array:
    """Half-width of equation 9, or the distance of the one-sided bound of equation 134.

    Elementwise in ``n`` (> 0 records) and ``deviation`` (standard deviation of one record).
    """
    n = np.asarray(n, dtype=np.float64)
    scaled = n * positive("precision", precision) + 1.0
    a = probability("alpha", alpha)
    if sided not in (1, 2):
        raise SequentialError("sided", f"must be 1 or 2, not {sided!r}")
    log = np.log(np.sqrt(scaled) / a) if sided == 2 else np.log1p(np.sqrt(scaled) / (2.0 * a))
    return np.asarray(deviation * np.sqrt(2.0 * scaled / (n * n * precision) * log))


class Status(Enum):
    """Whether an asymptotic method may be believed now."""

    READY = "ready"
    NOT_YET = "not yet"
    DEPENDENT = "dependent"
    """Loud: the records are correlated, the guarantee does not hold however long one waits."""


@dataclass(frozen=True, slots=True)
class Readiness:
    """A status and its reason in plain words ("" when ready)."""

    status: Status
    reason: str = ""

    @property
    def ready(self) -> bool:
        """Whether decisions may be taken."""
        return self.status is Status.READY


@dataclass(frozen=True, slots=True)
class Gate:
    """When an asymptotic confidence sequence may speak.

    ``effective``: the smallest n / kurtosis of either arm (its events, when they are rare; a third
    of n for normal data). ``records``: no decision before so many in all (a delayed start that was
    planned). ``autocorrelation``: the largest lag-1 correlation within an arm that is ignored,
    beyond three standard errors of its estimate.
    """

    effective: float = 50.0
    records: int = 0
    autocorrelation: float = 0.05

    def __post_init__(self) -> None:
        positive("gate.effective", self.effective)
        non_negative("gate.records", self.records)
        if not 0.0 <= real("gate.autocorrelation", self.autocorrelation) < 1.0:
            raise SequentialError("gate.autocorrelation", "must be at least 0 and below 1")

    def check(self, parts: Mapping[str, CentralMoments], unit: str = "records") -> Readiness:
        """The first thing that is wrong with any of the ``parts``, by the name it is given."""
        for name, m in parts.items():
            limit = self.autocorrelation + 3.0 / math.sqrt(max(m.pairs, 1))
            r = m.autocorrelation
            if m.n >= 30 and r > limit:
                return Readiness(
                    Status.DEPENDENT,
                    f"successive {unit} of {name} have correlation {r:.2f}: the error rate is not "
                    f"controlled; analyse by the unit of assignment, or blocks of at least "
                    f"{enough_per_block(r)} {unit}",
                )
        total = sum(m.n for m in parts.values())
        if total < self.records:
            return Readiness(Status.NOT_YET, f"{total} of {self.records} {unit} before the start")
        for name, m in parts.items():
            if m.effective < self.effective:
                return Readiness(
                    Status.NOT_YET,
                    f"{name} has {m.effective:.1f} effective {unit} ({m.n} in all, skew "
                    f"{m.skewness:.1f}) of the {self.effective:g} needed",
                )
        return Readiness(Status.READY)

    @classmethod
    def from_dict(cls, values: Any) -> Gate:
        """Undo ``dataclasses.asdict``."""
        names = {f.name for f in fields(cls)}
        if not isinstance(values, Mapping) or set(values) != names:
            raise SequentialError("gate", f"must be an object with {sorted(names)}")
        return cls(**values)


def enough_per_block(correlation: float) -> int:
    """Records per block that bring an AR(1) stream's block means down to correlation 0.1.

    m (1 + f)/(1 - f) = 10 f/(1 - f)^2, from the covariance of adjacent block means.
    """
    f = min(correlation, 0.999)
    return math.ceil(10.0 * f / (1.0 - f * f))


class AsymptoticProcess(Process):
    """What all asymptotic comparisons share; a subclass says what was measured.

    ``planned`` records at which the interval shall be tightest, ``alpha`` to tune for,
    ``alternative`` ("greater": the challenger's is larger), ``gate``.
    """

    merge_rule: ClassVar[MergeRule] = MergeRule.ADDITIVE

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

    def settings(self) -> State:
        """The constructor's arguments as JSON values."""
        return {
            "planned": self.planned,
            "alternative": self.alternative,
            "alpha": self.alpha,
            "gate": asdict(self.gate),
        }

    @staticmethod
    def read_settings(state: Mapping[str, Any]) -> dict[str, Any]:
        """Undo :meth:`settings`."""
        values = {name: field(state, name) for name in ("planned", "alternative", "alpha")}
        return values | {"gate": Gate.from_dict(field(state, "gate"))}

    def check_settings(self, other: object) -> None:
        """Raise SequentialError unless ``other`` can be merged."""
        self.check_same(other, "planned", "alternative", "alpha", "gate")


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
        self.check_settings(other)
        both = type(self)(self.planned, self.alternative, alpha=self.alpha, gate=self.gate)
        both.arms = (self.arms[0].merge(other.arms[0]), self.arms[1].merge(other.arms[1]))
        return both

    def to_dict(self) -> State:
        """Settings and the moments of both arms."""
        return self.head() | self.settings() | {"arms": [m.to_list() for m in self.arms]}

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> Self:
        """Undo :meth:`to_dict`."""
        cls.check_head(state)
        new = cls(**cls.read_settings(state))
        new.arms = read_arms(field(state, "arms"))
        return new


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
        self.check_settings(other)
        both = type(self)(self.planned, self.alternative, alpha=self.alpha, gate=self.gate)
        both.moments = self.moments.merge(other.moments)
        return both

    def to_dict(self) -> State:
        """Settings and moments."""
        return self.head() | self.settings() | {"moments": self.moments.to_list()}

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> Self:
        """Undo :meth:`to_dict`."""
        cls.check_head(state)
        new = cls(**cls.read_settings(state))
        new.moments = CentralMoments.from_list("moments", field(state, "moments"))
        return new
