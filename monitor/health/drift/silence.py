"""How long a model has had no traffic where traffic is usual: nights and weekends do not count."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from understudy.common.arrays import distinct
from understudy.shadow.state import Converter, FieldError, Saved, Stateful

SLOT = 1800.0
"""Seconds of a slot."""
DAY, WEEK = 48, 336
"""In slots."""
_AROUND = 2
"""Slots before and after one that must have had requests: days begin and end not quite on time, and
clocks are changed by an hour."""
_KEPT = WEEK + _AROUND + 1
_ALL = (1 << _KEPT) - 1
_LONGEST_GAP = 86400.0
_GAPS = 5.0
_SHORTEST_GAP = 60.0
_WHOLE = 8 * 86400.0
"""Seconds without a request that are a problem at any hour: longer than a job of every week."""


def _bits(name: str, value: object, _: object) -> int:
    try:
        found = int(value, 16) if isinstance(value, str) else -1
    except ValueError:
        found = -1
    if not 0 <= found <= _ALL:
        raise FieldError(name, f"must be a hexadecimal number of {_KEPT} bits, not {value!r}")
    return found


class Silence(Stateful):
    """Which half hours of the last week had requests, and how long gaps in them usually are.

    Traffic is usual in a half hour if this one, and those within an hour of it, had requests a week
    ago; without a week of history, a day ago; on the first day, always.
    """

    newest: Saved[float]
    """Unix time of the newest request; 0 before the first one."""
    longest: Saved[float]
    """Longest gap so far, in seconds of usual traffic, at least a minute. A gap beyond the limit is
    an outage and not a usual gap; it at most doubles the limit."""
    first: Saved[int]
    """The slot of the first request, counted since 1970."""
    active: Saved[Annotated[int, Converter(hex, _bits)]]
    """Whether there were requests in the newest slot (the lowest bit) and in those before it."""

    def __init__(self) -> None:
        self.newest = 0.0
        self.longest = _SHORTEST_GAP
        self.first = 0
        self.active = 0

    @property
    def limit(self) -> float:
        """Seconds of silence at usual hours from which on they are a problem."""
        return _GAPS * self.longest

    def arrived(self, times: NDArray[np.float64]) -> None:
        """Requests at unix times, in any order; those before the newest one do not count."""
        later = np.sort(times[times > self.newest])
        if not len(later):
            return
        if not self.newest:
            self.newest = float(later[0])
            self.first = int(self.newest // SLOT)
            self.active = 1
        gaps = np.diff(later, prepend=self.newest)
        done = 0
        for index in np.flatnonzero(gaps > self.longest).tolist():
            self._advance(later[done:index])
            done = index
            self._learn(self.usual(float(later[index])))
        self._advance(later[done:])

    def _learn(self, gap: float) -> None:
        if gap > self.limit:
            gap = min(gap, 2.0 * self.longest)
        self.longest = min(max(self.longest, gap), _LONGEST_GAP)

    def _advance(self, times: NDArray[np.float64]) -> None:
        """Mark the slots of ascending times, which are later than the newest one."""
        if not len(times):
            return
        newest = int(self.newest // SLOT)
        if times[-1] // SLOT != newest:
            for slot in distinct(times // SLOT).astype(np.int64).tolist():
                self.active = (self.active << min(slot - newest, _KEPT) | 1) & _ALL
                newest = slot
        self.newest = float(times[-1])

    def usual(self, now: float) -> float:
        """Seconds since the newest request in which traffic is usual. They never become fewer while
        there is none."""
        begin = int(self.newest // SLOT)
        # After a week of silence, a week ago there was no traffic.
        end = min(int(now // SLOT), begin + WEEK + 1)
        return sum(
            min(now, (slot + 1) * SLOT) - max(self.newest, slot * SLOT)
            for slot in range(begin, end + 1)
            if self._is_usual(slot)
        )

    def _is_usual(self, slot: int) -> bool:
        width = 2 * _AROUND + 1
        for back in (WEEK, DAY):
            if self.first <= slot - back - _AROUND:
                last = int(self.newest // SLOT) - (slot - back + _AROUND)
                return last >= 0 and (self.active >> last) & ((1 << width) - 1) == (1 << width) - 1
        return True

    def longer_than_usual(self, now: float) -> bool:
        """Whether there has been no request for longer than the gaps so far explain."""
        silent = now - self.newest
        if silent <= self.limit:
            return False
        return silent > _WHOLE or self.usual(now) > self.limit
