"""A connection over HTTP/2 to a model server, and its streams: each carries one exchange.

A stream is to its exchange what a connection of HTTP/1.1 is: it takes the request as bytes of that
protocol, and passes the response on in the form that the exchange asks for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from time import monotonic, monotonic_ns
from typing import Any, Protocol

from understudy.common import http2
from understudy.common.http2 import (
    DataReceived,
    EngineError,
    GoAwayReceived,
    ResponseReceived,
    SettingsReceived,
    StreamClosed,
    TrailersReceived,
)
from understudy.monitor.errors import HttpError
from understudy.monitor.proxy.endpoints import Endpoint
from understudy.monitor.proxy.framing import Chunked
from understudy.monitor.proxy.head import CHUNKED
from understudy.monitor.proxy.http2.fields import (
    Http2ResponseHead,
    Pair,
    framed,
    pair,
    response_head,
)
from understudy.monitor.proxy.http2.link import Link
from understudy.monitor.proxy.memory import SMALL
from understudy.monitor.proxy.stream import StreamMeter, stream_kind
from understudy.monitor.proxy.turns import merge
from understudy.monitor.proxy.upstream import Owner, Sink
from understudy.monitor.records import grpc_status

ANSWER_SECONDS = 20.0
"""For the answer to a ping, at most; as in libraries of gRPC."""
_TRAILERS = (b"te", b"trailers")


class SessionOwner(Owner, Protocol):
    """The interface of the pool that its sessions use."""

    def freed(self, session: Session) -> None:
        """A stream of a session has ended."""

    def allows(self, session: Session) -> None:
        """The server has said how many streams a session may have."""

    def leave(self, session: Session) -> None:
        """The session takes no more requests."""


class Session(Link):
    """A connection. ``active`` counts its streams, ``limit`` is how many it may have."""

    __slots__ = (
        "active",
        "endpoint",
        "garbled",
        "goes",
        "heard",
        "idle_seconds",
        "limit",
        "pinged",
        "pool",
        "retire_at",
        "reused",
        "usable_until",
    )

    def __init__(
        self, pool: SessionOwner, endpoint: Endpoint, loop: asyncio.AbstractEventLoop
    ) -> None:
        super().__init__(
            loop, pool.turns, http2.client(max(1024, 2 * pool.upstream.max_header_lines))
        )
        self.pool = pool
        self.endpoint = endpoint
        self.active = 0
        self.limit = 1
        """Until the server has said how many."""
        self.reused = False
        """It has answered a request."""
        self.goes = False
        """It takes no more requests, and is closed when it has none."""
        self.retire_at = 0.0
        self.usable_until = 0.0
        self.idle_seconds = pool.upstream.idle_timeout
        self.garbled = False
        """It does not speak HTTP/2, or broke a rule."""
        self.heard = monotonic()
        """When bytes last came, or the first request of several was sent."""
        self.pinged = 0.0
        """When it was asked whether it works, 0 if it has answered."""

    def open_stream(self) -> UpstreamStream:
        """A stream for one more request."""
        if not self.active:
            self.heard = monotonic()
        self.active += 1
        return UpstreamStream(self)

    def usable(self, now: float) -> bool:
        """Whether it can take a request, or could if it had fewer."""
        transport = self.transport
        return (
            transport is not None
            and not transport.is_closing()
            and not self.goes
            and now <= self.retire_at
        )

    def leave(self) -> None:
        """Take no more requests; close when there are none."""
        self.goes = True
        if not self.active:
            self.discard()

    def discard(self) -> None:
        """Close it, and say so."""
        if self.transport is not None and not self.transport.is_closing():
            try:
                self.engine.send_goaway()
            except EngineError:
                pass
            self.flush()
            if self.transport.get_write_buffer_size():
                self.transport.abort()
            else:
                self.transport.close()

    def keep_alive(self, now: float) -> None:
        """Ask a server that is silent whether the connection works; close one that does not."""
        if not self.active or self.transport is None:
            return
        limit = self.pool.upstream.keepalive
        if self.pinged:
            if now - self.pinged > min(limit, ANSWER_SECONDS):
                self.transport.abort()
        elif now - self.heard > limit:
            try:
                self.engine.ping()
            except EngineError:
                return
            self.pinged = now
            self.touch()

    # Called by the event loop -------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        self.heard, self.pinged = monotonic(), 0.0
        super().data_received(data)

    def eof_received(self) -> None:
        self._lose()

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self._held.clear()
        self._lose()
        self.pool.forget(self)

    def _lose(self) -> None:
        self.goes = True
        streams, self.streams = self.streams, {}
        for stream in tuple(streams.values()):
            stream.gone(http2.CANCEL, lost=True)

    def _broken(self) -> None:
        if not self.goes:
            self.garbled = True
            self.pool.refused("http2")
            for stream in tuple(self.streams.values()):
                stream.garbage()
        super()._broken()

    def _handle(self, events: Sequence[Any]) -> None:
        streams = self.streams
        for event in events:
            kind = type(event)
            if kind is DataReceived:
                stream = streams.get(event.stream_id)
                if stream is not None:
                    stream.receive(event.data, event.end_stream)
                elif event.data:
                    self.took(len(event.data), event.stream_id)
            elif kind is ResponseReceived:
                stream = streams.get(event.stream_id)
                if stream is not None:
                    stream.start(event.headers, event.end_stream)
            elif kind is TrailersReceived:
                stream = streams.get(event.stream_id)
                if stream is not None:
                    stream.end(event.headers)
            elif kind is StreamClosed:
                stream = streams.pop(event.stream_id, None)
                if stream is not None:
                    stream.gone(event.error_code)
            elif kind is SettingsReceived:
                self.limit = max(1, http2.streams_of(self.engine))
                self.pool.allows(self)
            elif kind is GoAwayReceived:
                self.goes = True
                self.pool.leave(self)

    def took(self, size: int, stream_id: int) -> None:
        """Bytes of a response were passed on: the model server may send as many again."""
        try:
            self.engine.acknowledge_received_data(size, stream_id)
        except EngineError:
            return
        self.touch()

    def ended(self) -> None:
        """A stream has ended."""
        self.active -= 1
        if self.goes and not self.active:
            self.discard()
        else:
            self.pool.freed(self)


class UpstreamStream:
    """One exchange of a session. See :class:`understudy.monitor.proxy.upstream.Carrier`."""

    __slots__ = (
        "_charged",
        "_framed",
        "_left",
        "_sent",
        "_unread",
        "_upload",
        "capture",
        "capture_limit",
        "choked",
        "closed",
        "decode",
        "endpoint",
        "head",
        "id",
        "read_paused",
        "response_size",
        "reused",
        "session",
        "sink",
        "stream",
        "to_head",
    )

    def __init__(self, session: Session) -> None:
        self.session = session
        self.endpoint = session.endpoint
        self.reused = session.reused
        self.id = 0
        self.sink: Sink | None = None
        self.head: Http2ResponseHead | None = None
        self.choked = False
        self.closed = False
        self.read_paused = False
        self.response_size = 0
        self.capture: list[bytes] | None = None
        self.stream: StreamMeter | None = None
        self.capture_limit = 0
        self.decode = False
        self.to_head = False
        self._charged = 0
        self._unread = 0
        """Bytes of the response that the model server may not send again yet."""
        self._upload: Chunked | None = None
        self._left = 0
        self._sent = False
        """The request is sent whole."""
        self._framed = False

    @property
    def wire_size(self) -> int:
        """Bytes of the response's body so far."""
        return self.response_size

    # Called by the exchange ---------------------------------------------------------------------

    def begin(
        self, sink: Sink, data: bytes, to_head: bool, capture_limit: int, decode: bool
    ) -> None:
        """Send the start of a request, whose head is one of HTTP/1.1."""
        self.sink = sink
        self.to_head = to_head
        self.capture = []
        self.capture_limit = capture_limit
        self.decode = decode
        session = self.session
        end = data.index(b"\r\n\r\n")
        first, *lines = data[:end].split(b"\r\n")
        method, target, _ = first.split(b" ")
        fields: list[Pair] = [
            (b":method", method),
            (b":scheme", b"http" if session.pool.upstream.tls is None else b"https"),
            (b":path", target),
        ]
        call = False
        length: Pair | None = None
        for line in lines:
            field = pair(line)
            if field is None:
                if line[:5].lower() == b"host:":
                    fields.insert(1, (b":authority", line[5:].strip(b" \t")))
                elif line[:17].lower() == b"transfer-encoding":
                    self._upload = Chunked()
                continue
            name = field[0]
            if name == b"content-length":
                self._left = int(field[1])
                length = field
                continue
            elif name == b"content-type":
                call = field[1][:16] == b"application/grpc"
            elif name == b"grpc-timeout" and sink.deadline_ns:
                field = (name, grpc_status.timeout_field(sink.deadline_ns - monotonic_ns()))
            fields.append(field)
        if call:
            fields.append(_TRAILERS)
        elif length is not None:
            # Of a call, it is not the client's: inside, a body that has arrived whole has one.
            fields.append(length)
        self._sent = self._upload is None and not self._left
        try:
            if session.goes or session.garbled or session.transport is None:
                raise EngineError("the connection has ended")
            self.id = session.engine.send_request(fields, end_stream=self._sent)
        except EngineError:
            self.closed = True
            session.loop.call_soon(self._refuse)
            return
        session.streams[self.id] = self
        rest = data[end + 4 :]
        if rest:
            self.write(rest)
        session.touch()

    def _refuse(self) -> None:
        session = self.session
        session.goes = True
        session.ended()
        # What was never sent can be sent once more.
        self._lost("garbage" if session.garbled else "refused")

    def write(self, data: bytes) -> None:
        """Send more of the request."""
        if self._sent or self.closed:
            return
        upload = self._upload
        if upload is not None:
            pieces: list[bytes] = []
            upload.feed(data, pieces)
            data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            self._sent = upload.done
        else:
            self._left -= len(data)
            self._sent = self._left <= 0
        session = self.session
        try:
            session.engine.send_data(self.id, data, end_stream=self._sent)
        except EngineError:
            return  # its end is among the events
        session.wrote(self)

    def unsent(self) -> int:
        """Bytes of the request that the model server has not taken."""
        return 0 if self.closed else self.session.backlog(self)

    def pause(self) -> None:
        """Read no more of the response for now."""
        self.read_paused = True

    def resume(self) -> None:
        """Read again."""
        self.read_paused = False
        if self._unread:
            self.session.took(self._unread, self.id)
            self._unread = 0

    def take_capture(self) -> list[bytes] | None:
        """The captured body, once; None if it was not captured."""
        capture, self.capture = self.capture, None
        if self.stream is not None:
            self.stream.drop()
        if self._charged:
            self.session.pool.memory.give(self._charged)
            self._charged = 0
        return capture

    def abort(self) -> None:
        """Abort the exchange in flight: the model server sees it at once."""
        self.sink = None
        self.take_capture()
        if self._unread:
            self.resume()
        if not self.closed:
            try:
                self.session.engine.reset_stream(self.id, http2.CANCEL)
            except EngineError:
                return
            self.session.touch()

    def finish(self) -> None:
        """There are no tunnels in HTTP/2."""
        self.abort()

    def closing(self) -> bool:
        """Whether nothing can be sent any more."""
        return self.closed

    def release(self) -> None:
        """The exchange is over."""
        self.sink = None
        if self._unread:
            self.resume()
        if not self._sent:
            self.abort()

    # Called by the session ----------------------------------------------------------------------

    def start(self, fields: Sequence[Pair], ended: bool) -> None:
        """The head of the response."""
        sink = self.sink
        if sink is None:
            return
        pool = self.session.pool
        try:
            head = response_head(fields, self.to_head, ended, pool.upstream.max_header_lines)
        except HttpError as error:
            pool.refused(error.reason)
            self.garbage()
            return
        self.head = head
        self.session.reused = True
        kind = stream_kind(head.kept) if self.capture_limit and not ended else 0
        if kind:
            self.stream = StreamMeter(kind, self.capture_limit, pool.memory)
            self.capture = None
        if head.length > self.capture_limit:
            self.capture = None
        elif head.length == CHUNKED and not self.decode:
            self._framed = True
            head.lines.append(b"Transfer-Encoding: chunked")
        if ended:
            self.sink = None
        sink.on_head(head, b"", ended)

    def receive(self, data: bytes, end: bool) -> None:
        """A part of the response's body; ``end``: it was the last."""
        size = len(data)
        sink = self.sink
        if size:
            if self.read_paused:
                self._unread += size
            else:
                self.session.took(size, self.id)
        if sink is None or self.head is None:
            return
        self.response_size += size
        if self.stream is not None and size:
            self.stream.feed(data, monotonic_ns())
        elif self.capture is not None and size and self._may_copy():
            self.capture.append(data)
            merge(self.capture)
        if end:
            self.sink = None
        if data or end:
            sink.on_body(framed(data, end) if self._framed else data, end)

    def end(self, trailers: Sequence[Pair]) -> None:
        """The response has ended with these fields."""
        sink, self.sink = self.sink, None
        if sink is None or self.head is None:
            return
        self.head.end(trailers)
        sink.on_body(framed(b"", True, trailers) if self._framed else b"", True)

    def gone(self, code: int, lost: bool = False) -> None:
        """The stream is closed, or the connection ``lost``."""
        if self.closed:
            return
        self.closed = True
        if self.sink is not None:
            if code == http2.REFUSED:
                # The server has not noticed yet that others have ended, or allows fewer now.
                self.session.limit = max(1, self.session.limit - 1)
                reason = "refused"
            elif self.head is not None:
                reason = "reset"
            else:
                reason = "stale" if lost and self.reused else "unanswered"
            self._lost(reason)
        self.session.ended()

    def garbage(self) -> None:
        """The response cannot be forwarded."""
        sink = self.sink
        self.abort()
        if sink is not None:
            sink.on_lost("garbage")

    def on_choked(self, choked: bool) -> None:
        """The model server does not read the request, or does again."""
        if self.sink is not None:
            self.sink.on_writable(not choked)

    # Inside -------------------------------------------------------------------------------------

    def _lost(self, reason: str) -> None:
        sink, self.sink = self.sink, None
        self.take_capture()
        if sink is not None:
            sink.on_lost(reason)

    def _may_copy(self) -> bool:
        """Whether the response so far may be captured; otherwise none of it is any longer."""
        size = self.response_size
        memory = self.session.pool.memory
        if size <= self.capture_limit:
            if size <= SMALL:
                return True
            more = size - self._charged
            if memory.copy(more):
                self._charged = size
                return True
            memory.dropped += 1
        self.take_capture()
        return False
