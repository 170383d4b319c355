"""Quantiles of latency: the same histogram for both tests and the interval."""

from __future__ import annotations

import math
from typing import Self

import numpy as np

from understudy.shadow.experiment.hypothesis import Hypothesis
from understudy.shadow.experiment.measures.base import Array, InitialValues, Measure, NullBoundary
from understudy.shadow.sequential import Interval, QuantileComparison, edges_around
from understudy.shadow.sequential.histogram import TwoHistograms
from understudy.shadow.state import Derived, Saved

_FIRST = 200
"""Values from which the place of the buckets is chosen. They are counted all the same: the evidence
holds at every edge at once, so it does not matter who chose the edges."""


class Quantile(Measure):
    """:class:`QuantileComparison` towards both sides, over one pair of histograms.

    Pairs share their load, so the arms' evidence is averaged there instead of multiplied. Values
    have to be above 0.
    """

    kind = "quantile"

    _first: Saved[InitialValues]
    _histograms: Saved[TwoHistograms | None]
    _edges: Derived[Array | None]
    _tests: Derived[list[QuantileComparison]]
    """Towards both sides, over the same histograms."""

    def __init__(self, hypothesis: Hypothesis, paired: bool) -> None:
        super().__init__(hypothesis, paired)
        self._edges = None
        self._restart()

    def _restart(self) -> None:
        self._first = InitialValues(_FIRST)
        self._histograms = None
        self._tests = []
        if self._edges is not None:
            self._build(TwoHistograms(self._edges))

    def _restored(self) -> None:
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
        self._take(arms, np.stack((champion, challenger), axis=1).ravel())

    def update_split(self, arms: Array, values: Array, share: Array) -> None:
        self._take(arms, values)

    def _take(self, arms: Array, values: Array) -> None:
        keep = values > 0.0
        self.outside += int(keep.size - np.count_nonzero(keep))
        arms, values = arms[keep], values[keep]
        self._count_split(arms)
        if self._histograms is None:
            used = self._first.add(arms, values)
            if not self._first.complete:
                return
            arms, values = arms[used:], values[used:]
            first = self._first.release()
            centre = float(np.quantile(first[1], self.hypothesis.metric.p))
            self._edges = edges_around(centre, doublings=2.5, per_doubling=48)
            self._build(TwoHistograms(self._edges))
            self._add(*first)
        self._add(arms, values)

    def _add(self, arms: Array, values: Array) -> None:
        assert self._histograms is not None
        self._histograms.update(arms, values)

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

    @property
    def note(self) -> str:
        if self.paired:
            return (
                "mirrored requests share their load with the champion: a difference need not be "
                "the model's"
            )
        return ""

    def _merge_into(self, both: Self, other: Self) -> None:
        parts = [part for part in (self, other) if part._histograms is not None]
        if len(parts) == 2:
            assert self._histograms is not None
            assert other._histograms is not None
            both._edges = self._edges
            both._build(self._histograms.merge(other._histograms))
        elif parts:
            both._edges = parts[0]._edges
            both._build(parts[0]._histograms.merge(TwoHistograms(both._edges)))  # type: ignore[union-attr, arg-type]
        for part in (self, other):
            for side, arms, values in part._first.by_arm():
                both.n[side] -= values.size  # they are counted once more
                both._take(arms, values)
