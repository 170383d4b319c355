"""Statuses of gRPC calls, and the outcomes that they stand for.

Only the standard library is used here: workers import this module.
https://grpc.io/docs/guides/status-codes/
"""

from __future__ import annotations

import re
from urllib.parse import quote_from_bytes

from understudy.common.grpc_status import (
    ABORTED,
    ALREADY_EXISTS,
    CANCELLED,
    DATA_LOSS,
    DEADLINE_EXCEEDED,
    FAILED_PRECONDITION,
    INTERNAL,
    INVALID_ARGUMENT,
    NAMES,
    NONE,
    NOT_FOUND,
    OK,
    OUT_OF_RANGE,
    PERMISSION_DENIED,
    RESOURCE_EXHAUSTED,
    UNAUTHENTICATED,
    UNAVAILABLE,
    UNIMPLEMENTED,
    UNKNOWN,
    code_of,
)
from understudy.monitor.records import record

__all__ = [
    "ABORTED",
    "ALREADY_EXISTS",
    "CANCELLED",
    "DATA_LOSS",
    "DEADLINE_EXCEEDED",
    "FAILED_PRECONDITION",
    "INTERNAL",
    "INVALID_ARGUMENT",
    "NAMES",
    "NONE",
    "NOT_FOUND",
    "OK",
    "OUT_OF_RANGE",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "UNAUTHENTICATED",
    "UNAVAILABLE",
    "UNIMPLEMENTED",
    "UNKNOWN",
    "code_of",
    "message_field",
    "outcome_of",
    "own_status",
    "timeout_field",
    "timeout_ns",
]

_OUTCOMES = [record.SERVER_ERROR] * len(NAMES)
_OUTCOMES[OK] = record.OK
_OUTCOMES[CANCELLED] = record.CANCELLED
_OUTCOMES[DEADLINE_EXCEEDED] = record.TIMEOUT
_OUTCOMES[RESOURCE_EXHAUSTED] = record.MODEL_OVERLOAD
for _code in (
    *(INVALID_ARGUMENT, NOT_FOUND, ALREADY_EXISTS, PERMISSION_DENIED, FAILED_PRECONDITION),
    *(OUT_OF_RANGE, UNAUTHENTICATED),
):
    _OUTCOMES[_code] = record.CLIENT_ERROR

_OWN = {
    record.OUTCOMES[record.TIMEOUT]: DEADLINE_EXCEEDED,
    record.OUTCOMES[record.CANCELLED]: CANCELLED,
    record.OUTCOMES[record.GARBAGE]: INTERNAL,
    record.OUTCOMES[record.OVERLOAD]: RESOURCE_EXHAUSTED,
}
_BY_HTTP = {
    400: INTERNAL,
    401: UNAUTHENTICATED,
    403: PERMISSION_DENIED,
    404: UNIMPLEMENTED,
    405: UNIMPLEMENTED,
    408: UNAVAILABLE,
    413: RESOURCE_EXHAUSTED,
    429: RESOURCE_EXHAUSTED,
    431: RESOURCE_EXHAUSTED,
    500: INTERNAL,
    501: UNIMPLEMENTED,
    502: UNAVAILABLE,
    503: UNAVAILABLE,
    504: DEADLINE_EXCEEDED,
}

_TIMEOUT = re.compile(rb"([0-9]{1,8})([HMSmun])")
_UNITS = {
    b"H": 3_600_000_000_000,
    b"M": 60_000_000_000,
    b"S": 1_000_000_000,
    b"m": 1_000_000,
    b"u": 1_000,
    b"n": 1,
}


def outcome_of(code: int) -> int:
    """The outcome of a call that was answered with this status."""
    return _OUTCOMES[code] if 0 <= code < len(_OUTCOMES) else record.SERVER_ERROR


def own_status(outcome: str, status: int) -> int:
    """The status of a call that the proxy answers itself with ``outcome``, where a plain request
    gets the HTTP ``status``."""
    code = _OWN.get(outcome)
    return code if code is not None else _BY_HTTP.get(status, UNKNOWN)


def timeout_ns(value: bytes) -> int:
    """Nanoseconds of a ``grpc-timeout`` field, at least 1; 0 when it is malformed."""
    match = _TIMEOUT.fullmatch(value)
    return max(1, int(match[1]) * _UNITS[match[2]]) if match is not None else 0


def timeout_field(left_ns: int) -> bytes:
    """The ``grpc-timeout`` field of a time that is left, as exactly as eight digits can say it.

    >>> timeout_field(1_500_000_000)
    b'1500000u'
    """
    for unit in (b"u", b"m", b"S", b"M"):
        count = max(0, left_ns) // _UNITS[unit]
        if count < 100_000_000:
            return b"%d%b" % (count, unit)
    return b"%dH" % min(99_999_999, left_ns // _UNITS[b"H"])


def message_field(text: str) -> bytes:
    """The ``grpc-message`` field of a text, percent-encoded."""
    plain = " !\"#$&'()*+,/:;<=>?@[\\]^_`{|}~"
    return quote_from_bytes(text.encode(), safe=plain).encode()
