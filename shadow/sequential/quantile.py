"""A quantile of one arm: a confidence sequence read straight off bucket counts.

The number k of n records at or below the true p-quantile is binomial(n, p), so

    E = B(a+k, b+n-k) / (B(a, b) p^k (1-p)^(n-k))

is an e-process there, and an edge x at which it reaches 1/alpha is not the quantile: too few
records at or below x put the quantile above x, too many below it. Howard & Ramdas, "Sequential
estimation of quantiles", Bernoulli 28 (2022), arXiv:1906.09712, with the beta-binomial mixture of
Howard et al. 2021 (arXiv:1810.08240, Proposition 7). Only counts at edges are needed, so the
guarantee is exact whatever the buckets; their width is the resolution of the interval.

Assumption: given the past, each record is at or below the true quantile with probability p. That
holds for independent records of one distribution, not for bursts or a drifting latency.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from understudy.shadow.sequential.common import (
    Array,
    Interval,
    MergeRule,
    Process,
    State,
    field,
    log_beta_mixture,
    log_beta_mixture_1,
    positive,
    probability,
    real,
    reals,
)
from understudy.shadow.sequential.histogram import (
    bucket_counts,
    check_counts,
    check_edges,
    pack_counts,
    pack_edges,
    unpack_counts,
    unpack_edges,
)
from understudy.shadow.sequential.normal_mixture import best_rho, beta_shapes


def quantile_shapes(p: float, planned: float = 10_000, alpha: float = 0.05) -> tuple[float, float]:
    """The Beta(a, b) that makes the interval for the p-quantile tightest at ``planned`` records.

    Centred on p with the weight of about planned/(2 ln(1/alpha) + ln(1 + 2 ln(1/alpha))) records:
    the normal mixture's best precision at intrinsic time planned p (1-p), carried over to counts.
    """
    p = probability("p", p)
    v = positive("planned", planned) * p * (1.0 - p)
    return beta_shapes(best_rho(v, alpha), p, 1.0 - p)


def lowest_count(n: float, p: float, a: float, b: float) -> float:
    """The (real) k at which the mixture is smallest: about the posterior count that matches p.

    The minimum is where digamma(a+k) - digamma(b+n-k) = logit p; with digamma(x) ~ ln(x - 1/2) that
    is a linear equation. ln E is flat there: being off by 1/24 of a record raises it by 1e-5.
    """
    return min(max(p * (n + a + b - 1.0) - a + 0.5, 0.0), float(n))


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
        self.check_same(other, "edges", "p", "planned", "alpha")
        both = type(self)(self.edges, self.p, planned=self.planned, alpha=self.alpha)
        both.counts = self.counts + other.counts
        return both

    def to_dict(self) -> State:
        """Edges, settings and packed counts."""
        return self.head() | {
            "edges": pack_edges(self.edges),
            "p": self.p,
            "planned": self.planned,
            "alpha": self.alpha,
            "counts": pack_counts(self.counts),
        }

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> Self:
        """Undo :meth:`to_dict`."""
        cls.check_head(state)
        new = cls(
            unpack_edges(field(state, "edges")),
            field(state, "p"),
            planned=field(state, "planned"),
            alpha=field(state, "alpha"),
        )
        new.counts = unpack_counts("counts", field(state, "counts"), new.counts.size)
        return new
