"""Circuit breaker: a pure state machine whose clock is handed in.

Closed until ``failures`` in a row; then open for a time that doubles with each failed probe; then
half-open, where at most ``probes`` requests are under way and as many successes close it.
"""

from __future__ import annotations

from monitor.proxy.plan import Breaker as Settings

CLOSED = 0
OPEN = 1
HALF_OPEN = 2


class Breaker:
    """``now`` is a monotonic time in seconds everywhere."""

    __slots__ = (
        "_failures",
        "_in_probe",
        "_open_for",
        "_reopens_at",
        "_settings",
        "_successes",
        "state",
    )

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.state = CLOSED
        self._failures = 0
        self._open_for = settings.open_seconds
        self._reopens_at = 0.0
        self._in_probe = 0
        self._successes = 0

    def allow(self, now: float) -> bool:
        """Whether a request may be sent; every True must be answered by one :meth:`report`."""
        if self.state == CLOSED:
            return True
        if self.state == OPEN:
            if now < self._reopens_at:
                return False
            self.state = HALF_OPEN
            self._in_probe = 0
            self._successes = 0
        if self._in_probe + self._successes >= self._settings.probes:
            return False
        self._in_probe += 1
        return True

    def report(self, success: bool, now: float) -> None:
        """The outcome of a request that :meth:`allow` let pass."""
        if self.state == CLOSED:
            if success:
                self._failures = 0
                return
            self._failures += 1
            if self._failures >= self._settings.failures:
                self._open(now)
        elif self.state == HALF_OPEN:
            self._in_probe = max(0, self._in_probe - 1)
            if not success:
                self._open_for = min(self._open_for * 2, self._settings.max_open_seconds)
                self._open(now)
                return
            self._successes += 1
            if self._successes >= self._settings.probes:
                self.state = CLOSED
                self._failures = 0
                self._open_for = self._settings.open_seconds
        # While open, what was sent before it opened may still come back: it decides nothing.

    def _open(self, now: float) -> None:
        self.state = OPEN
        self._reopens_at = now + self._open_for
