"""A client's connection: splits its bytes into requests and writes the responses in order."""

from __future__ import annotations

import asyncio
import json
import re
from time import monotonic, monotonic_ns
from typing import ClassVar, Final, cast

from understudy.common.compiling import compiled_class
from understudy.common.http2 import AVAILABLE
from understudy.monitor.errors import HttpError
from understudy.monitor.proxy.exchange import Exchange
from understudy.monitor.proxy.head import CHUNKED, UNTIL_CLOSE, ResponseHead, parse_request
from understudy.monitor.proxy.host import Host
from understudy.monitor.proxy.http2.client import Http2Client
from understudy.monitor.proxy.memory import SMALL
from understudy.monitor.proxy.protocols import Answered
from understudy.monitor.proxy.runtime import Runtime
from understudy.monitor.proxy.sockets import receive_little, unacknowledged
from understudy.monitor.proxy.turns import PacedConnection

_REASONS = {
    400: b"400 Bad Request",
    405: b"405 Method Not Allowed",
    408: b"408 Request Timeout",
    413: b"413 Content Too Large",
    414: b"414 URI Too Long",
    417: b"417 Expectation Failed",
    431: b"431 Request Header Fields Too Large",
    501: b"501 Not Implemented",
    503: b"503 Service Unavailable",
}
_PREFACE = b"PRI * HTTP/2.0\r\n\r\n"
_EMPTY_LINES = re.compile(rb"(?:\r\n){1,64}")
"""Those that one read may have before a request."""
QUIET_SECONDS: Final = 0.5
"""How long a client must be idle before its connection is closed early (by a draining worker, or in
favour of a client that finds no room): one that has just
connected, or that sends requests back to back, is about to send; its next response will announce
the close."""
LINGER_SECONDS: Final = 2.0
"""How long a client that still sends is read from after it has got its response."""
HALF_CLOSED_SECONDS: Final = 1.0
"""How long the answer may take to a client that has closed its side after a whole request. Whether
it waits for the answer or is gone shows only when something is sent to it."""


@compiled_class(allow_interpreted_subclasses=True)
class ClientConnection(PacedConnection):
    """A client's connection. ``since`` is the monotonic time in seconds since which it waits: for
    the next request, for the rest of a head, or for the end of lingering."""

    __slots__ = (
        "_buffer",
        "_choked",
        "_head_ns",
        "_undelivered",
        "charged",
        "ended_ns",
        "exchange",
        "fresh",
        "keep_alive",
        "lingering",
        "since",
        "worker",
    )
    kind: ClassVar[type[Exchange]] = Exchange
    """The class of its exchanges."""

    def __init__(self, worker: Host) -> None:
        super().__init__(worker.runtime.turns)
        self.worker = worker
        self.exchange: Exchange | None = None
        self.keep_alive = True
        self.lingering = False
        self.fresh = True
        """No request has come yet."""
        self.since = 0.0
        self._buffer = b""
        self._head_ns = 0
        self._choked = False
        self._undelivered = 0
        self.ended_ns = 0
        """When the client closed its side of the connection, in monotonic time; 0: it did not."""
        self.charged = 0
        """Bytes that are accounted for."""

    # Called by the event loop -------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are none of asyncio's classes.
        self.transport = cast(asyncio.Transport, transport)
        # What the kernel does not take is accounted for from here on.
        self.transport.set_write_buffer_limits(SMALL)
        self.since = monotonic()
        if not self.worker.admit(self):
            self._reject(HttpError(503, "connections", "too many connections"))

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self._buffer = b""
        self._held.clear()
        self._account()
        self.worker.dismiss(self)
        if self.exchange is not None:
            self.exchange.cancel()

    def eof_received(self) -> bool:
        exchange = self.exchange
        if exchange is None or exchange.tunnel or not exchange.request_complete or self.lingering:
            return False
        transport = self.transport
        if transport is None or transport.get_extra_info("sslcontext") is not None:
            return False  # TLS has no half-closed connections
        self.ended_ns = self.ended_ns or monotonic_ns()
        return True

    def pause_writing(self) -> None:
        self._choked = True
        if self.exchange is not None:
            self.exchange.writable(False)
        self._account()

    def resume_writing(self) -> None:
        self._choked = False
        self._account()
        if self.exchange is not None:
            self.exchange.writable(True)
        else:
            self._next_request()

    def data_received(self, data: bytes) -> None:
        if self.lingering:
            self._spend(len(data))
            return
        exchange = self.exchange
        try:
            if exchange is None:
                if self._choked:
                    self._keep(data)
                else:
                    self._requests(data)
            elif exchange.tunnel:
                exchange.feed_tunnel(data)
                self._spend(len(data))
            elif not exchange.request_complete:
                if exchange.head.length == CHUNKED and self._turns.spend(0):
                    self._hold(data)
                    return
                rest = exchange.feed(data)
                self._take_rest(exchange, rest)
                if not exchange.request_complete:
                    self._spend(len(data) - len(rest), exchange.pieces)
            else:
                self._keep(data)
            if self.charged:
                self._account()
        except HttpError as error:
            if exchange is not None and not exchange.finished:
                self.worker.rejected(error.reason)
                exchange.spoil(error, _REASONS[error.status])
            else:
                self._reject(error)

    # Called by the exchange ---------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Send bytes of a response."""
        if self.transport is not None:
            self.transport.write(data)

    def answer(
        self,
        status: int,
        line: bytes,
        detail: str,
        outcome: str = "rejected",
        request_id: bytes = b"",
    ) -> None:
        """Send the proxy's own response, as JSON; closes the connection if the request is
        incomplete or malformed."""
        exchange = self.exchange
        if status < 500 or exchange is None or not exchange.request_complete:
            self.keep_alive = False
        content = {"error": detail, "status": status, "outcome": outcome}
        extra = b""
        if request_id:
            content["request_id"] = request_id.decode("latin-1")
            extra = b"x-request-id: " + request_id + b"\r\n"
        if status == 503:
            extra += b"Retry-After: 1\r\n"
        body = json.dumps(content).encode()
        head = (
            b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%b%b\r\n"
            % (
                line,
                len(body),
                extra,
                b"" if self.keep_alive else b"Connection: close\r\n",
            )
        )
        to_head = exchange is not None and exchange.head.method == b"HEAD"
        self.write(head if to_head else head + body)

    def respond(self, exchange: Answered, head: ResponseHead, body: bytes, done: bool) -> None:
        """Send the head of a response and the first part of its body."""
        extra: tuple[bytes, ...] = ()
        if not head.has_request_id:
            extra = (b"x-request-id: " + exchange.request_id,)
        lines = head.lines
        minor = exchange.head.minor
        if head.length == UNTIL_CLOSE:
            self.keep_alive = False
        elif minor == 0 and head.length < 0:
            # An HTTP/1.0 client cannot read chunks: it gets the payload, ended by the close.
            if head.length == CHUNKED:
                self.keep_alive = False
            lines = [line for line in lines if line[:17].lower() != b"transfer-encoding"]
        if self.worker.draining:
            self.keep_alive = False
        if not exchange.request_complete:
            # The rest of the request cannot be told from the next one once this response is sent.
            self.keep_alive = False
        if not self.keep_alive:
            extra += (b"Connection: close",)
        elif minor == 0:
            extra += (b"Connection: keep-alive",)
        self.write(b"\r\n".join((head.status_line, *lines, *extra, b"", body)))

    def abort(self, outcome: str = "") -> None:
        """Abort the connection, so that the client sees that the response is incomplete."""
        self.keep_alive = False
        if self.transport is not None:
            self.transport.abort()

    def undelivered(self) -> int:
        """Bytes of responses that the client has not acknowledged yet."""
        transport = self.transport
        if transport is None:
            return 0
        size: int = transport.get_write_buffer_size()
        return size + unacknowledged(transport)

    def evict(self) -> None:
        """Give back the memory of what the client does not read, or of a request that it has begun:
        others need it, and this client is the slowest."""
        if self.exchange is None and not self._choked and not self.lingering:
            self._reject(HttpError(408, "slow_client", "the request's head did not arrive in time"))
        else:
            # At once: the event loop reports the loss only after all that arrives in this turn.
            self._buffer = b""
            self._held.clear()
            if self.exchange is not None:
                self.exchange.evict()
            else:
                self.worker.rejected("slow_client")
            self.abort()
        self.worker.runtime.memory.give(self.charged)
        self.charged = 0

    def tunnel(self) -> None:
        """Switch to a tunnel: forward bytes both ways, including those received early."""
        self.resume()
        data, self._buffer = self._buffer, b""
        if data and self.exchange is not None:
            self.exchange.feed_tunnel(data)

    def exchange_over(self, exchange: Answered) -> None:
        """The response was passed to the transport: continue with the next request, or close."""
        self.exchange = None
        transport = self.transport
        if transport is None or transport.is_closing():
            return
        self.since = monotonic()
        self.fresh = False
        if not self.keep_alive or self.worker.draining or (self.ended_ns and not self._buffer):
            self._close(exchange.request_complete)
            return
        if self._choked:
            # It does not read its responses: produce no more until it does, or they would pile up.
            self.pause()
        else:
            self._next_request()

    def expire(self, now: float, runtime: Runtime) -> None:
        """Called periodically: close the connection if it has waited too long."""
        if self.transport is None:
            return
        exchange = self.exchange
        if exchange is not None:
            if self.ended_ns and not exchange.answered and now > self._answer_until():
                self.transport.abort()
            return
        waited = now - self.since
        if self.lingering or self._choked or self.transport.is_closing():
            # As long as it reads its response, it is not late.
            undelivered = self.undelivered()
            if undelivered != self._undelivered:
                self._undelivered = undelivered
                self.since = now
                return
        if self.lingering and not self._undelivered:
            if waited > LINGER_SECONDS:
                self.transport.abort()
        elif self.lingering or self._choked or self.transport.is_closing():
            if waited > runtime.plan.limits.keepalive_timeout:
                # A response that the client does not read would keep the connection open forever.
                self.transport.abort()
        elif self._buffer:
            if waited > runtime.plan.limits.header_timeout:
                self._reject(
                    HttpError(408, "slow_header", "the request's head did not arrive in time")
                )
        else:
            # Without a response: it might be taken for that of a request which is just being sent.
            limits = runtime.plan.limits
            limit = limits.keepalive_timeout
            if self.fresh and limits.header_timeout < limit:
                limit = limits.header_timeout
            if waited > limit or (self.worker.draining and waited > QUIET_SECONDS):
                self.transport.close()

    def idle(self, now: float) -> float:
        """For how many seconds it has been waiting for a request; 0 when it does not, or not for
        long."""
        waited = now - self.since
        waits = self.exchange is None and not self._buffer and not self.lingering
        if not waits or self._choked or self.transport is None or self.transport.is_closing():
            return 0.0
        return waited if waited > QUIET_SECONDS else 0.0

    def close(self) -> None:
        """Close the connection."""
        if self.transport is not None:
            self.transport.close()

    def _answer_until(self) -> float:
        """Until when the answer to a half-closed connection is awaited, in monotonic seconds."""
        return self.ended_ns * 1e-9 + HALF_CLOSED_SECONDS

    # Inside -------------------------------------------------------------------------------------

    def _keep(self, data: bytes) -> None:
        self._buffer += data
        if len(self._buffer) > SMALL:
            self.pause()
            self._account()

    def _hold(self, data: bytes) -> None:
        super()._hold(data)
        self._account()

    def _account(self) -> None:
        """Account for bytes that were read and not parsed, and for those that the client does not
        read."""
        transport = self.transport
        size = 0
        if transport is not None:
            size = len(self._buffer) + sum(map(len, self._held))
            if self._choked:
                size += transport.get_write_buffer_size()
        self.worker.runtime.memory.account(self, size)

    def _next_request(self) -> None:
        """Continue with the next request."""
        self.resume()
        if self._buffer:
            # Not recursively: a client may send a thousand requests in one segment.
            self.worker.loop.call_soon(self._next)

    def _next(self) -> None:
        transport = self.transport
        if transport is None or transport.is_closing() or self.lingering:
            return
        if self.exchange is None and self._buffer and not self._choked:
            try:
                self._requests(b"")
                if self.charged:
                    self._account()
            except HttpError as error:
                self._reject(error)

    def _requests(self, data: bytes) -> None:
        """Read the head of a request and start its exchange."""
        now = monotonic_ns()
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
            started = self._head_ns or now
        else:
            started = now
        if data[:2] == b"\r\n":
            # Empty lines before a request must be ignored (RFC 9112, 2.2).
            data = _EMPTY_LINES.sub(b"", data, 1)
            if data[:2] == b"\r\n":
                raise HttpError(400, "empty_lines", "too many empty lines before a request")
            if not data:
                self._head_ns = 0
                return
        runtime = self.worker.runtime
        end = data.find(b"\r\n\r\n")
        if end < 0 or end > runtime.head_limit:
            if len(data) > runtime.head_limit:
                raise HttpError(431, "head_too_large", "the request's head is too large")
            if b"\n\n" in data or b"\n\r\n" in data:
                raise HttpError(400, "bad_header", "header lines must end in CRLF")
            self._buffer = data
            if self._head_ns == 0:
                self._head_ns = started
                self.since = monotonic()
            if len(data) > SMALL:
                self._account()
            return
        self._head_ns = 0
        try:
            head = parse_request(data[:end], runtime.target_limit, runtime.lines_limit)
        except HttpError:
            if data.startswith(_PREFACE) and self.fresh and self._switch(data):
                return
            raise
        if head.length > runtime.body_limit:
            raise HttpError(413, "body_too_large", "the request's body is too large")
        self.keep_alive = head.keep_alive
        exchange = self.kind(self, runtime, head, started)
        self.exchange = exchange
        rest = exchange.begin(data[end + 4 :])
        if rest:
            self._take_rest(exchange, rest)

    def _switch(self, data: bytes) -> bool:
        """Go on with HTTP/2, whose first bytes these are; whether that can be done."""
        transport = self.transport
        if not AVAILABLE or transport is None or self.kind is not Exchange:
            return False
        successor = Http2Client(self.worker)
        self.worker.succeed(self, successor)
        self.transport = None
        transport.set_protocol(successor)
        successor.take_over(transport, data)
        return True

    def _take_rest(self, exchange: Exchange, rest: bytes) -> None:
        """Keep the bytes that the exchange did not take: a part of its body, for another turn, or
        what follows it."""
        if not exchange.request_complete:
            if rest and self.exchange is exchange:
                self._hold(rest)
            return
        if self._held:
            rest += b"".join(reversed(self._held))
            self._held.clear()
        if rest:
            self._keep(rest)
            if self.exchange is None:
                # The last byte of the request arrived, and it was answered at once.
                self.worker.loop.call_soon(self._next)

    def _reject(self, error: HttpError) -> None:
        self.worker.rejected(error.reason)
        if self.transport is None or self.transport.is_closing():
            return
        self.exchange = None
        self.answer(error.status, _REASONS[error.status], error.detail)
        self._close(False)

    def _close(self, request_complete: bool) -> None:
        """Close; if the client may still be sending, let it read its response first: closing a
        socket with unread bytes would reset the connection and lose the response."""
        transport = self.transport
        if transport is None:
            return
        self._buffer = b""
        self._held.clear()
        if self.charged:
            self._account()
        if request_complete or not transport.can_write_eof() or not self.worker.linger():
            transport.close()
            return
        self.lingering = True
        self._turns = self.worker.runtime.refused_turns
        receive_little(transport)
        self.since = monotonic()
        self.resume()
        transport.write_eof()
