"""Mirrors requests to a challenger, without effect on the client.

A request whose body is kept is mirrored after the client's response was passed to its socket. A
larger body is mirrored while it arrives: each piece is written to the model server that answers
first, then to the challengers, and a challenger that does not keep up loses the request. Everything
here is bounded: mirrored requests by count and bytes, connections, time, and response size. Every
request that was chosen is counted under one outcome and ends in one record, also when it was not
sent: a challenger must not be judged by the requests alone that reached it.
"""

from __future__ import annotations

import asyncio
from math import inf
from time import monotonic, monotonic_ns, time

from understudy.monitor.proxy.arm import Arm
from understudy.monitor.proxy.breaker import Breaker, success_of
from understudy.monitor.proxy.grpc import answered_outcome, call_status
from understudy.monitor.proxy.head import ResponseHead
from understudy.monitor.proxy.memory import SMALL, Memory
from understudy.monitor.proxy.pool import REFUSALS
from understudy.monitor.proxy.protocols import MirrorRuntime, MirrorSource
from understudy.monitor.proxy.resolver import Resolver
from understudy.monitor.proxy.stream import DEFLATED
from understudy.monitor.proxy.turns import Turns, merge
from understudy.monitor.proxy.upstream import Carrier
from understudy.monitor.records import record
from understudy.monitor.records.encode import encode as encode_record
from understudy.monitor.routing.plan import Challenger
from understudy.monitor.stats.shared import SharedStats
from understudy.shadow.assignment import point, threshold


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
        memory: Memory,
        resolver: Resolver,
    ) -> None:
        self.challenger = challenger
        self.arm = Arm(index, challenger.upstream, "mirror", stats, loop, turns, memory, resolver)
        self.memory = memory
        self.words = stats.words
        self.breaker = Breaker(challenger.breaker)
        name = challenger.upstream.name
        self.mark = b"x-understudy-mirror: " + name.encode()
        self._salt = salt
        self._below = threshold(challenger.rate)
        self._every = challenger.rate >= 1.0
        self.held_bytes = 0
        """Bytes of all requests that were not passed to the kernel yet."""
        self.held = 0
        self.outcomes = {
            record.OUTCOMES.index(outcome): stats.counter(
                "mirror", {"arm": name, "outcome": outcome}
            )
            for outcome in record.ENDS
        }
        self._queue_gauge = stats.gauge("mirror_queue", {"arm": name})
        self._breaker_gauge = stats.gauge("breaker", {"arm": name})
        self._stats = stats

    def offer(self, exchange: MirrorSource, body: bytes | None) -> None:
        """Mirror a finished request if it is sampled; ``body`` is None if it was not kept.

        Such a request cannot be sent: it never arrived whole, or there was no memory for it.
        """
        if not self._samples(exchange):
            return
        if body is None:
            whole = exchange.request_complete
            self._skip(exchange, record.QUEUE_FULL if whole else record.CANCELLED)
            return
        rewriter = self.arm.rewriter
        if rewriter is not None and rewriter.wants_body(exchange.head.target, exchange.head.lines):
            lines = exchange.head.lines
            rewritten = rewriter.grpc(body) if exchange.head.call else rewriter.body(body, lines)
            if rewritten is None:
                self._skip(exchange, record.NOT_REWRITTEN)
                return
            body = rewritten
        epoch = self._admit(exchange, len(body))
        if not epoch:
            return
        framing = (
            b"Content-Length: %d" % len(body) if exchange.head.framing_line is not None else b""
        )
        MirroredRequest(self, exchange, framing, body, monotonic_ns(), epoch).begin()

    def stream(self, exchange: MirrorSource) -> MirroredRequest | None:
        """Begin to mirror a request whose body is about to arrive, if it is sampled."""
        if not self._samples(exchange):
            return None
        rewriter = self.arm.rewriter
        if rewriter is not None and rewriter.wants_body(exchange.head.target, exchange.head.lines):
            self._skip(exchange, record.NOT_REWRITTEN)
            return None
        epoch = self._admit(exchange, 0)
        if not epoch:
            return None
        framing = exchange.head.framing_line or b""
        one = MirroredRequest(self, exchange, framing, b"", exchange.started_ns, epoch)
        one.streams = True
        one.complete = False
        one.begin()
        return one

    def _samples(self, exchange: MirrorSource) -> bool:
        """Whether the request is to be mirrored: by an id of the proxy, since clients could choose
        with one of theirs."""
        if self._every:
            return True
        return point(self._salt, exchange.proxy_id.to_bytes(8, "little")) < self._below

    def _admit(self, exchange: MirrorSource, size: int) -> int:
        """The breaker's epoch if a request of ``size`` bytes may be sent; otherwise it is skipped,
        and the result is 0."""
        challenger = self.challenger
        if (
            len(self.arm.pool.waiting) >= challenger.queue_requests
            or self.held_bytes + size > challenger.queue_bytes
            or (size > SMALL and not self.memory.fits(size))
        ):
            self._skip(exchange, record.QUEUE_FULL)
            return 0
        epoch = self.breaker.allow(monotonic())
        if not epoch:
            self._skip(exchange, record.BREAKER_OPEN)
        return epoch

    def _skip(self, exchange: MirrorSource, outcome: int) -> None:
        """Record that a chosen request is not sent."""
        self._count(outcome)
        exchange.runtime.handoff.add(
            encode_record(
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
                0,
                exchange.proxy_id,
            )
        )

    def done(self, outcome: int, epoch: int) -> None:
        """A mirrored request ended; ``epoch`` is the breaker's."""
        self.held -= 1
        self._count(outcome)
        self.breaker.report(success_of(outcome), monotonic(), epoch)

    def _count(self, outcome: int) -> None:
        self.words[self.outcomes[outcome]] += 1

    def retire(self) -> None:
        """Mirror no new requests; those in flight continue."""
        self.arm.retire()
        self.words[self._queue_gauge] = self.words[self._breaker_gauge] = 0

    def forget(self, index: int) -> None:
        """The entry with this index is freed: the challenger is gone from the plan."""
        stats = self._stats
        for outcome, entry in self.outcomes.items():
            if entry == index:
                other = {"arm": "other", "outcome": record.OUTCOMES[outcome]}
                self.outcomes[outcome] = stats.counter("mirror", other)
        if index == self._queue_gauge:
            self._queue_gauge = stats.sink
        if index == self._breaker_gauge:
            self._breaker_gauge = stats.sink

    def publish(self) -> None:
        """Update the gauges."""
        self.words[self._queue_gauge] = self.held
        self.words[self._breaker_gauge] = self.breaker.state
        self.arm.publish()


class MirroredRequest:
    """One mirrored request: the sink of the challenger's connection.

    ``streams``: its body is passed on while it arrives, by :meth:`feed`, and is ``complete`` after
    :meth:`end`.
    """

    __slots__ = (
        "_answered",
        "_call",
        "_connection",
        "_epoch",
        "_finished",
        "_first_byte_ns",
        "_held",
        "_method",
        "_mirror",
        "_progress",
        "_progress_ns",
        "_proxy_id",
        "_queue_ns",
        "_repeatable",
        "_repeated",
        "_request_id",
        "_route",
        "_runtime",
        "_sampled",
        "_since_ns",
        "_started_ns",
        "_target",
        "_trace",
        "_trace_id",
        "_unsent",
        "complete",
        "deadline_ns",
        "request_size",
        "streams",
    )

    def __init__(
        self,
        mirror: Mirror,
        exchange: MirrorSource,
        framing: bytes,
        body: bytes,
        started_ns: int,
        epoch: int,
    ) -> None:
        self._mirror = mirror
        self._epoch = epoch
        self._runtime: MirrorRuntime = exchange.runtime
        extra = [*exchange.extra, mirror.mark]
        trace = exchange.trace
        if trace is not None:
            original, trace = trace, trace.copy()
            extra = [line for line in extra if line not in original.lines] + trace.lines
        self._trace = trace
        self._unsent = [mirror.arm.request(exchange.head, extra, framing), body]
        self.request_size = self._held = len(body)
        """``_held`` is what counts for the limit of the queue: the whole body, or what of a
        streamed one was not passed to the kernel when last looked at."""
        mirror.held_bytes += len(body)
        mirror.memory.used += len(body)
        self._request_id = exchange.request_id
        self._proxy_id = exchange.proxy_id
        self._trace_id = exchange.head.trace_id
        self._sampled = exchange.head.sampled
        self._target = exchange.head.target
        self._route = exchange.route
        self._started_ns = self._since_ns = started_ns
        self._method = exchange.head.method
        self._call = exchange.head.call
        # Under the same rule as the client's request, lest the two arms be judged differently.
        self._repeatable = mirror.arm.upstream.http2 or exchange.route.may_repeat(
            "stale", self._method
        )
        self._repeated = 0
        self._queue_ns = 0
        self._first_byte_ns = 0
        self._progress = -1
        self._progress_ns = 0
        self._answered: ResponseHead | None = None
        self._connection: Carrier | None = None
        self._finished = False
        self.streams = False
        self.complete = True
        self.deadline_ns = 0

    def begin(self) -> None:
        """Send it now, or when a connection is free."""
        mirror = self._mirror
        mirror.held += 1
        mirror.words[mirror.arm.in_flight] += 1
        self._runtime.active.add(self)
        connection = mirror.arm.pool.take()
        if connection is not None:
            self._send(connection)
        else:
            if mirror.arm.pool.enqueue(self):
                self._queue_ns = -1

    def feed(self, data: bytes) -> None:
        """Pass on a part of the body that has just arrived."""
        if self._finished or not data:
            return
        connection = self._connection
        if connection is None:
            self._unsent.append(data)
            merge(self._unsent)
            self._hold(self._held + len(data))
        elif not connection.closing():
            connection.write(data)
            self._look()
        mirror = self._mirror
        if self._held and (
            mirror.held_bytes > mirror.challenger.queue_bytes
            or (self._held > SMALL and not mirror.memory.fits(0))
        ):
            self._finish(record.FELL_BEHIND)

    def end(self, size: int) -> None:
        """The body is whole; its payload has ``size`` bytes."""
        self.complete = True
        self.request_size = size
        self._since_ns = monotonic_ns()

    def _hold(self, size: int) -> None:
        self._mirror.held_bytes += size - self._held
        self._mirror.memory.used += size - self._held
        self._held = size

    def _look(self) -> None:
        """Find out how much of a streamed body waits for the challenger."""
        connection = self._connection
        if self.streams and connection is not None:
            self._hold(connection.unsent())

    def check(self, now_ns: int) -> None:
        """Called periodically with the monotonic time: enforce the time limits.

        The challenger's time begins when it gets the whole request: as long as the client sends, or
        all our connections are busy, the delay is not its own.
        """
        self._look()
        if not self.complete:
            return
        mirror = self._mirror
        upstream = mirror.arm.upstream
        total = mirror.challenger.timeout
        if total is None:
            total = self._route.total(upstream)
        limit = inf if total is None else total
        if not self._first_byte_ns:
            limit = min(limit, self._route.first_byte(upstream))
        late = now_ns - self._since_ns > limit * 1e9
        if self._queue_ns < 0:
            if late:
                self._finish(record.OVERLOAD)
        elif late or self._stalled(now_ns):
            self._finish(record.TIMEOUT)

    def _stalled(self, now_ns: int) -> bool:
        """Whether the response has begun, and paused for longer than is allowed."""
        connection = self._connection
        if not self._first_byte_ns or connection is None:
            return False
        if connection.wire_size != self._progress:
            self._progress = connection.wire_size
            self._progress_ns = now_ns
        limit = self._route.between_bytes(self._mirror.arm.upstream)
        return now_ns - self._progress_ns > limit * 1e9

    def stop(self) -> None:
        """End it: the worker stops, or the request never becomes whole."""
        self._finish(record.CANCELLED)

    # See Sink -----------------------------------------------------------------------------------

    def on_ready(self, connection: Carrier) -> None:
        if self._queue_ns < 0:
            now = monotonic_ns()
            self._queue_ns = self._queued(now)
            self._since_ns = now
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
            outcome = answered_outcome(self._answered, self._call, self._route.overload)
            if outcome == record.OK:
                self._mirror.arm.answered()
                stream = connection.stream if connection is not None else None
                if stream is not None:
                    outcome = stream.outcome(self._route.marks_end)
            self._finish(outcome)

    def on_tunnel(self, head: ResponseHead, data: bytes) -> None:
        self._finish(record.GARBAGE)

    def on_lost(self, reason: str) -> None:
        connection, self._connection = self._connection, None
        if connection is not None and self._unsent and self._route.may_repeat(reason, self._method):
            self._repeated += 1
            self._repeatable = reason == "refused" and self._repeated < REFUSALS
            if self._trace is not None:
                lines = self._trace.repeat(monotonic_ns() - self._started_ns)
                self._unsent = [b"".join(self._unsent).replace(*lines, 1)]
            self._mirror.arm.pool.repeat(self, connection, reason)
            return
        self._finish(record.GARBAGE if reason == "garbage" else record.UPSTREAM_RESET)

    def on_writable(self, writable: bool) -> None:
        pass

    # The end ------------------------------------------------------------------------------------

    def _send(self, connection: Carrier) -> None:
        self._connection = connection
        message = b"".join(self._unsent)
        self._unsent = [message] if self._repeatable and not self.streams else []
        connection.begin(self, message, self._method == b"HEAD", self._runtime.capture_limit, False)
        self._look()

    def _queued(self, now_ns: int) -> int:
        """How long it has waited for one of our connections, after its body was complete."""
        return max(1, now_ns - self._since_ns) if self.complete else 0

    def _finish(self, outcome: int) -> None:
        if self._finished:
            return
        self._finished = True
        now = monotonic_ns()
        if self._queue_ns < 0:
            self._queue_ns = self._queued(now)
        mirror = self._mirror
        runtime = self._runtime
        runtime.active.discard(self)
        words = mirror.words
        words[mirror.arm.in_flight] -= 1
        connection, self._connection = self._connection, None
        response_size = 0
        captured: list[bytes] | None = None
        stream = None
        if connection is not None:
            response_size = connection.response_size
            stream, connection.stream = connection.stream, None
            captured = connection.take_capture()
            if outcome in record.ANSWERED:
                assert self._answered is not None
                reusable = self._answered.keep_alive and self.complete
                mirror.arm.pool.release(connection, reusable)
            else:
                captured = None
                connection.abort()
        else:
            mirror.arm.pool.withdraw(self)
        self._hold(0)
        self._unsent.clear()
        mirror.done(outcome, self._epoch)
        duration = now - self._started_ns
        first_byte = self._first_byte_ns - self._started_ns if self._first_byte_ns else 0
        trace, traced = self._trace, False
        if trace is not None:
            self._trace_id = trace.text(self._method, 1)
            self._sampled, traced = trace.sampled, trace.traced
        rows = self._route.rows[mirror.arm.index][record.ROLE_MIRROR]
        series = rows.of(outcome)
        series.add(words, duration, first_byte, self._queue_ns, self.request_size, response_size)
        answered = self._answered
        kept: list[bytes] = answered.kept if answered is not None else []
        if self._call:
            code = call_status(answered, outcome, 0)
            self._route.rows[mirror.arm.index][record.ROLE_MIRROR].count_call(words, code)
            if answered is None or answered.grpc_status != code:
                kept = [*kept, b"grpc-status: %d" % code]
        response = b"".join(captured) if captured is not None else None
        events = b""
        if stream is not None:
            series.add_stream(words, stream, self._started_ns)
            response, deflated = stream.take_copy(outcome in record.ANSWERED)
            events = stream.times(self._started_ns)
            if deflated:
                kept = [*kept, DEFLATED]
        runtime.handoff.add(
            encode_record(
                self._route.model,
                mirror.arm.index,
                self._answered.status if self._answered is not None else 0,
                record.ROLE_MIRROR,
                outcome,
                runtime.wall.at(self._started_ns),
                duration,
                first_byte,
                self._queue_ns,
                self.request_size,
                response_size,
                self._request_id,
                self._trace_id,
                b"",
                self._target,
                b"",
                b"\r\n".join(kept),
                None,
                response,
                0,
                self._proxy_id,
                self._sampled,
                traced,
                events,
            )
        )
