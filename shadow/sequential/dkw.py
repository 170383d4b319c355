"""Whole distributions: anytime Dvoretzky-Kiefer-Wolfowitz bands and Kolmogorov-Smirnov p-values.

Sources: Howard & Ramdas, "Sequential estimation of quantiles with applications to A/B testing and
best-arm identification", Bernoulli 28 (2022), arXiv:1906.09712. Theorem 2 is the band of constant
width, Theorem 3 ("double stitching") the one that narrows towards the ends.

Assumption: within an arm, records are independent draws from one distribution that does not change
while the test runs. Under drift the split-traffic detector of
:mod:`understudy.shadow.sequential.tail` still holds; this does not.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import ClassVar, Self

import numpy as np
import numpy.typing as npt

from understudy.common import special
from understudy.shadow.roots import find_minimum, find_root
from understudy.shadow.sequential.common import (
    Array,
    MergeRule,
    Process,
    SequentialError,
    count,
    positive,
    probability,
    real,
)
from understudy.shadow.sequential.histogram import OfEdges, TwoHistograms
from understudy.shadow.state import Saved, Setting

SCALE = 0.85
"""The A of Theorem 2; any value above 1/sqrt(2) gives a valid band, this one a tight one."""


def _log_miss(c: float, scale: float) -> float:
    """ln of the smallest proven probability that the band with constants (scale, c) ever misses.

    Theorem 2: min over eta in (1, 2 A^2) of 4 exp(-g C) (1 + 1/((g - 1) ln eta)) with
    g = (2/eta)(A - sqrt(2 (eta-1)/C))^2, where g > 1.
    """

    def bound(eta: float) -> float:
        g = 2.0 / eta * max(0.0, scale - math.sqrt(2.0 * (eta - 1.0) / c)) ** 2
        if g <= 1.0:
            return math.log(4.0) + 1.0 - g
        return math.log(4.0) - g * c + math.log1p(1.0 / ((g - 1.0) * math.log(eta)))

    top = find_root(
        lambda eta: math.sqrt(eta / 2.0) + math.sqrt(2.0 * (eta - 1.0) / c) - scale,
        1.0,
        2.0 * scale * scale,
    )
    _, smallest = find_minimum(bound, 1.0, top, xtol=1e-9)
    return min(0.0, smallest)


@lru_cache(maxsize=256)
def dkw_constant(alpha: float, scale: float = SCALE) -> float:
    """The smallest C for which Theorem 2 proves coverage 1 - ``alpha`` with A = ``scale``.

    For A = 0.85 it is at most 0.8 ln(1612/alpha), the closed form of the paper's display (8).
    """
    goal = math.log(probability("alpha", alpha))
    if real("scale", scale) <= math.sqrt(0.5):
        raise SequentialError("scale", f"must be above 1/sqrt(2), not {scale}")
    high = 4.0
    while _log_miss(high, scale) > goal:
        high *= 2.0
    return find_root(lambda c: _log_miss(c, scale) - goal, high / 4.0, high, xtol=1e-10)


def dkw_radius(
    n: npt.ArrayLike, alpha: float, n_min: float = 1.0, *, scale: float = SCALE
) -> Array:
    """Half-width of a band that holds the distribution function at all n >= ``n_min`` at once.

    A sqrt((ln ln(e n/n_min) + C)/n), Theorem 2; infinite before ``n_min``. P(sup_x |F_n(x) - F(x)|
    exceeds it at any n >= n_min) <= ``alpha``. A larger ``n_min`` (no look before it) is tighter.
    """
    n = np.asarray(n, dtype=np.float64)
    start = max(1.0, positive("n_min", n_min))
    safe = np.maximum(n, start)
    c = dkw_constant(probability("alpha", alpha), scale)
    width = scale * np.sqrt((np.log1p(np.log(safe / start)) + c) / safe)
    return np.asarray(np.where(n < start, np.inf, width))


def double_stitching_bound(
    p: npt.ArrayLike,
    n: npt.ArrayLike,
    alpha: float,
    n_opt: float,
    *,
    delta: float = 0.5,
    s: float = 1.4,
    eta: float = 2.0,
) -> Array:
    """How far the count below the p-quantile may exceed n p, for all p and n at once.

    Theorem 3 of Howard & Ramdas 2022, in counts: with probability 1 - ``alpha`` the number of
    values at or below the p-quantile stays under n p + bound(p, n) and, by symmetry, over n p -
    bound(1 - p, n), for every p in (0, 1) and every n. Tightest around ``n_opt``.
    """
    p, n = np.asarray(p, dtype=np.float64), np.asarray(n, dtype=np.float64)
    if not ((p > 0.0) & (p < 1.0)).all():
        raise SequentialError("p", "must lie strictly between 0 and 1")
    start = positive("n_opt", n_opt)
    if not (s > 1.0 and eta > 1.0 and delta > 0.0):
        raise SequentialError("s", "and eta must be above 1, and delta above 0")
    t = np.maximum(n, start)
    logit = np.log(p) - np.log1p(-p)
    shifted = special.expit(logit + 2.0 * delta * np.sqrt(start * eta / t))
    r = np.where(p >= 0.5, p, np.minimum(0.5, shifted))
    variance = r * (1.0 - r)
    j = np.sqrt(t / start) * np.abs(logit) / (2.0 * delta) + 1.0
    zeta = float(special.zeta(s))
    const = 2.0 * zeta * (2.0 * zeta + 1.0) / (probability("alpha", alpha) * math.log(eta) ** s)
    ell = s * np.log(np.log(eta * t / start)) + s * np.log(j) + math.log(const)
    k1 = (eta**0.25 + eta**-0.25) / math.sqrt(2.0)
    linear = 0.5 * (math.sqrt(eta) + 1.0) * (1.0 - 2.0 * p) / 3.0 * ell
    grid = delta * np.sqrt(eta * t * variance / start)
    return np.asarray(grid + np.sqrt(k1 * k1 * variance * t * ell + linear * linear) + linear)


def ks_p_value(
    distance: float, first: int, second: int, n_min: float = 1.0, *, scale: float = SCALE
) -> float:
    """Anytime p-value for "both arms have one distribution", from sup |F_1 - F_2|.

    Each arm has a band of level alpha/2; the distributions differ once the bands part. The p-value
    is the smallest alpha at which they do: with C solving A (sqrt((l_1+C)/n_1) + sqrt((l_2+C)/n_2))
    = distance it is twice the miss probability of Theorem 2. 1 when an arm has fewer than ``n_min``
    records. A distance that was computed at histogram edges only makes it larger, never smaller.
    """
    gap = real("distance", distance)
    if not 0.0 <= gap <= 1.0:
        raise SequentialError("distance", f"must lie between 0 and 1, not {gap}")
    start = max(1.0, positive("n_min", n_min))
    n1, n2 = count("first", first), count("second", second)
    if min(n1, n2) < start:
        return 1.0
    l1, l2 = (math.log1p(math.log(n / start)) for n in (n1, n2))

    def reach(c: float) -> float:
        return scale * (math.sqrt((l1 + c) / n1) + math.sqrt((l2 + c) / n2)) - gap

    low, high = 1.0, 2.0
    if reach(low) >= 0.0:
        return 1.0
    while reach(high) < 0.0:
        high *= 2.0
    c = find_root(reach, low, high, xtol=1e-12)
    return min(1.0, 2.0 * math.exp(_log_miss(c, scale)))


class KolmogorovSmirnov(Process):
    """Do two arms have the same distribution, from histograms with shared edges?

    ``edges``: increasing upper edges, inclusive; ``n_min``: records per arm before the first look
    (no band before that). Merge: additive in the counts; ``p_value`` is that of the counts now, and
    the smallest one seen at any look is valid too.
    """

    kind: ClassVar[str] = "kolmogorov-smirnov"
    merge_rule: ClassVar[MergeRule] = MergeRule.ADDITIVE

    arms: Saved[OfEdges]
    n_min: Setting[float]

    def __init__(self, edges: npt.ArrayLike, n_min: float = 100.0) -> None:
        self.arms = TwoHistograms(edges)
        self.n_min = max(1.0, positive("n_min", n_min))

    def update(self, arms: npt.ArrayLike, values: npt.ArrayLike) -> None:
        """Take records: ``arms`` is 1 for the challenger and 0 for the champion."""
        self.arms.update(arms, values)

    def update_counts(self, champion: npt.ArrayLike, challenger: npt.ArrayLike) -> None:
        """Add bucket counts, each of length edges + 1."""
        self.arms.update_counts(champion, challenger)

    @property
    def distance(self) -> tuple[float, float | None]:
        """The largest |F_challenger - F_champion| over the edges, and the edge where it is."""
        n0, n1 = self.arms.totals
        if not (n0 and n1):
            return 0.0, None
        below0, below1 = self.arms.at_or_below()
        gaps = np.abs(below1 / n1 - below0 / n0)
        i = int(np.argmax(gaps))
        return float(gaps[i]), float(self.arms.edges[i])

    @property
    def p_value(self) -> float:
        """Anytime p-value of :func:`ks_p_value`."""
        n0, n1 = self.arms.totals
        return ks_p_value(min(1.0, self.distance[0]), n0, n1, self.n_min)

    def rejects(self, alpha: float) -> bool:
        """Whether the distributions differ at level ``alpha``, as of now."""
        return self.p_value <= probability("alpha", alpha)

    def band(self, alpha: float) -> tuple[Array, Array, Array, Array]:
        """Lower and upper bands of champion, then of challenger, at each edge.

        All four hold together at all times with probability 1 - ``alpha``.
        """
        bands: list[Array] = []
        for n, below in zip(self.arms.totals, self.arms.at_or_below(), strict=True):
            level = below / n if n else np.full(below.shape, 0.5)
            radius = float(dkw_radius(n, alpha / 2.0, self.n_min))
            bands += [np.clip(level - radius, 0.0, 1.0), np.clip(level + radius, 0.0, 1.0)]
        return bands[0], bands[1], bands[2], bands[3]

    def merge(self, other: Self) -> Self:
        """Add the counts."""
        both = self.begin_merge(other)
        both.arms = self.arms.merge(other.arms)
        return both
