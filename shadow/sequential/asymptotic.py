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
(:mod:`understudy.shadow.sequential.contrib.asymptotic_blocks`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

import numpy as np
import numpy.typing as npt

from understudy.shadow.sequential.central_moments import CentralMoments
from understudy.shadow.sequential.common import (
    Array,
    SequentialError,
    non_negative,
    positive,
    probability,
    real,
)

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
        return self.dependent(parts, unit) or self.enough(parts, unit)

    def dependent(
        self, parts: Mapping[str, CentralMoments], unit: str = "records"
    ) -> Readiness | None:
        """Which part's successive records are correlated; None when none are."""
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
        return None

    def enough(self, parts: Mapping[str, CentralMoments], unit: str = "records") -> Readiness:
        """Whether all parts have records enough, independent or not."""
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


def enough_per_block(correlation: float) -> int:
    """Records per block that bring an AR(1) stream's block means down to correlation 0.1.

    m (1 + f)/(1 - f) = 10 f/(1 - f)^2, from the covariance of adjacent block means.
    """
    f = min(correlation, 0.999)
    return math.ceil(10.0 * f / (1.0 - f * f))
