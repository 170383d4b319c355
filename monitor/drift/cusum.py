"""A union of CUSUMs for many standardised series at once.

Two-sided, with three slacks that together cover shifts from a quarter of a standard deviation to
more than one. Exact row by row, and computed for whole batches: with C the running sum of
increments, S_t = C_t - min(-S_0, min over j <= t of C_j).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monitor.drift.evidence import Evidence
from monitor.drift.run_length import chart

Floats = NDArray[np.float64]
SLACKS = (0.125, 0.25, 0.5)
"""Each is best for a shift of twice its size, in standard deviations."""


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

    def update(self, z: Floats) -> Evidence:
        """Take the rows of a batch, shape (n, S), in their order."""
        if z.ndim != 2 or z.shape[1] != self.series:
            raise ValueError(f"a batch has shape (rows, {self.series}), not {z.shape}")
        if not len(z):
            return self.evidence()
        gone = np.isnan(z)
        if gone.any():
            totals = np.cumsum(np.where(gone, 0.0, z), axis=0)
            passed: Floats = np.cumsum(~gone, axis=0).astype(np.float64)
        else:
            totals = np.cumsum(z, axis=0)
            passed = np.arange(1.0, len(z) + 1.0)[:, None]
        crossed = np.full(self.series, -1, np.intp)
        height = np.zeros((2, self.series))
        for side in (0, 1):
            signed = totals if side == 0 else -totals
            for place in range(self.slack.shape[1]):
                sums = signed - passed * self.slack[:, place]
                before = -self._sums[side, :, place]
                floor = np.minimum(sums.min(axis=0), before)
                # No S of the batch is above this; so most batches need no second look.
                near = sums.max(axis=0) - floor >= self.threshold[:, place]
                if near.any():
                    self._look(side, place, near, sums[:, near], before[near], crossed, height)
                self._sums[side, :, place] = sums[-1] - floor
        # Where both sides have crossed, the one that is further above its threshold.
        direction = np.where(crossed < 0, 0, np.where(height[0] >= height[1], 1, -1))
        return self._evidence(crossed, direction.astype(np.int8))

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
        """Row by row, for the series that may have crossed."""
        exact = sums - np.minimum(np.minimum.accumulate(sums, axis=0), before)
        relative = exact / self.threshold[near, place]
        over = relative >= 1.0
        for column, number in enumerate(np.flatnonzero(near)):
            if not over[:, column].any():
                continue
            first = int(np.argmax(over[:, column]))
            if crossed[number] < 0 or first < crossed[number]:
                crossed[number] = first
            height[side, number] = max(height[side, number], float(relative[:, column].max()))

    def update_blocks(self, counts: Floats, sums: Floats) -> Evidence:
        """Take a block by its sums: ``counts`` (S,) values that add up to ``sums`` (S,).

        What replicas send is added up first, so it does not matter which of them saw what. Only
        block ends are looked at: there are fewer alarms than row by row, never more.
        """
        steps = self._sign[:, :, None] * sums[None, :, None] - self._k * counts[None, :, None]
        self._sums = np.maximum(0.0, self._sums + steps)
        over = (self._sums >= self._h).any(axis=2)
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
        """As JSON."""
        return {
            "slack": self.slack.round(6).tolist(),
            "threshold": self.threshold.round(6).tolist(),
            "sums": self._sums.tolist(),
        }

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> CusumUnion:
        """Undo :meth:`to_dict`. Raises KeyError, TypeError or ValueError."""
        union = cls.__new__(cls)
        union.slack = np.array(state["slack"], np.float64)
        union.threshold = np.array(state["threshold"], np.float64)
        union._sums = np.array(state["sums"], np.float64)
        union.series = len(union.slack)
        if union._sums.shape != (2, *union.slack.shape) or union.slack.ndim != 2:
            raise ValueError("charts and their sums differ in number")
        union._prepare()
        return union


def _rounded(rows: float) -> float:
    """To an eighth of a power of ten, downwards: never a better baseline than there is."""
    if math.isinf(rows):
        return rows
    return float(10.0 ** (math.floor(8.0 * math.log10(max(rows, 1.0))) / 8.0))
