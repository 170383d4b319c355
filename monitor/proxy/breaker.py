"""Circuit breaker: a pure state machine whose clock is passed in.

Closed until ``failures`` in a row; then open for a time that doubles with each failed probe; then
half-open, where at most ``probes`` requests are in flight and as many successes close it.
"""

from __future__ import annotations

from typing import Final

from understudy.monitor.records import record
from understudy.monitor.routing.plan import Breaker as Settings

CLOSED: Final = 0
OPEN: Final = 1
HALF_OPEN: Final = 2


def success_of(outcome: int) -> bool | None:
    """What an outcome says of the model server: None for what it did not cause."""
    if outcome in record.CHARGED:
        return False
    return True if outcome in record.ANSWERED else None


class Breaker:
    """A circuit breaker. ``now`` is always monotonic time in seconds.

    ``epoch`` numbers the states, from 1. A request belongs to the state in which it was allowed:
    one that was sent before the breaker opened does not count as a probe.
    """

    __slots__ = (
        "_failures",
        "_in_probe",
        "_open_for",
        "_reopens_at",
        "_settings",
        "_successes",
        "epoch",
        "state",
    )

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.state = CLOSED
        self.epoch = 1
        self._failures = 0
        self._open_for = settings.open_seconds
        self._reopens_at = 0.0
        self._in_probe = 0
        self._successes = 0

    def allow(self, now: float) -> int:
        """The epoch if a request may be sent, else 0; each epoch must get one :meth:`report`."""
        if self.state == CLOSED:
            return self.epoch
        if self.state == OPEN:
            if now < self._reopens_at:
                return 0
            self._enter(HALF_OPEN)
            self._in_probe = 0
            self._successes = 0
        if self._in_probe + self._successes >= self._settings.probes:
            return 0
        self._in_probe += 1
        return self.epoch

    def report(self, success: bool | None, now: float, epoch: int) -> None:
        """Report the result of a request that :meth:`allow` allowed in ``epoch``; None: unknown."""
        if epoch != self.epoch:
            return
        if self.state == CLOSED:
            if success is None:
                return
            if success:
                self._failures = 0
                return
            self._failures += 1
            if self._failures >= self._settings.failures:
                self._open(now)
        elif self.state == HALF_OPEN:
            self._in_probe -= 1
            if success is None:
                return
            if not success:
                self._open_for = min(self._open_for * 2, self._settings.max_open_seconds)
                self._open(now)
                return
            self._successes += 1
            if self._successes >= self._settings.probes:
                self._enter(CLOSED)
                self._failures = 0
                self._open_for = self._settings.open_seconds

    def _enter(self, state: int) -> None:
        self.state = state
        self.epoch += 1

    def _open(self, now: float) -> None:
        self._enter(OPEN)
        self._reopens_at = now + self._open_for
