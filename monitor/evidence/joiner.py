"""Bounded join of champion and challenger answers by request id."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

T = TypeVar("T")


class PairJoiner(Generic[T]):
    """Keeps at most ``limit`` incomplete pairs; ``lost`` counts those dropped beyond the limit."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.lost = 0
        self._waiting: OrderedDict[bytes, dict[int, T]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, key: bytes) -> bool:
        return key in self._waiting

    def add(self, key: bytes, side: int, item: T, complete: int) -> dict[int, T] | None:
        """Add one side; returns all sides of the key once ``complete`` of them have arrived.

        A side that arrives twice replaces the first: a client used the same id twice.
        """
        halves = self._waiting.get(key)
        if halves is None:
            if len(self._waiting) >= self.limit:
                self._waiting.popitem(last=False)
                self.lost += 1
            halves = self._waiting[key] = {}
        halves[side] = item
        if len(halves) < complete:
            return None
        del self._waiting[key]
        return halves

    def oldest(self) -> list[tuple[bytes, dict[int, T]]]:
        """Incomplete pairs, oldest first."""
        return list(self._waiting.items())

    def give_up(self, key: bytes) -> None:
        """Drop an incomplete pair."""
        del self._waiting[key]
