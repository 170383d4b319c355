"""Alarms that stay on until the series recovers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from understudy.monitor.detectors.evidence import Evidence
from understudy.monitor.detectors.packed import Packed, PackedMask, PackedRows, PackedSigns
from understudy.shadow.state import Saved, Stateful

SPAN = 256.0
"""Rows over which the newest values are averaged, with exponentially falling weights."""


class Latches(Stateful):
    """One latch for each of S series. It closes on an alarm, and opens when the newest values are
    back to normal."""

    alarmed: Saved[PackedMask]
    at: Saved[PackedRows]
    """Number of the row with which it alarmed."""
    direction: Saved[PackedSigns]
    recent: Saved[Packed]
    """Average of the newest values, from the first one on."""
    _weight: Saved[Packed]
    _since: Saved[PackedRows]

    def __init__(self, series: int) -> None:
        self.alarmed = np.zeros(series, np.bool_)
        self.at = np.full(series, -1, np.int64)
        self.direction = np.zeros(series, np.int8)
        self.recent = np.zeros(series)
        self._weight = np.zeros(series)
        self._since = np.zeros(series, np.int64)

    def update(self, evidence: Evidence, x: NDArray[np.float64], rows: int) -> None:
        """Take the values ``x`` (n, S) and their ``evidence``; ``rows`` came before them."""
        gone = np.isnan(x)
        if gone.any():
            count = (~gone).sum(0)
            total = np.where(gone, 0.0, x).sum(0)
        else:
            count = np.full(x.shape[1], len(x))
            total = x.sum(0)
        keep = (1.0 - 1.0 / SPAN) ** count
        self._weight = self._weight * keep + (1.0 - keep)
        mean = total / np.maximum(count, 1)
        step = np.where(count > 0, (1.0 - keep) / np.maximum(self._weight, 1e-12), 0.0)
        self.recent += step * (mean - self.recent)
        self._close(evidence, len(x), rows)

    def fade(self, evidence: Evidence, count: int, rows: int) -> None:
        """The same as :meth:`update` with ``count`` rows of zeros."""
        keep = (1.0 - 1.0 / SPAN) ** count
        self._weight = self._weight * keep + (1.0 - keep)
        self.recent -= self.recent * ((1.0 - keep) / np.maximum(self._weight, 1e-12))
        self._close(evidence, count, rows)

    def _close(self, evidence: Evidence, count: int, rows: int) -> None:
        self._since[self.alarmed] += count
        fresh = (evidence.statistic >= evidence.threshold) & ~self.alarmed
        fresh |= (evidence.crossed >= 0) & ~self.alarmed
        if fresh.any():
            self.alarmed |= fresh
            self.at[fresh] = rows + np.maximum(evidence.crossed[fresh], 0)
            self.direction[fresh] = evidence.direction[fresh]
            self._since[fresh] = 0

    def recovered(
        self, usual: NDArray[np.float64], tolerance: float | NDArray[np.float64]
    ) -> NDArray[np.bool_]:
        """Open the latches whose newest values are at most ``tolerance`` beyond the ``usual`` ones
        in the direction of the alarm; returns a mask of these, (S,)."""
        if not self.alarmed.any():
            return self.alarmed
        off = self.recent - usual
        near = np.where(self.direction >= 0, off, -off) <= tolerance
        opened: NDArray[np.bool_] = self.alarmed & near & (self._since >= 2 * SPAN)
        if opened.any():
            self.alarmed = self.alarmed & ~opened
            self.at[opened] = -1
        return opened
