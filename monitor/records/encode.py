"""Packs records, in a worker; see :mod:`understudy.monitor.records.record`, whose form this is.

A module by itself, since workers may run it compiled, and what reads records does not.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

REQUEST_CAPTURED: Final = 1
"""The request's payload is in the record, whole."""
RESPONSE_CAPTURED: Final = 2
"""The response's payload is in the record, whole."""
TRACE_SAMPLED: Final = 4
"""The trace that the request belongs to is sampled."""
TRACED: Final = 8
"""Behind the trace id are the ids of spans, see :mod:`understudy.monitor.records.trace`."""
STREAMED: Final = 16
"""Before the response's payload are the arrival times of its events, see
:mod:`understudy.common.events`, with their length before them."""

FIXED = Struct("<IHHHBBBBdQQQQQQHHHHHHII")
"""size · model · arm · status · role · outcome · flags · assigned · started (unix seconds) ·
duration, time to first byte, queueing (nanoseconds) · request and response size (bytes) · id of the
proxy · lengths of request id, trace id, unit, target, request headers, response headers, request
payload, response payload."""

LENGTH = Struct("<I")
"""Of the arrival times before a response's payload."""

Encoded = tuple[int, tuple[bytes, ...]]
"""Size in bytes, and the parts that make up the record when they are joined."""

_pack = FIXED.pack
_FIXED_SIZE = FIXED.size


def encode(
    model: int,
    arm: int,
    status: int,
    role: int,
    outcome: int,
    started: float,
    duration_ns: int,
    first_byte_ns: int,
    queue_ns: int,
    request_size: int,
    response_size: int,
    request_id: bytes,
    trace_id: bytes,
    unit: bytes,
    target: bytes,
    request_headers: bytes,
    response_headers: bytes,
    request_body: bytes | None,
    response_body: bytes | None,
    assigned: int = 0,
    proxy_id: int = 0,
    sampled: bool = False,
    traced: bool = False,
    events: bytes = b"",
) -> Encoded:
    """Pack one record. Raises struct.error for texts longer than 65,535 bytes.

    If it is ``traced``, ``trace_id`` is what :mod:`understudy.monitor.records.trace` describes. The
    parts are not joined, so that a payload is copied once, into its batch.
    """
    flags = 0
    if request_body is None:
        request_body = b""
    else:
        flags = REQUEST_CAPTURED
    if response_body is None:
        response_body = b""
    else:
        flags |= RESPONSE_CAPTURED
    if sampled:
        flags |= TRACE_SAMPLED
    if traced:
        flags |= TRACED
    if events:
        flags |= STREAMED
        response_body = b"".join((LENGTH.pack(len(events)), events, response_body))
    size = (
        _FIXED_SIZE
        + len(request_id)
        + len(trace_id)
        + len(unit)
        + len(target)
        + len(request_headers)
        + len(response_headers)
        + len(request_body)
        + len(response_body)
    )
    fixed = _pack(
        size,
        model,
        arm,
        status,
        role,
        outcome,
        flags,
        assigned,
        started,
        duration_ns,
        first_byte_ns,
        queue_ns,
        request_size,
        response_size,
        proxy_id,
        len(request_id),
        len(trace_id),
        len(unit),
        len(target),
        len(request_headers),
        len(response_headers),
        len(request_body),
        len(response_body),
    )
    return size, (
        fixed,
        request_id,
        trace_id,
        unit,
        target,
        request_headers,
        response_headers,
        request_body,
        response_body,
    )
