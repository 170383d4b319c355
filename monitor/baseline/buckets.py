"""Which bucket values fall into, for many columns at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class Buckets:
    """Ascending ``edges`` of each of C columns. A value's bucket is the number of edges below it.

    A binary search of all values in step: a compare and an add for each halving, without the
    branches that a search of one value after the other mispredicts.
    """

    def __init__(self, edges: Sequence[Floats]) -> None:
        most = max((len(one) for one in edges), default=0)
        first = 1 << max(most.bit_length() - 1, 0)
        width = 2 * first
        padded = np.full((len(edges), width), np.inf)
        for column, one in enumerate(edges):
            padded[column, : len(one)] = one
        flat = padded.ravel()
        self._steps: list[tuple[np.int32, Floats]] = []
        """Each halving, and the edges from the one that it asks for first."""
        step = first
        while step:
            self._steps.append((np.int32(step), flat[step - 1 :]))
            step >>= 1
        self._base = (np.arange(len(edges), dtype=np.int32) * np.int32(width))[:, None]

    def find(self, x: Floats) -> NDArray[np.int32]:
        """Buckets of values (C, n); 0 for NaN."""
        indices = np.repeat(self._base, x.shape[1], axis=1)
        at, below, moved = np.empty_like(x), np.empty(x.shape, np.bool_), np.empty_like(indices)
        for step, edges in self._steps:
            edges.take(indices, out=at, mode="clip")
            np.less(at, x, out=below)
            np.multiply(below, step, out=moved)
            indices += moved
        indices -= self._base
        return indices
