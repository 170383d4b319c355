"""Spans of gRPC calls, by the semantic conventions of RPC.

https://opentelemetry.io/docs/specs/semconv/rpc/grpc/ (1.44, release candidate)
"""

from __future__ import annotations

from dataclasses import dataclass

STATUSES = (
    *("OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND"),
    *("ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION"),
    *("ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"),
    "UNAUTHENTICATED",
)
"""By number."""
_CONTENT_TYPE = b"application/grpc"
_OF_SERVER = frozenset(
    ("UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS")
)
"""Those that are errors of a server span; the others are what the client did wrong."""
_CANCELLED = "CANCELLED"


@dataclass(frozen=True, slots=True)
class Call:
    """A gRPC call: ``method`` with its service, ``status`` by name, empty where there is none."""

    method: str
    status: str

    @property
    def server_failed(self) -> bool:
        """Whether the status of the server span is Error."""
        return self.status in _OF_SERVER

    @property
    def client_failed(self) -> bool:
        """Whether the status of the client span is Error: but for a client that went away."""
        return self.status not in ("", STATUSES[0], _CANCELLED)


def call_of(target: bytes, request_headers: bytes, response_headers: bytes) -> Call | None:
    """The call that a record with these kept header lines is of; None for other requests."""
    if not header(request_headers, b"content-type").startswith(_CONTENT_TYPE):
        return None
    method = target.partition(b"?")[0].lstrip(b"/").decode("utf-8", "replace")
    code = header(response_headers, b"grpc-status")
    if not code.isdigit():
        return Call(method, "")
    number = int(code[:4])
    return Call(method, STATUSES[number] if number < len(STATUSES) else code.decode())


def header(lines: bytes, name: bytes) -> bytes:
    """The first value of a header in kept lines; empty without one."""
    for line in lines.split(b"\r\n"):
        key, _, value = line.partition(b":")
        if key.lower() == name:
            return value.strip()
    return b""
