"""What is wrong with a response, by HTTP alone; a check of the content comes after that."""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from errno import ECONNREFUSED, ETIMEDOUT
from typing import Protocol

from understudy.common import grpc_status
from understudy.common.text import visible

KEPT = (
    b"content-type", b"content-encoding", b"inference-header-content-length", b"location",
    b"grpc-encoding",
)  # fmt: skip
"""Headers of responses that checks need, in lower case."""
CALL = 1000
"""Added to the status of a gRPC call where that of HTTP is expected: 1000 is OK."""
MOST_ERRORS = 50
"""Different reasons for failures that are counted; more are counted together."""
_LONGEST = 200


class Check(Protocol):
    """Says what is wrong with a response. ``body`` is whether it reads bodies; without, none is
    kept."""

    @property
    def body(self) -> bool:
        """Whether the body is needed."""

    def prepare(self) -> None:
        """Do what would delay the first response, before any request is sent."""

    def __call__(self, payload: int, status: int, headers: bytes, body: bytes) -> str:
        """What is wrong, or an empty text: few different texts, since they are counted.

        ``payload`` is the index of the payload; ``headers`` are the lines of :data:`KEPT` headers,
        joined by CRLF. Of a gRPC call, ``status`` is :data:`CALL` and its number, and ``body`` the
        message of an error, or the messages of the answer with their heads.
        """


class Successful:
    """Any response with a status of 2xx is good, and any gRPC call that ends with OK."""

    body = False

    def prepare(self) -> None:
        """Nothing."""

    def __call__(self, payload: int, status: int, headers: bytes, body: bytes) -> str:
        """What is wrong with a response, or an empty text."""
        return http_error(status, headers)


def succeeded(status: int) -> bool:
    """Whether a status of HTTP, or of a call, is a success."""
    return 200 <= status < 300 or status == CALL + grpc_status.OK


def status_name(status: int) -> str:
    """A status as reports have it: the number of HTTP, or the name of a gRPC status.

    >>> status_name(200), status_name(CALL + 5)
    ('200', 'NOT_FOUND')
    """
    return grpc_status.NAMES[status - CALL] if status >= CALL else str(status)


def http_error(status: int, headers: bytes) -> str:
    """Why ``status`` is not a success, or an empty text. A redirect is not followed, but named:
    without its query, which may hold a secret."""
    if succeeded(status):
        return ""
    if status >= CALL:
        return f"status {status_name(status)}"
    if 300 <= status < 400:
        for line in headers.split(b"\r\n"):
            name, _, value = line.partition(b": ")
            if name == b"location":
                where = visible(value.decode("latin-1").partition("?")[0][:_LONGEST])
                return f"status {status}: redirect to {where}"
    return f"status {status}"


def kept(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The lines of the headers that checks need; names are in lower case."""
    return b"\r\n".join(name + b": " + value for name, value in headers if name in KEPT)


def count_error(errors: dict[str, int], name: str, number: int = 1) -> None:
    """Count a failure by its reason; reasons beyond :data:`MOST_ERRORS` are counted together."""
    if name not in errors and len(errors) >= MOST_ERRORS:
        name = "other errors"
    errors[name] = errors.get(name, 0) + number


def connect_error(error: OSError) -> str:
    """The name of an error of a connection that could not be opened."""
    if isinstance(error, ssl.SSLError):
        return tls_error(error)
    if isinstance(error, TimeoutError) or error.errno == ETIMEDOUT:
        return "connect timeout"
    return "refused" if error.errno == ECONNREFUSED else "unreachable"


def tls_error(error: ssl.SSLError) -> str:
    """The name of an error of TLS, with what is wrong with a certificate."""
    why = getattr(error, "verify_message", "") or error.reason or ""
    return f"TLS ({why.lower().replace('_', ' ')})" if why else "TLS"


def own_error(error: OSError) -> str:
    """The name of an error of a connection that was open."""
    return tls_error(error) if isinstance(error, ssl.SSLError) else "reset"
