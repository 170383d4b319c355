"""Shares the turns of the event loop, so that one connection with much to parse starves no other.

A peer decides how many pieces its bytes have: 256 KiB of one-byte chunks take a thousand times as
long to parse as one chunk of that size. So a connection parses a bounded number of pieces in a
turn, keeps the rest, stops reading, and waits in a queue; each turn serves the head of the queue up
to a bound, and all other connections get their events in between. Bytes count, too, as work.

A message that is whole at the first read, as nearly all are, never comes here.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, Final, cast

from understudy.common.compiling import compiled_class

PIECES = 64
"""Most chunks of a body that a connection parses in one turn."""
READ_UNITS: Final = 4
"""Work of one read, in units. One unit is the work of one chunk, about a microsecond."""
_BYTES_SHIFT: Final = 11
"""2 KiB that are forwarded are one unit of work."""
_BLOCK: Final = 16 * 1024
"""Size of the blocks in which bytes wait: what is left of one is copied in each turn."""
_MANY: Final = 64
"""Most pieces of a body that are kept one by one: each takes 40 bytes more than its content."""


class Turns:
    """A budget of work for each turn of the loop, and a queue of connections that have exceeded it.

    ``units`` is the budget. Half of it serves the queue; the rest is for connections that have
    something new. While the queue is empty, the budget holds for a tick of the loop's clock. The
    queue is served after a ``pause`` in seconds, or in every turn.
    """

    __slots__ = ("_left", "_loop", "_now", "_pause", "_queue", "_scheduled", "_time", "_units")

    def __init__(self, loop: asyncio.AbstractEventLoop, units: int, pause: float = 0.0) -> None:
        self._loop = loop
        self._time = loop.time
        self._units = units
        self._pause = pause
        self._left = units
        self._now = 0.0
        self._queue: deque[PacedConnection] = deque()
        self._scheduled = False

    def spend(self, units: int) -> bool:
        """Account for work; whether the budget is used up."""
        now = self._time()
        if now != self._now:
            self._now = now
            self._left = self._units
        self._left -= units
        return self._left <= 0

    def wait(self, connection: PacedConnection) -> None:
        """Call ``go_on`` of ``connection`` in one of the next turns."""
        self._queue.append(connection)
        self._schedule()

    def _schedule(self) -> None:
        if self._scheduled:
            return
        self._scheduled = True
        if self._pause:
            self._loop.call_later(self._pause, self._turn)
        else:
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._scheduled = False
        self._now = self._time()
        half = self._left = self._units // 2
        queue = self._queue
        for _ in range(len(queue)):
            queue.popleft().go_on()
            if self._left <= 0:
                break
        self._left += self._units - half
        if queue:
            self._schedule()


@compiled_class(allow_interpreted_subclasses=True)
class PacedConnection(asyncio.Protocol):
    """A connection that stops reading for either of two reasons: the receiver of its bytes is not
    writable (``read_paused``), or it has had its share of the turn."""

    __slots__ = ("_cost", "_held", "_turns", "_waits", "read_paused", "transport")

    def __init__(self, turns: Turns) -> None:
        self.transport: asyncio.Transport | None = None
        self.read_paused = False
        self._turns = turns
        self._held: list[bytes] = []
        """Bytes that were read and not parsed, in blocks; the first one is last."""
        self._waits = False
        self._cost = READ_UNITS
        """Units of work of the last read: what the next one is expected to cost."""

    def pause(self) -> None:
        """Stop reading for now: the receiver is not writable."""
        if not self.read_paused and self.transport is not None:
            self.read_paused = True
            self.transport.pause_reading()

    def resume(self) -> None:
        """Read again."""
        if self.read_paused and self.transport is not None:
            self.read_paused = False
            if not self._waits:
                self._continue()

    def go_on(self) -> None:
        """Its turn has come: parse more of what it holds, or read again."""
        self._waits = False
        held = self._held
        while held and not self._waits and not self.read_paused:
            self.data_received(held.pop())
        if not self._waits and not self.read_paused:
            # What a read costs is known when it is done, and each of many connections may read
            # 256 KiB: few of them go on in a turn.
            self._turns.spend(self._cost)
            self._continue()

    def _continue(self) -> None:
        if self.transport is None:
            self._held.clear()
        elif self._held:
            self._wait()
        else:
            self.transport.resume_reading()

    def _hold(self, data: bytes) -> None:
        """Keep ``data`` for another turn."""
        if len(data) > _BLOCK:
            last = (len(data) - 1) // _BLOCK * _BLOCK
            self._held += [data[at : at + _BLOCK] for at in range(last, -1, -_BLOCK)]
        else:
            self._held.append(data)
        self._wait()

    def _spend(self, size: int, pieces: int = 0) -> None:
        """Account for ``size`` bytes in ``pieces``; wait for another turn if that was too much."""
        self._cost = READ_UNITS + pieces + (size >> _BYTES_SHIFT)
        if self._turns.spend(self._cost):
            self._wait()

    def _wait(self) -> None:
        if not self._waits and self.transport is not None:
            self._waits = True
            if not self.read_paused:
                self.transport.pause_reading()
            self._turns.wait(self)


def merge(pieces: list[bytes]) -> None:
    """Merge the pieces of a body when they have become many, in linear time overall."""
    if len(pieces) <= _MANY:
        return
    # Nothing but a join reads the pieces, and it takes both kinds.
    both: list[Any] = cast("list[Any]", pieces)
    first = both[0]
    whole = first if isinstance(first, bytearray) else bytearray(first)
    whole += b"".join(both[1:])
    both[:] = [whole]
