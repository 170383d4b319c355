"""The memory of a worker for bytes that its connections keep, over all of them.

What is kept is of three kinds. Bytes that wait for a client (a body that is not whole, a response
that it does not read) are the first to go: when there is no room, the client that has held some
for the longest is cut off, since a quick one holds them for milliseconds. Bytes that a request
needs while it waits for the model server are refused when there is no room. Copies, for records and
mirrored requests, get what the others leave, up to half of all.

Each connection may keep :data:`SMALL` bytes that do not count, so that most requests cost no
bookkeeping.
"""

from __future__ import annotations

from time import monotonic
from typing import Final, Protocol

SMALL: Final = 4096
"""Bytes of a connection that do not count."""
GRACE_SECONDS: Final = 1.0
"""How long a client may hold memory before it is cut off in favour of a request that could be
forwarded without being kept."""


class Slow(Protocol):
    """Something that holds memory until its client sends or reads more."""

    def evict(self) -> None:
        """Give back what it holds: its client was the slowest."""


class Charged(Slow, Protocol):
    """One whose bytes :meth:`Memory.account` counts; ``charged`` of them are accounted for."""

    charged: int


class Memory:
    """Accounts for at most ``limit`` bytes; ``used`` are in use. ``dropped`` counts the payloads of
    records for which there was no room."""

    __slots__ = ("_slow", "dropped", "limit", "used")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self.dropped = 0
        self._slow: dict[Slow, float] = {}
        """Since when they have held memory, the oldest first."""

    def take(self, size: int) -> bool:
        """Account for ``size`` bytes that are to be kept; False when there is no room, even without
        the clients that are slow for longer than :data:`GRACE_SECONDS`."""
        if self.used + size > self.limit:
            latest = monotonic() - GRACE_SECONDS
            while self.used + size > self.limit:
                slowest = next(iter(self._slow), None)
                if slowest is None or self._slow[slowest] > latest:
                    return False
                self._evict(slowest)
        self.used += size
        return True

    def force(self, size: int) -> None:
        """Account for ``size`` bytes that cannot be given back. The slowest clients are cut off
        until there is room, maybe the one that holds these bytes, too."""
        self.used += size
        while self.used > self.limit and self._slow:
            self._evict(next(iter(self._slow)))

    def account(self, holder: Charged, size: int) -> None:
        """``holder`` keeps ``size`` bytes now. When memory runs out, the slowest clients are cut
        off; if the holder is one of them, it gives back what ``charged`` says."""
        more = (size if size > SMALL else 0) - holder.charged
        if not more:
            return
        holder.charged += more
        if holder.charged:
            self.waits(holder)
        else:
            self.moves(holder)
        if more > 0:
            self.force(more)
        else:
            self.give(-more)

    def copy(self, size: int) -> bool:
        """Account for a copy of ``size`` bytes, without which requests go on; False when there is
        no room."""
        if not self.fits(size):
            return False
        self.used += size
        return True

    def fits(self, size: int) -> bool:
        """Whether there is room for a copy of ``size`` bytes."""
        return self.used + size <= self.limit // 2

    def give(self, size: int) -> None:
        """``size`` bytes are no longer kept."""
        self.used -= size

    def waits(self, holder: Slow) -> None:
        """``holder`` holds memory until its client sends or reads more."""
        self._slow.setdefault(holder, monotonic())

    def moves(self, holder: Slow) -> None:
        """It does so no longer."""
        self._slow.pop(holder, None)

    def _evict(self, holder: Slow) -> None:
        del self._slow[holder]
        holder.evict()
