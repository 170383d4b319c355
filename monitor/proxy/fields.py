"""Header lines, each parsed once.

Every line is checked against the grammar of RFC 9112 when it is first seen, and cached with its
parsed content: clients that keep a connection repeat most of theirs.
"""

from __future__ import annotations

import re
from typing import Final

from understudy.monitor.errors import HttpError
from understudy.monitor.proxy.target import HOST_VALUE

FORWARD: Final = 0
DROP: Final = 1
HOST: Final = 2
CONTENT_LENGTH: Final = 3
TRANSFER_ENCODING: Final = 4
CONNECTION: Final = 5
EXPECT: Final = 6
UPGRADE: Final = 7
REQUEST_ID: Final = 8
TRACEPARENT: Final = 9
KEEP: Final = 10
KEEP_ALIVE: Final = 11

_KINDS = {
    b"host": HOST,
    b"content-length": CONTENT_LENGTH,
    b"transfer-encoding": TRANSFER_ENCODING,
    b"connection": CONNECTION,
    b"expect": EXPECT,
    b"upgrade": UPGRADE,
    b"x-request-id": REQUEST_ID,
    b"traceparent": TRACEPARENT,
    b"keep-alive": KEEP_ALIVE,
    b"proxy-connection": DROP,
    b"te": DROP,
    b"http2-settings": DROP,
    b"content-type": KEEP,
    b"content-encoding": KEEP,
    b"inference-header-content-length": KEEP,
    b"x-model-version": KEEP,
    b"x-amzn-invoked-production-variant": KEEP,
    b"azureml-model-deployment": KEEP,
    b"grpc-encoding": KEEP,
}
_kinds = dict(_KINDS)
"""With those that are configured."""

TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
# White space around the value is stripped afterwards: a pattern that separates it from the value
# backtracks over every split of a long run, which takes seconds for a line of 32 KiB.
_FIELD = re.compile(rb"(" + TOKEN + rb"):([^\x00-\x08\x0a-\x1f\x7f]*)")
_DIGITS = re.compile(rb"[0-9]{1,18}")

CACHE_LINES: Final = 4096
CACHE_LINE_BYTES: Final = 256
Known = tuple[int, bytes, bytes, int]
"""Kind, lower-case name, value, and the number in it where the kind has one."""
LINES: dict[bytes, Known] = {}
"""The parsed lines; looking here first saves a call for nearly every line."""


def parse_field(line: bytes) -> Known:
    """Parse a field line. Raises HttpError when it is malformed or must not be forwarded."""
    match = _FIELD.fullmatch(line)
    if match is None:
        if line[:1] in (b" ", b"\t"):
            raise HttpError(400, "obs_fold", "a header line is folded")
        raise HttpError(400, "bad_header", "a header line is malformed")
    name = match[1].lower()
    kind = _kinds.get(name, FORWARD)
    value = match[2].strip(b" \t")
    number = 0
    if kind == CONTENT_LENGTH:
        number = _content_length(value)
    elif kind == HOST and HOST_VALUE.fullmatch(value) is None:
        raise HttpError(400, "bad_host", "Host is malformed")
    known = (kind, name, value, number)
    if len(line) <= CACHE_LINE_BYTES:
        if len(LINES) >= CACHE_LINES:
            LINES.clear()
        LINES[line] = known
    return known


def configure(kept: tuple[str, ...], client_request_ids: bool) -> None:
    """Keep the headers ``kept`` (lower case) for the record, in addition to those that codecs need.

    Without ``client_request_ids``, the ids of clients and model servers are dropped, so that the
    proxy's own takes their place.
    """
    _kinds.clear()
    _kinds.update(dict.fromkeys((name.encode("ascii") for name in kept), KEEP))
    _kinds.update(_KINDS)
    if not client_request_ids:
        _kinds[b"x-request-id"] = DROP
    LINES.clear()


def _content_length(value: bytes) -> int:
    if _DIGITS.fullmatch(value) is None:
        raise HttpError(400, "bad_content_length", "Content-Length is not a plain number")
    return int(value)


_NEVER_LISTED = {
    b"host", b"content-length", b"transfer-encoding", b"upgrade", b"connection", b"x-request-id",
    b"traceparent", b"tracestate",
}  # fmt: skip


def strip_listed(lines: list[bytes], listed: set[bytes]) -> list[bytes]:
    """Drop the fields that ``Connection`` lists, but never those that frame or name the message."""
    listed -= _NEVER_LISTED
    if not listed:
        return lines
    return [line for line in lines if line.partition(b":")[0].lower() not in listed]


def tokens_of(value: bytes) -> set[bytes]:
    """The words of a list with commas, in lower case."""
    return {token for part in value.lower().split(b",") if (token := part.strip(b" \t"))}
