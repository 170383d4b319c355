"""Means and cross products of several columns, mergeable and stable."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from understudy.shadow.experiment.measures.base import Array
from understudy.shadow.state import Count, Saved, Setting, Stateful


class JointMoments(Stateful):
    """``n`` rows of ``size`` columns: their ``means``, shape (size,), and ``products``, shape
    (size, size): sums of products of deviations (Pebay, Sandia report SAND2008-6212)."""

    size: Setting[int]
    n: Saved[Count]
    means: Saved[npt.NDArray[np.float64]]
    products: Saved[npt.NDArray[np.float64]]

    def __init__(self, size: int) -> None:
        self.size = size
        self.n = 0
        self.means = np.zeros(size)
        self.products = np.zeros((size, size))

    def add(self, rows: Array) -> None:
        """Take rows, shape (n, size)."""
        if not len(rows):
            return
        means = rows.mean(axis=0)
        deviations = rows - means
        self._join(len(rows), means, deviations.T @ deviations)

    def _join(self, n: int, means: Array, products: Array) -> None:
        both = self.n + n
        gap = means - self.means
        self.products = self.products + products + np.outer(gap, gap) * (self.n * n / both)
        self.means = self.means + gap * (n / both)
        self.n = both

    def merge(self, other: JointMoments) -> JointMoments:
        """Moments of the union."""
        both = JointMoments(self.size)
        for part in (self, other):
            if part.n:
                both._join(part.n, part.means, part.products)
        return both
