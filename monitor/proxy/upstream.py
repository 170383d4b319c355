"""One connection to a model server, which parses the responses.

A connection carries one exchange at a time. The receiver of the response is its *sink*: the
client's exchange, or a mirrored request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic_ns
from typing import Any, Final, Protocol, cast

from understudy.monitor.errors import HttpError
from understudy.monitor.proxy.endpoints import Endpoint
from understudy.monitor.proxy.framing import Chunked
from understudy.monitor.proxy.head import (
    CHUNKED,
    NO_BODY,
    UNTIL_CLOSE,
    ResponseHead,
    parse_response,
)
from understudy.monitor.proxy.memory import SMALL, Memory
from understudy.monitor.proxy.sockets import unread
from understudy.monitor.proxy.stream import READ, StreamMeter, stream_kind
from understudy.monitor.proxy.turns import PIECES, PacedConnection, Turns, merge
from understudy.monitor.routing.plan import Upstream

HEAD_LIMIT: Final = 64 * 1024
"""Largest response head in bytes; model servers stay far below."""
SALVAGED: Final = 256 * 1024
"""Most bytes in the socket that are read from a connection that broke while we were sending."""
WRITE_MARK: Final = 16 * 1024
"""Bytes that a model server has not read when no more is read for it from the client."""
FINISH_SECONDS: Final = 5.0
"""How long sending the last bytes of a tunnel may take."""


class Carrier(Protocol):
    """One exchange's part of a connection to a model server, as the exchange uses it: a whole
    connection of HTTP/1.1, or one stream of HTTP/2."""

    stream: StreamMeter | None
    """Times the response and keeps its copy, if it is a stream of events."""

    @property
    def reused(self) -> bool:
        """Whether the connection has carried other exchanges before."""

    @property
    def endpoint(self) -> Endpoint:
        """The address that it is connected to."""

    @property
    def read_paused(self) -> bool:
        """Whether nothing more of the response is read for now."""

    @property
    def response_size(self) -> int:
        """Bytes of the response's body so far."""

    @property
    def wire_size(self) -> int:
        """Bytes of the response so far as they were sent, without those of its head."""

    def begin(
        self, sink: Sink, data: bytes, to_head: bool, capture_limit: int, decode: bool
    ) -> None:
        """Send the start of a request for ``sink``. ``decode``: pass bodies on unframed."""

    def write(self, data: bytes) -> None:
        """Send more of the request."""

    def unsent(self) -> int:
        """Bytes of the request that the model server has not taken."""

    def pause(self) -> None:
        """Read no more of the response for now."""

    def resume(self) -> None:
        """Read again."""

    def take_capture(self) -> list[bytes] | None:
        """The captured body, once; None if it was not captured."""

    def abort(self) -> None:
        """Abort the exchange in flight."""

    def finish(self) -> None:
        """The sink sends nothing more: flush and close."""

    def closing(self) -> bool:
        """Whether nothing can be sent any more."""


def discard(transport: asyncio.Transport) -> None:
    """Close without waiting for a peer that does not read."""
    if transport.get_write_buffer_size():
        transport.abort()
    else:
        transport.close()


class Sink(Protocol):
    """The receiver of a response: the callbacks of a connection."""

    deadline_ns: int
    """When its client gives up, in monotonic time; 0 without a limit."""

    def on_ready(self, connection: Carrier) -> None:
        """A connection is free for this exchange."""

    def on_unavailable(self, reason: str) -> None:
        """No connection: ``connect`` (refused, unreachable), ``overload`` (queue full)."""

    def on_interim(self, raw: bytes) -> None:
        """A 1xx response, unchanged."""

    def on_head(self, head: ResponseHead, body: bytes, done: bool) -> None:
        """The final response's head with the first part of its body; ``done``: it is complete."""

    def on_body(self, body: bytes, done: bool) -> None:
        """More of the body."""

    def on_tunnel(self, head: ResponseHead, data: bytes) -> None:
        """101: from here on bytes flow both ways."""

    def on_lost(self, reason: str) -> None:
        """The connection failed before the response was complete: ``reset``, ``garbage``, or
        without a byte of this response, ``stale`` if it had been used before, else ``unanswered``;
        ``refused`` if the model server says that it has not processed the request.
        """

    def on_writable(self, writable: bool) -> None:
        """The connection's write buffer is below (or above) its mark."""


class Owner(Protocol):
    """The interface of the pool that its connections use."""

    @property
    def upstream(self) -> Upstream:
        """The model server."""

    @property
    def turns(self) -> Turns:
        """The budget of work that its connections share."""

    @property
    def memory(self) -> Memory:
        """The memory for copies of responses."""

    @property
    def refused(self) -> Callable[[str], None]:
        """Called with the reason why a response was refused."""

    def forget(self, connection: Any) -> None:
        """The connection is gone."""


class UpstreamConnection(PacedConnection):
    """A connection to a model server. ``capture`` collects the body up to the capture limit, of a
    stream its ``stream`` does."""

    __slots__ = (
        "_buffer",
        "_charged",
        "_chunked",
        "_interim",
        "_interim_bytes",
        "_lines_left",
        "_remaining",
        "_to_head",
        "capture",
        "capture_limit",
        "choked",
        "decode",
        "endpoint",
        "head",
        "idle_seconds",
        "pool",
        "response_size",
        "retire_at",
        "reused",
        "sink",
        "stream",
        "tunnel",
        "usable_until",
    )

    def __init__(self, pool: Owner, endpoint: Endpoint) -> None:
        super().__init__(pool.turns)
        self.pool = pool
        self.endpoint = endpoint
        self.sink: Sink | None = None
        self.head: ResponseHead | None = None
        self.idle_seconds = pool.upstream.idle_timeout
        self.reused = False
        self.retire_at = 0.0
        """Monotonic time in seconds after which it gets no further request."""
        self.usable_until = 0.0
        """While it is idle: until when it can be used, as monotonic time in seconds."""
        self.capture: list[bytes] | None = None
        self.capture_limit = 0
        self.stream: StreamMeter | None = None
        self.response_size = 0
        self.decode = False
        self.tunnel = False
        self.choked = False
        self._buffer = b""
        self._charged = 0
        """Bytes of the capture that are accounted for."""
        self._chunked: Chunked | None = None
        self._remaining = 0
        self._to_head = False
        self._interim = 0
        self._interim_bytes = 0
        self._lines_left = 1 + pool.upstream.max_header_lines

    @property
    def wire_size(self) -> int:
        """Bytes of the response so far as they were sent, without those of its head."""
        chunked = self._chunked
        body = chunked.framed if chunked is not None else self.response_size
        return body + self._interim_bytes

    # Called by the exchange ---------------------------------------------------------------------

    def begin(
        self, sink: Sink, data: bytes, to_head: bool, capture_limit: int, decode: bool
    ) -> None:
        """Send the start of a request for ``sink``. ``decode``: pass chunked bodies on unframed."""
        self.sink = sink
        self.head = None
        self._to_head = to_head
        self.capture = []
        self.stream = None
        self.capture_limit = capture_limit
        self.response_size = 0
        self.decode = decode
        if self._interim:
            self._interim = self._interim_bytes = 0
            self._lines_left = 1 + self.pool.upstream.max_header_lines
        assert self.transport is not None
        self.transport.write(data)

    def write(self, data: bytes) -> None:
        """Send more of the request."""
        assert self.transport is not None
        self.transport.write(data)

    def unsent(self) -> int:
        """Bytes of the request that the kernel has not taken."""
        return self.transport.get_write_buffer_size() if self.transport is not None else 0

    def take_capture(self) -> list[bytes] | None:
        """The captured body, once; None if it was not captured. A stream that was not taken before
        is dropped."""
        capture, self.capture = self.capture, None
        if self.stream is not None:
            self.stream.drop()
        if self._charged:
            self.pool.memory.give(self._charged)
            self._charged = 0
        return capture

    def abort(self) -> None:
        """Abort the exchange in flight; the connection cannot be reused."""
        self.sink = None
        self.take_capture()
        self._held.clear()
        if self.transport is not None:
            self.transport.abort()

    def finish(self) -> None:
        """The sink sends nothing more: flush and close."""
        self.sink = None
        self._held.clear()
        transport = self.transport
        if transport is not None:
            transport.close()
            # A peer that no longer reads must not keep the connection.
            asyncio.get_running_loop().call_later(FINISH_SECONDS, transport.abort)

    def discard(self) -> None:
        """Close it, without waiting for a peer that does not read."""
        if self.transport is not None:
            discard(self.transport)

    def closing(self) -> bool:
        """The transport is no longer usable."""
        return self.transport is None or self.transport.is_closing()

    # Called by the event loop -------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are none of asyncio's classes.
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(WRITE_MARK)

    def eof_received(self) -> None:
        sink = self.sink
        if sink is None or self.tunnel:
            return
        # Now, since the transport would first send what the model server may never read.
        if self.head is not None and self.head.length == UNTIL_CLOSE:
            # The response is whole, and so is its copy.
            self.sink = None
            self._held.clear()
            if self.transport is not None:
                self.transport.abort()
            sink.on_body(b"", True)
        else:
            self.abort()
            sink.on_lost(self._lost())

    def _lost(self) -> str:
        """How an exchange ended with the connection; see :meth:`Sink.on_lost`."""
        if self.head is not None or self._buffer or self._interim:
            return "reset"
        return "stale" if self.reused else "unanswered"

    def connection_lost(self, exc: Exception | None) -> None:
        transport, self.transport = self.transport, None
        if exc is not None and self.sink is not None and transport is not None:
            self._salvage(transport)
        self._held.clear()
        sink, self.sink = self.sink, None
        if sink is not None:
            if (
                self.head is not None
                and (self.tunnel or self.head.length == UNTIL_CLOSE)
                and not exc
            ):
                sink.on_body(b"", True)
            else:
                sink.on_lost(self._lost())
        self.take_capture()
        self.pool.forget(self)

    def pause_writing(self) -> None:
        self.choked = True
        if self.sink is not None:
            self.sink.on_writable(False)

    def resume_writing(self) -> None:
        self.choked = False
        if self.sink is not None:
            self.sink.on_writable(True)

    def data_received(self, data: bytes) -> None:
        sink = self.sink
        if sink is None:
            # Unsolicited bytes would be taken for the next response.
            if self.transport is not None:
                self.transport.abort()
            return
        try:
            if self.head is not None:
                if self.tunnel:
                    sink.on_body(data, False)
                    self._spend(len(data))
                elif (
                    self._chunked is not None
                    and self._turns.spend(0)
                    and self.transport is not None
                ):
                    self._hold(data)
                else:
                    body, done = self._body(data)
                    if done:
                        self.sink = None
                    sink.on_body(body, done)
            else:
                self._receive_head(sink, data)
        except HttpError as error:
            self.abort()
            self.pool.refused(error.reason)
            sink.on_lost("garbage")

    def _salvage(self, transport: asyncio.Transport) -> None:
        """Take what arrived before sending failed: a model server that refuses a request may answer
        and close before it has read all of it."""
        sink = self.sink
        left = SALVAGED
        while self.sink is sink:
            if self._held:
                self.data_received(self._held.pop())
                continue
            data = unread(transport, left)
            left -= len(data)
            if not data:
                return
            self.data_received(data)

    def _receive_head(self, sink: Sink, data: bytes) -> None:
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
        start = 0
        while True:
            end = data.find(b"\r\n\r\n", start)
            if end < 0 or end - start > HEAD_LIMIT:
                data = data[start:]
                if len(data) > HEAD_LIMIT:
                    raise HttpError(502, "head_too_large", "the upstream's head is too large")
                if data[:5] != b"HTTP/"[: len(data)]:
                    raise HttpError(502, "garbage", "the upstream does not speak HTTP/1")
                self._buffer = data
                return
            head = parse_response(data[start:end], self._to_head, self._lines_left)
            if head.status >= 200:
                break
            if head.status == 101:
                self.head = head
                self.tunnel = True
                sink.on_tunnel(head, data[end + 4 :])
                return
            # All interim responses together may be as large as one head.
            self._interim += 1
            self._interim_bytes += end + 4 - start
            self._lines_left -= data.count(b"\r\n", start, end)
            if self._interim > self.pool.upstream.max_interim or self._interim_bytes > HEAD_LIMIT:
                raise HttpError(502, "interim", "the upstream sent too many interim responses")
            sink.on_interim(b"\r\n".join((head.status_line, *head.lines, b"", b"")))
            if self.sink is not sink:
                return
            start = end + 4
            if start == len(data):
                return
        self.head = head
        if head.idle_seconds is not None:
            # The server announced its idle timeout: close before it does.
            self.idle_seconds = min(
                self.pool.upstream.idle_timeout, max(0.0, head.idle_seconds - 1)
            )
        length = head.length
        if length == CHUNKED:
            self._chunked = Chunked()
        else:
            self._chunked = None
            self._remaining = length
            if length > self.capture_limit:
                self.capture = None
        if self.capture_limit and length != NO_BODY and (kind := stream_kind(head.kept)):
            self.stream = StreamMeter(kind, self.capture_limit, self.pool.memory)
            self.capture = None
        body, done = self._body(data[end + 4 :])
        if done:
            self.sink = None
        sink.on_head(head, body, done)

    def _body(self, data: bytes) -> tuple[bytes, bool]:
        """The part of ``data`` to forward, and whether the body is complete."""
        chunked = self._chunked
        stream = self.stream
        if chunked is not None:
            wanted = self.decode or self.capture is not None or stream is not None
            pieces: list[bytes] | None = [] if wanted else None
            consumed = chunked.feed(data if stream is None else data[:READ], pieces, PIECES)
            self.response_size = chunked.size
            if stream is not None and pieces:
                stream.feed(pieces[0] if len(pieces) == 1 else b"".join(pieces), monotonic_ns())
            if pieces is not None and self.capture is not None and self._may_copy():
                self.capture += pieces
                merge(self.capture)
            done = chunked.done
            if done and (consumed < len(data) or self._held):
                self._spoil()
                self._held.clear()
            elif not done:
                if consumed < len(data):
                    self._hold(data[consumed:])
                self._spend(consumed, chunked.lines)
            if consumed < len(data):
                data = data[:consumed]
            return (b"".join(pieces or ()) if self.decode else data), done
        remaining = self._remaining
        if remaining == NO_BODY or remaining == 0:
            if data:
                self._spoil()
            return b"", True
        if stream is not None and data:
            if len(data) > READ:
                self._hold(data[READ:])
                data = data[:READ]
            stream.feed(data if remaining < 0 else data[:remaining], monotonic_ns())
        size = len(data)
        if remaining > 0:
            if size > remaining:
                self._spoil()
                data = data[:remaining]
                size = remaining
            self._remaining = remaining - size
        self.response_size += size
        if self.capture is not None and data and self._may_copy():
            self.capture.append(data)
        if remaining == size:
            return data, True
        self._spend(size)
        if self.capture is not None:
            merge(self.capture)
        return data, False

    def _may_copy(self) -> bool:
        """Whether the response so far may be captured; otherwise none of it is any longer."""
        size = self.response_size
        if size <= self.capture_limit:
            if size <= SMALL:
                return True
            more = size - self._charged
            if self.pool.memory.copy(more):
                self._charged = size
                return True
            self.pool.memory.dropped += 1
        self.take_capture()
        return False

    def _spoil(self) -> None:
        """The upstream sent bytes beyond its response: do not reuse the connection."""
        assert self.head is not None
        self.head.keep_alive = False
