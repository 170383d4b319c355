"""Champion and challenger of the same request, brought together; bounded."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

T = TypeVar("T")


class PairJoiner(Generic[T]):
    """Waits for the other halves. ``lost`` counts those that were given up for want of room."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.lost = 0
        self._waiting: OrderedDict[bytes, dict[int, T]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, key: bytes) -> bool:
        return key in self._waiting

    def add(self, key: bytes, side: int, item: T, complete: int) -> dict[int, T] | None:
        """Add one half; all of them once ``complete`` sides are there.

        A side that comes a second time replaces the first: a client chose the same id twice.
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
        """What waits, the oldest first."""
        return list(self._waiting.items())

    def give_up(self, key: bytes) -> None:
        """Let go of one that waits."""
        del self._waiting[key]
