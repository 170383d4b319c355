"""Counts the requests assigned to each arm, for the test for sample ratio mismatch.

Requests are recorded when they end, and those of a slower arm end later: counted at once, an
overloaded arm would appear to have been assigned fewer. So a request counts only when those that
started before it have ended: after 1.5 times the longest duration so far.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from understudy.shadow.state import Config, Count, FieldError, Saved, Stateful

Floats = NDArray[np.float64]
Ints = NDArray[np.int16]
_SLOT = 0.1
_FACTOR = 1.5
_LEAST = 0.2


class Assignments(Stateful):
    """Counts for ``arms`` arms within one epoch of weights. Times are in seconds."""

    arms: Config[int]
    _slots: Saved[dict[int, list[Count]]]
    _longest: Saved[float]
    _newest: Saved[float]

    def __init__(self, arms: int) -> None:
        self.arms = arms
        self._slots = {}
        self._longest = 0.0
        self._newest = 0.0
        """Unix time of the latest end of a request."""

    def add(self, arm: int, started: float, seconds: float) -> None:
        """Add a request of an arm that started at unix time ``started`` and took ``seconds``."""
        counts = self._slots.setdefault(int(started / _SLOT), [0] * self.arms)
        counts[arm] += 1
        self._longest = max(self._longest, seconds)
        self._newest = max(self._newest, started + seconds)

    def add_all(self, arms: Ints, started: Floats, seconds: Floats) -> None:
        """Add many requests; arrays of shape (requests,)."""
        if not len(arms):
            return
        slots = (started / _SLOT).astype(np.int64)
        places, counts = np.unique(slots * self.arms + arms, return_counts=True)
        for place, count in zip(places.tolist(), counts.tolist(), strict=True):
            slot, arm = divmod(place, self.arms)
            self._slots.setdefault(slot, [0] * self.arms)[arm] += count
        self._longest = max(self._longest, float(seconds.max()))
        self._newest = max(self._newest, float((started + seconds).max()))

    def settled(self, now: float = 0.0) -> list[int]:
        """Counts by arm of the requests that count by unix time ``now``, or by the latest end if
        that is later, and were not returned before."""
        limit = int((max(now, self._newest) - _FACTOR * self._longest - _LEAST) / _SLOT)
        found = [0] * self.arms
        for slot in [s for s in self._slots if s < limit]:
            found = [a + b for a, b in zip(found, self._slots.pop(slot), strict=True)]
        return found

    def clear(self) -> None:
        """Start a new epoch; requests not returned yet are dropped, for all arms alike."""
        self._slots.clear()
        self._longest = 0.0

    def _restored(self) -> None:
        if any(len(counts) != self.arms for counts in self._slots.values()):
            raise FieldError("slots", f"must have counts of {self.arms} arms")
