"""The parsers by themselves, with llhttp and h11 as second and third opinions."""

from __future__ import annotations

from typing import Any

import h11
import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from understudy.monitor.errors import HttpError
from understudy.monitor.proxy.framing import Chunked
from understudy.monitor.proxy.head import (
    CHUNKED,
    NO_BODY,
    UNTIL_CLOSE,
    parse_request,
    parse_response,
)
from understudy.monitor.proxy.routes import Routes
from understudy.monitor.routing.plan import Model, Plan, Upstream
from understudy.monitor.stats.shared import SharedStats

TOKEN = st.text("!#$%&'*+-.^_`|~0123456789abcXYZ", min_size=1, max_size=12).map(str.encode)
VALUE = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=20).map(str.encode)
FIELDS = st.lists(st.tuples(TOKEN.map(lambda t: b"X-" + t), VALUE), max_size=8)


@given(st.binary(max_size=300))
def test_any_bytes_parse_or_are_refused(data: bytes) -> None:
    for parse in (lambda: parse_request(data, 8192, 128), lambda: parse_response(data, False, 128)):
        try:
            parse()
        except HttpError as error:
            assert error.status in (400, 405, 414, 417, 501, 502)


@given(
    st.sampled_from([b"GET", b"POST", b"PUT", b"DELETE", b"PATCH"]),
    st.text("abc/%20?=&-._~", max_size=20).map(lambda t: b"/" + t.encode()),
    FIELDS,
    st.integers(0, 10**6) | st.sampled_from([NO_BODY, CHUNKED]),
)
def test_what_is_valid_is_accepted_and_understood_alike_by_others(
    method: bytes, target: bytes, fields: list[tuple[bytes, bytes]], length: int
) -> None:
    lines = [b"%b: %b" % field for field in fields]
    if length == CHUNKED:
        lines.append(b"Transfer-Encoding: chunked")
    elif length != NO_BODY:
        lines.append(b"Content-Length: %d" % length)
    block = b"\r\n".join((b"%b %b HTTP/1.1" % (method, target), b"Host: h", *lines))
    head = parse_request(block, 8192, 128)
    assert (head.method, head.target, head.length, head.keep_alive) == (
        method,
        target,
        length,
        True,
    )
    forwarded = b"\r\n".join(
        (b"%b %b HTTP/1.1" % (head.method, head.target), *head.lines, b"", b"")
    )

    peer = h11.Connection(h11.SERVER)
    peer.receive_data(forwarded)
    event: Any = peer.next_event()
    assert isinstance(event, h11.Request)
    assert (event.method, event.target) == (method, target)
    assert [v for k, v in event.headers if k.startswith(b"x-")] == [v for _, v in fields]

    seen: list[bytes] = []

    class Sink:
        def on_header(self, name: bytes, value: bytes) -> None:
            if name.startswith(b"X-"):
                seen.append(value)

    parser = httptools.HttpRequestParser(Sink())
    parser.feed_data(forwarded)
    assert parser.get_method() == method
    assert seen == [v for _, v in fields]


CHUNKS = st.lists(st.binary(min_size=1, max_size=40), max_size=5)


@given(CHUNKS, st.sampled_from([b"", b";a", b';a=b;c="d e"']), st.booleans(), st.data())
def test_a_chunked_body_is_followed_through_any_split(
    chunks: list[bytes], extension: bytes, trailer: bool, data: st.DataObject
) -> None:
    framed = b"".join(b"%x%b\r\n%b\r\n" % (len(c), extension, c) for c in chunks)
    framed += b"0\r\n" + (b"X-T: 1\r\n" if trailer else b"") + b"\r\n"
    stream = framed + b"GET /next"
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    body, pieces, rest = Chunked(), [], b""
    for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        piece = stream[begin:end]
        taken = body.feed(piece, pieces) if not body.done else 0
        rest += piece[taken:]
    assert body.done
    assert b"".join(pieces) == b"".join(chunks)
    assert body.size == sum(map(len, chunks))
    assert rest == b"GET /next"


@given(st.binary(max_size=80), st.integers(1, 80))
def test_chunked_bytes_of_any_kind_are_followed_or_refused(data: bytes, cut: int) -> None:
    body = Chunked()
    try:
        for piece in (data[:cut], data[cut:]):
            taken = body.feed(piece, None)
            assert 0 <= taken <= len(piece)
    except HttpError as error:
        assert error.status == 400


@pytest.mark.parametrize(
    ("block", "to_head", "length", "keep_alive"),
    [
        (b"HTTP/1.1 200 OK", False, UNTIL_CLOSE, False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3", False, 3, True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3", False, 3, True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3", True, NO_BODY, True),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 3", False, 3, False),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 3", False, 3, True),
        (b"HTTP/1.1 204 No", False, NO_BODY, True),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked", False, CHUNKED, True),
    ],
)
def test_how_an_answer_ends(block: bytes, to_head: bool, length: int, keep_alive: bool) -> None:
    head = parse_response(block, to_head, 128)
    assert (head.length, head.keep_alive) == (length, keep_alive)


def test_routes_are_bounded_and_ignore_the_query(tmp_path: Any) -> None:
    paths = ("/v2/models/m/infer", "/v2/models/m/versions/*/infer", "/v1/models/m:predict")
    plan = Plan(1, Upstream("c", "h", 1), (Model("m", "1", "auto", paths),))
    routes = Routes(plan, SharedStats(tmp_path / "s", 1 << 20))
    assert routes.find(b"/v2/models/m/infer?x=1").model == 0
    assert routes.find(b"/v2/models/m/versions/7/infer").model == 0
    for odd in (b"/v1/models/m%3Apredict", b"/v1/models/m%3apredict?x", b"//v1/./models//m:predict",
                b"/x/../v1/models/m:predict", b"/%76%31/models/m:predict", b"/../v1/models/m:predict"):  # fmt: skip
        assert routes.find(odd).model == 0
    for target in (b"/v2/models/m/versions/7/8/infer", b"/v2/models/x/infer", b"/", b"*"):
        assert routes.find(target) is routes.other
    for i in range(10_000):
        assert routes.find(b"/random/%d" % i) is routes.other
    assert len(routes._cache) <= 2048
