"""Mirrors requests to a challenger, without effect on the client.

A mirrored request is sent after the client's response was passed to its socket. Everything here is
bounded: mirrored requests by count and bytes, connections, time, and response size. Every request
that was chosen is counted under one outcome and ends in one record, also when it was not sent: a
challenger must not be judged by the requests alone that reached it.
"""

from __future__ import annotations

import asyncio
from math import inf
from time import monotonic, monotonic_ns, time

from understudy.monitor.proxy.arm import Arm
from understudy.monitor.proxy.breaker import Breaker
from understudy.monitor.proxy.head import ResponseHead
from understudy.monitor.proxy.protocols import MirrorRuntime, MirrorSource
from understudy.monitor.proxy.turns import Turns
from understudy.monitor.proxy.upstream import UpstreamConnection
from understudy.monitor.records import record
from understudy.monitor.routing.plan import Challenger
from understudy.monitor.stats.shared import SharedStats
from understudy.shadow.assignment import point, threshold

_SAYS_NOTHING = frozenset((record.OVERLOAD, record.CANCELLED))
"""Outcomes that are not caused by the challenger."""
_FAILED = frozenset(
    (
        record.SERVER_ERROR,
        record.TIMEOUT,
        record.UPSTREAM_CONNECT,
        record.UPSTREAM_RESET,
        record.GARBAGE,
        record.TOO_LARGE,
    )
)


class Mirror:
    """Mirrors requests to one challenger."""

    def __init__(
        self,
        index: int,
        challenger: Challenger,
        salt: bytes,
        stats: SharedStats,
        loop: asyncio.AbstractEventLoop,
        turns: Turns,
    ) -> None:
        self.challenger = challenger
        self.arm = Arm(index, challenger.upstream, "mirror", stats, loop, turns)
        self.words = stats.words
        self.breaker = Breaker(challenger.breaker)
        name = challenger.upstream.name
        self._mark = b"x-understudy-mirror: " + name.encode()
        self._salt = salt
        self._below = threshold(challenger.rate)
        self._every = challenger.rate >= 1.0
        self._held_bytes = 0
        self._held = 0
        self.outcomes = [
            stats.counter("mirror", {"arm": name, "outcome": outcome}) for outcome in record.ENDS
        ]
        self._queue_gauge = stats.gauge("mirror_queue", {"arm": name})
        self._breaker_gauge = stats.gauge("breaker", {"arm": name})
        self._stats = stats
        stats.hold(self)

    def offer(self, exchange: MirrorSource, body: bytes | None) -> None:
        """Mirror a finished request if it is sampled; ``body`` is None if it was not kept.

        A request that never arrived whole cannot be sent: it ends as cancelled.
        """
        if not self._every and point(self._salt, exchange.request_id) >= self._below:
            return
        challenger = self.challenger
        if not exchange.request_complete:
            self._skip(exchange, record.CANCELLED)
            return
        if body is None:
            self._skip(exchange, record.BODY_TOO_LARGE)
            return
        if (
            len(self.arm.pool.waiting) >= challenger.queue_requests
            or self._held_bytes + len(body) > challenger.queue_bytes
        ):
            self._skip(exchange, record.QUEUE_FULL)
            return
        epoch = self.breaker.allow(monotonic())
        if not epoch:
            self._skip(exchange, record.BREAKER_OPEN)
            return
        head = exchange.head
        framing = b"Content-Length: %d" % len(body) if head.framing_line is not None else b""
        message = self.arm.request(head, [*exchange.extra, self._mark], framing) + body
        self._held += 1
        self._held_bytes += len(body)
        MirroredRequest(self, exchange, message, len(body), epoch).begin()

    def _skip(self, exchange: MirrorSource, outcome: int) -> None:
        """Record that a chosen request is not sent."""
        self.words[self.outcomes[outcome]] += 1
        exchange.runtime.handoff.add(
            record.encode(
                exchange.route.model,
                self.arm.index,
                0,
                record.ROLE_MIRROR,
                outcome,
                time(),
                0,
                0,
                0,
                exchange.request_size,
                0,
                exchange.request_id,
                b"",
                b"",
                b"",
                b"",
                b"",
                None,
                None,
            )
        )

    def done(self, outcome: int, size: int, epoch: int) -> None:
        """A mirrored request ended; ``size`` is its size in bytes, ``epoch`` the breaker's."""
        self._held -= 1
        self._held_bytes -= size
        self.words[self.outcomes[outcome]] += 1
        success = None if outcome in _SAYS_NOTHING else outcome not in _FAILED
        self.breaker.report(success, monotonic(), epoch)

    def retire(self) -> None:
        """Mirror no new requests; those in flight continue."""
        self.arm.retire()
        self.words[self._queue_gauge] = self.words[self._breaker_gauge] = 0

    def forget(self, index: int) -> None:
        """The entry with this index is freed: the challenger is gone from the plan."""
        stats = self._stats
        for outcome, name in enumerate(record.ENDS):
            if self.outcomes[outcome] == index:
                self.outcomes[outcome] = stats.counter("mirror", {"arm": "other", "outcome": name})
        if index == self._queue_gauge:
            self._queue_gauge = stats.sink
        if index == self._breaker_gauge:
            self._breaker_gauge = stats.sink

    def publish(self) -> None:
        """Update the gauges."""
        self.words[self._queue_gauge] = self._held
        self.words[self._breaker_gauge] = self.breaker.state
        self.arm.publish()


class MirroredRequest:
    """One mirrored request: the sink of the challenger's connection."""

    __slots__ = (
        "_answered",
        "_connection",
        "_epoch",
        "_finished",
        "_first_byte_ns",
        "_first_byte_timeout",
        "_message",
        "_mirror",
        "_model",
        "_progress",
        "_progress_ns",
        "_queue_ns",
        "_request_id",
        "_request_size",
        "_rows",
        "_runtime",
        "_started_ns",
        "_target",
        "_to_head",
        "_trace_id",
    )

    def __init__(
        self, mirror: Mirror, exchange: MirrorSource, message: bytes, size: int, epoch: int
    ) -> None:
        self._mirror = mirror
        self._epoch = epoch
        self._runtime: MirrorRuntime = exchange.runtime
        self._message = message
        self._request_size = size
        self._request_id = exchange.request_id
        self._trace_id = exchange.trace_id
        self._target = exchange.head.target
        self._to_head = exchange.head.method == b"HEAD"
        self._model = exchange.route.model
        self._rows = exchange.route.rows[mirror.arm.index][record.ROLE_MIRROR]
        self._started_ns = monotonic_ns()
        self._queue_ns = 0
        self._first_byte_ns = 0
        own = exchange.route.first_byte_timeout
        self._first_byte_timeout = mirror.arm.upstream.first_byte_timeout if own is None else own
        self._progress = -1
        self._progress_ns = 0
        self._answered: ResponseHead | None = None
        self._connection: UpstreamConnection | None = None
        self._finished = False

    def begin(self) -> None:
        """Send it now, or when a connection is free."""
        mirror = self._mirror
        mirror.words[mirror.arm.in_flight] += 1
        self._runtime.active.add(self)
        connection = mirror.arm.pool.take()
        if connection is not None:
            self._send(connection)
        else:
            if mirror.arm.pool.enqueue(self):
                self._queue_ns = -self._started_ns

    def check(self, now_ns: int) -> None:
        """Called periodically with the monotonic time: enforce the time limits.

        The challenger's time begins when it gets the request: as long as all our connections are
        busy, the delay is ours.
        """
        total = self._mirror.challenger.timeout
        limit = inf if total is None else total
        if not self._first_byte_ns:
            limit = min(limit, self._first_byte_timeout)
        if self._queue_ns < 0:
            if now_ns - self._started_ns > limit * 1e9:
                self._finish(record.OVERLOAD)
        elif now_ns - self._started_ns - self._queue_ns > limit * 1e9 or self._stalled(now_ns):
            self._finish(record.TIMEOUT)

    def _stalled(self, now_ns: int) -> bool:
        """Whether the response has begun, and paused for longer than is allowed."""
        connection = self._connection
        if not self._first_byte_ns or connection is None:
            return False
        if connection.wire_size != self._progress:
            self._progress = connection.wire_size
            self._progress_ns = now_ns
        limit = self._mirror.arm.upstream.between_bytes_timeout
        return now_ns - self._progress_ns > limit * 1e9

    def cancel(self) -> None:
        """The worker stops before the response has arrived."""
        self._finish(record.CANCELLED)

    # See Sink -----------------------------------------------------------------------------------

    def on_ready(self, connection: UpstreamConnection) -> None:
        if self._queue_ns:
            self._queue_ns = max(1, self._queue_ns + monotonic_ns())
        self._send(connection)

    def on_unavailable(self, reason: str) -> None:
        self._finish(record.OVERLOAD if reason == "overload" else record.UPSTREAM_CONNECT)

    def on_interim(self, raw: bytes) -> None:
        pass

    def on_head(self, head: ResponseHead, body: bytes, done: bool) -> None:
        self._first_byte_ns = monotonic_ns()
        self._answered = head
        if head.length > self._mirror.challenger.max_response_bytes:
            self._finish(record.TOO_LARGE)
        else:
            self.on_body(body, done)

    def on_body(self, body: bytes, done: bool) -> None:
        connection = self._connection
        if (
            connection is not None
            and connection.wire_size > self._mirror.challenger.max_response_bytes
        ):
            self._finish(record.TOO_LARGE)
        elif done:
            assert self._answered is not None
            status = self._answered.status
            if status < 400:
                self._mirror.arm.answered()
                self._finish(record.OK)
            else:
                self._finish(record.CLIENT_ERROR if status < 500 else record.SERVER_ERROR)

    def on_tunnel(self, head: ResponseHead, data: bytes) -> None:
        self._finish(record.GARBAGE)

    def on_lost(self, reason: str) -> None:
        self._connection = None
        self._finish(record.GARBAGE if reason == "garbage" else record.UPSTREAM_RESET)

    def on_writable(self, writable: bool) -> None:
        pass

    # The end ------------------------------------------------------------------------------------

    def _send(self, connection: UpstreamConnection) -> None:
        self._connection = connection
        message, self._message = self._message, b""
        connection.begin(self, message, self._to_head, self._runtime.capture_limit, False)

    def _finish(self, outcome: int) -> None:
        if self._finished:
            return
        self._finished = True
        now = monotonic_ns()
        if self._queue_ns < 0:
            self._queue_ns += now
        mirror = self._mirror
        runtime = self._runtime
        runtime.active.discard(self)
        words = mirror.words
        words[mirror.arm.in_flight] -= 1
        connection, self._connection = self._connection, None
        response_size = 0
        captured: list[bytes] | None = None
        if connection is not None:
            response_size = connection.response_size
            if outcome <= record.SERVER_ERROR:
                captured = connection.capture
                assert self._answered is not None
                mirror.arm.pool.release(connection, self._answered.keep_alive)
            else:
                connection.abort()
        else:
            mirror.arm.pool.withdraw(self)
        mirror.done(outcome, self._request_size, self._epoch)
        duration = now - self._started_ns
        first_byte = self._first_byte_ns - self._started_ns if self._first_byte_ns else 0
        self._rows.of(outcome).add(
            words, duration, first_byte, self._queue_ns, self._request_size, response_size
        )
        runtime.handoff.add(
            record.encode(
                self._model,
                mirror.arm.index,
                self._answered.status if self._answered is not None else 0,
                record.ROLE_MIRROR,
                outcome,
                time() - duration * 1e-9,
                duration,
                first_byte,
                self._queue_ns,
                self._request_size,
                response_size,
                self._request_id,
                self._trace_id,
                b"",
                self._target,
                b"",
                b"\r\n".join(self._answered.kept) if self._answered is not None else b"",
                None,
                b"".join(captured) if captured is not None else None,
            )
        )
