"""A mergeable histogram of durations, exact within 1 % from 1 µs to 1,073 s."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

PER_DOUBLING = 64
"""Buckets between a duration and its double: a relative width of 1.1 %."""
SMALLEST = 1e-6
"""Seconds; shorter durations go into the first bucket."""
BUCKETS = 30 * PER_DOUBLING
"""Up to 1,073 s; longer durations go into the last bucket."""


class Histogram:
    """Counts of durations in seconds. Histograms of two sets merge into that of their union."""

    def __init__(self) -> None:
        self.counts: NDArray[np.int64] = np.zeros(BUCKETS, np.int64)
        self.total = 0.0
        self.largest = 0.0

    @property
    def count(self) -> int:
        """Number of durations."""
        return int(self.counts.sum())

    def add(self, seconds: NDArray[np.float64]) -> None:
        """Add durations in seconds, (n,). Raises ValueError for NaN."""
        if not len(seconds):
            return
        if np.isnan(seconds).any():
            raise ValueError("a duration is not a number")
        indices = np.log2(np.maximum(seconds, SMALLEST) / SMALLEST) * PER_DOUBLING
        self.counts += np.bincount(
            np.minimum(indices.astype(np.int64), BUCKETS - 1), minlength=BUCKETS
        )
        self.total += float(seconds.sum())
        self.largest = max(self.largest, float(seconds.max()))

    def merge(self, other: Histogram) -> None:
        """Add the counts of ``other``."""
        self.counts += other.counts
        self.total += other.total
        self.largest = max(self.largest, other.largest)

    def quantile(self, p: float) -> float | None:
        """The duration that a share ``p`` does not exceed, to the upper edge of its bucket; None
        when there are no durations."""
        count = self.count
        if not count:
            return None
        if p >= 1.0:
            return self.largest
        rank = max(1, math.ceil(p * count))
        index = int(np.searchsorted(np.cumsum(self.counts), rank))
        upper = SMALLEST * 2.0 ** ((index + 1) / PER_DOUBLING)
        return min(float(upper), self.largest)

    def above(self, seconds: float) -> int:
        """Number of durations longer than ``seconds``, to the width of a bucket."""
        index = int(math.log2(max(seconds, SMALLEST) / SMALLEST) * PER_DOUBLING)
        return int(self.counts[min(index, BUCKETS - 1) + 1 :].sum())

    @property
    def mean(self) -> float | None:
        """The mean duration, exactly; None when there are none."""
        count = self.count
        return self.total / count if count else None

    def to_dict(self) -> dict[str, Any]:
        """As JSON: only the buckets that hold anything."""
        filled = np.flatnonzero(self.counts)
        return {
            "buckets": [[int(index), int(self.counts[index])] for index in filled],
            "total": self.total,
            "largest": self.largest,
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Histogram:
        """Undo :meth:`to_dict`. Raises KeyError, IndexError or ValueError."""
        histogram = cls()
        for index, count in data["buckets"]:
            histogram.counts[int(index)] = int(count)
        histogram.total = float(data["total"])
        histogram.largest = float(data["largest"])
        return histogram
