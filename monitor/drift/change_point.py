"""Since when: a bounded history of sums, and the moment at which a change probably began.

For values that are standard before the change, the generalised likelihood ratio of a shift of the
mean that began after row j is (t - j) mean(j..t)^2 / 2 (Lorden 1971; Siegmund & Venkatraman 1995).
Its maximum is the estimate of the moment, the mean since then that of the size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
SLOTS = 48
"""Blocks that are remembered; older ones are merged in pairs, so that they get longer with age."""
_FINE = 16
_SHORTEST = 16
"""Rows of a block at least."""
_TWO_SIDED_95 = 1.959963984540054


@dataclass(frozen=True, slots=True)
class Estimate:
    """``time`` is unix seconds, or None where nothing is known; ``rows`` how many there were since;
    ``size`` the mean since then, with a 95 % interval that takes the moment as given; ``weight``
    the log-likelihood ratio against no change."""

    time: float | None
    rows: float
    size: float
    low: float
    high: float
    weight: float


class ChangePoint:
    """A history of S series, all with the same blocks of rows."""

    def __init__(self, series: int) -> None:
        self.series = series
        self._counts: Floats = np.zeros((0, series))
        self._sums: Floats = np.zeros((0, series))
        self._squares: Floats = np.zeros((0, series))
        self._times: list[float] = []
        """When each block began."""
        self._open = 0

    def update(self, x: Floats, times: Floats) -> None:
        """Rows (n, S) with their unix times (n,); NaN says nothing. In blocks of sixteen rows."""
        rows = len(x)
        if not rows:
            return
        cuts = [0, *range(min(self._open, rows), rows, _SHORTEST)] if self._open > 0 else []
        if not cuts:
            cuts = list(range(0, rows, _SHORTEST))
        cuts = sorted(set(cuts))
        gone = np.isnan(x)
        values = np.where(gone, 0.0, x)
        counts = np.add.reduceat(~gone, cuts, axis=0, dtype=np.float64)
        sums = np.add.reduceat(values, cuts, axis=0)
        np.multiply(values, values, out=values)
        squares = np.add.reduceat(values, cuts, axis=0)
        for number, (start, end) in enumerate(zip(cuts, [*cuts[1:], rows], strict=True)):
            if self._open <= 0:
                self._begin(float(times[start]))
            self._counts[-1] += counts[number]
            self._sums[-1] += sums[number]
            self._squares[-1] += squares[number]
            self._open -= end - start

    def _begin(self, time: float) -> None:
        if len(self._times) >= SLOTS:
            self._merge()
        empty = np.zeros((1, self.series))
        self._counts = np.concatenate([self._counts, empty])
        self._sums = np.concatenate([self._sums, empty])
        self._squares = np.concatenate([self._squares, empty])
        self._times.append(time)
        self._open = _SHORTEST

    def _merge(self) -> None:
        """Add up pairs of the older blocks; the newest stay as fine as they are."""
        old = (len(self._times) - _FINE) // 2 * 2
        for name in ("_counts", "_sums", "_squares"):
            array = getattr(self, name)
            paired = array[0:old:2] + array[1:old:2]
            setattr(self, name, np.concatenate([paired, array[old:]]))
        self._times = self._times[0:old:2] + self._times[old:]

    def estimate(self, series: int) -> Estimate:
        """When one of the series has changed, and by how much."""
        counts, sums = self._counts[:, series], self._sums[:, series]
        if not counts.sum():
            return Estimate(None, 0.0, 0.0, 0.0, 0.0, 0.0)
        since = np.cumsum(counts[::-1])[::-1]
        total = np.cumsum(sums[::-1])[::-1]
        ratio = total**2 / (2.0 * np.maximum(since, 1.0))
        place = int(np.argmax(ratio))
        rows = float(since[place])
        size = float(total[place]) / max(rows, 1.0)
        squares = float(self._squares[place:, series].sum())
        variance = max(squares / max(rows, 1.0) - size**2, 0.0)
        half = _TWO_SIDED_95 * math.sqrt(variance / max(rows, 1.0))
        weight = float(ratio[place])
        return Estimate(self._times[place], rows, size, size - half, size + half, weight)

    def reset(self, series: NDArray[np.bool_]) -> None:
        """Forget some of the series, a mask (S,)."""
        for array in (self._counts, self._sums, self._squares):
            array[:, series] = 0.0

    def to_dict(self) -> dict[str, Any]:
        """As JSON; to six digits, which is more than the estimate is worth."""
        return {
            "counts": self._counts.astype(int).tolist(),
            "sums": _short(self._sums),
            "squares": _short(self._squares),
            "times": [round(t, 3) for t in self._times],
            "open": self._open,
            "series": self.series,
        }

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> ChangePoint:
        """Undo :meth:`to_dict`. Raises KeyError, TypeError or ValueError."""
        history = cls(int(state["series"]))
        history._times = [float(t) for t in state["times"]]
        shape = (len(history._times), history.series)
        history._counts = np.array(state["counts"], np.float64).reshape(shape)
        history._sums = np.array(state["sums"], np.float64).reshape(shape)
        history._squares = np.array(state["squares"], np.float64).reshape(shape)
        history._open = int(state["open"])
        return history


def _short(array: Floats) -> list[list[float]]:
    return [[float(f"{value:.5g}") for value in row] for row in array.tolist()]
