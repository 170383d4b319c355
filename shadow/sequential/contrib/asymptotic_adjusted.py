"""Asymptotic comparison of means on split traffic, with covariates taken out (CUPED and beyond).

What is known of a request before it is answered (its size, the user's past latency, the score of an
older model) explains part of the outcome. With g_a(x) a prediction of the outcome in arm a that was
fitted on *earlier* records, the doubly robust pseudo-outcome

    f = g_1(x) - g_0(x) + A (y - g_1(x))/rho - (1 - A)(y - g_0(x))/(1 - rho)

has the mean of the difference between the arms given the past, however bad the fits are, since the
share rho is known; good fits only make its variance small. Section 3.1 and Theorem 3.1 of
arXiv:2103.06476; with one covariate and equal slopes it is the CUPED of Deng, Xu, Kohavi & Walker
(WSDM 2013).
"""

from __future__ import annotations

import math
from typing import ClassVar, Self

import numpy as np
import numpy.typing as npt

from understudy.shadow.sequential.arms import of_arms
from understudy.shadow.sequential.asymptotic import Gate, Readiness, Status
from understudy.shadow.sequential.central_moments import CentralMoments
from understudy.shadow.sequential.common import (
    Array,
    Packed,
    PackedShape,
    SequentialError,
    count,
)
from understudy.shadow.sequential.contrib.asymptotic_processes import AsymptoticProcess
from understudy.shadow.state import Count, FieldError, Saved, Setting, Two

MAX_COVARIATES = 8
REFIT = 256
_PER_COEFFICIENT = 10
_RIDGE = 1e-6


class AdjustedDifference(AsymptoticProcess):
    """Difference of the means of two arms, challenger minus champion, adjusted for covariates.

    ``covariates`` is their number, 1 to 8; roughly centred ones keep their digits. Each arm's
    linear fit is renewed every 256 records from everything before; records enter the
    estimate once both arms have ten records per coefficient. Covariates must not depend on the arm
    (nothing measured after the assignment).

    Merge: additive. Pseudo-outcomes of replicas with different fits have the same mean; their
    moments, and what the fits are made from, add up.
    """

    kind: ClassVar[str] = "adjusted-difference"

    covariates: Setting[int]
    records: Saved[Two[Count]]
    terms: Saved[CentralMoments]
    _sums: Saved[Packed]
    """Per arm, products of (1, x, y)."""
    _fits: Saved[PackedShape | None]
    """Per arm, intercept and slopes."""

    def __init__(
        self,
        covariates: int,
        planned: float = 10_000,
        alternative: str = "two-sided",
        *,
        alpha: float = 0.05,
        gate: Gate | None = None,
    ) -> None:
        super().__init__(planned, alternative, alpha, gate)
        self.covariates = count("covariates", covariates)
        if not 1 <= self.covariates <= MAX_COVARIATES:
            raise SequentialError(
                "covariates", f"must be 1 to {MAX_COVARIATES} in number, not {covariates}"
            )
        width = self.covariates + 2
        self.records = [0, 0]
        self.terms = CentralMoments()
        self._sums = np.zeros((2, width, width))
        self._fits = None

    def _restored(self) -> None:
        if self._fits is not None and self._fits.shape != (2, self.covariates + 1):
            raise FieldError("fits", f"must be of {self.covariates} covariates")

    def update(
        self,
        arms: npt.ArrayLike,
        values: npt.ArrayLike,
        covariates: npt.ArrayLike,
        share: float | npt.ArrayLike,
    ) -> None:
        """Take records in their order of arrival.

        ``arms``: 1 for the challenger, else 0; ``values``: (n,); ``covariates``: (n, covariates),
        or (n,) when there is one; ``share``: the challenger's probability at assignment, one number
        or one per record.
        """
        arm, y = of_arms(arms, values)
        try:
            x = np.asarray(covariates, dtype=np.float64)
            rho = np.broadcast_to(np.asarray(share, dtype=np.float64), arm.shape)
        except (TypeError, ValueError):
            raise SequentialError("covariates", "and share must be numbers, per record") from None
        if x.size != arm.size * self.covariates:
            raise SequentialError(
                "covariates", f"must be of shape ({arm.size}, {self.covariates}), not {x.shape}"
            )
        if not np.isfinite(x).all():
            raise SequentialError("covariates", "must hold only finite numbers")
        if not ((rho > 0.0) & (rho < 1.0)).all():
            raise SequentialError("share", "must lie strictly between 0 and 1")
        rows = np.column_stack((np.ones(arm.size), x.reshape(arm.size, self.covariates), y))
        start = 0
        while start < arm.size:
            seen = sum(self.records)
            stop = min(arm.size, start + REFIT - seen % REFIT)
            part = slice(start, stop)
            self._take(arm[part], rows[part], rho[part])
            if sum(self.records) % REFIT == 0:
                self._fit()
            start = stop

    def _take(self, arm: Array, rows: Array, rho: Array) -> None:
        if self._fits is not None:
            g0, g1 = (rows[:, :-1] @ fit for fit in self._fits)
            y = rows[:, -1]
            term = g1 - g0 + arm * (y - g1) / rho - (1.0 - arm) * (y - g0) / (1.0 - rho)
            self.terms.add(term)
        for side in (0, 1):
            mine = rows[arm == side]
            self._sums[side] += mine.T @ mine
            self.records[side] += len(mine)

    def _fit(self) -> None:
        """Ridge regressions on everything so far, with a penalty that only resolves ties."""
        if min(self.records) < _PER_COEFFICIENT * (self.covariates + 1):
            return
        fits = np.empty((2, self.covariates + 1))
        for side in (0, 1):
            sums = self._sums[side] / self.records[side]
            mean, centre = sums[0, 1:-1], float(sums[0, -1])
            spread = sums[1:-1, 1:-1] - np.outer(mean, mean)
            cross = sums[1:-1, -1] - mean * centre
            scale = np.diag(spread).clip(min=0.0) * _RIDGE + 1e-300
            slopes = np.linalg.lstsq(spread + np.diag(scale), cross, rcond=None)[0]
            fits[side] = (centre - float(mean @ slopes), *slopes)
        self._fits = fits

    def _summary(self) -> tuple[float, float, float] | None:
        m = self.terms
        if m.n < 2 or m.variance <= 0.0:
            return None
        return float(m.n), m.mean, math.sqrt(m.variance)

    @property
    def explained(self) -> float | None:
        """The share of the outcome's variance that the covariates explain, in the champion arm."""
        if self._fits is None:
            return None
        sums = self._sums[0] / max(self.records[0], 1)
        total = float(sums[-1, -1] - sums[0, -1] ** 2)
        slopes = self._fits[0][1:]
        mean = sums[0, 1:-1]
        fitted = float(slopes @ (sums[1:-1, 1:-1] - np.outer(mean, mean)) @ slopes)
        return min(max(fitted / total, 0.0), 1.0) if total > 0.0 else None

    @property
    def readiness(self) -> Readiness:
        """Whether the interval may be believed now, and why not."""
        if self._fits is None:
            need = _PER_COEFFICIENT * (self.covariates + 1)
            return Readiness(
                Status.NOT_YET,
                f"the covariates are fitted once both arms have {need} records (champion "
                f"{self.records[0]}, challenger {self.records[1]}), at every {REFIT}th record",
            )
        return self.gate.check({"the adjusted difference": self.terms})

    def merge(self, other: Self) -> Self:
        """Combine the moments of pseudo-outcomes and the sums behind the fits; fit again."""
        both = self.begin_merge(other)
        both.records = [a + b for a, b in zip(self.records, other.records, strict=True)]
        both.terms = self.terms.merge(other.terms)
        both._sums = self._sums + other._sums
        both._fit()
        return both
