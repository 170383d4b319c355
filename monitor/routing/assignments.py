"""Counts the requests assigned to each arm when they are drawn, whether they have finished or not.

A worker reports a request when it finishes, and as open when it takes longer than
:data:`~understudy.monitor.records.record.OPEN_AFTER_NS`. So every request has been seen, in one way
or the other, within :data:`SETTLED_SECONDS` of its start, and the count up to then does not depend
on how long any arm takes to answer. Time is that of the newest event seen, never of a clock:
evaluation that lags behind, and replay, count the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from struct import pack
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from understudy.monitor.records.record import OPEN_AFTER_NS
from understudy.shadow.experiment.fates import patience
from understudy.shadow.state import Config, Count, FieldError, Saved, Stateful

Floats = NDArray[np.float64]
Ints = NDArray[np.int16]
SETTLED_SECONDS = 2.5
"""The first report, the worker's flush, and a second for clocks and workers that differ."""
MAX_OPEN = 10_000
"""Requests without an end that are remembered."""
_SLOT = 0.1
_REPORTED = OPEN_AFTER_NS * 1e-9
_OVERDUE = 10.0
"""Seconds by which a report may be late before the request counts as lost with its worker."""
_FORGOTTEN = 900.0
"""Seconds after which the end of a lost request is no longer expected."""


@dataclass(slots=True)
class OpenRequest:
    """A request without an end: its arm, its start (unix time), its age at the last report, and
    whether its reports have stopped. Times are in seconds."""

    state_as_list: ClassVar[bool] = True

    arm: Count
    started: float
    age: float
    lost: bool = False


class Assignments(Stateful):
    """Requests of ``arms`` arms within one epoch of weights. Times are in seconds."""

    arms: Config[int]
    limit: Config[int]
    _slots: Saved[dict[int, list[Count]]]
    _open: Saved[dict[str, OpenRequest]]
    _newest: Saved[float]
    _finished: Saved[Count]
    _seconds: Saved[float]
    not_tracked: Saved[Count]
    """Reports of open requests that found no room: these requests count when they finish."""

    def __init__(self, arms: int, limit: int = MAX_OPEN) -> None:
        self.arms = arms
        self.limit = limit
        self._slots = {}
        self._open = {}
        self._newest = 0.0
        """Unix time of the newest event."""
        self._finished = 0
        self._seconds = 0.0
        """Total duration of the finished requests."""
        self.not_tracked = 0

    def add(
        self,
        arms: Ints,
        started: Floats,
        seconds: Floats,
        unfinished: NDArray[np.bool_],
        ids: Sequence[bytes],
        counted: NDArray[np.bool_] | None = None,
    ) -> NDArray[np.bool_]:
        """Add finished requests and reports of unfinished ones, in order of time.

        Arrays have the shape (requests,). ``counted`` are the rows to count as assignments, such as
        the first of each unit; None: requests not seen before. Returns the latter.
        """
        fresh = np.ones(len(arms), np.bool_)
        if not len(arms):
            return fresh
        # Only a request this old may have been reported as open.
        for row in np.flatnonzero(unfinished | (seconds >= _REPORTED)).tolist():
            start = float(started[row])
            key = blake2b(pack("<d", start) + ids[row], digest_size=12).hexdigest()
            if not unfinished[row]:
                fresh[row] = self._open.pop(key, None) is None
                continue
            known = self._open.get(key)
            if known is not None:
                known.age = max(known.age, float(seconds[row]))
                known.lost = fresh[row] = False
            elif len(self._open) < self.limit:
                self._open[key] = OpenRequest(int(arms[row]), start, float(seconds[row]))
            else:
                self.not_tracked += 1
                fresh[row] = False
        ended = ~unfinished
        self._finished += int(ended.sum())
        self._seconds += float(seconds[ended].sum())
        self._newest = max(self._newest, float((started + seconds).max()))
        counted = fresh if counted is None else counted
        slots = (started[counted] / _SLOT).astype(np.int64)
        places, counts = np.unique(slots * self.arms + arms[counted], return_counts=True)
        for place, count in zip(places.tolist(), counts.tolist(), strict=True):
            slot, arm = divmod(place, self.arms)
            self._slots.setdefault(slot, [0] * self.arms)[arm] += count
        return fresh

    def settled(self, everything: bool = False) -> list[int]:
        """Counts by arm of the requests whose start is settled and that were not returned before.

        ``everything``: nothing more will come, so all are settled.
        """
        limit = int((self._newest - SETTLED_SECONDS) / _SLOT)
        found = [0] * self.arms
        for slot in [s for s in self._slots if everything or s < limit]:
            found = [a + b for a, b in zip(found, self._slots.pop(slot), strict=True)]
        return found

    @property
    def patience(self) -> float:
        """Age in seconds from which a request without an end is missing: 10 s, or four times the
        mean duration if that is longer."""
        return patience(self._seconds / max(1, self._finished))

    def unfinished(self, age: float = 0.0) -> list[int]:
        """Requests by arm that are at least ``age`` seconds old and have not finished.

        Those that were lost together with their worker do not count."""
        self._expire()
        found = [0] * self.arms
        for request in self._open.values():
            if not request.lost and self._newest - request.started >= age:
                found[request.arm] += 1
        return found

    def lost(self) -> list[int]:
        """Requests by arm whose reports have stopped: their worker or its records were lost."""
        self._expire()
        found = [0] * self.arms
        for request in self._open.values():
            if request.lost:
                found[request.arm] += 1
        return found

    def _expire(self) -> None:
        """Find the requests whose next report, at twice the age, is overdue."""
        for key, request in list(self._open.items()):
            late = self._newest - request.started - 2.0 * request.age - _OVERDUE
            request.lost = late > 0.0
            if late > _FORGOTTEN:
                del self._open[key]

    def clear(self) -> None:
        """Start a new epoch; requests not returned yet are dropped, for all arms alike."""
        self._slots.clear()
        self._open.clear()
        self._finished = 0
        self._seconds = 0.0

    def _restored(self) -> None:
        if any(len(counts) != self.arms for counts in self._slots.values()):
            raise FieldError("slots", f"must have counts of {self.arms} arms")
        if any(request.arm >= self.arms for request in self._open.values()):
            raise FieldError("open", f"must be requests of {self.arms} arms")
        if len(self._open) > self.limit:
            raise FieldError("open", f"must be {self.limit:,} requests at most")
