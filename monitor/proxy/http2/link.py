"""One connection of HTTP/2, of either side: bytes in, events, bytes out.

What all connections of a turn of the event loop have to send is written once at its end: the head,
body and trailers of an answer take one call to the kernel.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Protocol, cast
from weakref import WeakKeyDictionary

from understudy.common.http2 import Connection, EngineError
from understudy.monitor.proxy.turns import PacedConnection, Turns

SLICE = 64 * 1024
"""Bytes that are parsed in one turn: what a peer sends in small frames takes the longest."""
MARK = 64 * 1024
"""Bytes of one message that the peer has not taken when no more is read for it."""


class Stream(Protocol):
    """One exchange of a connection, as its connection uses it."""

    id: int
    choked: bool
    closed: bool

    def on_choked(self, choked: bool) -> None:
        """The peer does not take what is sent to it, or does again."""


class Flusher:
    """Writes what connections have to send, once per turn of the event loop."""

    __slots__ = ("_dirty", "_loop", "_scheduled", "busy")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._dirty: list[Link] = []
        self._scheduled = False
        self.busy = False
        """A connection handles its events, and will flush."""

    def touch(self, link: Link) -> None:
        """``link`` has something to send."""
        if link.dirty:
            return
        link.dirty = True
        self._dirty.append(link)
        if not self.busy and not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._run)

    def _run(self) -> None:
        self._scheduled = False
        self.flush()

    def flush(self) -> None:
        """Write all of it."""
        dirty = self._dirty
        while dirty:
            link = dirty.pop()
            link.dirty = False
            link.flush()


_flushers: WeakKeyDictionary[asyncio.AbstractEventLoop, Flusher] = WeakKeyDictionary()


def flusher_of(loop: asyncio.AbstractEventLoop) -> Flusher:
    """The one of an event loop."""
    found = _flushers.get(loop)
    if found is None:
        found = _flushers[loop] = Flusher(loop)
    return found


class Link(PacedConnection):
    """A connection. ``streams`` are those in flight, by their number."""

    __slots__ = ("_flusher", "_full", "_written", "dirty", "engine", "loop", "streams", "stuck")

    def __init__(self, loop: asyncio.AbstractEventLoop, turns: Turns, engine: Connection) -> None:
        super().__init__(turns)
        self.loop = loop
        self.engine = engine
        self.streams: dict[int, Any] = {}
        self.dirty = False
        self.stuck = False
        """The kernel takes no more."""
        self._flusher = flusher_of(loop)
        self._written: list[Stream] = []
        self._full: set[Stream] = set()

    # Called by the event loop -------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are none of asyncio's classes.
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(MARK)
        self.touch()

    def data_received(self, data: bytes) -> None:
        if len(data) > SLICE:
            rest = data[SLICE:]
            self._parse(data[:SLICE])
            if self.transport is not None:
                self._hold(rest)
        else:
            self._parse(data)

    def pause_writing(self) -> None:
        self.stuck = True

    def resume_writing(self) -> None:
        self.stuck = False
        self.touch()

    # Inside -------------------------------------------------------------------------------------

    def _parse(self, data: bytes) -> None:
        engine, flusher = self.engine, self._flusher
        broken = False
        flusher.busy = True
        try:
            try:
                engine.receive_data(data)
            except EngineError:
                broken = True
            events = engine.events()
            self._handle(events)
        finally:
            flusher.busy = False
            self.touch()
            flusher.flush()
        if broken or not (engine.want_read or engine.want_write):
            self._broken()
        else:
            self._spend(len(data), len(events))

    def _handle(self, events: Sequence[Any]) -> None:
        raise NotImplementedError

    def _broken(self) -> None:
        """The peer broke a rule or a limit, or nothing is left to say: close."""
        if self.transport is None:
            return
        if self.stuck:
            # It does not read what it should be told.
            self.transport.abort()
        else:
            self.transport.close()

    def touch(self) -> None:
        """There is something to send."""
        if not self.dirty:
            self._flusher.touch(self)

    def wrote(self, stream: Stream) -> None:
        """A part of a body was added to what ``stream`` has to send."""
        self._written.append(stream)
        if not self.dirty:
            self._flusher.touch(self)

    def flush(self) -> None:
        """Send what the peer's windows and the kernel have room for."""
        transport, engine = self.transport, self.engine
        if transport is None or transport.is_closing():
            self._written.clear()
            return
        try:
            if not self.stuck:
                data = engine.data_to_send()
                if data:
                    transport.write(data)
        except EngineError:
            transport.abort()
            return
        if self._written:
            written, self._written = self._written, []
            for stream in written:
                if not stream.choked and not stream.closed and self.backlog(stream) > MARK:
                    stream.choked = True
                    self._full.add(stream)
                    stream.on_choked(True)
        if self._full:
            for stream in tuple(self._full):
                if stream.closed or self.backlog(stream) <= MARK // 2:
                    self._full.discard(stream)
                    stream.choked = False
                    if not stream.closed:
                        stream.on_choked(False)

    def backlog(self, stream: Stream) -> int:
        """Bytes of a stream's body that wait for the peer."""
        return self.engine.queued_body_size(stream.id)
