"""The ids of a request's spans, as a worker writes them behind the trace id of a record.

Texts in hexadecimal, separated by spaces, in the order of :data:`FORM`. Only the standard library
is used here: workers import this module.
"""

from __future__ import annotations

from dataclasses import dataclass

from understudy.monitor.errors import RecordError

FORM = b"%b %b %b %b %b %b %d %b %b"
"""trace id · parent span · server span · client span · flags · method · minor version of HTTP/1 ·
0, or if the request was sent again, for each attempt before, separated by commas, its client span,
a dash, and when it was lost in nanoseconds since the start (1 in records of earlier versions) ·
linked trace and span with a dash in between, or empty."""
NO_SPAN = b"0" * 16
_SAMPLED = ([b"01"], [b"03"])


@dataclass(frozen=True, slots=True)
class SpanIds:
    """``parent`` is the span of the caller, 0 without one. A client's request has a ``server`` and
    a ``client`` span; a mirrored one has a client span only, and ``server`` is 0. If the request
    was sent again, ``client`` is that of the last attempt, and ``earlier`` are the spans of those
    before, each with when it was lost in nanoseconds since the start. ``link`` is the trace and the
    span that a mirrored request was copied from."""

    trace: int
    parent: int
    server: int
    client: int
    flags: int
    method: str
    minor: int
    resent: bool
    earlier: tuple[tuple[int, int], ...]
    link: tuple[int, int] | None


def is_sampled(span: bytes) -> bool:
    """Whether the request with these ids was sampled; False without ids."""
    return span.split(b" ", 4)[3:4] in _SAMPLED if span else False


def attempts(span: bytes) -> int:
    """Number of client spans of a request with these ids."""
    return 1 + b"".join(span.split(b" ", 7)[6:7]).count(b"-")


def span_ids(trace_id: bytes, span: bytes) -> SpanIds:
    """Parse the parts of a record. Raises RecordError."""
    try:
        parent, server, client, flags, method, minor, resent, link = span.split(b" ")
        trace, _, linked = link.partition(b"-")
        lost = [attempt.split(b"-") for attempt in resent.split(b",") if b"-" in attempt]
        return SpanIds(
            int(trace_id, 16),
            int(parent, 16),
            int(server, 16),
            int(client, 16),
            int(flags, 16),
            method.decode("ascii"),
            int(minor),
            resent != b"0",
            tuple((int(before, 16), int(at)) for before, at in lost) if lost else (),
            (int(trace, 16), int(linked, 16)) if link else None,
        )
    except ValueError as error:
        raise RecordError(f"the ids of spans cannot be read: {error}") from error
