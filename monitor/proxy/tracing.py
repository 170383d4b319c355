"""Trace contexts: which requests are sampled, and what model servers are sent.

W3C Trace Context level 2: https://www.w3.org/TR/trace-context-2/. Requests without a parent are
sampled by the low 56 bits of their trace id, as OpenTelemetry's consistent probability sampling
does, so that all services that see the trace decide alike. Spans are not made here: records carry
their ids to the evaluation plane.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from understudy.monitor.proxy.head import RequestHead
from understudy.monitor.records.trace import FORM, NO_SPAN
from understudy.monitor.routing.plan import Tracing

_RANDOM_BITS = (1 << 56) - 1
"""Of a trace id, those that are compared with the threshold."""
_NAMES = frozenset((b"traceparent", b"tracestate"))
_INITIALS = frozenset(b"tT")
_FLAGS = {b"%02x" % number: b"%02x" % (number & 3) for number in range(256)}
"""Of an incoming context, what is passed on: sampled and random, the flags of level 2."""
_RANDOMNESS = re.compile(rb"rv:([0-9a-f]{14})")


class RequestTrace:
    """The trace context of one request, and of its copies.

    ``lines`` are the header lines that its model server is sent. ``client`` is the id of the span
    that stands for this attempt to send it: the parent of the model server's span.
    """

    __slots__ = (
        *("_earlier", "_link", "_of", "_spans", "client", "flags", "lines", "parent", "sampled"),
        *("server", "trace"),
    )

    def __init__(
        self,
        of: Tracer,
        trace: bytes,
        parent: bytes,
        server: bytes,
        client: bytes,
        flags: bytes,
        states: list[bytes],
        link: bytes = b"",
        spans: bool = True,
    ) -> None:
        self._of = of
        self._spans = spans
        self.trace = trace
        self.parent = parent
        self.server = server
        self.client = client
        self.flags = flags
        self.sampled = flags == b"03" or flags == b"01"
        self.lines = [b"traceparent: 00-%b-%b-%b" % (trace, client, flags), *states]
        self._link = link
        self._earlier = b"0"

    def text(self, method: bytes, minor: int) -> bytes:
        """What a record has as its trace id."""
        if not self.traced:
            return self.trace
        parts = (self.trace, self.parent, self.server, self.client, self.flags, method)
        return FORM % (*parts, minor, self._earlier, self._link)

    def repeat(self, lost_ns: int) -> tuple[bytes, bytes]:
        """Begin another attempt, after the one before was lost, ``lost_ns`` after the start of the
        request; the header line that changes, before and after."""
        before = self.lines[0]
        attempt = b"%b-%d" % (self.client, lost_ns)
        self._earlier = attempt if self._earlier == b"0" else b"%b,%b" % (self._earlier, attempt)
        self.client = b"%016x" % (self._of.random_bits(64) or 1)
        after = b"traceparent: 00-%b-%b-%b" % (self.trace, self.client, self.flags)
        self.lines = [after, *self.lines[1:]]
        return before, after

    @property
    def traced(self) -> bool:
        """Whether :meth:`text` has the ids of spans."""
        return self.sampled or (self._of.keeps and self._spans)

    def copy(self) -> RequestTrace:
        """The context of a mirrored request, which is sampled if this one is."""
        of = self._of
        number = of.random_bits(192)
        client = b"%016x" % (number & 0xFFFFFFFFFFFFFFFF or 1)
        if of.copies == "child":
            return RequestTrace(
                of, self.trace, self.server, NO_SPAN, client, self.flags, self.lines[1:]
            )
        trace = b"%032x" % (number >> 64)
        if of.copies == "none":
            return RequestTrace(of, trace, NO_SPAN, NO_SPAN, client, b"02", [], spans=False)
        states: list[bytes] = []
        flags = b"03" if self.sampled else b"02"
        if self.sampled and self.parent == NO_SPAN and of.state:
            # Sampled by the number of the other trace, which this one states in place of its own.
            states = [of.state + b";rv:" + self.trace[18:]]
        link = b"%b-%b" % (self.trace, self.server)
        return RequestTrace(of, trace, NO_SPAN, NO_SPAN, client, flags, states, link)


class Tracer:
    """Decides about the requests of a worker, by the plan."""

    def __init__(self, settings: Tracing, random_bits: Callable[[int], int]) -> None:
        self.random_bits = random_bits
        self.copies = settings.copies
        self.keeps = settings.keep
        self._by_parent = settings.by_parent
        self._threshold = settings.threshold
        self._stated = b""
        if 0 < settings.threshold <= _RANDOM_BITS:
            self._stated = b"th:" + (b"%014x" % settings.threshold).rstrip(b"0")
        self.state = b"tracestate: ot=" + self._stated if self._stated else b""
        """The line of a sampled request without a parent; empty if all of them are sampled."""

    def begin(self, head: RequestHead) -> RequestTrace:
        """Begin the trace of a request, and remove the client's trace context from ``head``."""
        states = self._take_lines(head)
        # One of 2^64 ids is zero, which is not valid: that trace is lost.
        digits = b"%064x" % self.random_bits(256)
        server, client = digits[32:48], digits[48:]
        trace = head.trace_id
        if not trace:
            # Without a valid traceparent, what tracestate says belongs to no trace.
            trace = digits[:32]
            if not self._threshold or int(trace[18:], 16) >= self._threshold:
                return RequestTrace(
                    self, trace, NO_SPAN, server, client, b"03", [self.state] if self.state else []
                )
            return RequestTrace(self, trace, NO_SPAN, server, client, b"02", [])
        flags = _FLAGS[head.trace_flags]
        if not self._by_parent:
            flags, states = self._decide(trace, flags, states)
        return RequestTrace(self, trace, head.parent_id, server, client, flags, states)

    def _take_lines(self, head: RequestHead) -> list[bytes]:
        """Remove the lines of a trace context from the head; those with its state."""
        lines: list[bytes] = []
        states: list[bytes] = []
        if not any([line[0] in _INITIALS for line in head.lines]):  # noqa: C419  # faster
            return states
        for line in head.lines:
            if line[0] in _INITIALS and (name := line.partition(b":")[0].lower()) in _NAMES:
                if name == b"tracestate":
                    states.append(line)
            else:
                lines.append(line)
        head.lines = lines
        return states

    def _decide(self, trace: bytes, flags: bytes, states: list[bytes]) -> tuple[bytes, list[bytes]]:
        """Flags and state of a request that is sampled without regard to its parent."""
        members = [
            member.strip(b" \t")
            for line in states
            for member in line.partition(b":")[2].split(b",")
            if member.strip(b" \t")
        ]
        ours = next((member for member in members if member[:3] == b"ot="), b"ot=")
        others = [member for member in members if member is not ours]
        stated = [one for one in ours[3:].split(b";") if one and one[:3] != b"th:"]
        explicit = _RANDOMNESS.search(ours)
        number = int(explicit[1] if explicit is not None else trace[18:], 16)
        sampled = number >= self._threshold
        if sampled and self._stated:
            stated.insert(0, self._stated)
        if stated:
            others.insert(0, b"ot=" + b";".join(stated))
        bits = int(flags, 16) & 2 | sampled
        return b"%02x" % bits, [b"tracestate: " + b",".join(others)] if others else []
