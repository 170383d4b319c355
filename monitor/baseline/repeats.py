"""Values that are stuck, and duplicate rows."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from functools import lru_cache
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from understudy.monitor.detectors.packed import Open
from understudy.shadow.state import Converter, Derived, Saved, Stateful

REMEMBERED = 1024
"""Rows among which a repeated one is looked for."""
_MIX = np.uint64(0x9E3779B97F4A7C15)
"""2^64 over the golden ratio (Knuth, The Art of Computer Programming 3, 6.4)."""
_HALF_BITS = np.uint64(32)
_TOGETHER = 256
"""Rows of small batches that are remembered together."""


class Runs(Stateful):
    """How long each of C columns has had the same value; batches are arrays (n, C) of float64.

    NaN counts as a value like any other, since missing values have a separate rule: a run of
    them is not reported.
    """

    last: Saved[Open]
    """The newest value of each column."""
    length: Saved[NDArray[np.int64]]

    def __init__(self, columns: int) -> None:
        self.last = np.full(columns, np.nan)
        self.length = np.zeros(columns, np.int64)

    def update(self, matrix: NDArray[np.float64]) -> NDArray[np.int64]:
        """Lengths of the runs at the end of the batch, of shape (C,)."""
        rows = len(matrix)
        if not rows:
            return self.length
        before = np.vstack([self.last, matrix[:-1]])
        same = matrix == before
        changed = ~same
        any_change = changed.any(0)
        # Rows since the last change, that row included.
        tail = np.argmax(changed[::-1], axis=0) + 1
        self.length = np.where(any_change, tail, self.length + rows)
        self.length[np.isnan(matrix[-1])] = 0
        self.last = matrix[-1].copy()
        return self.length


def longest_by_chance(repeat: float, rows: float) -> int:
    """Length of a run that independent values reach once in ``rows`` rows on average.

    ``repeat`` is the probability that a value equals the one before. The expected number of rows to
    a run of r is (1 - p^r) / (p^r (1 - p)) (Feller, An Introduction to Probability Theory, XIII.7),
    with p for the repeats.
    """
    if repeat >= 1.0:
        return 2**62
    if repeat <= 0.0:
        return 3
    return max(3, 2 + math.ceil(math.log(1.0 + rows * (1.0 - repeat)) / -math.log(repeat)))


def _dump_batches(batches: deque[set[int]]) -> list[list[int]]:
    return [sorted(batch) for batch in batches]


def _load_batches(name: str, value: Any, _: Any) -> deque[set[int]]:
    return deque({int(key) for key in batch} for batch in value)


class Repeats(Stateful):
    """Whether a row was there among about :data:`REMEMBERED` ones before it, by a hash of its
    cells. Batches are remembered as a whole, so that one without a repeated row costs little."""

    _batches: Saved[Annotated[deque[set[int]], Converter(_dump_batches, _load_batches)]]
    _count: Derived[int]

    def __init__(self) -> None:
        self._batches = deque()
        self._count = 0

    def _restored(self) -> None:
        self._count = sum(map(len, self._batches))

    def update(self, rows: Sequence[int]) -> NDArray[np.float64]:
        """1 for each row whose hash is known, else 0, of shape (n,)."""
        result = np.zeros(len(rows))
        fresh = set(rows)
        repeated = len(fresh) < len(rows)
        if repeated or any(not fresh.isdisjoint(batch) for batch in self._batches):
            seen: set[int] = set()
            for index, key in enumerate(rows):
                if key in seen or any(key in batch for batch in self._batches):
                    result[index] = 1.0
                seen.add(key)
        self._remember(fresh)
        return result

    def _remember(self, fresh: set[int]) -> None:
        if self._batches and len(self._batches[-1]) + len(fresh) <= _TOGETHER:
            self._count -= len(self._batches[-1])
            self._batches[-1] |= fresh
        else:
            self._batches.append(fresh)
        self._count += len(self._batches[-1])
        while self._count - len(self._batches[0]) >= REMEMBERED:
            self._count -= len(self._batches.popleft())


def keys_of(cells: NDArray[np.float64]) -> list[int]:
    """A hash of each row of cells (n, C), by their bits; the same in every process, since it is
    part of the state.

    A sum of the mixed bits of all cells, each times an odd number of its column, modulo 2^64.
    """
    bits = np.ascontiguousarray(cells).view(np.uint64).copy()
    # Floats of whole numbers differ in their highest bits only.
    bits ^= bits >> _HALF_BITS
    bits *= _MIX
    bits ^= bits >> _HALF_BITS
    keys: list[int] = (bits @ _factors(cells.shape[1])).tolist()
    return keys


@lru_cache(maxsize=64)
def _factors(columns: int) -> NDArray[np.uint64]:
    """Odd numbers: powers of one that runs through a quarter of all."""
    powers = np.full(columns, _MIX, np.uint64)
    result: NDArray[np.uint64] = np.multiply.accumulate(powers)
    return result
