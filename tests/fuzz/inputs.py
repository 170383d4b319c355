"""What the fuzzer sends: requests and answers, well formed ones and mutations of them."""

from __future__ import annotations

import random
from itertools import pairwise

INFER = b"/v2/models/m/infer"
REQUESTS = [
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"\r\n\r\n\r\nGET /late HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST " + INFER + b" HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
    b"HEAD /x?y=z HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /close HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    b"POST " + INFER + b' HTTP/1.1\r\nHost: a\r\nContent-Length: 7\r\n\r\n{"a":1}',
    b"POST " + INFER + b" HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    b"POST " + INFER + b" HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    b'5\r\n{"a":\r\n4;x=1\r\n "3"\r\n1\r\n}\r\n0\r\n\r\n',
    b"POST " + INFER + b" HTTP/1.1\r\nHost: a\r\nX-B: 5\r\nExpect: 100-continue\r\n"
    b'Content-Length: 7\r\n\r\n{"a":2}',
    b"POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"a;x=1\r\n0123456789\r\n0\r\nX-T: 1\r\n\r\n",
    b"GET /old HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    b"GET /older HTTP/1.0\r\n\r\n",
    b"GET http://b/abs HTTP/1.1\r\nHost: a\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
    b"PUT /p HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nok",
    b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nraw bytes",
    b"GET /h HTTP/1.1\r\nHost: a\r\nX-Request-Id: 1\r\nTraceparent: 00-"
    + b"a" * 32 + b"-" + b"b" * 16 + b"-01\r\nConnection: x-h\r\nX-H: 1\r\n\r\n",
]  # fmt: skip
ECHO = b"X-Echo: \r\n"
"""Stands in an answer; the upstream puts the id of the request behind it."""
ANSWERS = [
    b"HTTP/1.1 200 OK\r\n" + ECHO + b"Content-Length: 2\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\n" + ECHO + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n1;a=b\r\n!\r\n0\r\nX-T: 1\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\n" + ECHO + b"\r\n",
    b"HTTP/1.1 304 Not Modified\r\n" + ECHO + b"Content-Length: 9\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: x\r\n\r\n"
    b"HTTP/1.1 200 OK\r\n" + ECHO + b"Content-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nConnection: close\r\n" + ECHO + b"Content-Length: 1\r\n\r\nx",
    b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n" + ECHO + b"Keep-Alive: timeout=5\r\nX-Request-Id: own\r\n\r\n",
]  # fmt: skip
UNTIL_THE_END = b"HTTP/1.0 200 OK\r\n" + ECHO + b"\r\nuntil the end"
_STATUSES = [b"200 OK", b"200", b"201 Created", b"206 Partial Content", b"204 No", b"304 Not",
             b"404 Not Found", b"429 Slow Down", b"500 No", b"503 Busy", b"599 Odd  reason \xe9"]  # fmt: skip
_ANSWER_FIELDS = [
    b"Content-Type: text/event-stream", b"Content-Type: application/json", b"Server: s", b"X-Empty:",
    b"X-Spaces: \t a  b \t", b"Set-Cookie: a=1", b"set-cookie: b=2", b"X-Latin: \xe9", b"Keep-Alive: timeout=5",
    b"Connection: close", b"Connection: keep-alive, x-a", b"X-A: 1", b"x-request-id: own", b"Retry-After: 1",
    b"Trailer: x-t", b"Date: now", b"Upgrade: h2c", b"Proxy-Connection: x", b"Vary: *",
]  # fmt: skip
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\nhi"
_PIECES = [
    b"\r\n", b"\n", b"\r", b" ", b"\t", b":", b"\x00", b"\xff", b"\x0b", b"0", b"5", b"-1", b"0x1", b",",
    b"Content-Length: 3\r\n", b"Content-Length: 0\r\n", b"content-length:3\r\n", b"Content-Length : 3\r\n",
    b"Content-Length: 3, 3\r\n", b"Content-Length: +3\r\n", b"Content-Length: 00000000000000000003\r\n",
    b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: identity\r\n", b"Transfer-Encoding:chunked ,\r\n",
    b"transfer-encoding: CHUNKED\r\n", b"Transfer-Encoding: gzip, chunked\r\n", b"Transfer-Encoding:\x0bchunked\r\n",
    b" chunked\r\n", b"Connection: close\r\n", b"Connection: keep-alive, x-a\r\n", b"Connection: upgrade\r\n",
    b"Connection: content-length, transfer-encoding\r\n", b"Host: b\r\n", b"0\r\n\r\n", b"1\r\nz\r\n",
    b"ffffffffffffffff\r\n", b"00000000000003\r\nabc\r\n", b";ext", b';q="\\""', b"Upgrade: h2c\r\n",
    b"Upgrade: websocket\r\n", b"Expect: 100-continue\r\n", b"HTTP/1.1", b"HTTP/1.0",
    b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n", b"Trailer: x\r\n", b"Content-Length: 5\r\n\r\nabcde", b"1xx",
    b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"HTTP/1.1 101 S\r\nUpgrade: x\r\n\r\n",
]  # fmt: skip
_METHODS = [b"GET", b"POST", b"PUT", b"DELETE", b"HEAD", b"OPTIONS", b"PATCH", b"BREW"]
_FIELDS = [
    b"Accept: */*", b"X-Empty:", b"X-Spaces: \t a  b \t", b"Cookie: a=1", b"cookie: b=2", b"X-Latin: \xe9",
    b"TE: trailers", b"Keep-Alive: 5", b"Connection: keep-alive", b"Connection: x-a, x-b", b"X-A: 1",
    b"x-request-id: mine", b"x-request-id: not this one", b"tracestate: v=1", b"Content-Type: a/b",
    b"Expect: 100-continue", b"Proxy-Connection: x", b"Connection: close", b"X-B:2", b"x-b: 3",
    b"X-B: 4 ", b"X-B:",
]  # fmt: skip

_SIZES = [
    b"%x",
    b"0%x",
    b"%015x",
    b"%016x",
    b"0x%x",
    b"+%x",
    b"-%x",
    b"%x ",
    b" %x",
    b"%x\t",
    b"%d",
    b"%xg",
]
_ENDS = [b"\n", b"\r", b"", b"\r\n\r\n", b" \r\n", b"\r\r\n"]


def compose(pick: random.Random, well: bool = False) -> bytes:
    """A request that no seed holds; without ``well`` its chunks may be odd."""
    method = pick.choice(_METHODS)
    target = pick.choice(
        (INFER, INFER, INFER, INFER, b"/p", b"/a?b=c&d=%20", b"http://h/q", b"/" + b"t" * 300)
    )
    lines = [b"%b %b HTTP/1.1" % (method, target), pick.choice((b"Host: a", b"host:b:80"))]
    lines += pick.sample(_FIELDS, pick.randrange(5))
    if pick.random() < 0.5:
        lines.append(b"X-B: %d" % pick.randrange(20))
    body = pick.randbytes(pick.choice((0, 1, 5, 40, 300, 3000)))
    if pick.random() < 0.4:
        body = b'{"a": %d, "b": "%b"}' % (pick.randrange(20), b"p" * pick.choice((0, 9, 300, 1100)))
    form = pick.randrange(3)
    if form == 1:
        lines.append(b"Content-Length: %d" % len(body))
    elif form == 2:
        lines.append(b"Transfer-Encoding: chunked")
        body = _chunked(pick, body, well)
    else:
        body = b""
    return b"\r\n".join((*lines, b"", body))


def _chunked(pick: random.Random, body: bytes, well: bool = False) -> bytes:
    """``body`` in chunks; without ``well`` a part of them is odd."""
    edges = sorted({0, len(body), *(pick.randrange(len(body) + 1) for _ in range(3))})
    parts = [body[a:b] for a, b in pairwise(edges)]
    extension = pick.choice((b"", b"", b";a", b';a="b c";d=e'))
    trailer = pick.choice((b"", b"", b"X-T: 1\r\n", b"x-t:\r\nX-U: \xff\r\n"))
    size = pick.choice(_SIZES) if not well and pick.random() < 0.3 else b"%X"
    end = pick.choice(_ENDS) if not well and pick.random() < 0.1 else b"\r\n"
    framed = b"".join((size % len(p)) + extension + b"\r\n" + p + end for p in parts)
    return framed + b"0\r\n" + trailer + b"\r\n"


def compose_answer(pick: random.Random) -> bytes:
    """A well-formed answer to any method but HEAD; some have interim ones before them."""
    interim = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * pick.choice((0, 0, 0, 1, 3))
    status = pick.choice(_STATUSES)
    lines = [b"HTTP/1.%d %b" % (pick.random() < 0.9, status)]
    lines += pick.sample(_ANSWER_FIELDS, pick.randrange(5))
    body = pick.choice((pick.randbytes(pick.choice((0, 1, 40, 3000))), b"data: x\n\n" * 5))
    form = pick.randrange(3)
    if status[:3] in (b"204", b"304") or lines[0].startswith(b"HTTP/1.0"):
        form = 0 if status[:3] in (b"204", b"304") else pick.choice((0, 1))
    if status[:3] in (b"204", b"304"):
        body = b""
    elif form == 1:
        lines.append(b"Content-Length: %d" % len(body))
    elif form == 2:
        lines.append(b"Transfer-Encoding: chunked")
        body = _chunked(pick, body)
    return interim + b"\r\n".join((*lines, b"", body))


def mutate(pick: random.Random, data: bytes) -> bytes:
    """``data`` with up to six changes, or none."""
    out = bytearray(data)
    for _ in range(pick.choice((0, 1, 1, 2, 3, 6))):
        at = pick.randrange(len(out) + 1)
        kind = pick.randrange(5)
        if kind == 0:
            out[at:at] = pick.choice(_PIECES)
        elif kind == 1:
            del out[at : at + pick.choice((1, 2, 8))]
        elif kind == 2 and at < len(out):
            out[at] = pick.randrange(256)
        elif kind == 3:
            out[at:at] = out[at : at + pick.randrange(20)]
        else:
            lines = bytes(out).split(b"\r\n")
            lines.insert(pick.randrange(len(lines) + 1), pick.choice(_PIECES).rstrip(b"\r\n"))
            out = bytearray(b"\r\n".join(lines))
    return bytes(out)


def requests(pick: random.Random) -> bytes:
    """What one client sends on its connection."""
    parts = []
    for _ in range(pick.choice((1, 1, 2, 3))):
        one = compose(pick) if pick.random() < 0.4 else pick.choice(REQUESTS)
        parts.append(mutate(pick, one))
    return b"".join(parts)


def pieces(pick: random.Random, data: bytes) -> list[bytes]:
    """``data`` cut somewhere; now and then at every byte of a short stretch."""
    if pick.random() < 0.1:
        at = pick.randrange(len(data) + 1)
        cuts = set(range(at, min(len(data), at + 12)))
    else:
        cuts = {pick.randrange(len(data) + 1) for _ in range(pick.randrange(4))}
    edges = sorted({0, len(data), *cuts})
    return [data[a:b] for a, b in pairwise(edges)]
