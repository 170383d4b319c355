"""The wall clock of a worker, as an offset to the monotonic one.

The times of a request are monotonic. Its record has the wall time of its start, which is computed
from them and not read when the record is made: a pause before that reading would shift the request,
and with it its spans, against those of its callers and model servers.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic_ns, time_ns

_CLOSE_NS = 20_000
"""A reading of both clocks that took no longer is not repeated."""
_READINGS = 4


class WallClock:
    """``offset_ns`` is unix time minus monotonic time, in nanoseconds."""

    __slots__ = ("_monotonic", "_wall", "offset_ns")

    def __init__(
        self, monotonic: Callable[[], int] = monotonic_ns, wall: Callable[[], int] = time_ns
    ) -> None:
        self._monotonic = monotonic
        self._wall = wall
        self.offset_ns, _ = self._read()

    def refresh(self) -> None:
        """Follow the wall clock if it was set. Call it about each second.

        What may be an error of the reading changes nothing, so that requests keep their order."""
        offset, error = self._read()
        if abs(offset - self.offset_ns) > error:
            self.offset_ns = offset

    def at(self, monotonic_ns: int) -> float:
        """Unix seconds of a monotonic time in nanoseconds."""
        return (monotonic_ns + self.offset_ns) / 1e9

    def _read(self) -> tuple[int, int]:
        """The offset, and how far it may be off: the process may pause between two readings."""
        found, error = 0, -1
        for _ in range(_READINGS):
            before = self._monotonic()
            wall = self._wall()
            after = self._monotonic()
            if error < 0 or after - before < error:
                found, error = wall - (before + after) // 2, after - before
            if error <= _CLOSE_NS:
                break
        return found, error
