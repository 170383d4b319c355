"""The record: one per exchange of a request and its response.

A worker packs it with :func:`encode`; the evaluation plane unpacks a batch with
:func:`decode_batch`. Only the standard library is used here: workers import this module.

Encoding, little-endian: a fixed part (:data:`FIXED`) with the lengths of what follows, then the
variable parts one after another. A batch is a run of encoded records.
"""

from __future__ import annotations

from struct import Struct, calcsize, error

from understudy.monitor.errors import RecordError

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
)
"""Names of outcomes; a record holds the index. ``too_large``, ``queue_full``, ``breaker_open``,
``body_too_large`` and ``fell_behind`` are of mirrored requests only; those in :data:`NOT_SENT` were
chosen for mirroring and not sent, and their records have neither times nor payloads. ``open`` is
not an end: see :data:`OPEN`."""
(
    OK,
    CLIENT_ERROR,
    SERVER_ERROR,
    TIMEOUT,
    CANCELLED,
    UPSTREAM_CONNECT,
    UPSTREAM_RESET,
    OVERLOAD,
    REJECTED,
    GARBAGE,
    TOO_LARGE,
    QUEUE_FULL,
    BREAKER_OPEN,
    BODY_TOO_LARGE,
    OPEN,
    MODEL_OVERLOAD,
    INCOMPLETE,
    CLIENT_STALLED,
    SHUTDOWN,
    FELL_BEHIND,
) = range(len(OUTCOMES))
"""A record with the outcome ``OPEN`` reports a request that an experiment has assigned to an arm
and that has not finished: it has no payload, and ``duration_ns`` is its age. The record of the
finished request follows, with the same id and the same ``started``. Only what counts assignments
looks at it; everything else ignores it."""
NOT_SENT = frozenset((QUEUE_FULL, BREAKER_OPEN, BODY_TOO_LARGE))
ENDS = tuple(name for name in OUTCOMES if name != OUTCOMES[OPEN])
"""Names of the outcomes of exchanges that have finished."""
ANSWERED = frozenset((OK, CLIENT_ERROR, SERVER_ERROR, MODEL_OVERLOAD))
"""The model server's response arrived whole."""

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
    UPSTREAM_CONNECT: NETWORK,
    OVERLOAD: OURS,
    SHUTDOWN: OURS,
    QUEUE_FULL: OURS,
    BREAKER_OPEN: OURS,
    BODY_TOO_LARGE: OURS,
    FELL_BEHIND: OURS,
}
"""The side that caused the end of an exchange, by outcome; every end but ``OK`` has one."""
CHARGED = frozenset(outcome for outcome, side in SIDES.items() if side in (MODEL, NETWORK))
"""Failures of the model server, or of the way to it: circuit breakers count these."""
OPEN_AFTER_NS = 1_000_000_000
"""Age at which a request of an experiment is reported as open; again whenever its age has doubled,
so a request whose reports stop was lost together with its worker."""

ROLE_PRIMARY = 0
ROLE_MIRROR = 1
ROLES = ("primary", "mirror")

REQUEST_CAPTURED = 1
"""The request's payload is in the record, whole."""
RESPONSE_CAPTURED = 2
"""The response's payload is in the record, whole."""
TRACE_SAMPLED = 4
"""The trace that the request belongs to is sampled."""
TRACED = 8
"""Behind the trace id are the ids of spans, see :mod:`understudy.monitor.records.trace`."""

FIXED = Struct("<IHHHBBBBdQQQQQQHHHHHHII")
"""size · model · arm · status · role · outcome · flags · assigned · started (unix seconds) ·
duration, time to first byte, queueing (nanoseconds) · request and response size (bytes) · id of the
proxy · lengths of request id, trace id, unit, target, request headers, response headers, request
payload, response payload."""


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
    ``request_headers`` and ``response_headers`` hold the kept lines, joined by CRLF, without the
    empty line. Payloads are None when they were not captured. ``fixed`` is the packed fixed part:
    only records that were unpacked by :func:`decode_batch` have it, and their numbers must not be
    changed.
    """

    __slots__ = (
        "arm",
        "assigned",
        "duration_ns",
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


Encoded = tuple[int, tuple[bytes, ...]]
"""Size in bytes, and the parts that make up the record when they are joined."""

_pack = FIXED.pack
_unpack = FIXED.unpack_from
_FIXED_SIZE = FIXED.size
_NO_LENGTHS = (0,) * 8


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


def fixed_of(record: Record) -> bytes:
    """The fixed part of a record that was not unpacked, without size, flags and lengths."""
    numbers = (0 if name in ("size", "flags") else getattr(record, name) for name in _NUMBERS)
    return _pack(*numbers, *_NO_LENGTHS)


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
        record.response_body = data[b:a] if flags & RESPONSE_CAPTURED else None
        record.sampled = flags & TRACE_SAMPLED != 0
        if flags & TRACED:
            record.trace_id, _, record.span = record.trace_id.partition(b" ")
        position += size
        if a != position or a > end or record.outcome >= len(OUTCOMES):
            raise RecordError(f"record that ends at byte {a} has inconsistent lengths")
        records.append(record)
    return records
