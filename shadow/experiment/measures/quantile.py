"""Quantiles of latency: the same histogram for both tests and the interval."""

from __future__ import annotations

import math
from typing import ClassVar, Self

import numpy as np

from understudy.common.arrays import quantile
from understudy.shadow.experiment.hypothesis import Hypothesis
from understudy.shadow.experiment.measures.base import (
    Array,
    Contrast,
    InitialValues,
    Measure,
    NullBoundary,
)
from understudy.shadow.sequential import Interval, QuantileComparison, edges_around
from understudy.shadow.sequential.histogram import TwoHistograms
from understudy.shadow.state import Derived, Saved

_FIRST = 200
"""Values from which the place of the buckets is chosen. They are counted all the same: the evidence
holds at every edge at once, so it does not matter who chose the edges."""
_RENEWED = 1024
"""Values after which the threshold of the blocks is set again, and at every doubling of them."""
PER_DOUBLING = 1024
"""Buckets of 0.07 %, so that a difference of 5 % is found within 2 % of the records that exact
order statistics need; buckets of 1.4 % take half as many again. Most are empty: the counts of both
arms are 4 KB of state at 10,000 records and 15 KB at a million."""


class Quantile(Measure):
    """:class:`QuantileComparison` towards both sides, over one pair of histograms.

    Pairs share their load, so the arms' evidence is averaged there instead of multiplied. Values
    have to be above 0. Blocks of time compare how often the champion exceeds its estimated quantile
    and the challenger what the null hypothesis makes of it.
    """

    block_columns: ClassVar[int] = 2

    kind = "quantile"

    _first: Saved[InitialValues]
    _histograms: Saved[TwoHistograms | None]
    _threshold: Saved[float]
    """The champion's quantile, from which blocks count; 0 before it is estimated."""
    _edges: Derived[Array | None]
    _tests: Derived[list[QuantileComparison]]
    """Towards both sides, over the same histograms."""

    def __init__(self, hypothesis: Hypothesis, paired: bool) -> None:
        super().__init__(hypothesis, paired)
        self._edges = None
        self._threshold = 0.0
        self._restart()

    def _restart(self) -> None:
        self._first = InitialValues(_FIRST)
        self._histograms = None
        self._tests = []
        if self._edges is not None:
            self._build(TwoHistograms(self._edges))

    def _restored(self) -> None:
        super()._restored()
        if self._histograms is not None:
            self._edges = self._histograms.edges
            self._build(self._histograms)

    def begin_epoch(self) -> None:
        self._carry()
        self._restart()

    def _build(self, histograms: TwoHistograms) -> None:
        self._histograms = histograms
        self._tests = [self._test(null) for null in (self.to_pass, self.to_harm)]

    def _test(self, null: NullBoundary) -> QuantileComparison:
        assert self._histograms is not None
        test = QuantileComparison(
            self._histograms.edges,
            self.hypothesis.metric.p,
            null.alternative,
            margin=null.shift,
            ratio=null.ratio,
            planned=self.hypothesis.planned,
            alpha=self.hypothesis.alpha,
            independent=not self.paired,
        )
        test.arms = self._histograms
        return test

    def update_pairs(self, champion: Array, challenger: Array) -> None:
        arms = np.tile(np.array((0.0, 1.0)), champion.size)
        values = np.stack((champion, challenger), axis=1).ravel()
        self._take(arms, values, np.full(values.size, 0.5))

    def update_split(self, arms: Array, values: Array, share: Array) -> None:
        self._take(arms, values, share)

    def _take(self, arms: Array, values: Array, share: Array) -> None:
        keep = values > 0.0
        if self.paired:
            keep = np.repeat(keep.reshape(-1, 2).all(axis=1), 2)
        if not keep.all():
            self.outside += int(keep.size - np.count_nonzero(keep))
            arms, values, share = arms[keep], values[keep], share[keep]
        self._count_split(arms)
        if self._histograms is None:
            used = self._first.add(arms, values)
            if not self._first.complete:
                return
            first = self._place()
            self._add(*first, np.full(first[0].size, share[0]))
            arms, values, share = arms[used:], values[used:], share[used:]
        self._add(arms, values, share)

    def _place(self) -> tuple[Array, Array]:
        """Set the edges by the first values, which are returned."""
        arms, values = self._first.release()
        p = self.hypothesis.metric.p
        self._edges = edges_around(quantile(values, p), doublings=2.5, per_doubling=PER_DOUBLING)
        # Of the champion alone: a threshold that moves later looks like a change of the arms.
        champion = values[arms == 0.0]
        self._threshold = quantile(champion if champion.size else values, p)
        self._build(TwoHistograms(self._edges))
        return arms, values

    def _add(self, arms: Array, values: Array, share: Array) -> None:
        assert self._histograms is not None
        while values.size:
            counted = sum(self.time_blocks.counts)
            renewed = _RENEWED
            while renewed <= counted:
                renewed *= 2
            part = slice(0, renewed - counted)
            self._histograms.count(arms[part], values[part])
            self._add_to_blocks(arms[part], values[part], share[part])
            if values.size >= renewed - counted:
                self._threshold = self._tests[0].estimates()[0] or self._threshold
            arms, values, share = (x[renewed - counted :] for x in (arms, values, share))

    def _add_to_blocks(self, arms: Array, values: Array, share: Array) -> None:
        theirs = [
            null.ratio * self._threshold + null.shift for null in (self.to_pass, self.to_harm)
        ]
        served = arms == 1.0
        if self.paired:
            own = (values[~served] > self._threshold).astype(np.float64)
            challenger = values[served]
            columns = [(challenger > threshold).astype(np.float64) for threshold in theirs]
            self.time_blocks.add_pairs([own] * len(columns), columns)
            return
        thresholds = [np.where(served, threshold, self._threshold) for threshold in theirs]
        columns = [(values > threshold).astype(np.float64) for threshold in thresholds]
        self.time_blocks.add_split(arms, columns, share)

    def _contrasts(self, side: int) -> list[Contrast]:
        null = self.to_harm if side else self.to_pass
        return [Contrast(side, NullBoundary(1.0, 0.0, null.alternative))]

    def _log_es(self) -> tuple[float, float]:
        if not self._tests:
            return 0.0, 0.0
        return self._tests[0].log_e, self._tests[1].log_e

    def estimates(self) -> tuple[float | None, float | None]:
        return self._tests[0].estimates() if self._tests else (None, None)

    def difference(self, alpha: float) -> Interval:
        return self._tests[0].difference(alpha) if self._tests else Interval()

    def ratio(self, alpha: float) -> Interval | None:
        return self._tests[0].ratio_interval(alpha) if self._tests else Interval(0.0, math.inf)

    def _note(self) -> str:
        if self.paired:
            return (
                "mirrored requests share their load with the champion: a difference need not be "
                "the model's"
            )
        return ""

    def _merge_into(self, both: Self, other: Self) -> None:
        parts = [part for part in (self, other) if part._histograms is not None]
        both._threshold = parts[0]._threshold if parts else 0.0
        if len(parts) == 2:
            assert self._histograms is not None
            assert other._histograms is not None
            both._edges = self._edges
            both._build(self._histograms.merge(other._histograms))
        elif parts:
            both._edges = parts[0]._edges
            both._build(parts[0]._histograms.merge(TwoHistograms(both._edges)))  # type: ignore[union-attr, arg-type]
        for part in (self, other):
            for _, arms, values in part._first.by_arm():
                # Blocks do without them: their order among both arms is not known.
                if both._histograms is None:
                    used = both._first.add(arms, values)
                    if not both._first.complete:
                        continue
                    first, arms, values = both._place(), arms[used:], values[used:]
                    assert both._histograms is not None
                    both._histograms.update(*first)
                both._histograms.update(arms, values)
