"""The confidence sequence of :mod:`understudy.shadow.sequential.quantile` for one arm."""

from __future__ import annotations

import math
from typing import ClassVar, Self

import numpy as np
import numpy.typing as npt

from understudy.shadow.sequential.common import (
    Array,
    Interval,
    MergeRule,
    Process,
    log_beta_mixture,
    log_beta_mixture_1,
    positive,
    probability,
    real,
    reals,
)
from understudy.shadow.sequential.histogram import (
    Edges,
    PackedCounts,
    bucket_counts,
    check_counts,
    check_edges,
)
from understudy.shadow.sequential.quantile import lowest_count, quantile_shapes
from understudy.shadow.state import Derived, Saved, Setting


class QuantileSequence(Process):
    """Confidence sequence for the p-quantile of one arm.

    ``edges``: strictly increasing upper edges (inclusive) of the buckets, any unit; ``p`` in
    (0, 1); ``planned`` records at which the interval shall be tightest; ``alpha`` only tunes. The
    95 % interval of p99 cannot be finite before 600 records with ``planned`` = 1,500, nor before
    1,100 with 10,000: no record above an edge must be unlikely enough.

    Merge: additive in the counts.

    Raises SequentialError, which names the argument.

    >>> import numpy as np
    >>> edges = np.geomspace(0.001, 10.0, 400)  # seconds
    >>> sequence = QuantileSequence(edges, 0.99, planned=5_000)
    >>> sequence.update(np.random.default_rng(0).exponential(0.1, 5_000))
    >>> found = sequence.interval(0.05)
    >>> 0.3 < found.lower < 0.4605 < found.upper < 0.7  # the p99 of the exponential is 0.1 ln(100)
    True
    """

    kind: ClassVar[str] = "quantile"
    merge_rule: ClassVar[MergeRule] = MergeRule.ADDITIVE

    edges: Setting[Edges]
    p: Setting[float]
    planned: Setting[float]
    alpha: Setting[float]
    a: Derived[float]
    b: Derived[float]
    counts: Saved[PackedCounts]

    def __init__(
        self, edges: npt.ArrayLike, p: float, *, planned: float = 10_000, alpha: float = 0.05
    ) -> None:
        self.edges = check_edges(edges)
        self.p = probability("p", p)
        self.planned = positive("planned", planned)
        self.alpha = probability("alpha", alpha)
        self.a, self.b = quantile_shapes(self.p, self.planned, self.alpha)
        self.counts = np.zeros(self.edges.size + 1, dtype=np.int64)

    @property
    def n(self) -> int:
        """Records so far."""
        return int(self.counts.sum())

    @property
    def estimate(self) -> float | None:
        """The smallest edge with a share of at least p at or below; None when there is none."""
        n = self.n
        reached = np.nonzero(np.cumsum(self.counts[:-1]) >= self.p * n)[0]
        return float(self.edges[reached[0]]) if n and reached.size else None

    def update(self, values: npt.ArrayLike) -> None:
        """Count values (same unit as the edges; order is irrelevant)."""
        self.counts += bucket_counts(self.edges, reals("values", values))

    def update_counts(self, counts: npt.ArrayLike) -> None:
        """Add bucket counts of length edges + 1; the last is what lies above all edges."""
        self.counts += check_counts("counts", counts, self.counts.size)

    def log_e(self, x: float) -> float:
        """Evidence (natural log) against "the p-quantile is x", for an ``x`` on an edge.

        Between edges the bucket's most favourable count is used, so the evidence is a lower bound.
        """
        at = int(np.searchsorted(self.edges, real("x", x)))
        below = np.concatenate(([0], np.cumsum(self.counts)))
        high = float(below[at + 1])
        low = high if at < self.edges.size and self.edges[at] == x else float(below[at])
        n = float(below[-1])
        k = min(max(lowest_count(n, self.p, self.a, self.b), low), high)
        return log_beta_mixture_1(k, n, self.p, self.a, self.b)

    def log_e_at_edges(self) -> Array:
        """Evidence against "the p-quantile is x" for every edge x."""
        below = np.cumsum(self.counts[:-1])
        return log_beta_mixture(below, self.n, self.p, self.a, self.b)

    def interval(self, alpha: float = 0.05) -> Interval:
        """The quantiles that are not excluded now: open between two edges, at most 1 - ``alpha``
        wrong over all times.

        An end is infinite while no edge on that side is excluded. Intersect the intervals of
        successive looks to keep the running one.
        """
        goal = -math.log(probability("alpha", alpha))
        below = np.cumsum(self.counts[:-1])
        n = self.n
        out = log_beta_mixture(below, n, self.p, self.a, self.b) >= goal
        centre = lowest_count(n, self.p, self.a, self.b)
        too_few = np.nonzero(out & (below < centre))[0]
        too_many = np.nonzero(out & (below > centre))[0]
        return Interval(
            float(self.edges[too_few[-1]]) if too_few.size else -math.inf,
            float(self.edges[too_many[0]]) if too_many.size else math.inf,
        )

    def merge(self, other: Self) -> Self:
        """Add the counts."""
        both = self.begin_merge(other)
        both.counts = self.counts + other.counts
        return both
