"""A client's connection over HTTP/2, and its streams: each is the client of one exchange."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from time import monotonic, monotonic_ns
from typing import Any

from understudy.common import http2
from understudy.common.http2 import (
    DataReceived,
    EngineError,
    RequestReceived,
    StreamClosed,
    TrailersReceived,
)
from understudy.monitor.errors import HttpError
from understudy.monitor.proxy.exchange import Exchange
from understudy.monitor.proxy.head import CHUNKED, ResponseHead
from understudy.monitor.proxy.host import Host
from understudy.monitor.proxy.http2.fields import Http2Head, Pair, framed, pair, request_head
from understudy.monitor.proxy.http2.link import Link
from understudy.monitor.proxy.memory import SMALL
from understudy.monitor.proxy.protocols import Answered
from understudy.monitor.proxy.runtime import Runtime
from understudy.monitor.proxy.sockets import unacknowledged
from understudy.monitor.records import grpc_status

NOTICE_SECONDS = 0.25
"""Time between the notice that no more requests are taken and their end: those that are under way
to us meanwhile are served."""
QUIET_SECONDS = 0.5
"""How long a client must be idle before its connection is closed in favour of another one."""
_MANY = 64
"""Events of one read from which on cancelled requests are looked for first."""
_YOUNGEST = 0.8
"""The maximum age is shortened at random, at most to this share, so that connections that were made
together do not end together."""


class Http2Client(Link):
    """A client's connection. ``since`` is the monotonic time in seconds since which it is idle."""

    __slots__ = (
        "_aged_at",
        "_ended",
        "_held_bytes",
        "_noticed",
        "_undelivered",
        "charged",
        "fresh",
        "lingering",
        "since",
        "worker",
    )

    def __init__(self, worker: Host) -> None:
        runtime = worker.runtime
        super().__init__(
            worker.loop,
            runtime.turns,
            http2.server(runtime.head_limit, max(1024, 2 * runtime.lines_limit)),
        )
        self.worker = worker
        self.lingering = False
        self.fresh = True
        self.since = monotonic()
        age = runtime.plan.limits.connection_age
        share = _YOUNGEST + (1 - _YOUNGEST) * runtime.random_bits(16) / 65536
        self._aged_at = self.since + age * share if age is not None else None
        self._noticed = 0.0
        """When the client was told to use another connection, in monotonic seconds."""
        self._ended = False
        """It was told that nothing more is taken."""
        self._held_bytes = 0
        """Of bodies that no model server reads."""
        self.charged = 0
        self._undelivered = 0

    def take_over(self, transport: asyncio.Transport, data: bytes) -> None:
        """Serve a connection whose first bytes, ``data``, were those of HTTP/2."""
        self.connection_made(transport)
        self.data_received(data)

    # Called by the event loop -------------------------------------------------------------------

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self._held.clear()
        self.worker.dismiss(self)
        streams, self.streams = self.streams, {}
        for stream in streams.values():
            stream.gone()
        self._held_bytes = 0
        self._account()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._account()

    def _handle(self, events: Sequence[Any]) -> None:
        streams = self.streams
        dropped: set[int] = set()
        # Of requests that arrive whole: heads and bodies of several come mixed.
        bodies: dict[int, bytes | None] = {}
        if len(events) > 1:
            for event in events:
                if type(event) is DataReceived:
                    number = event.stream_id
                    whole = event.end_stream and number not in bodies
                    bodies[number] = event.data if whole else None
            if len(events) > _MANY:
                # What is sent and cancelled at once, many times, is not worth being begun.
                dropped = {event.stream_id for event in events if type(event) is StreamClosed}
        for event in events:
            kind = type(event)
            if kind is DataReceived:
                stream = streams.get(event.stream_id)
                if stream is None or stream.whole:
                    # What arrives after its stream has ended still counts for the connection.
                    if event.data and stream is None:
                        self._took(len(event.data), event.stream_id)
                else:
                    stream.receive(event.data, event.end_stream)
            elif kind is RequestReceived:
                if event.stream_id in dropped:
                    self.worker.rejected("reset")
                    continue
                self._request(event, b"" if event.end_stream else bodies.get(event.stream_id))
            elif kind is TrailersReceived:
                stream = streams.get(event.stream_id)
                if stream is not None:
                    stream.receive(b"", True)
            elif kind is StreamClosed:
                stream = streams.pop(event.stream_id, None)
                if stream is not None:
                    stream.gone()
                    if not streams:
                        self.since = monotonic()

    def flush(self) -> None:
        super().flush()
        if self.charged or self._full or self.stuck or self._held_bytes > SMALL:
            self._account()

    def _request(self, event: RequestReceived, body: bytes | None) -> None:
        """A request; ``body`` is None when it has not arrived whole."""
        self.fresh = False
        runtime = self.worker.runtime
        stream = self.streams[event.stream_id] = ClientStream(self, event.stream_id)
        try:
            head = request_head(
                event.headers,
                -1 if body is None else len(body),
                runtime.head_limit,
                runtime.target_limit,
                runtime.lines_limit,
            )
            stream.call = head.call
            if head.length > runtime.body_limit:
                raise HttpError(413, "body_too_large", "the request's body is too large")
            stream.begin(head, runtime, body)
        except HttpError as error:
            self.worker.rejected(error.reason)
            exchange = stream.exchange
            if exchange is not None and not exchange.finished:
                exchange.spoil(error, b"")
            else:
                stream.answer(error.status, b"", error.detail)
        if body:
            self._took(len(body), event.stream_id)

    def _took(self, size: int, stream_id: int) -> None:
        """Bytes of a body were passed on: the client may send as many again."""
        try:
            self.engine.acknowledge_received_data(size, stream_id)
        except EngineError:
            return
        self.touch()

    def _broken(self) -> None:
        for stream in tuple(self.streams.values()):
            stream.gone()
        super()._broken()

    # Called by the worker -----------------------------------------------------------------------

    def expire(self, now: float, runtime: Runtime) -> None:
        """Called periodically with the monotonic time: close it if it is idle for too long, or too
        old, or the worker stops; requests in flight are never cut."""
        transport = self.transport
        if transport is None:
            return
        limits = runtime.plan.limits
        if self.stuck or transport.is_closing():
            undelivered = transport.get_write_buffer_size() + unacknowledged(transport)
            if undelivered != self._undelivered:
                self._undelivered, self.since = undelivered, now
            elif now - self.since > limits.keepalive_timeout:
                transport.abort()
            return
        if self._noticed:
            if not self._ended and now - self._noticed >= NOTICE_SECONDS:
                self._ended = True
                self._say(self.engine.send_goaway)
            if self._ended and not self.streams:
                transport.close()
            return
        idle = not self.streams
        limit = limits.keepalive_timeout
        if self.fresh and limits.header_timeout < limit:
            limit = limits.header_timeout
        aged = self._aged_at is not None and now > self._aged_at
        if self.worker.draining or aged or (idle and now - self.since > limit):
            self._noticed = now
            self._say(self.engine.send_shutdown_notice)

    def _say(self, what: Any) -> None:
        try:
            what()
        except EngineError:
            pass
        self.touch()

    def idle(self, now: float) -> float:
        """For how many seconds it has had no request; 0 when it has one, or not for long."""
        waited = now - self.since
        if self.streams or self.transport is None or self.transport.is_closing():
            return 0.0
        return waited if waited > QUIET_SECONDS else 0.0

    def close(self) -> None:
        """Close the connection."""
        if self.transport is not None:
            self._say(self.engine.send_goaway)
            self.flush()
            self.transport.close()

    def abort(self) -> None:
        """Abort the connection."""
        if self.transport is not None:
            self.flush()
            self.transport.abort()

    # Memory -------------------------------------------------------------------------------------

    def held(self, size: int) -> None:
        """``size`` more bytes of bodies wait for a model server that does not read; or fewer."""
        self._held_bytes += size
        self.touch()

    def _account(self) -> None:
        """Account for bodies that no model server reads, and for what the client does not read."""
        transport = self.transport
        size = 0
        if transport is not None:
            size = self._held_bytes + self.engine.queued_body_size()
            if self.stuck:
                size += transport.get_write_buffer_size()
        self.worker.runtime.memory.account(self, size)

    def evict(self) -> None:
        """Give back what it holds: its client is the slowest, and others need the memory."""
        self.worker.rejected("slow_client")
        for stream in tuple(self.streams.values()):
            stream.gone()
        if self.transport is not None:
            self.transport.abort()
        self.worker.runtime.memory.give(self.charged)
        self.charged = 0


class ClientStream:
    """One request of a client, and its answer. See :class:`protocols.Client`.

    ``whole``: the request's body has arrived; ``ended``: the answer is complete, or never will be;
    ``closed``: nothing can be sent any more.
    """

    __slots__ = (
        "_chunked",
        "_head",
        "_held",
        "_held_bytes",
        "_paused",
        "call",
        "choked",
        "closed",
        "connection",
        "ended",
        "ended_ns",
        "exchange",
        "id",
        "keep_alive",
        "whole",
    )

    def __init__(self, connection: Http2Client, number: int) -> None:
        self.connection = connection
        self.id = number
        self.exchange: Exchange | None = None
        self.call = False
        self.keep_alive = True
        self.ended_ns = 0
        self.choked = False
        self.closed = False
        self.whole = False
        self.ended = False
        self._head: ResponseHead | None = None
        self._chunked = False
        self._paused = False
        self._held: list[bytes] = []
        self._held_bytes = 0

    @property
    def worker(self) -> Host:
        """The owner of the connection."""
        return self.connection.worker

    # Called by the connection -------------------------------------------------------------------

    def begin(self, head: Http2Head, runtime: Runtime, body: bytes | None) -> None:
        """Start the exchange. Raises HttpError."""
        self.whole = body is not None
        self._chunked = body is None and head.length == CHUNKED
        if head.expects and body is None:
            self._send(self.connection.engine.send_informational_response, [(b":status", b"100")])
        exchange = self.exchange = Exchange(self, runtime, head, monotonic_ns())
        exchange.begin(body or b"")
        if body and exchange.calls is not None:
            exchange.calls.sent(body, monotonic_ns())

    def receive(self, data: bytes, end: bool) -> None:
        """A part of the request's body has arrived; ``end``: it was the last."""
        exchange = self.exchange
        self.whole = self.whole or end
        if exchange is None or exchange.finished:
            if data:
                self.connection._took(len(data), self.id)
            return
        if self._paused or self._held:
            self._held.append(data)
            self._held_bytes += len(data)
            self.connection.held(len(data))
            return
        self._feed(exchange, data, end)

    def _feed(self, exchange: Exchange, data: bytes, end: bool) -> None:
        piece = framed(data, end) if self._chunked else data
        try:
            if piece:
                exchange.feed(piece)
                if exchange.calls is not None:
                    exchange.calls.sent(data, monotonic_ns())
        except HttpError as error:
            self.worker.rejected(error.reason)
            if not exchange.finished:
                exchange.spoil(error, b"")
        if data:
            self.connection._took(len(data), self.id)

    def _continue(self) -> None:
        """Pass on what was held."""
        exchange = self.exchange
        held = self._held
        while held and not self._paused:
            data = held.pop(0)
            self._held_bytes -= len(data)
            self.connection.held(-len(data))
            if exchange is None or exchange.finished:
                self.connection._took(len(data), self.id)
            else:
                self._feed(exchange, data, self.whole and not held)

    def gone(self) -> None:
        """The stream is closed: by its end, by the client, or with the connection."""
        self.closed = self.ended = True
        exchange, self.exchange = self.exchange, None
        self._release()
        if exchange is not None and not exchange.finished:
            exchange.cancel()

    def _release(self) -> None:
        """Give back what is held."""
        if self._held_bytes:
            self.connection._took(self._held_bytes, self.id)
            self.connection.held(-self._held_bytes)
        self._held.clear()
        self._held_bytes = 0

    def on_choked(self, choked: bool) -> None:
        """The client does not read its answer, or does again."""
        if self.exchange is not None:
            self.exchange.writable(not choked)

    # Called by the exchange ---------------------------------------------------------------------

    def pause(self) -> None:
        """Take no more of the body for now."""
        self._paused = True

    def resume(self) -> None:
        """Take more of it."""
        if self._paused:
            self._paused = False
            if self._held:
                self.connection.loop.call_soon(self._continue)

    def respond(self, exchange: Answered, head: ResponseHead, body: bytes, done: bool) -> None:
        """Send the head of a response and the first part of its body."""
        self._head = head
        fields: list[Pair] = [(b":status", b"%d" % head.status)]
        for line in head.lines:
            field = pair(line)
            if field is not None:
                fields.append(field)
        if not head.has_request_id:
            fields.append((b"x-request-id", exchange.request_id))
        last = done and not body and not head.trailers
        self._send(self.connection.engine.send_response, fields, end_stream=last)
        if last:
            self._end()
        elif body:
            self.write(body)

    def write(self, data: bytes) -> None:
        """Send a part of the response's body."""
        if not self.ended:
            try:
                self.connection.engine.send_data(self.id, data)
            except EngineError:
                return
            self.connection.wrote(self)

    def answer(
        self,
        status: int,
        line: bytes,
        detail: str,
        outcome: str = "rejected",
        request_id: bytes = b"",
    ) -> None:
        """Send a response of the proxy itself: JSON, or the status of a call."""
        if self.ended:
            return
        engine = self.connection.engine
        extra: list[Pair] = [(b"x-request-id", request_id)] if request_id else []
        if self.call:
            fields = [
                (b":status", b"200"),
                (b"content-type", b"application/grpc"),
                *_status(grpc_status.own_status(outcome, status), detail),
                *extra,
            ]
            self._send(engine.send_response, fields, end_stream=True)
            self._end()
            return
        content = {"error": detail, "status": status, "outcome": outcome}
        if request_id:
            content["request_id"] = request_id.decode("latin-1")
        if status == 503:
            extra.append((b"retry-after", b"1"))
        body = json.dumps(content).encode()
        fields = [
            (b":status", b"%d" % status),
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            *extra,
        ]
        exchange = self.exchange
        to_head = exchange is not None and exchange.head.method == b"HEAD"
        self._send(engine.send_response, fields, end_stream=to_head)
        if not to_head:
            self._send(engine.send_data, body, end_stream=True)
        self._end()

    def abort(self, outcome: str = "") -> None:
        """End an answer that is incomplete: so that the client sees it, with a status if it is that
        of a call, and by a reset otherwise."""
        if self.ended:
            return
        if self.call and outcome and not self.choked:
            detail = f"the call ended early: {outcome.replace('_', ' ')}"
            code = grpc_status.own_status(outcome, 502)
            self._send(self.connection.engine.send_trailers, _status(code, detail))
            self._end()
        else:
            self._reset(http2.INTERNAL_ERROR)

    def undelivered(self) -> int:
        """Bytes of the answer that the client has not taken."""
        connection = self.connection
        if self.closed or connection.transport is None:
            return 0
        return connection.backlog(self) + connection.transport.get_write_buffer_size()

    def tunnel(self) -> None:
        """There are none in HTTP/2."""
        raise NotImplementedError

    def exchange_over(self, exchange: Answered) -> None:
        """The response is complete, or was aborted."""
        self.exchange = None
        if not self.ended:
            head = self._head
            if head is None:
                self._reset(http2.INTERNAL_ERROR)
            else:
                engine = self.connection.engine
                if head.trailers:
                    self._send(engine.send_trailers, list(head.trailers))
                else:
                    self._send(engine.end_stream)
                self._end()
        self._release()

    # Inside -------------------------------------------------------------------------------------

    def _send(self, what: Any, *arguments: Any, **options: Any) -> None:
        if not self.closed:
            try:
                what(self.id, *arguments, **options)
            except EngineError:
                return
            self.connection.touch()

    def _end(self) -> None:
        """The answer is complete. What the client still sends is of no use, once it is sent."""
        self.ended = True
        if not self.whole:
            self.connection.loop.call_later(NOTICE_SECONDS, self._stop)

    def _stop(self) -> None:
        if not self.closed and not self.connection.backlog(self):
            self._reset(http2.NO_ERROR)
        elif not self.closed:
            self.connection.loop.call_later(NOTICE_SECONDS, self._stop)

    def _reset(self, code: int) -> None:
        self.ended = True
        self._send(self.connection.engine.reset_stream, code)


def _status(code: int, detail: str) -> list[Pair]:
    return [
        (b"grpc-status", b"%d" % code),
        (b"grpc-message", grpc_status.message_field(detail)),
    ]
