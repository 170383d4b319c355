"""An incoming request: its identity, and the part of its body received so far.

Body bytes are counted and framed here as they arrive, and kept as long as the record, the mirrors
or the router may need them.
"""

from __future__ import annotations

from time import monotonic_ns
from typing import TYPE_CHECKING

from understudy.monitor.proxy.framing import Chunked
from understudy.monitor.proxy.head import CHUNKED, RequestHead, ResponseHead
from understudy.monitor.proxy.protocols import Client
from understudy.monitor.proxy.routes import Route
from understudy.monitor.proxy.split import Choice, Traffic
from understudy.monitor.proxy.upstream import UpstreamConnection

if TYPE_CHECKING:
    from understudy.monitor.proxy.runtime import Runtime

_FRAMED = 8
"""Limit of a buffered body with its chunked framing, as a multiple of the capture limit. Six allow
one chunk per byte."""


class Incoming:
    """An incoming request. ``started_ns`` is the monotonic time of the first byte of its head.

    The attributes of the subclass are initialised here as well, since another constructor would be
    one more call for each request.
    """

    __slots__ = (
        "_answered",
        "_body_chunked",
        "_body_left",
        "_breaker_epoch",
        "_captured",
        "_choice",
        "_connection",
        "_first_byte_ns",
        "_framed_size",
        "_open_ns",
        "_started_at",
        "_unrouted",
        "_unsent",
        "arm",
        "client",
        "extra",
        "finished",
        "head",
        "queue_ns",
        "ready_ns",
        "request_complete",
        "request_id",
        "request_size",
        "route",
        "runtime",
        "started_ns",
        "trace_id",
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
        self.route: Route = runtime.routes.find(head.target)
        self.request_complete = False
        self.request_size = 0
        self.finished = False
        self.tunnel = False
        self._answered: ResponseHead | None = None
        self._connection: UpstreamConnection | None = None
        self._first_byte_ns = 0
        self.arm = runtime.champion
        self._breaker_epoch = 0
        self._choice: Choice | None = None
        self._open_ns = 0
        self._started_at = 0.0
        self._unrouted: Traffic | None = None
        length = head.length
        self._body_chunked = Chunked() if length == CHUNKED else None
        self._body_left = max(0, length)
        self._framed_size = 0
        capture = self.route.model >= 0 and length <= runtime.capture_limit
        self._captured: list[bytes] | None = [] if capture else None
        self._unsent: list[bytes] | None = None
        extra: list[bytes] = []
        self.extra = extra
        trace_id = head.trace_id
        if not trace_id:
            # The trace starts here and is not sampled yet, so the flags are 00.
            number = runtime.random_bits(192)
            trace_id = b"%032x" % (number >> 64 or 1)
            extra.append(
                b"traceparent: 00-%b-%016x-00" % (trace_id, number & 0xFFFFFFFFFFFFFFFF or 1)
            )
        request_id = head.request_id
        if not request_id:
            request_id = b"%032x" % runtime.random_bits(128) if head.trace_id else trace_id
            extra.append(b"x-request-id: " + request_id)
        self.trace_id = trace_id
        self.request_id = request_id

    def _waits_for_body(self) -> bool:
        """Whether the body has yet to arrive, and may be read. A client that expects a 100 sends
        none before the model server asks for it."""
        return not self.request_complete and self._readable() and self.head.expect is None

    def _readable(self) -> bool:
        """Whether the size of the body allows reading it, however it is chunked."""
        framing = self._framed_size > _FRAMED * self.runtime.capture_limit
        return self._captured is not None and not framing

    def _take(self, data: bytes) -> bytes:
        """Account for body bytes; return the bytes behind the body's end."""
        chunked = self._body_chunked
        if chunked is not None:
            consumed = chunked.feed(data, self._captured)
            self._framed_size += consumed
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
        if done:
            self.request_complete = True
            self.ready_ns = monotonic_ns()
        return data[consumed:] if consumed < len(data) else b""
