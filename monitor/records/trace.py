"""The ids of a request's spans, as a worker writes them behind the trace id of a record.

Texts in hexadecimal, separated by spaces, in the order of :data:`FORM`. Only the standard library
is used here: workers import this module.
"""

from __future__ import annotations

from dataclasses import dataclass

from understudy.monitor.errors import RecordError

FORM = b"%b %b %b %b %b %b %d %d %b"
"""trace id · parent span · server span · client span · flags · method · minor version of HTTP/1 ·
whether the request was sent again · linked trace and span with a dash in between, or empty."""
NO_SPAN = b"0" * 16


@dataclass(frozen=True, slots=True)
class SpanIds:
    """``parent`` is the span of the caller, 0 without one. A client's request has a ``server`` and
    a ``client`` span; a mirrored one has a client span only, and ``server`` is 0. ``link`` is the
    trace and the span that a mirrored request was copied from."""

    trace: int
    parent: int
    server: int
    client: int
    flags: int
    method: str
    minor: int
    resent: bool
    link: tuple[int, int] | None


def span_ids(trace_id: bytes, span: bytes) -> SpanIds:
    """Parse the parts of a record. Raises RecordError."""
    try:
        parent, server, client, flags, method, minor, resent, link = span.split(b" ")
        trace, _, linked = link.partition(b"-")
        return SpanIds(
            int(trace_id, 16),
            int(parent, 16),
            int(server, 16),
            int(client, 16),
            int(flags, 16),
            method.decode("ascii"),
            int(minor),
            resent != b"0",
            (int(trace, 16), int(linked, 16)) if link else None,
        )
    except ValueError as error:
        raise RecordError(f"the ids of spans cannot be read: {error}") from error
