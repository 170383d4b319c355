"""Since when: a bounded history of sums, and the moment at which a change probably began.

For values that are standard before the change, the generalised likelihood ratio of a shift of the
mean that began after row j is (t - j) mean(j..t)^2 / 2 (Lorden 1971; Siegmund & Venkatraman 1995).
Its maximum is the estimate of the moment, the mean since then that of the size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from understudy.monitor.detectors.packed import PackedBlocks, PackedSums, TimeList
from understudy.shadow.state import Config, Count, FieldError, Saved, Stateful

Floats = NDArray[np.float64]
ROWS = 32
"""Rows of a fresh block."""
_SAME = 4
"""Blocks of one size; of a fifth one the two oldest are merged, so that sizes double with age, and
every moment is known to about a quarter of its age (Datar, Gionis, Indyk & Motwani 2002)."""
_MOST = 40
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


class ChangePoint(Stateful):
    """A history of S series, all with the same blocks of rows."""

    series: Config[int]
    _times: Saved[TimeList]
    """When each block began, the oldest first."""
    _sizes: Saved[list[Count]]
    """Rows of each, also of those without a value."""
    _counts: Saved[PackedBlocks]
    _sums: Saved[PackedSums]

    def __init__(self, series: int) -> None:
        self.series = series
        self._times = []
        self._sizes = []
        self._counts = []
        self._sums = []

    def _restored(self) -> None:
        blocks = len(self._times)
        if blocks > _MOST or {len(self._sizes), len(self._counts), len(self._sums)} != {blocks}:
            raise FieldError("times", f"must be at most {_MOST}, each with a size and with sums")
        if any(len(block) != self.series for block in (*self._counts, *self._sums)):
            raise FieldError("sums", f"must be of {self.series} series")

    def update(self, x: Floats, times: Floats) -> None:
        """Rows (n, S) with their unix times (n,); NaN and infinities say nothing."""
        rows = len(x)
        if not rows:
            return
        left = ROWS - self._sizes[-1] if self._sizes and self._sizes[-1] < ROWS else 0
        cuts = ([0] if left > 0 else []) + list(range(left, rows, ROWS))
        gone = ~np.isfinite(x)
        if gone.any():
            counts = np.add.reduceat(~gone, cuts, axis=0, dtype=np.float64)
            sums = np.add.reduceat(np.where(gone, 0.0, x), cuts, axis=0)
        else:
            lengths = np.diff([*cuts, rows]).astype(np.float64)[:, None]
            counts = np.broadcast_to(lengths, (len(cuts), self.series))
            sums = np.add.reduceat(x, cuts, axis=0)
        for number, (start, end) in enumerate(zip(cuts, [*cuts[1:], rows], strict=True)):
            if number == 0 and left:
                self._sizes[-1] += end - start
                self._counts[-1] = self._counts[-1] + counts[0]
                self._sums[-1] = self._sums[-1] + sums[0]
                continue
            self._tidy()
            self._times.append(float(times[start]))
            self._sizes.append(end - start)
            self._counts.append(counts[number])
            self._sums.append(sums[number])

    def _tidy(self) -> None:
        """Make room for a fresh block."""
        sizes = self._sizes
        last = len(sizes)
        while last:
            size = sizes[last - 1]
            first = last
            while first and sizes[first - 1] == size:
                first -= 1
            if last - first <= _SAME:
                break
            self._merge(first)
            last = first + 1
        if len(sizes) >= _MOST:
            for held in (self._times, sizes, self._counts, self._sums):
                del held[0]

    def _merge(self, index: int) -> None:
        """Add the block after ``index`` to the one there."""
        self._sizes[index] += self._sizes.pop(index + 1)
        self._counts[index] = self._counts[index] + self._counts.pop(index + 1)
        self._sums[index] = self._sums[index] + self._sums.pop(index + 1)
        del self._times[index + 1]

    def estimate(self, series: int) -> Estimate:
        """When one of the series has changed, and by how much."""
        counts = np.array([block[series] for block in self._counts])
        sums = np.array([block[series] for block in self._sums])
        if not counts.sum():
            return Estimate(None, 0.0, 0.0, 0.0, 0.0, 0.0)
        since = np.cumsum(counts[::-1])[::-1]
        total = np.cumsum(sums[::-1])[::-1]
        ratio = total**2 / (2.0 * np.maximum(since, 1.0))
        index = int(np.argmax(ratio))
        rows = float(since[index])
        # The block in which it began also holds rows from before; the size is that of the others.
        sure = index + 1 if index + 1 < len(since) and since[index + 1] >= ROWS else index
        size = float(total[sure]) / max(float(since[sure]), 1.0)
        # The values were standard before; a spread that has changed as well is not in this.
        half = _TWO_SIDED_95 / math.sqrt(max(float(since[sure]), 1.0))
        weight = float(ratio[index])
        return Estimate(self._times[index], rows, size, size - half, size + half, weight)

    def reset(self, series: NDArray[np.bool_]) -> None:
        """Forget some of the series, a mask (S,)."""
        for held in (self._counts, self._sums):
            for index, block in enumerate(held):
                held[index] = np.where(series, 0.0, block)
