"""A union of CUSUMs for many standardised series at once.

Two-sided, with three slacks that together cover shifts from a quarter of a standard deviation to
more than one. Exact row by row, and computed for whole batches: with C the running sum of
increments, S_t = C_t - min(-S_0, min over j <= t of C_j).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from understudy.monitor.detectors.evidence import Evidence
from understudy.monitor.detectors.packed import Packed
from understudy.monitor.detectors.refinement import ENOUGH, Refinement
from understudy.monitor.detectors.run_length import chart, counted_once
from understudy.shadow.state import IF_BOTH, Config, Saved, Stateful, Transient

Floats = NDArray[np.float64]
SLACKS = (0.125, 0.25, 0.5)
"""Each is best for a shift of twice its size, in standard deviations."""
_FIRST = 1.2
"""Of its equal share of the false alarms, what the chart of the smallest slack has: it is the
slowest, and gains more by that than the others lose."""
_STRETCH = 16
"""Rows for which one bound is computed."""
_FEW = 4


class CusumUnion(Stateful):
    """``run_length`` is that of a whole series with all its charts, in rows; ``baseline_rows`` is
    what its mean was estimated from; each is one number or one for each series. ``refine``: live
    rows make up for a small baseline (:mod:`understudy.monitor.detectors.refinement`). ``factors``
    (S, slacks) raise the thresholds of scores that are not normal. ``inflation``, one number, one
    for each series or (S, slacks), is the variance of long sums over that of independent rows as a
    chart sees it (:mod:`understudy.monitor.detectors.dependence`): a chart of dependent rows
    behaves as one of independent rows whose standard deviation is its square root. ``long_run``,
    one number or (S,), is that variance for the whole baseline, and so for the error of its mean;
    by default the largest inflation of the series.

    Batches are (n, S); NaN and infinities add nothing. Raises ValueError for another number of
    series.
    """

    series: Config[int]
    slack: Config[Floats]
    threshold: Config[Floats]
    _k: Config[Floats]
    _h: Config[Floats]
    _sign: Config[Floats]
    _flat: Config[tuple[int, int, int]]
    _across: Config[Floats]
    _high: Config[Floats]
    _prepared: Transient[tuple[int, Floats]]
    _rows: Config[Floats]
    _lengths: Config[Floats]
    _shares: Config[Floats]
    _slacks: Config[tuple[float, ...]]
    _factors: Config[Floats]
    _inflation: Config[Floats]
    _charted: Config[Floats]
    """The inflation for which the charts are set, (S, slacks)."""
    _long_run: Config[Floats]
    _refine: Config[bool]
    _sums: Saved[Packed]
    """Up, then down."""
    _refinement: Saved[Annotated[Refinement | None, IF_BOTH]]

    def __init__(
        self,
        series: int,
        run_length: float | Floats,
        baseline_rows: float | Floats = math.inf,
        slacks: Sequence[float] = SLACKS,
        factors: Floats | None = None,
        inflation: float | Floats = 1.0,
        long_run: float | Floats | None = None,
        *,
        refine: bool = False,
    ) -> None:
        self.series = series
        shape = (series, len(slacks))
        self._rows = np.broadcast_to(np.asarray(baseline_rows, np.float64), (series,))
        self._lengths = np.broadcast_to(np.asarray(run_length, np.float64), (series,))
        self._shares = _shares(slacks)
        self._slacks = tuple(slacks)
        self._factors = np.ones(shape) if factors is None else factors
        self._inflation = _across(inflation, shape)
        widest = self._inflation.max(axis=1, initial=1.0) if long_run is None else long_run
        self._long_run = np.maximum(np.broadcast_to(np.asarray(widest, np.float64), (series,)), 1.0)
        self._refine = refine
        self.slack = np.empty(shape)
        self.threshold = np.empty(shape)
        self._charted = np.full(shape, np.nan)
        self.set_inflation(self._inflation)
        self._sums = np.zeros((2, *shape))
        self._refinement = (
            Refinement(self._rows, self._long_run)
            if refine and (self._rows < ENOUGH).any()
            else None
        )

    def _set_charts(self, number: int, inflation: Floats) -> None:
        """Slacks and thresholds of one series."""
        # Rounded, so that series of about the same baseline share a computation.
        raised = [_raised(one) for one in inflation]
        wide = [math.sqrt(one) for one in raised]
        long_run = max(_raised(self._long_run[number]), 1.0)
        length = float(self._lengths[number])
        length *= counted_once([k / w for k, w in zip(self._slacks, wide, strict=True)], length)
        for index, k in enumerate(self._slacks):
            # The error of the mean, in the units of rows that are scaled to look independent.
            part = raised[index] / long_run
            known = _rounded(self._rows[number] * part)
            of_mean = max(known, _rounded(ENOUGH * part / long_run)) if self._refine else known
            each = 2.0 * length / float(self._shares[index])
            slack, threshold = chart(k / wide[index], each, known, of_mean)
            self.slack[number, index] = slack * wide[index]
            self.threshold[number, index] = threshold * wide[index] * self._factors[number, index]

    def widen(self, inflation: float | Floats) -> None:
        """Raise the thresholds for rows that depend on each other more than the baseline's:
        ``inflation``, as above, counts where it is larger than the one given at first."""
        wanted = np.maximum(_across(inflation, self.slack.shape), self._inflation)
        self.set_inflation(wanted)

    def set_inflation(self, inflation: Floats) -> None:
        """Set the inflation (S, slacks) of all charts."""
        for number in np.flatnonzero((inflation != self._charted).any(axis=1)).tolist():
            self._set_charts(number, inflation[number])
        self._charted = inflation
        self._prepare()

    def _prepare(self) -> None:
        # Sums are kept as (2, S, slacks), up and then down; for batches as (2, slacks, S), flat.
        self._k = np.stack([self.slack, self.slack])
        self._h = np.stack([self.threshold, self.threshold])
        self._sign = np.array([1.0, -1.0])[:, None]
        self._flat = (2, self.slack.shape[1], self.series)
        self._across = self._k.transpose(0, 2, 1).reshape(-1)
        self._high = self._h.transpose(0, 2, 1).reshape(-1)
        self._prepared = (0, np.zeros((0, self._across.size)))

    def update(self, z: Floats) -> Evidence:
        """Take the rows of a batch, shape (n, S), in their order."""
        if z.ndim != 2 or z.shape[1] != self.series:
            raise ValueError(f"a batch has shape (rows, {self.series}), not {z.shape}")
        rows = len(z)
        if not rows:
            return self.evidence()
        if self._refinement is not None:
            z = self._refinement.update(z, self._below())
        if rows <= _FEW:
            return self._one_by_one(z)
        sides, charts, _ = self._flat
        with np.errstate(invalid="ignore"):
            totals = np.cumsum(z, axis=0)
        if not np.isfinite(totals[-1]).all():
            gone = ~np.isfinite(z)
            totals = np.cumsum(np.where(gone, 0.0, z), axis=0)
            passed = np.cumsum(~gone, axis=0).astype(np.float64)
            slacks = np.tile(passed, (1, sides * charts)) * self._across
        else:
            slacks = self._slacks_of(rows)
        # Up: sums of z - k; down: of -z - k.
        moved = np.concatenate([totals] * charts + [-totals] * charts, axis=1)
        moved -= slacks
        low, high = _extremes(moved)
        before = -self._sums.transpose(0, 2, 1).reshape(-1)
        # The lowest before each stretch, and at the end.
        floor = np.minimum.accumulate(np.concatenate([before[None], low]), axis=0)
        # No S of a stretch is above this: from a low before it, or from one within it, and then the
        # rise is at most the range of the sums of z. So most batches need no second look.
        least, most = _extremes(totals)
        near = np.any(high - floor[:-1] >= self._high, axis=0)
        near |= np.tile((most - least).max(axis=0), sides * charts) >= self._high
        crossed = np.full(self.series, -1, np.intp)
        direction = np.zeros(self.series, np.int8)
        if near.any():
            self._look(np.flatnonzero(near), moved[:, near], before[near], crossed, direction)
        last = (moved[-1] - floor[-1]).reshape(self._flat)
        self._sums = np.ascontiguousarray(last.transpose(0, 2, 1))
        return self._evidence(crossed, direction)

    def _below(self) -> NDArray[np.bool_]:
        """Which series have not alarmed."""
        result: NDArray[np.bool_] = np.all(self._sums < self._h, axis=(0, 2))
        return result

    def _one_by_one(self, z: Floats) -> Evidence:
        """The recursion as it is written, which is quicker for a few rows."""
        crossed = np.full(self.series, -1, np.intp)
        direction = np.zeros(self.series, np.int8)
        sums = self._sums
        for number, row in enumerate(z):
            steps = self._sign * row
            gone = ~np.isfinite(row)
            moved = steps[:, :, None] - self._k
            if gone.any():
                moved[:, gone] = 0.0
            sums += moved
            np.maximum(sums, 0.0, out=sums)
            over = sums >= self._h
            if over.any():
                hit = over.any(axis=(0, 2)) & (crossed < 0)
                crossed[hit] = number
                height = (sums / self._h).max(axis=2)
                direction[hit] = np.where(height[0, hit] >= height[1, hit], 1, -1)
        return self._evidence(crossed, direction)

    def _slacks_of(self, rows: int) -> Floats:
        """k, 2k, 3k … for each chart: (rows, charts)."""
        if rows != self._prepared[0]:
            self._prepared = (rows, np.arange(1.0, rows + 1.0)[:, None] * self._across)
        return self._prepared[1]

    def _look(
        self,
        near: NDArray[np.intp],
        moved: Floats,
        before: Floats,
        crossed: NDArray[np.intp],
        direction: NDArray[np.int8],
    ) -> None:
        """Row by row, for the charts that may have crossed; ``moved`` is (n, those charts)."""
        exact = moved - np.minimum(np.minimum.accumulate(moved, axis=0), before)
        relative = exact / self._high[near]
        over = relative >= 1.0
        rows = np.argmax(over, axis=0)
        sides, _, series = np.unravel_index(near, self._flat)
        height = np.zeros(self.series)
        for index in np.flatnonzero(over.any(axis=0)):
            row, which = int(rows[index]), int(series[index])
            value = float(relative[row, index])
            sooner = crossed[which] < 0 or row < crossed[which]
            # Where both sides cross in the same row, the one that is further above.
            if sooner or (row == crossed[which] and value > height[which]):
                crossed[which], height[which] = row, value
                direction[which] = -1 if sides[index] else 1

    def update_blocks(self, counts: Floats, sums: Floats) -> Evidence:
        """Take a block by its sums: ``counts`` (S,) values that add up to ``sums`` (S,).

        What replicas send is added up first, so it does not matter which of them saw what. Only
        block ends are looked at: there are fewer alarms than row by row, never more.
        """
        steps = self._sign[:, :, None] * sums[None, :, None] - self._k * counts[None, :, None]
        self._sums = np.maximum(0.0, self._sums + steps)
        over = np.any(self._sums >= self._h, axis=2)
        hit = over.any(0)
        direction = np.where(over[0], 1, np.where(over[1], -1, 0)).astype(np.int8)
        return self._evidence(np.where(hit, 0, -1).astype(np.intp), direction)

    def evidence(self) -> Evidence:
        """As of now."""
        nothing = np.full(self.series, -1, np.intp)
        return self._evidence(nothing, np.zeros(self.series, np.int8))

    def _evidence(self, crossed: NDArray[np.intp], direction: NDArray[np.int8]) -> Evidence:
        statistic: Floats = (self._sums / self._h).max(axis=(0, 2), initial=0.0)
        return Evidence(statistic, np.ones(self.series), crossed, direction)

    def reset(self, series: NDArray[np.bool_]) -> None:
        """Restart some of the series, a mask (S,)."""
        self._sums[:, series] = 0.0


def _across(inflation: float | Floats, shape: tuple[int, int]) -> Floats:
    """An inflation for each chart."""
    given = np.asarray(inflation, np.float64)
    if given.ndim == 1:
        given = given[:, None]
    return np.broadcast_to(given, shape)


def _extremes(moved: Floats) -> tuple[Floats, Floats]:
    """Smallest and largest of each stretch of rows (n, C), the last of which may be shorter."""
    whole = len(moved) // _STRETCH
    tail = moved[whole * _STRETCH :]
    parts = moved[: whole * _STRETCH].reshape(whole, _STRETCH, moved.shape[1])
    low, high = parts.min(axis=1), parts.max(axis=1)
    if len(tail):
        low = np.concatenate([low, tail.min(axis=0)[None]])
        high = np.concatenate([high, tail.max(axis=0)[None]])
    return low, high


def _rounded(rows: float) -> float:
    """To an eighth of a power of ten, downwards: never a better baseline than there is."""
    if math.isinf(rows):
        return rows
    return float(10.0 ** (math.floor(8.0 * math.log10(max(rows, 1.0))) / 8.0))


def _shares(slacks: Sequence[float]) -> Floats:
    """Of the false alarms of a series, what each pair of charts has."""
    charts = len(slacks)
    if charts < 2:
        return np.ones(charts)
    shares = np.full(charts, (1.0 - _FIRST / charts) / (charts - 1))
    shares[int(np.argmin(slacks))] = _FIRST / charts
    return shares


def _raised(inflation: float) -> float:
    """Upwards, to a sixteenth of a power of two."""
    return float(2.0 ** (math.ceil(16.0 * math.log2(max(inflation, 1.0)) - 1e-9) / 16.0))
