"""The same quantile in two arms: test, and interval for the difference and the ratio.

If the quantiles are x and y, the counts at or below them are binomial in each arm, so the product
E_0(x) E_1(y) of the arms' quantile e-processes (:mod:`understudy.shadow.sequential.quantile`) is an
e-process. A hypothesis that ties y to x, such as y = x, is rejected once the product reaches
1/alpha for
*every* x: log E = min over x of ln E_0(x) + ln E_1(g(x)). The pairs (x, y) not rejected are a joint
confidence set; its extreme differences and ratios are intervals that hold together. Howard &
Ramdas, Bernoulli 28 (2022), arXiv:1906.09712, section 6.

Only bucket counts are known, so each ln E is replaced by its smallest value over the bucket: the
guarantee stays exact, and the bucket's width is lost from the power.

Assumptions: within an arm, records are independent with a distribution that does not change;
records of one arm say nothing about those of the other (split traffic). For the two answers to one
mirrored request pass ``independent=False``: the mean of both e-values replaces their product.
"""

from __future__ import annotations

import math
from typing import ClassVar, Self

import numpy as np
import numpy.typing as npt

from understudy.common import special
from understudy.common.arrays import distinct
from understudy.shadow.sequential.common import (
    Array,
    EProcess,
    Interval,
    MergeRule,
    SequentialError,
    choice,
    log_beta_mixture,
    log_beta_mixture_1,
    log_beta_upper,
    positive,
    probability,
    real,
    reals,
)
from understudy.shadow.sequential.histogram import OfEdges, TwoHistograms
from understudy.shadow.sequential.quantile import lowest_count, quantile_shapes
from understudy.shadow.state import Derived, Saved, Setting

_LOG_2 = math.log(2.0)
_MOST_SHOWN = 1024
"""Edges that an interval is searched on, at most."""
_SIDES = {"two-sided": 0, "greater": 1, "less": -1}


def _log_e_between(
    low: Array, high: Array, n: float | Array, p: float, shapes: tuple[float, float], side: int
) -> Array:
    """The smallest log E over counts in [low, high], elementwise.

    ``side`` 0 is the whole Beta. +1 is cut to levels above p (evidence that x is above the
    quantile), -1 to levels below; those are monotone in the count.
    """
    a, b = shapes
    if side == 0:
        assert isinstance(n, float)
        k = np.clip(lowest_count(n, p, a, b), low, high)
        return log_beta_mixture(k, n, p, a, b)
    k, level = (low, p) if side > 0 else (n - high, 1.0 - p)
    a, b = (a, b) if side > 0 else (b, a)
    cut = _log_beta_above(level, a + k, b + n - k) - log_beta_upper(level, a, b)
    return np.asarray(log_beta_mixture(k, n, level, a, b) + cut)


def _log_beta_above(p: float, a: Array, b: Array) -> Array:
    """:func:`understudy.shadow.sequential.common.log_beta_upper` elementwise in a and b."""
    tail = special.betaincc(a, b, p)
    if np.all(tail > 1e-280):
        return np.asarray(np.log(tail))
    slope = np.maximum((b - 1.0) / (1.0 - p) - (a - 1.0) / p, 1.0)
    density = (a - 1.0) * math.log(p) + (b - 1.0) * math.log1p(-p) - special.betaln(a, b)
    with np.errstate(divide="ignore"):
        return np.asarray(np.where(tail > 1e-280, np.log(tail), density - np.log(slope)))


def one_sided_evidence(
    below0: Array,
    n0: Array,
    below1: Array,
    n1: Array,
    p: float,
    alternative: str,
    *,
    planned: float,
    alpha: float,
    independent: bool = True,
) -> Array:
    """Evidence of :class:`QuantileComparison` against one pair of values, elementwise.

    ``below0`` of the champion's ``n0`` records are at or below its value, ``below1`` of the
    challenger's ``n1`` at or below what the null hypothesis makes of it.
    """
    shapes, side = quantile_shapes(p, planned, alpha), _SIDES[alternative]
    e0 = _log_e_between(below0, below0, n0, p, shapes, side)
    e1 = _log_e_between(below1, below1, n1, p, shapes, -side)
    return _joined(e0, e1, independent)


def _joined(e0: npt.ArrayLike, e1: npt.ArrayLike, independent: bool) -> Array:
    """Both arms' evidence as one: product when independent, else mean."""
    if independent:
        return np.add(e0, e1)
    return np.asarray(np.logaddexp(e0, e1) - _LOG_2)


class QuantileComparison(EProcess):
    """Compares the p-quantile of the challenger with that of the champion.

    ``edges``: upper edges (inclusive) of the buckets that both arms share, in the unit of the
    values. ``alternative``: "greater" (the challenger's quantile is the larger: slower, when it is
    a latency), "less" or "two-sided". The null hypothesis is y <= g(x), y >= g(x) or y = g(x), with
    g(x) = ``ratio`` * x + ``margin``: "not more than 5 % slower" is ratio=1.05, "not more than
    3 ms" is margin=0.003. A ratio other than 1 needs edges above 0. ``planned``: records *per arm*
    at which the test shall be tightest.

    One-sided tests cut the mixture to their side, which gains up to ln 2 per arm. Merge: additive
    in the counts. The peak is looked at once per update, at its end.
    """

    kind: ClassVar[str] = "quantile-comparison"
    merge_rule: ClassVar[MergeRule] = MergeRule.ADDITIVE

    arms: Saved[OfEdges]
    p: Setting[float]
    alternative: Setting[str]
    margin: Setting[float]
    ratio: Setting[float]
    planned: Setting[float]
    alpha: Setting[float]
    independent: Setting[bool]
    _shapes: Derived[tuple[float, float]]
    _prior: Derived[dict[int, float]]
    _least: Derived[npt.NDArray[np.int64]]
    """For x in the champion's bucket i, so many of the challenger's, at least, are below g(x)."""
    _most: Derived[npt.NDArray[np.int64]]
    """And at most so many."""

    def __init__(
        self,
        edges: npt.ArrayLike,
        p: float,
        alternative: str = "two-sided",
        *,
        margin: float = 0.0,
        ratio: float = 1.0,
        planned: float = 10_000,
        alpha: float = 0.05,
        independent: bool = True,
    ) -> None:
        self.arms = TwoHistograms(edges)
        self.p = probability("p", p)
        self.alternative = choice("alternative", alternative, "two-sided", "greater", "less")
        self.margin = real("margin", margin)
        self.ratio = positive("ratio", ratio)
        if self.ratio != 1.0 and self.arms.edges[0] <= 0.0:
            raise SequentialError("ratio", "other than 1 needs edges above 0")
        self.planned = positive("planned", planned)
        self.alpha = probability("alpha", alpha)
        if not isinstance(independent, bool):
            raise SequentialError("independent", f"must be true or false, not {independent!r}")
        self.independent = independent
        self._shapes = quantile_shapes(self.p, self.planned, self.alpha)
        a, b = self._shapes
        self._prior = {1: log_beta_upper(self.p, a, b), -1: log_beta_upper(1.0 - self.p, b, a)}
        edge = self.arms.edges
        ends = edge * self.ratio + self.margin
        slack = 1e-12 * np.abs(ends)
        self._least = np.concatenate(([0], np.searchsorted(edge, ends + slack, side="right")))
        most = np.searchsorted(edge, ends - slack, side="left") + 1
        self._most = np.concatenate((most, [edge.size + 1]))

    def update(self, arms: npt.ArrayLike, values: npt.ArrayLike) -> None:
        """Count records: ``arms`` is 1 for the challenger, 0 for the champion."""
        self.arms.update(arms, values)
        self._look()

    def update_counts(self, champion: npt.ArrayLike, challenger: npt.ArrayLike) -> None:
        """Add bucket counts, each of length edges + 1; the last is what lies above all edges."""
        self.arms.update_counts(champion, challenger)
        self._look()

    def _shown(self) -> tuple[Array, npt.NDArray[np.int64]]:
        """Edges for intervals, and counts of both arms over them: of very many edges a part, which
        makes an interval a little wider and its computation much cheaper."""
        edges, counts = self.arms.edges, self.arms.counts
        step = edges.size // _MOST_SHOWN + 1
        if step == 1:
            return edges, counts
        starts = np.concatenate(([0], np.arange(0, edges.size, step) + 1))
        return edges[::step], np.add.reduceat(counts, starts, axis=1)

    def _cumulative(self, arm: int) -> Array:
        """Counts at or below each edge, with 0 before the first and n after the last."""
        return np.concatenate(([0.0], np.cumsum(self.arms.counts[arm], dtype=np.float64)))

    def estimates(self) -> tuple[float | None, float | None]:
        """The quantile's upper bucket edge in champion and challenger; None when beyond."""
        found: list[float | None] = []
        for arm in (0, 1):
            below = self._cumulative(arm)
            at = int(np.searchsorted(below[1:], self.p * below[-1]))
            inside = below[-1] > 0.0 and at < self.arms.edges.size
            found.append(float(self.arms.edges[at]) if inside else None)
        return found[0], found[1]

    @property
    def log_e(self) -> float:
        """Evidence against the null hypothesis: the least favourable common value decides."""
        n0, n1, counts, first, last = self._candidates()
        if not (n0 and n1):
            return 0.0
        if self.alternative == "two-sided":
            span = (c[first:last] for c in counts)
            return float(self._evidence(n0, n1, *span).min())
        low0, high0, low1, high1 = counts
        # Counts grow along the buckets, and one-sided evidence with them: that of a group of
        # neighbours is bounded from below by its ends.
        size = low0.size
        step = max(1, math.isqrt(size))
        starts = np.arange(0, size, step)
        ends = np.minimum(starts + step, size) - 1
        bounds = self._evidence(n0, n1, low0[starts], high0[ends], low1[starts], high1[ends])
        least = math.inf
        for group in np.argsort(bounds, kind="stable").tolist():
            if bounds[group] >= least:
                break
            part = slice(int(starts[group]), int(ends[group]) + 1)
            found = self._evidence(n0, n1, low0[part], high0[part], low1[part], high1[part])
            least = min(least, float(found.min()))
        return least

    def _evidence(
        self, n0: float, n1: float, low0: Array, high0: Array, low1: Array, high1: Array
    ) -> Array:
        """The smallest evidence of both arms over the ranges of their counts, elementwise."""
        side = _SIDES[self.alternative]
        return _joined(
            _log_e_between(low0, high0, n0, self.p, self._shapes, side),
            _log_e_between(low1, high1, n1, self.p, self._shapes, -side),
            self.independent,
        )

    def _candidates(self) -> tuple[float, float, tuple[Array, Array, Array, Array], int, int]:
        """Records per arm, the range of both arms' counts for x in each of the champion's buckets,
        and the first and last (exclusive) bucket that can hold the minimum of a two-sided test.

        A bucket can reach an arm's own minimum when that count lies in its range; outside the span
        of both arms' such buckets both terms grow.
        """
        below0, below1 = self._cumulative(0), self._cumulative(1)
        n0, n1 = float(below0[-1]), float(below1[-1])
        counts = (below0[:-1], below0[1:], below1[self._least], below1[self._most])
        first, last, size = self.arms.edges.size, 0, self.arms.edges.size + 1
        for n, low, high in ((n0, *counts[:2]), (n1, *counts[2:])):
            k = lowest_count(n, self.p, *self._shapes)
            first = min(first, int(np.searchsorted(high, k)))
            last = max(last, int(np.searchsorted(low, k, side="right")))
        return n0, n1, counts, max(0, first - 1), min(size, last + 1)

    def _look(self, log_e: float | None = None) -> None:
        """Raise the peak; the minimum over all buckets is taken only where some of them allow it.

        The evidence in any one bucket bounds the minimum from above.
        """
        n0, n1, counts, first, last = self._candidates()
        if not (n0 and n1):
            return
        side = _SIDES[self.alternative]
        for at in ((first + last) // 2, first, last - 1):
            low0, high0, low1, high1 = (float(c[at]) for c in counts)
            e0 = self._evidence_1(low0, high0, n0, side)
            e1 = self._evidence_1(low1, high1, n1, -side)
            if _joined(e0, e1, self.independent) <= self._peak:
                return
        super()._look(log_e)

    def _evidence_1(self, low: float, high: float, n: float, side: int) -> float:
        """:func:`_log_e_between` of one bucket, an order of magnitude faster."""
        a, b = self._shapes
        if side == 0:
            k = min(max(lowest_count(n, self.p, a, b), low), high)
            return log_beta_mixture_1(k, n, self.p, a, b)
        k, level = (low, self.p) if side > 0 else (n - high, 1.0 - self.p)
        a, b = (a, b) if side > 0 else (b, a)
        return (
            log_beta_mixture_1(k, n, level, a, b)
            + log_beta_upper(level, a + k, b + n - k)
            - self._prior[side]
        )

    def difference(self, alpha: float = 0.05) -> Interval:
        """Interval for challenger's minus champion's quantile, as it stands now.

        Holds together with :meth:`ratio_interval` at 1 - ``alpha``, over all times.
        """
        edges, low, high = self._extremes(alpha)
        edge = np.concatenate(([-math.inf], edges, [math.inf]))
        with np.errstate(invalid="ignore"):
            lower = np.where(low >= 0, edge[low] - edge[1:], math.inf)
            upper = np.where(low >= 0, edge[high + 1] - edge[:-1], -math.inf)
        return Interval(
            float(np.nan_to_num(lower, nan=-math.inf, posinf=math.inf, neginf=-math.inf).min()),
            float(np.nan_to_num(upper, nan=math.inf, posinf=math.inf, neginf=-math.inf).max()),
        )

    def ratio_interval(self, alpha: float = 0.05) -> Interval:
        """Interval for challenger's over champion's quantile; needs edges (and values) above 0."""
        if self.arms.edges[0] <= 0.0:
            raise SequentialError("edges", "must be above 0 for a ratio")
        edges, low, high = self._extremes(alpha)
        edge = np.concatenate(([0.0], edges, [math.inf]))
        with np.errstate(divide="ignore", invalid="ignore"):
            lower = np.where(low >= 0, edge[low] / edge[1:], math.inf)
            upper = np.where(low >= 0, edge[high + 1] / edge[:-1], -math.inf)
        return Interval(
            float(np.nan_to_num(lower, nan=0.0, posinf=math.inf).min()),
            float(np.nan_to_num(upper, nan=math.inf, posinf=math.inf, neginf=-math.inf).max()),
        )

    def _extremes(self, alpha: float) -> tuple[Array, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Edges, and per bucket of the champion the challenger's first and last bucket not excluded
        with it.

        -1 where the champion's bucket is excluded with every one.
        """
        goal = -math.log(probability("alpha", alpha))
        scores: list[Array] = []
        edges, counts = self._shown()
        for arm in (0, 1):
            below = np.concatenate(([0.0], np.cumsum(counts[arm], dtype=np.float64)))
            scores.append(_log_e_between(below[:-1], below[1:], below[-1], self.p, self._shapes, 0))
        e0, e1 = scores
        if self.independent:
            budget = goal - e0
        else:
            with np.errstate(divide="ignore", invalid="ignore"):
                budget = goal + _LOG_2 + np.log1p(-np.exp(np.minimum(e0 - goal - _LOG_2, 0.0)))
        # e1 falls to its minimum and rises again: running minima from each end are sorted.
        left = np.minimum.accumulate(e1)
        right = np.minimum.accumulate(e1[::-1])
        low = np.searchsorted(-left, -budget, side="right").astype(np.int64)
        from_end = np.searchsorted(-right, -budget, side="right").astype(np.int64)
        high = e1.size - 1 - from_end
        none = (low >= e1.size) | (from_end >= e1.size)
        return edges, np.where(none, -1, low), np.where(none, -1, high)

    def merge(self, other: Self) -> Self:
        """Add the counts."""
        both = self.begin_merge(other)
        both.arms = self.arms.merge(other.arms)
        both._look()
        return both


def quantile_ab_p_value(
    first: npt.ArrayLike,
    second: npt.ArrayLike,
    p: float,
    *,
    planned: float = 100,
    alpha: float = 0.05,
) -> float:
    """Anytime p-value for "both samples have the same p-quantile", from the values themselves.

    The two-sided test above without buckets: counts below and at each distinct value. Ties count
    in favour of the null hypothesis. ``planned`` records per arm and ``alpha`` tune the mixture.
    """
    x, y = np.sort(reals("first", first)), np.sort(reals("second", second))
    if not (x.size and y.size):
        return 1.0
    shapes = quantile_shapes(p, planned, alpha)
    points = distinct(np.concatenate((x, y)))
    total = np.zeros(points.size)
    for sample in (x, y):
        low = np.searchsorted(sample, points, side="left").astype(np.float64)
        high = np.searchsorted(sample, points, side="right").astype(np.float64)
        total += _log_e_between(low, high, float(sample.size), p, shapes, 0)
    return min(1.0, math.exp(-float(total.min())))
