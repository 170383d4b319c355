"""Heads of HTTP/1.1 messages: parsed strictly, rewritten as little as possible.

A head is split into lines and every line is looked up in a bounded cache of parsed lines; clients
that keep a connection repeat most of theirs. A line that is not cached is checked against the
grammar of RFC 9112. Lines outside the grammar are rejected, not repaired, since request smuggling
exploits parsers that repair differently: folded lines, bare CR or LF, space before the
colon, repeated or malformed Content-Length, Content-Length beside Transfer-Encoding, codings other
than ``chunked`` in requests.

Pure functions over bytes, and no input or output.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from understudy.common.compiling import compiled_class
from understudy.monitor.errors import HttpError
from understudy.monitor.proxy.fields import (
    CACHE_LINE_BYTES,
    CACHE_LINES,
    CONNECTION,
    CONTENT_LENGTH,
    EXPECT,
    FORWARD,
    HOST,
    KEEP,
    KEEP_ALIVE,
    LINES,
    REQUEST_ID,
    TOKEN,
    TRACEPARENT,
    TRANSFER_ENCODING,
    UPGRADE,
    parse_field,
    strip_listed,
    tokens_of,
)
from understudy.monitor.proxy.target import origin_form
from understudy.monitor.records.grpc_status import NONE

_REQUEST_LINE = re.compile(rb"(" + TOKEN + rb") ([\x21-\x7e]+) HTTP/1\.([01])")
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: ([^\x00-\x08\x0a-\x1f\x7f]*))?")
# Version ff is none, and only versions after 00 may have more than these 55 characters.
_TRACEPARENT = re.compile(
    rb"(?!ff|00.{54})[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})"
    rb"-([0-9a-f]([0-9a-f]))(?:-.*)?"
)
_SAMPLED = frozenset(b"%x" % digit for digit in range(1, 16, 2))
"""The last digit of the flags of a trace that is sampled."""
VISIBLE = re.compile(rb"[\x21-\x7e]{1,128}")

# Bound once: method lookups on an imported name are slow.
_parsed = LINES.get
_request_lines: dict[bytes, tuple[bytes, bytes, int]] = {}
_status_lines: dict[bytes, tuple[int, bytes, bool]] = {}

NO_BODY: Final = -1
CHUNKED: Final = -2
UNTIL_CLOSE: Final = -3
"""Special values of ``length``."""


@compiled_class(allow_interpreted_subclasses=True)
class RequestHead:
    """A request's head, ready to be sent on.

    ``lines`` are the fields to forward in order of arrival, framing included;
    ``length`` is the body's length in bytes, NO_BODY or CHUNKED. ``trace_id`` is empty when the
    request has no valid ``traceparent``, ``request_id`` when it has no usable one. ``sampled`` is
    whether that trace is sampled; ``parent_id`` and ``trace_flags``, in hexadecimal, are set only
    if there is one.
    """

    __slots__ = (
        "call",
        "expect",
        "framing_line",
        "host_line",
        "keep_alive",
        "kept",
        "length",
        "lines",
        "method",
        "minor",
        "parent_id",
        "request_id",
        "sampled",
        "target",
        "timeout_ns",
        "trace_flags",
        "trace_id",
        "upgrade",
    )

    def __init__(self, method: bytes, target: bytes, minor: int) -> None:
        self.method = method
        self.target = target
        self.minor = minor
        self.lines: list[bytes] = []
        self.length = NO_BODY
        self.keep_alive = minor == 1
        self.expect: bytes | None = None
        self.upgrade: bytes | None = None
        self.host_line: bytes | None = None
        self.framing_line: bytes | None = None
        self.request_id = b""
        self.trace_id = b""
        self.sampled = False
        self.call = False
        self.timeout_ns = 0
        """Only calls of gRPC, over HTTP/2, have others of these two."""
        self.parent_id: bytes
        self.trace_flags: bytes
        self.kept: list[bytes] = []


@compiled_class(allow_interpreted_subclasses=True)
class ResponseHead:
    """A response's head. ``length`` is a number of bytes, NO_BODY, CHUNKED or UNTIL_CLOSE;
    ``keep_alive`` refers to the upstream connection, ``idle_seconds`` is its announced timeout."""

    __slots__ = (
        "grpc_status",
        "has_request_id",
        "idle_seconds",
        "keep_alive",
        "kept",
        "length",
        "lines",
        "status",
        "status_line",
        "trailers",
        "upgrade",
    )

    def __init__(self, status: int, status_line: bytes, keep_alive: bool) -> None:
        self.status = status
        self.status_line = status_line
        self.lines: list[bytes] = []
        self.length = UNTIL_CLOSE
        self.keep_alive = keep_alive
        self.upgrade = b""
        self.has_request_id = False
        self.kept: list[bytes] = []
        self.idle_seconds: float | None = None
        self.trailers: Sequence[tuple[bytes, bytes]] = ()
        self.grpc_status = NONE
        """Only responses over HTTP/2 have others of these two."""


def _request_line(line: bytes) -> tuple[bytes, bytes, int]:
    match = _REQUEST_LINE.fullmatch(line)
    if match is None:
        raise HttpError(400, "bad_request_line", "the request line is malformed")
    parsed = (match[1], match[2], int(match[3]))
    if len(line) <= CACHE_LINE_BYTES:
        if len(_request_lines) >= CACHE_LINES:
            _request_lines.clear()
        _request_lines[line] = parsed
    return parsed


def parse_request(block: bytes, target_limit: int, lines_limit: int) -> RequestHead:
    """Parse a request's head without its closing empty line.

    Raises HttpError with the response status: 400 for a malformed or ambiguous head, 405 for
    CONNECT, 414 for a target longer than ``target_limit`` bytes, 431 for more than ``lines_limit``
    lines, 501 for an unknown transfer coding.
    """
    lines = block.split(b"\r\n", lines_limit)
    if len(lines) > lines_limit:
        detail = f"the request has more than {lines_limit - 1} header lines"
        raise HttpError(431, "header_lines", detail)
    first = lines[0]
    parsed = _request_lines.get(first)
    if parsed is None:
        parsed = _request_line(first)
    head = RequestHead(parsed[0], parsed[1], parsed[2])
    if len(head.target) > target_limit:
        raise HttpError(414, "target_too_long", "the request target is too long")
    out = head.lines
    connection: set[bytes] | None = None
    trace: bytes | None = None
    length_seen = chunked = False
    for index in range(1, len(lines)):
        line = lines[index]
        known = _parsed(line)
        if known is None:
            known = parse_field(line)
        kind = known[0]
        if kind == FORWARD:
            out.append(line)
        elif kind == KEEP:
            out.append(line)
            head.kept.append(line)
        elif kind == HOST:
            if head.host_line is not None:
                raise HttpError(400, "bad_host", "Host is repeated")
            head.host_line = line
            out.append(line)
        elif kind == CONTENT_LENGTH:
            if length_seen:
                raise HttpError(400, "bad_content_length", "Content-Length is repeated")
            length_seen = True
            head.length = known[3]
            head.framing_line = b"Content-Length: " + known[2]
            out.append(head.framing_line)
        elif kind == TRANSFER_ENCODING:
            if chunked:
                raise HttpError(400, "bad_transfer_encoding", "Transfer-Encoding is repeated")
            if known[2].lower() != b"chunked":
                raise HttpError(501, "bad_transfer_encoding", "only the chunked coding is accepted")
            chunked = True
            # Normalised: parsers differ in white space and case.
            head.framing_line = b"Transfer-Encoding: chunked"
            out.append(head.framing_line)
        elif kind == CONNECTION:
            connection = (connection or set()) | tokens_of(known[2])
        elif kind == EXPECT:
            if known[2].lower() != b"100-continue":
                raise HttpError(417, "bad_expect", "only Expect: 100-continue is known")
            if head.minor == 1:
                # An HTTP/1.0 client does not wait for a 100 (RFC 9110, 10.1.1).
                head.expect = line
                out.append(line)
        elif kind == UPGRADE:
            head.upgrade = line
        elif kind == REQUEST_ID:
            if not head.request_id and VISIBLE.fullmatch(known[2]) is not None:
                head.request_id = known[2]
                out.append(line)
        elif kind == TRACEPARENT:
            # Forwarded as it is, also when it is invalid: without a ``traceparent``, or with the
            # client's own, a model server samples as if there were no proxy.
            out.append(line)
            trace = known[2] if trace is None else b""
    if chunked:
        if length_seen:
            raise HttpError(400, "ambiguous_length", "Content-Length beside Transfer-Encoding")
        if head.minor == 0:
            raise HttpError(400, "bad_transfer_encoding", "Transfer-Encoding in HTTP/1.0")
        head.length = CHUNKED
    if head.host_line is None and head.minor == 1:
        raise HttpError(400, "bad_host", "Host is missing")
    if trace:
        read_trace(head, trace)
    _connection(head, connection)
    if head.target[:1] != b"/":
        head.target, authority = origin_form(head.method, head.target)
        if authority is not None:
            host = b"Host: " + authority
            head.lines = [host, *(line for line in head.lines if line is not head.host_line)]
            head.host_line = host
    return head


def read_trace(head: RequestHead, trace: bytes) -> None:
    """Set what a ``traceparent`` says, if it is valid."""
    match = _TRACEPARENT.fullmatch(trace)
    if match is not None:
        head.trace_id = match[1]
        head.parent_id = match[2]
        head.trace_flags = match[3]
        head.sampled = match[4] in _SAMPLED


def _connection(head: RequestHead, options: set[bytes] | None) -> None:
    upgrade, head.upgrade = head.upgrade, None
    if options is None:
        return
    if b"close" in options:
        head.keep_alive = False
    elif b"keep-alive" in options:
        head.keep_alive = True
    # An upgrade to h2c would let a client bypass every check made here. One with a body is ignored,
    # too: httptools, and so uvicorn, takes that body for the upgraded protocol, or for another
    # request. HTTP/1.0 has no upgrades (RFC 9110, 7.8).
    upgradable = head.minor == 1 and head.length in (NO_BODY, 0)
    if upgrade is not None and b"upgrade" in options and upgradable:
        value = upgrade.partition(b":")[2].strip().lower()
        if not any(token.startswith(b"h2") for token in tokens_of(value)):
            head.upgrade = value
            head.lines += (b"Connection: upgrade", upgrade)
    head.lines = strip_listed(head.lines, options - {b"close", b"keep-alive"})


def _status_line(line: bytes) -> tuple[int, bytes, bool]:
    """Status, the line in HTTP/1.1, and whether the upstream speaks HTTP/1.1."""
    match = _STATUS_LINE.fullmatch(line)
    if match is None:
        raise HttpError(502, "garbage", "the upstream's status line is malformed")
    modern = match[1] == b"1"
    parsed = (int(match[2]), line if modern else b"HTTP/1.1" + line[8:], modern)
    if len(line) <= CACHE_LINE_BYTES:
        if len(_status_lines) >= CACHE_LINES:
            _status_lines.clear()
        _status_lines[line] = parsed
    return parsed


def parse_response(block: bytes, to_head: bool, lines_limit: int) -> ResponseHead:
    """Parse a response's head without its closing empty line; ``to_head``: it answers a HEAD.

    Raises HttpError (502) for a head that must not be forwarded: ``garbage``, or ``header_lines``
    when it has more than ``lines_limit`` lines.
    """
    lines = block.split(b"\r\n", lines_limit)
    if len(lines) > lines_limit:
        raise HttpError(502, "header_lines", "the upstream sent too many header lines")
    first = _status_lines.get(lines[0])
    if first is None:
        first = _status_line(lines[0])
    status, status_line, modern = first
    head = ResponseHead(status, status_line, modern)
    out = head.lines
    length: int | None = None
    chunked = False
    connection: set[bytes] | None = None
    try:
        for index in range(1, len(lines)):
            line = lines[index]
            known = _parsed(line)
            if known is None:
                known = parse_field(line)
            kind = known[0]
            if kind == FORWARD or kind in (HOST, EXPECT, TRACEPARENT):
                out.append(line)
            elif kind == KEEP:
                out.append(line)
                head.kept.append(line)
            elif kind == CONTENT_LENGTH:
                value = known[3]
                if length is not None and length != value:
                    raise HttpError(502, "garbage", "the upstream sent two lengths")
                if length is None:
                    out.append(b"Content-Length: " + known[2])
                length = value
            elif kind == TRANSFER_ENCODING:
                codings = [part.strip(b" \t") for part in known[2].lower().split(b",")]
                if chunked or codings[-1] != b"chunked" or codings.count(b"chunked") > 1:
                    raise HttpError(502, "garbage", "the upstream's transfer coding is unknown")
                chunked = True
                out.append(b"Transfer-Encoding: " + b", ".join(codings))
            elif kind == CONNECTION:
                connection = (connection or set()) | tokens_of(known[2])
            elif kind == REQUEST_ID:
                head.has_request_id = True
                out.append(line)
            elif kind == UPGRADE:
                head.upgrade = line
            elif kind == KEEP_ALIVE:
                head.idle_seconds = _announced_idle(known[2])
    except HttpError as error:
        raise HttpError(502, "garbage", f"upstream: {error.detail}") from error
    if connection is not None:
        if b"close" in connection:
            head.keep_alive = False
        elif b"keep-alive" in connection:
            head.keep_alive = True
        head.lines = strip_listed(out, connection - {b"close", b"keep-alive"})
    if chunked and (length is not None or not modern):
        raise HttpError(502, "garbage", "the upstream's message has no clear end")
    if to_head or status < 200 or status in (204, 304):
        head.length = NO_BODY
        if (status < 200 or status == 204) and (chunked or length is not None):
            # These have no body, and a client that trusts the field would wait for one.
            framing = (b"Content-Length", b"Transfer-Encoding")
            head.lines = [line for line in head.lines if line.partition(b":")[0] not in framing]
    elif chunked:
        head.length = CHUNKED
    elif length is not None:
        head.length = length
    else:
        head.keep_alive = False
    return head


def _announced_idle(value: bytes) -> float | None:
    match = re.search(rb"timeout=([0-9]{1,6})", value)
    return float(match[1]) if match else None
