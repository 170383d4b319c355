"""How many requests each arm was given, for the question whether the split was honoured.

Requests are seen when they end, and those of a slower arm end later: counted at once, an arm that
is overloaded would seem to have been given fewer. So a request counts once those that began before
it have surely ended: when half as long again as the longest so far has passed since it began.
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
    """Of ``arms`` arms, within one epoch of weights. Times are in seconds."""

    arms: Config[int]
    _slots: Saved[dict[int, list[Count]]]
    _longest: Saved[float]
    _newest: Saved[float]

    def __init__(self, arms: int) -> None:
        self.arms = arms
        self._slots = {}
        self._longest = 0.0
        self._newest = 0.0
        """When the request that ended last did so."""

    def add(self, arm: int, started: float, seconds: float) -> None:
        """A request of an arm that began at unix time ``started`` and took ``seconds``."""
        counts = self._slots.setdefault(int(started / _SLOT), [0] * self.arms)
        counts[arm] += 1
        self._longest = max(self._longest, seconds)
        self._newest = max(self._newest, started + seconds)

    def add_all(self, arms: Ints, started: Floats, seconds: Floats) -> None:
        """The same for many requests."""
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
        """Of those that count by unix time ``now``, or by the last end if that was later, and have
        not been asked for before, how many each arm had."""
        limit = int((max(now, self._newest) - _FACTOR * self._longest - _LEAST) / _SLOT)
        found = [0] * self.arms
        for slot in [s for s in self._slots if s < limit]:
            found = [a + b for a, b in zip(found, self._slots.pop(slot), strict=True)]
        return found

    def clear(self) -> None:
        """Begin a new epoch; what has not been asked for is left out, of all arms alike."""
        self._slots.clear()
        self._longest = 0.0

    def _restored(self) -> None:
        if any(len(counts) != self.arms for counts in self._slots.values()):
            raise FieldError("slots", f"must have counts of {self.arms} arms")
