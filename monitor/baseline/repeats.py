"""Values that no longer change, and rows that come again."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import Any
from zlib import adler32, crc32

import numpy as np
from numpy.typing import NDArray

REMEMBERED = 1024
"""Rows among which a repeated one is looked for."""
_TOGETHER = 256
"""Rows of small batches that are remembered together."""


class Runs:
    """How long each of C columns has had the same value; batches are arrays (n, C) of float64.

    NaN counts as a value like any other, since the missing ones have a rule of their own: a run of
    them is not reported.
    """

    def __init__(self, columns: int) -> None:
        self.last: NDArray[np.float64] = np.full(columns, np.nan)
        self.length: NDArray[np.int64] = np.zeros(columns, np.int64)

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

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "last": [v if math.isfinite(v) else None for v in self.last.tolist()],
            "length": self.length.tolist(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Undo :meth:`to_dict`. Raises ValueError for another number of columns."""
        last = np.array([math.nan if v is None else v for v in state["last"]], np.float64)
        length = np.array(state["length"], np.int64)
        if last.shape != self.last.shape or length.shape != last.shape:
            raise ValueError(f"runs of {len(last)} columns instead of {len(self.last)}")
        self.last, self.length = last, length


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


class Repeats:
    """Whether a row was there among about :data:`REMEMBERED` ones before it, by a hash of its
    cells. Batches are remembered as a whole, so that one without a repeated row costs little."""

    def __init__(self) -> None:
        self._batches: deque[set[int]] = deque()
        self._count = 0

    def update(self, rows: Sequence[int]) -> NDArray[np.float64]:
        """1 for each row whose hash is known, else 0, of shape (n,)."""
        found = np.zeros(len(rows))
        fresh = set(rows)
        repeated = len(fresh) < len(rows)
        if repeated or any(not fresh.isdisjoint(batch) for batch in self._batches):
            seen: set[int] = set()
            for place, key in enumerate(rows):
                if key in seen or any(key in batch for batch in self._batches):
                    found[place] = 1.0
                seen.add(key)
        self._remember(fresh)
        return found

    def _remember(self, fresh: set[int]) -> None:
        if self._batches and len(self._batches[-1]) + len(fresh) <= _TOGETHER:
            self._count -= len(self._batches[-1])
            self._batches[-1] |= fresh
        else:
            self._batches.append(fresh)
        self._count += len(self._batches[-1])
        while self._count - len(self._batches[0]) >= REMEMBERED:
            self._count -= len(self._batches.popleft())

    def to_dict(self) -> list[list[int]]:
        """As JSON: the hashes that are remembered."""
        return [sorted(batch) for batch in self._batches]

    def restore(self, state: Sequence[Sequence[int]]) -> None:
        """Undo :meth:`to_dict`."""
        self._batches = deque({int(key) for key in batch} for batch in state)
        self._count = sum(map(len, self._batches))


def key_of(cells: bytes) -> int:
    """The hash of a row, which is the same in every process, since it is part of the state."""
    return crc32(cells) << 32 | adler32(cells)
