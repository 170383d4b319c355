"""The statuses that gRPC calls end with: https://grpc.io/docs/guides/status-codes/

Only the standard library is used here: workers import this module.
"""

from __future__ import annotations

from typing import Final

NAMES = (
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
)
"""By number. Any other number counts as UNKNOWN, as the specification says."""
(
    OK,
    CANCELLED,
    UNKNOWN,
    INVALID_ARGUMENT,
    DEADLINE_EXCEEDED,
    NOT_FOUND,
    ALREADY_EXISTS,
    PERMISSION_DENIED,
    RESOURCE_EXHAUSTED,
    FAILED_PRECONDITION,
    ABORTED,
    OUT_OF_RANGE,
    UNIMPLEMENTED,
    INTERNAL,
    UNAVAILABLE,
    DATA_LOSS,
    UNAUTHENTICATED,
) = range(len(NAMES))
NONE: Final = -1
"""The answer has no status."""


def code_of(value: bytes) -> int:
    """The number in a ``grpc-status`` field."""
    return int(value) if value.isdigit() and len(value) < 3 and int(value) < len(NAMES) else UNKNOWN
