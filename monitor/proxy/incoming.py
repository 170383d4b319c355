"""An incoming request: its identity, and the part of its body received so far.

Body bytes are counted and framed here as they arrive, and kept as long as the record, the mirrors
or the router may need them.
"""

from __future__ import annotations

from time import monotonic_ns
from typing import TYPE_CHECKING, Final

from understudy.common.compiling import compiled_class
from understudy.common.grpc_messages import HEAD
from understudy.monitor.errors import HttpError
from understudy.monitor.proxy.framing import Chunked
from understudy.monitor.proxy.grpc_streams import StreamRecords
from understudy.monitor.proxy.head import CHUNKED, RequestHead, ResponseHead
from understudy.monitor.proxy.memory import SMALL
from understudy.monitor.proxy.protocols import Client
from understudy.monitor.proxy.routes import Route
from understudy.monitor.proxy.split import Choice
from understudy.monitor.proxy.turns import PIECES, merge
from understudy.monitor.proxy.upstream import Carrier

if TYPE_CHECKING:
    from understudy.monitor.proxy.mirror import MirroredRequest
    from understudy.monitor.proxy.runtime import Runtime
    from understudy.monitor.proxy.tracing import RequestTrace

_FRAMED: Final = 8
"""Limit of a gathered body with its chunked framing, as a multiple of the capture limit. Six allow
one chunk per byte."""


@compiled_class(allow_interpreted_subclasses=True)
class Incoming:
    """An incoming request. ``started_ns`` is the monotonic time of the first byte of its head,
    ``proxy_id`` a random number, which is not chosen by the client as ``request_id`` may be.

    The attributes of the subclass are initialised here as well, since another constructor would be
    one more call for each request.
    """

    __slots__ = (
        "_answered",
        "_blocked_ns",
        "_body_chunked",
        "_body_left",
        "_breaker_epoch",
        "_captured",
        "_charged",
        "_choice",
        "_connection",
        "_first_byte_ns",
        "_gathers",
        "_mirrored",
        "_open_ns",
        "_progress",
        "_progress_ns",
        "_repeated",
        "_rewritten",
        "_started_at",
        "_stuck",
        "_unsent",
        "arm",
        "calls",
        "client",
        "deadline_ns",
        "extra",
        "finished",
        "head",
        "proxy_id",
        "queue_ns",
        "ready_ns",
        "request_complete",
        "request_id",
        "request_size",
        "route",
        "runtime",
        "started_ns",
        "trace",
        "tunnel",
    )

    def __init__(
        self, client: Client, runtime: Runtime, head: RequestHead, started_ns: int
    ) -> None:
        self.client = client
        self.runtime = runtime
        self.head = head
        self.started_ns = started_ns
        self.ready_ns = 0
        self.queue_ns = 0
        timeout = head.timeout_ns
        self.deadline_ns = started_ns + timeout if timeout else 0
        """When the client gives up, in monotonic time; 0: it did not say."""
        self.route: Route = runtime.routes.find(head.target)
        self.request_complete = False
        self.request_size = 0
        self.finished = False
        self.tunnel = False
        self._answered: ResponseHead | None = None
        self._connection: Carrier | None = None
        self._first_byte_ns = 0
        self.calls: StreamRecords | None = None
        """The requests of a gRPC stream to a model."""
        self.arm = runtime.champion
        self._breaker_epoch = 0
        self._choice: Choice | None = None
        self._progress = -1
        self._progress_ns = 0
        self._open_ns = 0
        self._started_at = 0.0
        self._repeated = 0
        self._rewritten: bytes | None = None
        """The body to send instead of the client's, which names another model."""
        self._gathers = False
        """Waits for the whole body before it takes a connection."""
        self._charged = 0
        """Bytes that are accounted for; those of them that the model server does not read are also
        in ``_stuck``."""
        self._stuck = 0
        self._blocked_ns = 0
        """How long the client could not send because of us; plus the present if that lasts, below
        0 then."""
        length = head.length
        self._body_chunked = Chunked(True) if length == CHUNKED else None
        self._body_left = max(0, length)
        capture = self.route.model >= 0 and length <= runtime.capture_limit
        self._captured: list[bytes] | None = [] if capture else None
        self._mirrored: list[MirroredRequest] | None = None
        """Where the body goes as it arrives, besides the model server."""
        self._unsent: list[bytes] | None = None
        extra: list[bytes] = []
        self.extra = extra
        number = runtime.random_bits(192)
        self.proxy_id = number & 0xFFFFFFFFFFFFFFFF or 1
        request_id = head.request_id
        if not request_id:
            request_id = b"%032x" % (number >> 64)
            extra.append(b"x-request-id: " + request_id)
        self.request_id = request_id
        self.trace: RequestTrace | None = None
        tracer = runtime.tracer
        # A tunnel has no record, so its spans would be missing from the trace.
        if tracer is not None and self.route.model >= 0 and head.upgrade is None:
            self.trace = tracer.begin(head)
            extra += self.trace.lines

    def _waits_for_body(self) -> bool:
        """Whether the body has yet to arrive, and is small enough to wait for it."""
        if self.request_complete:
            return False
        return self._waits_for_message() if self.head.call else self._small()

    def _waits_for_message(self) -> bool:
        """Whether the first message of a call has yet to arrive, and names the model. Of what
        follows, nothing tells whether the client waits for an answer before it sends it."""
        traffic = self.runtime.traffic.get(self.route.model)
        if not self.route.by_body and (traffic is None or not traffic.rewrites):
            return False
        pieces = self._captured
        if pieces is None:
            return False
        size = self.request_size
        if size < HEAD.size:
            return True
        merged = pieces[0] if len(pieces[0]) >= HEAD.size else b"".join(pieces)
        whole: int = HEAD.size + HEAD.unpack_from(merged)[1]
        return size < whole <= self.runtime.capture_limit

    def _small(self) -> bool:
        """Whether the body is not larger than one that is kept, however it is chunked."""
        limit = self.runtime.capture_limit
        chunked = self._body_chunked
        if chunked is None:
            return self.head.length <= limit
        return chunked.size <= limit and chunked.framed <= _FRAMED * limit

    def _keep_body(self, must: bool = False) -> bool:
        """Account for the part of the body that has arrived and is kept, with its framing; False
        when there is no room for it, unless it ``must`` be kept. This may end the exchange."""
        size = self._received()
        if self._body_chunked is not None and self._captured is not None:
            size += self.request_size
        if size <= SMALL:
            return True
        memory = self.runtime.memory
        more = size - self._charged
        if must:
            self._charged = size
            memory.force(more)
            return True
        if not memory.take(more):
            return self.finished
        if self.finished:
            # Its own client was the slowest.
            memory.give(more)
        else:
            self._charged = size
        return True

    def _keep_copy(self) -> None:
        """The body was sent: from now on it is a copy, for the record and mirrored requests."""
        memory = self.runtime.memory
        memory.give(self._charged)
        self._charged = 0
        if self._captured is not None:
            if memory.copy(self.request_size):
                self._charged = self.request_size
            else:
                self._captured = None
                memory.dropped += 1

    def _keep_call(self) -> None:
        """Account for the copy of what has arrived of a call, which is sent on as it arrives."""
        if self._captured is None:
            return
        size = self.request_size
        more = size - (self._charged - self._stuck)
        if size <= SMALL or more <= 0:
            return
        memory = self.runtime.memory
        if memory.copy(more):
            self._charged += more
        else:
            self._captured = None
            memory.dropped += 1

    def _give_back(self) -> None:
        """Nothing is kept any longer."""
        self.runtime.memory.give(self._charged)
        self._charged = self._stuck = 0

    def _block(self) -> None:
        """The client cannot send from now on, and that is not its fault."""
        if self._blocked_ns >= 0:
            self._blocked_ns -= monotonic_ns()

    def _unblock(self) -> None:
        """The client can send again."""
        if self._blocked_ns < 0:
            self._blocked_ns += monotonic_ns()

    def _stalled(self, now_ns: int) -> bool:
        """Whether no byte has arrived from either side for longer than is allowed."""
        connection = self._connection
        progress = self._received()
        if connection is not None:
            progress += connection.wire_size
            if connection.read_paused:
                # It may read slowly: a full buffer takes it longer than the limit.
                progress -= self.client.undelivered()
        if progress != self._progress:
            self._progress = progress
            self._progress_ns = now_ns
        since = max(self._progress_ns, self._first_byte_ns)
        return now_ns - since > self.route.between_bytes(self.arm.upstream) * 1e9

    @property
    def answered(self) -> bool:
        """Whether the response has begun."""
        return self._answered is not None

    def _received(self) -> int:
        """Bytes of the request's body that have arrived, with framing."""
        chunked = self._body_chunked
        return chunked.framed if chunked is not None else self.request_size

    def _slow(self, now_ns: int) -> bool:
        """Whether the body arrives more slowly than is allowed."""
        if self.request_complete or self._blocked_ns < 0 or self.head.call:
            return False
        limits = self.runtime.plan.limits
        allowed = limits.body_timeout + self._received() / limits.body_rate
        return now_ns - self.started_ns - self._blocked_ns > allowed * 1e9

    @property
    def pieces(self) -> int:
        """Pieces in which the bytes came that were taken last."""
        return self._body_chunked.lines if self._body_chunked is not None else 0

    def _take(self, data: bytes) -> bytes:
        """Account for body bytes; return the rest: what is behind the body's end, or, as long as
        the request is not complete, what is to be taken in another turn."""
        chunked = self._body_chunked
        if chunked is not None:
            consumed = chunked.feed(data, self._captured, PIECES)
            self.request_size = chunked.size
            done = chunked.done
        else:
            consumed = min(len(data), self._body_left)
            self._body_left -= consumed
            self.request_size += consumed
            done = self._body_left == 0
            if self._captured is not None and consumed:
                self._captured.append(data if consumed == len(data) else data[:consumed])
        if self.request_size > self.runtime.capture_limit:
            self._captured = None
        if self.request_size > self.runtime.body_limit:
            raise HttpError(413, "body_too_large", "the request's body is too large")
        if done:
            self.request_complete = True
            self.ready_ns = monotonic_ns()
        elif self._captured is not None:
            merge(self._captured)
        return data[consumed:] if consumed < len(data) else b""
