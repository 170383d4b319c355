"""Bounded join of champion and challenger answers to the same request."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from heapq import heapify, heappop, heappush
from typing import Generic, TypeVar

T = TypeVar("T")


class PairJoiner(Generic[T]):
    """Keeps at most ``limit`` incomplete pairs; ``dropped`` is called with each one beyond."""

    def __init__(
        self, limit: int, dropped: Callable[[bytes, dict[int, T]], None] | None = None
    ) -> None:
        self.limit = limit
        self._dropped = dropped
        self._waiting: OrderedDict[bytes, dict[int, T]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, key: bytes) -> bool:
        return key in self._waiting

    def add(self, key: bytes, side: int, item: T, complete: int) -> dict[int, T] | None:
        """Add one side; returns all sides of the key once ``complete`` of them have arrived.

        A side that arrives twice replaces the first, which is dropped: a source other than the
        proxy used the same id twice.
        """
        halves = self._waiting.get(key)
        if halves is None:
            if len(self._waiting) >= self.limit:
                self._drop(*self._waiting.popitem(last=False))
            halves = self._waiting[key] = {}
        elif side in halves:
            self._drop(key, {side: halves[side]})
        halves[side] = item
        if len(halves) < complete:
            return None
        del self._waiting[key]
        return halves

    def oldest(self) -> list[tuple[bytes, dict[int, T]]]:
        """Incomplete pairs, oldest first."""
        return list(self._waiting.items())

    def halves(self, key: bytes) -> dict[int, T]:
        """The sides of an incomplete pair that have arrived."""
        return self._waiting[key]

    def give_up(self, key: bytes) -> dict[int, T]:
        """Remove and return an incomplete pair."""
        return self._waiting.pop(key)

    def _drop(self, key: bytes, halves: dict[int, T]) -> None:
        if self._dropped is not None:
            self._dropped(key, halves)


class Deadlines(Generic[T]):
    """When the missing side of each incomplete pair of ``joiner`` is due, in unix time.

    Bounded by the joiner: keys that are no longer incomplete are removed when there are as many of
    them as it keeps pairs.
    """

    def __init__(self, joiner: PairJoiner[T]) -> None:
        self._joiner = joiner
        self._heap: list[tuple[float, bytes]] = []

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, due: float, key: bytes) -> None:
        """Add an incomplete pair."""
        if len(self._heap) >= 2 * self._joiner.limit:
            newest = {key: due for due, key in sorted(self._heap) if key in self._joiner}
            self._heap = [(due, key) for key, due in newest.items()]
            heapify(self._heap)
        heappush(self._heap, (due, key))

    def passed(self, before: float) -> Iterator[tuple[float, bytes]]:
        """Remove the deadlines before a unix time, and return those whose pair is incomplete."""
        while self._heap and self._heap[0][0] < before:
            due, key = heappop(self._heap)
            if key in self._joiner:
                yield due, key
