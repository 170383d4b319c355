"""Header fields of HTTP/2, translated from and to the lines that the data plane works with.

Heads of both protocols have one form inside, so that routing, filters, traces and records are the
same. What an HTTP/1.1 peer could read as something else is rejected here: names, values and targets
are checked as those of HTTP/1.1 are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from understudy.monitor.errors import HttpError
from understudy.monitor.proxy.fields import (
    CACHE_LINE_BYTES,
    CACHE_LINES,
    CONTENT_LENGTH,
    EXPECT,
    FORWARD,
    HOST,
    KEEP,
    LINES,
    REQUEST_ID,
    TOKEN,
    TRACEPARENT,
    parse_field,
)
from understudy.monitor.proxy.head import (
    CHUNKED,
    NO_BODY,
    VISIBLE,
    RequestHead,
    ResponseHead,
    read_trace,
)
from understudy.monitor.records import grpc_status

Pair = tuple[bytes, bytes]

_METHOD = re.compile(TOKEN)
_TARGET = re.compile(rb"/[\x21-\x7e]*|\*")
_DROPPED = frozenset(
    (
        *(b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"),
        *(b"te", b"http2-settings", b"host", b"expect"),
    )
)
"""Fields that HTTP/2 does not have, or says in another way."""
_PAIRS: dict[bytes, Pair | None] = {}
"""Lines that were translated before."""
_TRANSFER = b"Transfer-Encoding: chunked"
_parsed = LINES.get


class Http2Head(RequestHead):
    """The head of a request over HTTP/2. ``call``: it is a gRPC call; ``timeout_ns`` is the time
    that its client gives it, 0 without a limit; ``expects``: the client waits for a 100."""

    __slots__ = ("expects",)

    def __init__(self, method: bytes, target: bytes) -> None:
        super().__init__(method, target, 2)
        self.expects = False


class Http2ResponseHead(ResponseHead):
    """The head of a response over HTTP/2. ``trailers`` and ``grpc_status`` are known when the
    response is complete."""

    __slots__ = ()

    def __init__(self, status: int) -> None:
        super().__init__(status, b"HTTP/1.1 %d " % status, True)

    def end(self, trailers: Sequence[Pair]) -> None:
        """The response has ended with these fields."""
        self.trailers = trailers
        self.read(trailers)

    def read(self, fields: Iterable[Pair]) -> None:
        for name, value in fields:
            if name == b"grpc-status":
                self.grpc_status = grpc_status.code_of(value)
                # The record has it; a configured header comes by itself.
                self.kept = [*self.kept, b"grpc-status: " + value]


def request_head(
    fields: Sequence[Pair], whole: int, head_limit: int, target_limit: int, lines_limit: int
) -> Http2Head:
    """The head of a request; ``whole`` is the size of its body, or -1 if that is not known yet.

    Raises HttpError as :func:`understudy.monitor.proxy.head.parse_request` does.
    """
    if len(fields) > lines_limit + 3:
        detail = f"the request has more than {lines_limit - 1} header lines"
        raise HttpError(431, "header_lines", detail)
    method = target = authority = b""
    head = Http2Head(b"", b"")
    lines = head.lines
    cookies: list[bytes] = []
    trace: bytes | None = None
    size = 0
    for name, value in fields:
        size += len(name) + len(value) + 4
        if name[:1] == b":":
            if name == b":path":
                target = value
            elif name == b":method":
                method = value
            elif name == b":authority":
                authority = value
            continue
        line = b"%b: %b" % (name, value)
        known = _parsed(line)
        if known is None:
            known = parse_field(line)
        kind = known[0]
        if kind == FORWARD:
            if name == b"cookie":
                cookies.append(value)
                continue
            lines.append(line)
            if name == b"grpc-timeout":
                head.timeout_ns = grpc_status.timeout_ns(value)
        elif kind == KEEP:
            lines.append(line)
            head.kept.append(line)
            if name == b"content-type":
                head.call = is_call(value)
        elif kind == CONTENT_LENGTH:
            head.length = known[3]
        elif kind == REQUEST_ID:
            if not head.request_id and VISIBLE.fullmatch(known[2]) is not None:
                head.request_id = known[2]
                lines.append(line)
        elif kind == TRACEPARENT:
            lines.append(line)
            trace = known[2] if trace is None else b""
        elif kind == HOST:
            authority = authority or value
        elif kind == EXPECT:
            head.expects = True
    if size > head_limit:
        raise HttpError(431, "head_too_large", "the request's head is too large")
    if len(target) > target_limit:
        raise HttpError(414, "target_too_long", "the request target is too long")
    if method == b"CONNECT":
        raise HttpError(405, "method", "CONNECT is not for this server")
    if _METHOD.fullmatch(method) is None or _TARGET.fullmatch(target) is None:
        raise HttpError(400, "bad_request_line", "the method or path is malformed")
    if target == b"*" and method != b"OPTIONS":
        raise HttpError(400, "bad_request_line", "the request target is malformed")
    head.method, head.target = method, target
    if cookies:
        # They come one by one, and HTTP/1.1 has one line (RFC 9113, 8.2.3).
        lines.append(b"cookie: " + b"; ".join(cookies))
    head.host_line = b"Host: " + authority
    if _parsed(head.host_line) is None:
        parse_field(head.host_line)
    lines.insert(0, head.host_line)
    if whole > 0:
        head.length = whole
    if head.length >= 0:
        head.framing_line = b"Content-Length: %d" % head.length
        lines.append(head.framing_line)
    elif whole < 0:
        head.length = CHUNKED
        head.framing_line = _TRANSFER
        lines.append(_TRANSFER)
    if trace:
        read_trace(head, trace)
    return head


def response_head(
    fields: Sequence[Pair], to_head: bool, ended: bool, lines_limit: int
) -> Http2ResponseHead:
    """The head of a response; ``to_head``: it answers a HEAD; ``ended``: it has no body.

    Raises HttpError (502) for a head that must not be forwarded.
    """
    if len(fields) > lines_limit:
        raise HttpError(502, "header_lines", "the upstream sent too many header lines")
    status = b""
    lines: list[bytes] = []
    kept: list[bytes] = []
    length = CHUNKED
    named = False
    for name, value in fields:
        if name[:1] == b":":
            status = value
            continue
        line = b"%b: %b" % (name, value)
        known = _parsed(line)
        try:
            if known is None:
                known = parse_field(line)
        except HttpError as error:
            raise HttpError(502, "garbage", f"upstream: {error.detail}") from error
        kind = known[0]
        if kind == FORWARD or kind in (HOST, EXPECT, TRACEPARENT):
            lines.append(line)
        elif kind == KEEP:
            lines.append(line)
            kept.append(line)
        elif kind == CONTENT_LENGTH:
            length = known[3]
            lines.append(b"Content-Length: " + known[2])
        elif kind == REQUEST_ID:
            named = True
            lines.append(line)
    head = Http2ResponseHead(int(status))
    head.lines, head.kept, head.has_request_id = lines, kept, named
    if to_head or head.status in (204, 304):
        head.length = NO_BODY
    elif ended:
        head.length = 0
    else:
        head.length = length
    if ended:
        head.read(fields)
        if head.length == length == 0 or head.length == NO_BODY:
            return head
        if head.grpc_status == grpc_status.NONE:
            # Without a length, a response has no end for a client of HTTP/1.1.
            lines.append(b"Content-Length: 0")
    return head


def is_call(content_type: bytes) -> bool:
    """Whether a request with this content type is a gRPC call; gRPC-Web is not.

    >>> is_call(b"application/grpc+proto"), is_call(b"application/grpc-web")
    (True, False)
    """
    return content_type[:16] == b"application/grpc" and content_type[16:17] in (b"", b"+", b";")


def pair(line: bytes) -> Pair | None:
    """A line as a field of HTTP/2; None if HTTP/2 does not have it."""
    try:
        return _PAIRS[line]
    except KeyError:
        pass
    name, _, value = line.partition(b":")
    name = name.lower()
    found = None if name in _DROPPED else (name, value.strip(b" \t"))
    if len(line) <= CACHE_LINE_BYTES:
        if len(_PAIRS) >= CACHE_LINES:
            _PAIRS.clear()
        _PAIRS[line] = found
    return found


def framed(data: bytes, last: bool = False, trailers: Sequence[Pair] = ()) -> bytes:
    """Bytes of a body in the chunked framing of HTTP/1.1, with its end if they are the ``last``."""
    chunk = b"%x\r\n%b\r\n" % (len(data), data) if data else b""
    if not last:
        return chunk
    lines = b"".join(b"%b: %b\r\n" % one for one in trailers)
    return b"%b0\r\n%b\r\n" % (chunk, lines)
