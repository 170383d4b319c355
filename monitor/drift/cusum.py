"""A union of CUSUMs for many standardised series at once.

Two-sided, with three slacks that together cover shifts from a quarter of a standard deviation to
more than one. Exact row by row, and computed for whole batches: with C the running sum of
increments, S_t = C_t - min(-S_0, min over j <= t of C_j).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monitor.drift.evidence import Evidence
from monitor.drift.packed import pack, unpack
from monitor.drift.run_length import chart

Floats = NDArray[np.float64]
SLACKS = (0.125, 0.25, 0.5)
"""Each is best for a shift of twice its size, in standard deviations."""
_STRETCH = 32
"""Rows for which one bound is computed."""
_FEW = 4


class CusumUnion:
    """``run_length`` is that of a whole series with all its charts, in rows; ``baseline_rows`` is
    what its mean was estimated from, one number or one for each series. ``factors`` (S, slacks)
    raise the thresholds of scores that are not normal.

    Batches are (n, S); NaN adds nothing. Raises ValueError for another number of series.
    """

    def __init__(
        self,
        series: int,
        run_length: float,
        baseline_rows: float | Floats = math.inf,
        slacks: Sequence[float] = SLACKS,
        factors: Floats | None = None,
    ) -> None:
        self.series = series
        rows = np.broadcast_to(np.asarray(baseline_rows, np.float64), (series,))
        charts = 2 * len(slacks)
        # Rounded, so that series of about the same baseline share a computation.
        found = {
            (k, n): chart(k, run_length * charts, n)
            for k in slacks
            for n in {_rounded(value) for value in rows}
        }
        shape = (series, len(slacks))
        self.slack: Floats = np.empty(shape)
        self.threshold: Floats = np.empty(shape)
        for number in range(series):
            for place, k in enumerate(slacks):
                pair = found[k, _rounded(rows[number])]
                self.slack[number, place], self.threshold[number, place] = pair
        if factors is not None:
            self.threshold *= factors
        self._prepare()
        self._sums: Floats = np.zeros((2, *shape))
        """Up, then down."""

    def _prepare(self) -> None:
        # Laid out as (2, S, slacks), flat: z, or its negative, minus the slack.
        self._k = np.stack([self.slack, self.slack])
        self._h = np.stack([self.threshold, self.threshold])
        self._sign = np.array([1.0, -1.0])[:, None]
        self._charts = self.slack.shape[1]
        self._prepared: tuple[int, list[Floats]] = (0, [])

    def update(self, z: Floats) -> Evidence:
        """Take the rows of a batch, shape (n, S), in their order."""
        if z.ndim != 2 or z.shape[1] != self.series:
            raise ValueError(f"a batch has shape (rows, {self.series}), not {z.shape}")
        rows = len(z)
        if not rows:
            return self.evidence()
        if rows <= _FEW:
            return self._one_by_one(z)
        across = np.ascontiguousarray(z.T)
        gone = np.isnan(across)
        if gone.any():
            totals = np.cumsum(np.where(gone, 0.0, across), axis=1)
            passed = np.cumsum(~gone, axis=1).astype(np.float64)
            slacks = [self.slack[:, place, None] * passed for place in range(self._charts)]
        else:
            totals = np.cumsum(across, axis=1)
            slacks = self._slacks_of(rows)
        cuts = range(0, rows, _STRETCH)
        crossed = np.full(self.series, -1, np.intp)
        height = np.zeros((2, self.series))
        for place, slack in enumerate(slacks):
            h = self.threshold[:, place]
            # Up: sums of z - k; down: sums of -z - k, which are the negatives of these.
            for side, moved in enumerate((totals - slack, totals + slack)):
                low = np.minimum.reduceat(moved, cuts, axis=1)
                high = np.maximum.reduceat(moved, cuts, axis=1)
                last = moved[:, -1]
                if side:
                    low, high, last = -high, -low, -last
                before = -self._sums[side, :, place]
                np.minimum(low[:, 0], before, out=low[:, 0])
                floor = np.minimum.accumulate(low, axis=1)
                # No S of a stretch is above this; so most batches need no second look.
                near = np.any(high - floor >= h[:, None], axis=1)
                if near.any():
                    sums = -moved[near] if side else moved[near]
                    self._look(side, place, near, sums, before[near], crossed, height)
                self._sums[side, :, place] = last - floor[:, -1]
        # Where both sides have crossed, the one that is further above its threshold.
        direction = np.where(crossed < 0, 0, np.where(height[0] >= height[1], 1, -1))
        return self._evidence(crossed, direction.astype(np.int8))

    def _one_by_one(self, z: Floats) -> Evidence:
        """The recursion as it is written, which is quicker for a few rows."""
        crossed = np.full(self.series, -1, np.intp)
        direction = np.zeros(self.series, np.int8)
        sums = self._sums
        for number, row in enumerate(z):
            steps = self._sign * row
            gone = np.isnan(row)
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

    def _slacks_of(self, rows: int) -> list[Floats]:
        """k, 2k, 3k … for each chart: (S, rows)."""
        if rows != self._prepared[0]:
            counted = np.arange(1.0, rows + 1.0)
            found = [self.slack[:, place, None] * counted for place in range(self._charts)]
            self._prepared = (rows, found)
        return self._prepared[1]

    def _look(
        self,
        side: int,
        place: int,
        near: NDArray[np.bool_],
        sums: Floats,
        before: Floats,
        crossed: NDArray[np.intp],
        height: Floats,
    ) -> None:
        """Row by row, for the series that may have crossed; ``sums`` are (those series, n)."""
        exact = sums - np.minimum(np.minimum.accumulate(sums, axis=1), before[:, None])
        relative = exact / self.threshold[near, place, None]
        over = relative >= 1.0
        for number, row, value in zip(
            np.flatnonzero(near), np.argmax(over, axis=1), relative.max(axis=1), strict=True
        ):
            if value < 1.0:
                continue
            if crossed[number] < 0 or row < crossed[number]:
                crossed[number] = row
            height[side, number] = max(height[side, number], value)

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
        """Begin anew with some of the series, a mask (S,)."""
        self._sums[:, series] = 0.0

    def to_dict(self) -> dict[str, Any]:
        """As JSON, without what the constructor makes."""
        return {"sums": pack(self._sums)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Undo :meth:`to_dict`, of the same charts. Raises KeyError, TypeError or ValueError."""
        self._sums = unpack(state["sums"], self._sums.shape)


def _rounded(rows: float) -> float:
    """To an eighth of a power of ten, downwards: never a better baseline than there is."""
    if math.isinf(rows):
        return rows
    return float(10.0 ** (math.floor(8.0 * math.log10(max(rows, 1.0))) / 8.0))
