"""One request of a client, from its head to the last byte of its response.

The exchange is the sink of the champion's connection. Body bytes are forwarded as they arrive, both
ways, and the slower side applies backpressure to the faster one.
"""

from __future__ import annotations

from math import inf
from time import monotonic, monotonic_ns

from understudy.common.compiling import compiled_class
from understudy.common.grpc_streams import StreamCall
from understudy.monitor.errors import HttpError
from understudy.monitor.proxy.grpc import answered_outcome, call_status, is_unary
from understudy.monitor.proxy.grpc_streams import PATH as STREAM
from understudy.monitor.proxy.grpc_streams import StreamRecords
from understudy.monitor.proxy.head import NO_BODY, ResponseHead
from understudy.monitor.proxy.incoming import Incoming
from understudy.monitor.proxy.memory import SMALL
from understudy.monitor.proxy.pool import REFUSALS
from understudy.monitor.proxy.split import BODY_TOO_LARGE, NOT_REWRITTEN, Choice, Router
from understudy.monitor.proxy.stream import DEFLATED
from understudy.monitor.proxy.turns import merge
from understudy.monitor.proxy.upstream import Carrier
from understudy.monitor.records import record
from understudy.monitor.records.encode import encode as encode_record
from understudy.monitor.routing.plan import Fault

FAILURES = {
    record.TIMEOUT: (504, b"504 Gateway Timeout", "the model server did not answer in time"),
    record.UPSTREAM_CONNECT: (502, b"502 Bad Gateway", "the model server cannot be reached"),
    record.UPSTREAM_RESET: (502, b"502 Bad Gateway", "the model server aborted its response"),
    record.GARBAGE: (502, b"502 Bad Gateway", "the model server's response is malformed"),
    record.OVERLOAD: (
        503,
        b"503 Service Unavailable",
        "all connections to the model server are busy",
    ),
    record.REJECTED: (408, b"408 Request Timeout", "the request did not arrive in time"),
    record.SHUTDOWN: (503, b"503 Service Unavailable", "the service is stopping"),
    record.CLIENT_STALLED: (503, b"503 Service Unavailable", "the client does not read"),
}
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

_ANSWERED = record.ANSWERED


@compiled_class(allow_interpreted_subclasses=True)
class Exchange(Incoming):
    """Forwards a request to an arm, and the response to the client."""

    __slots__ = ()

    # The client's side --------------------------------------------------------------------------

    def begin(self, data: bytes) -> bytes:
        """Start with ``data``, the bytes after the head; return those of the next request, or, as
        long as this one is not complete, those to feed in another turn.

        Raises HttpError when the body's framing is malformed.
        """
        rest = self._take(data) if data or self.head.length in (NO_BODY, 0) else b""
        body = data[: len(data) - len(rest)] if rest else data
        runtime = self.runtime
        runtime.words[self.arm.in_flight] += 1
        runtime.active.add(self)
        if not self.request_complete and self._waits_for_body():
            self._gathers = True
            self._unsent = []
            if self.head.expect is not None:
                self._forget_expectation()
                self.client.write(CONTINUE)
            self._gather(body)
            return rest
        if self.head.expect is not None:
            if self.request_complete:
                self._forget_expectation()
            else:
                self._block()  # until the model server asks for the body
        if self.route.by_body:
            self._identify()
        if runtime.traffic:
            self._route()
        if self.head.call and self.head.target == STREAM and self.route.model >= 0:
            self._split()
        self._start(body)
        return rest

    def _split(self) -> None:
        """Each request of this stream is a request in metrics and records."""
        runtime = self.runtime
        self._open_ns = 0  # what is reported as open has a record of its own
        self.calls = StreamRecords(
            self.head.kept, runtime.capture_limit, runtime.memory, self._stream_call
        )

    def _forget_expectation(self) -> None:
        """The model server gets the body with the head: it has nothing to ask for, and its 100
        would be a second one for the client."""
        head = self.head
        head.lines = [line for line in head.lines if line is not head.expect]
        head.expect = None

    def _identify(self) -> None:
        """Find the model's name in the body, if that is whole and kept, or in its first message."""
        if self._captured is not None and (self.request_complete or self.head.call):
            self.route = self.runtime.routes.named(self.route, b"".join(self._captured))

    def _route(self) -> None:
        """Choose the arm that serves this request."""
        traffic = self.runtime.traffic.get(self.route.model)
        if traffic is None:
            return
        body, unread = b"", ""
        if traffic.needs_body:
            if self._captured is None or not self.request_complete:
                unread = BODY_TOO_LARGE
            else:
                body = b"".join(self._captured)
        choice = self._choice = traffic.choose(self.head, self.proxy_id, body, unread)
        sent: bytes | None = None
        if choice.router is not None and choice.router.rewriting:
            choice, sent = self._rewrite(choice.router, choice)
            self._choice = choice
        if choice.assigned:
            self._open_ns = self.started_ns + record.OPEN_AFTER_NS
        if choice.arm:
            serving = self.runtime.serving.get(choice.arm)
            epoch = serving.breaker.allow(monotonic()) if serving is not None else 0
            if serving is None or not epoch:
                choice.diverted()
                return
            words = self.runtime.words
            words[self.arm.in_flight] -= 1
            self.arm = serving.arm
            self._breaker_epoch = epoch
            self._rewritten = sent
            words[self.arm.in_flight] += 1

    def _rewrite(self, router: Router, choice: Choice) -> tuple[Choice, bytes | None]:
        """The choice, and the body to send where it names the model.

        A body that cannot be rewritten for an arm of the experiment goes to the champion, and does
        not take part, whichever arm its unit is assigned to: the arms stay comparable.
        """
        head, sent = self.head, None
        for arm in router.rewriting:
            rewriter = arm.rewriter
            if rewriter is None or not rewriter.wants_body(head.target, head.lines):
                continue
            # The messages of a call are sent on as they come.
            whole = self._captured is not None and self.request_complete and not head.call
            body = rewriter.body(b"".join(self._captured or ()), head.lines) if whole else None
            if body is None:
                router.unassigned(NOT_REWRITTEN)
                return Choice(0, 0, choice.unit), None
            if arm.index == choice.arm:
                sent = body
        return choice, sent

    def _start(self, body: bytes) -> None:
        arm = self.arm
        head = self.head
        if head.call:
            if not arm.upstream.http2:
                self._fail(record.UPSTREAM_CONNECT, "the model server's url is not of HTTP/2")
                return
        elif self._captured is None or self._body_chunked is not None:
            self._mirror(body)
        faults = self.runtime.faults
        if faults and self._injected(faults.get(arm.index)):
            return
        rewritten = self._rewritten
        if rewritten is None:
            message = arm.request(head, self.extra)
        else:
            body = rewritten
            message = arm.request(head, self.extra, b"Content-Length: %d" % len(body))
        if len(body) <= SMALL:
            message += body
            body = b""
        connection = arm.pool.take()
        if connection is not None:
            self._send(connection, message, body)
        else:
            self._unsent = [message, body] if body else [message]
            if arm.pool.enqueue(self):
                # Below 0 while it waits because of our limit on connections.
                self.queue_ns = -monotonic_ns()
            if body and not self.finished:
                self._wait_with_body()

    def _mirror(self, body: bytes) -> None:
        """Pass on more of a body that is not kept whole, to the challengers as well."""
        mirrored = self._mirrored
        if mirrored is None:
            if (
                self.arm.index != 0
                or self.route.model < 0
                or (self._captured is not None and self.request_complete)
                or (self.head.expect is not None and not body)
            ):
                return
            found = [mirror.stream(self) for mirror in self.runtime.mirrors]
            mirrored = self._mirrored = [one for one in found if one is not None]
        for one in mirrored:
            one.feed(body)
        if self.request_complete:
            for one in mirrored:
                one.end(self.request_size)

    def _injected(self, fault: Fault | None) -> bool:
        """Whether an injected error replaces the model's response; see ``faults``."""
        if fault is None or self.runtime.random_bits(32) >= fault.share * 2**32:
            return False
        line = b"%d Injected" % fault.status
        name = record.OUTCOMES[record.SERVER_ERROR]
        self.client.answer(fault.status, line, "an injected error", name, self.request_id)
        self._finish(record.SERVER_ERROR, fault.status)
        return True

    def feed(self, data: bytes) -> bytes:
        """Take more of the body; return the rest as :meth:`begin` does. Raises HttpError."""
        rest = self._take(data)
        body = data[: len(data) - len(rest)] if rest else data
        if self._gathers:
            self._gather(body)
            return rest
        if self._unsent is not None:
            self._unsent.append(body)
            self._block()
            self.client.pause()
            self._wait_with_body()
        elif self._connection is not None:
            if self.head.expect is not None:
                self._unblock()
            self._connection.write(body)
        if self.head.call:
            self._keep_call()
        elif (self._captured is None or self._body_chunked is not None) and not self.finished:
            self._mirror(body)
        return rest

    def _gather(self, body: bytes) -> None:
        """Keep more of a body that is not whole, or start when it is; or when it cannot be kept."""
        unsent = self._unsent
        assert unsent is not None
        # An unframed body that is captured is the same bytes: they are kept once.
        twice = self._body_chunked is not None or self._captured is None
        if twice:
            unsent.append(body)
            merge(unsent)
        memory = self.runtime.memory
        if self._waits_for_body():
            # If others are not slow either, it can be streamed; but not over all connections.
            if self._keep_body() or (self._scarce() and self._keep_body(must=True)):
                if self._charged:
                    memory.waits(self)
                return
            if self._captured is not None:
                memory.dropped += 1
        memory.moves(self)
        self._gathers = False
        held = b"".join(unsent if twice else self._captured or ())
        self._unsent = None
        if not self.request_complete:
            if not self.head.call:
                self._captured = None
        elif not twice:
            self._captured = [held]
        if self.route.by_body:
            self._identify()
        if self.runtime.traffic:
            self._route()
        self._start(held)

    def _scarce(self) -> bool:
        """Whether half of the connections to the model server are in use."""
        pool = self.arm.pool
        return 2 * (pool.busy + len(pool.waiting)) >= self.arm.upstream.max_connections

    def _wait_with_body(self) -> None:
        """Account for a body that waits for a connection. When the budget is used up, it is refused
        if it waits for a busy connection, not if one is being opened for it."""
        if not self._keep_body(must=self.queue_ns >= 0):
            self.client.worker.rejected("memory")
            self._fail(record.OVERLOAD)

    def evict(self) -> None:
        """End it, since its client is the slowest of those that hold memory, and others need it."""
        self.client.worker.rejected("slow_client")
        if self.tunnel:
            self.cancel()
        else:
            self._fail(record.CLIENT_STALLED if self.request_complete else record.REJECTED)

    def feed_tunnel(self, data: bytes) -> None:
        """Forward bytes of the client after a 101."""
        if self._connection is not None:
            self._connection.write(data)

    def cancel(self) -> None:
        """The client has disconnected; the only way in which a tunnel ends."""
        if self.tunnel:
            self._finish(record.OK, 101)
        elif self.request_complete or self._blocked_ns < 0 or self.head.call:
            ended = self.client.ended_ns
            waited = ended - self.started_ns if ended and self._answered is None else 0
            self._finish(record.CANCELLED, 499, max(0, waited))
        else:
            self._finish(record.INCOMPLETE, 499)

    def stop(self) -> None:
        """The worker stops, and waits no longer."""
        if self.tunnel:
            self._finish(record.OK, 101)
        else:
            self._fail(record.SHUTDOWN)

    def spoil(self, error: HttpError, line: bytes) -> None:
        """The request proved malformed after a part of it was sent."""
        if self._answered is None:
            self.client.answer(error.status, line, error.detail)
        else:
            self.client.abort()
        self._finish(record.REJECTED, error.status)

    def check(self, now_ns: int) -> None:
        """Called periodically with the monotonic time: enforce the time limits."""
        if self.tunnel:
            return
        if self.calls is not None:
            self.calls.check(now_ns)
        upstream = self.arm.upstream
        total = self.route.total(upstream)
        late = total is not None and now_ns - self.started_ns > total * 1e9
        if self.deadline_ns and now_ns > self.deadline_ns:
            # As its client wants it, whichever side lost the time.
            self._fail(record.TIMEOUT)
            return
        if not late:
            if self.request_complete and not self._first_byte_ns:
                late = now_ns - self.ready_ns > self.route.first_byte(upstream) * 1e9
            else:
                late = self._stalled(now_ns)
        if late:
            if self._is_ours(now_ns):
                self._fail(record.OVERLOAD)
            elif self._connection is not None and self._connection.read_paused:
                self._fail(record.CLIENT_STALLED)
            elif self.request_complete or self._blocked_ns < 0:
                # Blocked: the client cannot send, since the model server does not read.
                self._fail(record.TIMEOUT)
            else:
                self.client.worker.rejected("slow_body")
                self._fail(record.REJECTED)
        elif not self._first_byte_ns and self._slow(now_ns):
            self.client.worker.rejected("slow_body")
            self._fail(record.REJECTED)
        elif self._open_ns and now_ns >= self._open_ns:
            self._report_open(now_ns)

    def _report_open(self, now_ns: int) -> None:
        """Report that an assigned request has not finished; next when its age has doubled."""
        choice = self._choice
        route = self.route
        if choice is None or route.model < 0:
            return
        age = now_ns - self.started_ns
        # The record of the finished request has the same start, by which it is recognised.
        self._started_at = self._started_at or self.runtime.wall.at(self.started_ns)
        self._open_ns = now_ns + age
        self.runtime.handoff.add(
            encode_record(
                route.model,
                self.arm.index,
                0,
                record.ROLE_PRIMARY,
                record.OPEN,
                self._started_at,
                age,
                self._first_byte_ns - self.started_ns if self._first_byte_ns else 0,
                max(0, self.queue_ns),
                self.request_size,
                0,
                self.request_id,
                self.head.trace_id,
                choice.unit,
                b"",
                b"",
                b"",
                None,
                None,
                choice.assigned,
                self.proxy_id,
            )
        )

    def _is_ours(self, now_ns: int) -> bool:
        """Whether a request that is late would have been in time without the wait for one of our
        connections."""
        if self.queue_ns <= 0:
            return self.queue_ns < 0
        upstream = self.arm.upstream
        total = self.route.total(upstream)
        limit = inf if total is None else total
        if not self._first_byte_ns:
            limit = min(limit, self.route.first_byte(upstream))
        return now_ns - self.started_ns - self.queue_ns <= limit * 1e9

    def writable(self, writable: bool) -> None:
        """The client's write buffer is full, or has room again."""
        connection = self._connection
        if connection is not None:
            stream = connection.stream
            if writable:
                if stream is not None:
                    stream.resume(monotonic_ns())
                connection.resume()
            else:
                if stream is not None:
                    stream.pause(monotonic_ns())
                connection.pause()

    # The upstream's side: see Sink --------------------------------------------------------------

    def on_ready(self, connection: Carrier) -> None:
        if self.queue_ns < 0:
            self.queue_ns = max(1, self.queue_ns + monotonic_ns())
        if self.head.expect is None:
            self._unblock()
        message, *bodies = self._unsent or (b"",)
        self._unsent = None
        # Before sending: the connection may apply backpressure at once.
        self.client.resume()
        self._send(connection, message, b"".join(bodies))

    def on_unavailable(self, reason: str) -> None:
        self._fail(record.OVERLOAD if reason == "overload" else record.UPSTREAM_CONNECT)

    def on_interim(self, raw: bytes) -> None:
        self._unblock()
        if self.head.minor == 1 and (self.head.expect is not None or raw[9:12] != b"100"):
            self.client.write(raw)

    def on_head(self, head: ResponseHead, body: bytes, done: bool) -> None:
        self._first_byte_ns = monotonic_ns()
        self._answered = head
        if self.calls is not None:
            self.calls.head(head.kept)
            self.calls.answered(body, self._first_byte_ns)
        self.client.respond(self, head, body, done)
        if done:
            self._complete()

    def on_body(self, body: bytes, done: bool) -> None:
        if body:
            self.client.write(body)
            if self.calls is not None:
                self.calls.answered(body, monotonic_ns())
        if done:
            self._complete()

    def on_tunnel(self, head: ResponseHead, data: bytes) -> None:
        if self.head.upgrade is None:
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.abort()
            self._fail(record.GARBAGE)
            return
        self.tunnel = True
        # A tunnel may last for days: the breaker must not wait for its end.
        self._report(record.OK)
        self.client.keep_alive = False
        self._first_byte_ns = monotonic_ns()
        self._answered = head
        upgrade = (b"Connection: upgrade", head.upgrade or b"Upgrade: " + self.head.upgrade)
        self.client.write(b"\r\n".join((head.status_line, *head.lines, *upgrade, b"", data)))
        self.client.tunnel()

    def on_lost(self, reason: str) -> None:
        connection, self._connection = self._connection, None
        if connection is not None and self._is_repeatable(reason):
            self._repeat(connection, reason)
        else:
            self._fail(record.GARBAGE if reason == "garbage" else record.UPSTREAM_RESET)

    def on_writable(self, writable: bool) -> None:
        connection = self._connection
        memory = self.runtime.memory
        if writable:
            memory.give(self._stuck)
            self._charged -= self._stuck
            self._stuck = 0
            self._unblock()
            self.client.resume()
        else:
            self._block()
            self.client.pause()
            if connection is not None:
                self._stuck = connection.unsent()
                self._charged += self._stuck
                memory.force(self._stuck)

    # The end ------------------------------------------------------------------------------------

    def _send(self, connection: Carrier, message: bytes, body: bytes = b"") -> None:
        """Send ``message``, and after it ``body``, which is large enough to be sent uncopied."""
        self._connection = connection
        if body:
            self._keep_copy()
        connection.begin(
            self,
            message,
            self.head.method == b"HEAD",
            self.runtime.capture_limit if self.route.model >= 0 else 0,
            self.head.minor != 1,
        )
        if body:
            connection.write(body)

    def _is_repeatable(self, reason: str) -> bool:
        """Whether the request may be sent once more after that loss, and is still whole."""
        head = self.head
        return (
            self.route.may_repeat(reason, head.method)
            and self._repeated < (REFUSALS if reason == "refused" else 1)
            and self.request_complete
            and (self._captured is not None or not self.request_size)
            and head.upgrade is None
        )

    def _repeat(self, lost: Carrier, reason: str) -> None:
        """Send the request on another connection: the server had closed the one before."""
        self._repeated += 1
        if self.trace is not None:
            before, after = self.trace.repeat(monotonic_ns() - self.started_ns)
            self.extra = [after if line is before else line for line in self.extra]
        head = self.head
        body = self._rewritten
        if body is None:
            body = b"".join(self._captured or ())
        framing = b"Content-Length: %d" % len(body) if head.framing_line is not None else b""
        self._unsent = [self.arm.request(head, self.extra, framing) + body]
        self.arm.pool.repeat(self, lost, reason)

    def _complete(self) -> None:
        answered = self._answered
        assert answered is not None
        outcome = answered_outcome(answered, self.head.call, self.route.overload)
        if outcome == record.OK:
            if self.route.model >= 0:
                self.arm.answered()
            connection = self._connection
            if connection is not None and connection.stream is not None:
                outcome = connection.stream.outcome(self.route.marks_end)
        self._finish(outcome, answered.status)

    def _report(self, outcome: int) -> None:
        """Report to the arm's breaker, once, if it allowed this request."""
        if self._breaker_epoch:
            self.runtime.serving[self.arm.index].report(outcome, self._breaker_epoch)
            self._breaker_epoch = 0

    def _fail(self, outcome: int, detail: str = "") -> None:
        status, line, reason = FAILURES[outcome]
        name = record.OUTCOMES[outcome]
        if self._answered is None:
            self.client.answer(status, line, detail or reason, name, self.request_id)
        else:
            status = self._answered.status
            self.client.abort(name)
        self._finish(outcome, status)

    def _traced(self) -> tuple[bytes, bool, bool]:
        """The trace's id for a record, and whether it is sampled and traced."""
        trace, head = self.trace, self.head
        if trace is None:
            return head.trace_id, head.sampled, False
        return trace.text(head.method, head.minor), trace.sampled, trace.traced

    def _stream_call(self, call: StreamCall, outcome: int) -> None:
        """A request of a stream has ended; ``outcome`` is the stream's, OK as long as it lasts."""
        if call.error:
            outcome = record.SERVER_ERROR
        elif call.answers and call.final is not False:
            outcome = record.OK
        elif outcome == record.OK and not call.answers:
            outcome = record.SERVER_ERROR  # the stream ended without an answer
        runtime, route, arm = self.runtime, self.route, self.arm
        duration = (call.ended or monotonic_ns()) - call.started
        first_byte = call.first - call.started if call.first else 0
        series = route.rows[arm.index][record.ROLE_PRIMARY].of(outcome)
        series.add(runtime.words, duration, first_byte, 0, call.request_size, call.response_size)
        if route.model < 0:
            return
        answered, choice = self._answered, self._choice
        trace_id, sampled, traced = self._traced()
        number = self.calls.recorded if self.calls is not None else 0
        if number != 1:  # the stream has one span
            trace_id, traced = trace_id.partition(b" ")[0], False
        response = call.response
        runtime.handoff.add(
            encode_record(
                route.model,
                arm.index,
                answered.status if answered is not None else 0,
                record.ROLE_PRIMARY,
                outcome,
                runtime.wall.at(call.started),
                duration,
                first_byte,
                0,
                call.request_size,
                call.response_size,
                b"%b/%b" % (self.request_id, call.id.encode() or b"%d" % number),
                trace_id,
                choice.unit if choice is not None else b"",
                self.head.target,
                b"\r\n".join(self.head.kept),
                b"\r\n".join(answered.kept) if answered is not None else b"",
                call.request,
                bytes(response) if response is not None else None,
                choice.assigned if choice is not None else 0,
                0,
                sampled,
                traced,
            )
        )

    def _finish(self, outcome: int, status: int, waited_ns: int = 0) -> None:
        """The exchange is over; its client waited ``waited_ns``, or until now."""
        if self.finished:
            return
        self.finished = True
        now = monotonic_ns()
        if self.queue_ns < 0:
            self.queue_ns += now
        runtime = self.runtime
        runtime.active.discard(self)
        if self._charged:
            runtime.memory.moves(self)
            self._give_back()
        arm = self.arm
        words = runtime.words
        words[arm.in_flight] -= 1
        connection, self._connection = self._connection, None
        if self._breaker_epoch:
            self._report(outcome)
        response_size = 0
        captured: list[bytes] | None = None
        stream = None
        whole = outcome in _ANSWERED
        if connection is not None:
            response_size = connection.response_size
            stream, connection.stream = connection.stream, None
            captured = connection.take_capture()
            if not whole:
                captured = None
            if whole and not self.tunnel:
                assert self._answered is not None
                # After a declined upgrade, some servers do not return to reading requests.
                arm.pool.release(
                    connection,
                    self._answered.keep_alive
                    and self.request_complete
                    and self.head.upgrade is None,
                )
            elif whole:
                connection.finish()
            else:
                connection.abort()
        elif self._unsent is not None and not self._gathers:
            arm.pool.withdraw(self)
        duration = waited_ns or now - self.started_ns
        first_byte = self._first_byte_ns - self.started_ns if self._first_byte_ns else 0
        if self.route.by_body and self.head.call:
            self._identify()  # its messages were sent on as they came
        route = self.route
        if route.new is not None and outcome == record.OK:
            route = self.route = runtime.routes.learn(route)
        divided = False
        if self.calls is not None:
            self.calls.end(outcome)
            divided = self.calls.recorded > 0
        if not divided:
            series = route.rows[arm.index][record.ROLE_PRIMARY].of(outcome)
            series.add(words, duration, first_byte, self.queue_ns, self.request_size, response_size)
            if stream is not None:
                series.add_stream(words, stream, self.started_ns)
        answered = self._answered
        kept: list[bytes] = answered.kept if answered is not None else []
        if self.head.call:
            code = call_status(answered, outcome, status)
            route.rows[arm.index][record.ROLE_PRIMARY].count_call(words, code)
            if answered is None or answered.grpc_status != code:
                kept = [*kept, b"grpc-status: %d" % code]
        # The response is sent: nothing below adds to the client's latency.
        self.client.exchange_over(self)
        if route.model >= 0 and not self.tunnel and not divided:
            head = self.head
            trace_id, sampled, traced = self._traced()
            body: bytes | None = None
            if self._captured is not None and self.request_complete:
                body = b"".join(self._captured)
            response = b"".join(captured) if captured is not None else None
            events = b""
            if stream is not None:
                response, deflated = stream.take_copy(whole)
                events = stream.times(self.started_ns)
                if deflated:
                    kept = [*kept, DEFLATED]
            choice = self._choice
            runtime.handoff.add(
                encode_record(
                    route.model,
                    arm.index,
                    status,
                    record.ROLE_PRIMARY,
                    outcome,
                    self._started_at or runtime.wall.at(self.started_ns),
                    duration,
                    first_byte,
                    self.queue_ns,
                    self.request_size,
                    response_size,
                    self.request_id,
                    trace_id,
                    choice.unit if choice is not None else b"",
                    head.target,
                    b"\r\n".join(head.kept),
                    b"\r\n".join(kept),
                    body,
                    response,
                    choice.assigned if choice is not None else 0,
                    self.proxy_id,
                    sampled,
                    traced,
                    events,
                )
            )
            if self._mirrored is not None:
                if not self.request_complete:
                    for one in self._mirrored:
                        one.stop()
            elif arm.index == 0 and (not head.call or is_unary(body)):
                for mirror in runtime.mirrors:
                    mirror.offer(self, body)
