"""The record: one per exchange of a request and its response.

A worker packs it with :func:`understudy.monitor.records.encode.encode`; the evaluation plane
unpacks a batch with :func:`decode_batch`. Only the standard library is used here: workers import
this module.

Encoding, little-endian: a fixed part (:data:`understudy.monitor.records.encode.FIXED`) with the
lengths of what follows, then the variable parts one after another. A batch is a run of encoded
records.
"""

from __future__ import annotations

from struct import calcsize, error
from typing import Final

from understudy.monitor.errors import RecordError
from understudy.monitor.records.encode import (
    FIXED,
    LENGTH,
    REQUEST_CAPTURED,
    RESPONSE_CAPTURED,
    STREAMED,
    TRACE_SAMPLED,
    TRACED,
)

OUTCOMES = (
    "ok",
    "client_error",
    "server_error",
    "timeout",
    "cancelled",
    "upstream_connect",
    "upstream_reset",
    "overload",
    "rejected",
    "garbage",
    "too_large",
    "queue_full",
    "breaker_open",
    "body_too_large",
    "open",
    "model_overload",
    "incomplete",
    "client_stalled",
    "shutdown",
    "fell_behind",
    "not_rewritten",
    "stream_error",
    "truncated",
)
"""Names of outcomes; a record holds the index. ``too_large``, ``queue_full``, ``breaker_open``,
``body_too_large``, ``fell_behind`` and ``not_rewritten`` are of mirrored requests only; those in
:data:`NOT_SENT` were chosen for mirroring and not sent, and their records have neither times nor
payloads. ``open`` is not an end: see :data:`OPEN`. Of streamed responses of status 2xx,
``stream_error`` holds an error as its last event, and ``truncated`` lacks the end that its protocol
marks."""
OK: Final = 0
CLIENT_ERROR: Final = 1
SERVER_ERROR: Final = 2
TIMEOUT: Final = 3
CANCELLED: Final = 4
UPSTREAM_CONNECT: Final = 5
UPSTREAM_RESET: Final = 6
OVERLOAD: Final = 7
REJECTED: Final = 8
GARBAGE: Final = 9
TOO_LARGE: Final = 10
QUEUE_FULL: Final = 11
BREAKER_OPEN: Final = 12
BODY_TOO_LARGE: Final = 13
OPEN: Final = 14
MODEL_OVERLOAD: Final = 15
INCOMPLETE: Final = 16
CLIENT_STALLED: Final = 17
SHUTDOWN: Final = 18
FELL_BEHIND: Final = 19
NOT_REWRITTEN: Final = 20
STREAM_ERROR: Final = 21
TRUNCATED: Final = 22
"""A record with the outcome ``OPEN`` reports a request that an experiment has assigned to an arm
and that has not finished: it has no payload, and ``duration_ns`` is its age. The record of the
finished request follows, with the same id and the same ``started``. Only what counts assignments
looks at it; everything else ignores it."""
NOT_SENT = frozenset((QUEUE_FULL, BREAKER_OPEN, BODY_TOO_LARGE, NOT_REWRITTEN))
ENDS = tuple(name for name in OUTCOMES if name != OUTCOMES[OPEN])
"""Names of the outcomes of exchanges that have finished."""
ANSWERED = frozenset((OK, CLIENT_ERROR, SERVER_ERROR, MODEL_OVERLOAD, STREAM_ERROR, TRUNCATED))
"""The model server's response arrived whole, as HTTP has it."""
STREAM_FAULTS = frozenset((STREAM_ERROR, TRUNCATED))
"""What only the content of a response says, not its status."""

CLIENT = "client"
MODEL = "model"
NETWORK = "network"
OURS = "ours"
SIDES = {
    CLIENT_ERROR: CLIENT,
    CANCELLED: CLIENT,
    REJECTED: CLIENT,
    INCOMPLETE: CLIENT,
    CLIENT_STALLED: CLIENT,
    SERVER_ERROR: MODEL,
    TIMEOUT: MODEL,
    UPSTREAM_RESET: MODEL,
    GARBAGE: MODEL,
    TOO_LARGE: MODEL,
    MODEL_OVERLOAD: MODEL,
    STREAM_ERROR: MODEL,
    TRUNCATED: MODEL,
    UPSTREAM_CONNECT: NETWORK,
    OVERLOAD: OURS,
    SHUTDOWN: OURS,
    QUEUE_FULL: OURS,
    BREAKER_OPEN: OURS,
    BODY_TOO_LARGE: OURS,
    FELL_BEHIND: OURS,
    NOT_REWRITTEN: OURS,
}
"""The side that caused the end of an exchange, by outcome; every end but ``OK`` has one."""
CHARGED = frozenset(outcome for outcome, side in SIDES.items() if side in (MODEL, NETWORK))
"""Failures of the model server, or of the way to it: circuit breakers count these."""
OPEN_AFTER_NS: Final = 1_000_000_000
"""Age at which a request of an experiment is reported as open; again whenever its age has doubled,
so a request whose reports stop was lost together with its worker."""

ROLE_PRIMARY: Final = 0
ROLE_MIRROR: Final = 1
ROLES = ("primary", "mirror")

_NUMBERS = (
    *("size", "model", "arm", "status", "role", "outcome", "flags", "assigned", "started"),
    *("duration_ns", "first_byte_ns", "queue_ns", "request_size", "response_size", "proxy_id"),
)
FIXED_OFFSETS = {n: calcsize(FIXED.format[: 1 + index]) for index, n in enumerate(_NUMBERS)}
"""Byte at which each number begins in the fixed part."""


class Record:
    """One exchange of a request and its response, or the lack of one.

    ``assigned`` is 0 for a request outside of an experiment, or the number of the arm that its unit
    is assigned to: the arm's index plus ``first`` of its experiment's split, 1 for the first
    experiment of a model. ``proxy_id`` is a random number that the proxy gave the request of the
    client, which may choose ``request_id``: sampling and the join with mirrored requests use it. It
    is 0 in records from elsewhere, where ``request_id`` takes its place. ``started`` is unix time
    in seconds, ``*_ns`` are durations in nanoseconds, ``*_size`` are bytes of payload on the wire.
    ``sampled`` is whether the trace ``trace_id`` is sampled; False where that is not known.
    ``span`` is empty, or has the ids of the request's spans: see
    :mod:`understudy.monitor.records.trace`. Only records that were unpacked have it.
    ``events`` are the packed arrival times of the events of a streamed response, or empty: see
    :func:`understudy.common.events.decode_times`.
    ``request_headers`` and ``response_headers`` hold the kept lines, joined by CRLF, without the
    empty line. Payloads are None when they were not captured. ``fixed`` is the packed fixed part:
    only records that were unpacked by :func:`decode_batch` have it, and their numbers must not be
    changed.
    """

    __slots__ = (
        "arm",
        "assigned",
        "duration_ns",
        "events",
        "first_byte_ns",
        "fixed",
        "model",
        "outcome",
        "proxy_id",
        "queue_ns",
        "request_body",
        "request_headers",
        "request_id",
        "request_size",
        "response_body",
        "response_headers",
        "response_size",
        "role",
        "sampled",
        "span",
        "started",
        "status",
        "target",
        "trace_id",
        "unit",
    )

    model: int
    arm: int
    status: int
    role: int
    outcome: int
    assigned: int
    started: float
    duration_ns: int
    first_byte_ns: int
    queue_ns: int
    request_size: int
    response_size: int
    proxy_id: int
    sampled: bool
    events: bytes
    span: bytes
    request_id: bytes
    trace_id: bytes
    unit: bytes
    target: bytes
    request_headers: bytes
    response_headers: bytes
    request_body: bytes | None
    response_body: bytes | None
    fixed: bytes


_pack = FIXED.pack
_unpack = FIXED.unpack_from
_FIXED_SIZE = FIXED.size
_NOLENGTHS = (0,) * 8


def fixed_of(record: Record) -> bytes:
    """The fixed part of a record that was not unpacked, without size, flags and lengths."""
    numbers = (0 if name in ("size", "flags") else getattr(record, name) for name in _NUMBERS)
    return _pack(*numbers, *_NOLENGTHS)


def decode_batch(data: bytes) -> list[Record]:
    """Unpack a run of encoded records. Raises RecordError when the lengths are inconsistent."""
    records: list[Record] = []
    position = 0
    end = len(data)
    while position < end:
        record = Record()
        try:
            (
                size,
                record.model,
                record.arm,
                record.status,
                record.role,
                record.outcome,
                flags,
                record.assigned,
                record.started,
                record.duration_ns,
                record.first_byte_ns,
                record.queue_ns,
                record.request_size,
                record.response_size,
                record.proxy_id,
                id_length,
                trace_length,
                unit_length,
                target_length,
                request_headers_length,
                response_headers_length,
                request_length,
                response_length,
            ) = _unpack(data, position)
        except error as fault:
            raise RecordError(f"record at byte {position} of {end} is cut off") from fault
        a = position + _FIXED_SIZE
        record.fixed = data[position:a]
        b = a + id_length
        record.request_id = data[a:b]
        a = b + trace_length
        record.trace_id = data[b:a]
        record.span = b""
        b = a + unit_length
        record.unit = data[a:b]
        a = b + target_length
        record.target = data[b:a]
        b = a + request_headers_length
        record.request_headers = data[a:b]
        a = b + response_headers_length
        record.response_headers = data[b:a]
        b = a + request_length
        record.request_body = data[a:b] if flags & REQUEST_CAPTURED else None
        a = b + response_length
        record.events = b""
        if flags & STREAMED:
            start = b + LENGTH.size
            if start > min(a, end):
                raise RecordError(f"record at byte {position} of {end} is cut off")
            b = start + LENGTH.unpack_from(data, b)[0]
            record.events = data[start:b]
            if b > a:
                raise RecordError(f"record that ends at byte {a} has inconsistent lengths")
        record.response_body = data[b:a] if flags & RESPONSE_CAPTURED else None
        record.sampled = flags & TRACE_SAMPLED != 0
        if flags & TRACED:
            record.trace_id, _, record.span = record.trace_id.partition(b" ")
        position += size
        if a != position or a > end or record.outcome >= len(OUTCOMES):
            raise RecordError(f"record that ends at byte {a} has inconsistent lengths")
        records.append(record)
    return records
