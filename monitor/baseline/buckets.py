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
        self._first = 1 << max(most.bit_length() - 1, 0)
        width = 2 * self._first
        padded = np.full((len(edges), width), np.inf)
        for column, one in enumerate(edges):
            padded[column, : len(one)] = one
        self._edges: Floats = padded.ravel()
        self._base: NDArray[np.intp] = (np.arange(len(edges), dtype=np.intp) * width)[:, None]

    def find(self, x: Floats) -> NDArray[np.intp]:
        """Buckets of values (C, n); 0 for NaN."""
        places = np.repeat(self._base, x.shape[1], axis=1)
        step = self._first
        while step:
            places += (self._edges.take(places + (step - 1)) < x) * step
            step >>= 1
        places -= self._base
        return places
