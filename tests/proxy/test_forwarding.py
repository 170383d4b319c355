"""What reaches the upstream of a request: all of it, in order, but for what is meant for us."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from tests.support.proxy import (
    INFER,
    OK,
    Server,
    echo,
    get,
    plan_for,
    post,
    read_message,
    sidecar,
)

TRACE = b"a" * 32 + b"-" + b"b" * 16 + b"-01"


@pytest.mark.anyio
async def test_a_request_is_forwarded_unchanged() -> None:
    upstream = await Server(echo).start()
    async with sidecar(plan_for(upstream.port)) as side:
        raw = post(
            b'{"a": 1}',
            b"X-Odd-CASE: a  b",
            b"accept: */*",
            b"Cookie: a=1",
            b"Cookie: b=2",
            b"Traceparent: 00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01",
            b"tracestate: v=1",
            b"X-Request-Id: mine",
        )
        answer = await side.ask(raw)
        assert answer.status == 200
        assert answer.body == INFER.encode() + b'|{"a": 1}'
        assert answer.header("x-request-id") == b"mine"
        seen = upstream.seen[0]
        expected = raw.split(b"\r\n\r\n")[0].split(b"\r\n")
        assert seen.first == expected[0]
        assert seen.lines == expected[1:]
        assert side.counter("requests", outcome="ok", model="m") == 1


@pytest.mark.anyio
async def test_request_ids_are_made_where_they_are_missing_or_bad() -> None:
    upstream = await Server(OK).start()
    async with sidecar(plan_for(upstream.port)) as side:
        for lines in ([], [b"traceparent: 00-" + TRACE], [b"x-request-id: with space"]):
            answer = await side.ask(post(b"{}", *lines))
            made = upstream.seen[-1].header("x-request-id")
            assert made == answer.header("x-request-id")
            assert len(made or b"") == 32
        assert len({message.header("x-request-id") for message in upstream.seen}) == 3


@pytest.mark.anyio
@pytest.mark.parametrize(
    "lines",
    [
        pytest.param([], id="none"),
        pytest.param([b"traceparent: 00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-00"], id="not sampled"),
        pytest.param([b"tracestate: v=1", b"traceparent: 00-" + b"0" * 32 + b"-" + b"b" * 16 + b"-01"],
                     id="no trace id"),
        pytest.param([b"traceparent: ff-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01"], id="version ff"),
        pytest.param([b"traceparent: 00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01-more"], id="longer"),
        pytest.param([b"traceparent: junk"], id="junk"),
        pytest.param([b"traceparent: 00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01"] * 2, id="two"),
        pytest.param([b"tracestate: a=1", b"tracestate: b=2"], id="state alone"),
        pytest.param([b"Connection: traceparent, tracestate", b"traceparent: 00-" + b"a" * 32 + b"-"
                      + b"b" * 16 + b"-01", b"tracestate: a=1"], id="listed in Connection"),
    ],
)  # fmt: skip
async def test_a_trace_context_is_neither_added_nor_changed(lines: list[bytes]) -> None:
    """A model server samples its traces as if there were no proxy: a `traceparent` that says "not
    sampled" would switch them off."""
    upstream = await Server(OK).start()
    async with sidecar(plan_for(upstream.port)) as side:
        await side.ask(post(b"{}", *lines))
        of_trace = (b"traceparent", b"tracestate")
        sent = [line for line in lines if line.startswith(of_trace)]
        assert [line for line in upstream.seen[0].lines if line.startswith(of_trace)] == sent


@pytest.mark.anyio
async def test_pipelined_requests_are_answered_in_order_however_they_are_cut() -> None:
    upstream = await Server(echo).start()
    async with sidecar(plan_for(upstream.port)) as side:
        requests = b"".join(
            post(b"b%d" % i, path=f"/p/{i}")
            if i % 2
            else post(
                b"3\r\nabc\r\n0\r\n\r\n", path=f"/p/{i}", framing=b"Transfer-Encoding: chunked"
            )
            for i in range(6)
        )
        expected = [b"/p/%d|%b" % (i, b"b%d" % i if i % 2 else b"abc") for i in range(6)]
        for cut in range(1, len(requests)):
            reader, writer = await side.connect()
            writer.write(requests[:cut])
            await asyncio.sleep(0.001)
            writer.write(requests[cut:])
            assert [(await read_message(reader)).body for _ in range(6)] == expected
            writer.close()
        reader, writer = await side.connect()
        for i in range(len(requests)):
            writer.write(requests[i : i + 1])
            await asyncio.sleep(0)
        assert [(await read_message(reader)).body for _ in range(6)] == expected
        many = b"".join(get(f"/many/{i}") for i in range(500))
        reader, writer = await side.connect()
        writer.write(many)
        assert [(await read_message(reader)).body for i in range(500)] == [
            b"/many/%d|" % i for i in range(500)
        ]


@pytest.mark.anyio
async def test_hop_by_hop_fields_are_not_forwarded() -> None:
    answer = (
        b"HTTP/1.1 200 OK\r\nConnection: X-Inner, keep-alive\r\nKeep-Alive: timeout=9\r\n"
        b"X-Inner: 1\r\nX-Outer: 2\r\nProxy-Connection: x\r\nContent-Length: 0\r\n\r\n"
    )
    upstream = await Server(answer).start()
    async with sidecar(plan_for(upstream.port)) as side:
        message = await side.ask(
            post(
                b"",
                b"Connection: X-Mine, Content-Length",
                b"X-Mine: 1",
                b"TE: trailers",
                b"Keep-Alive: 5",
                b"Proxy-Connection: y",
                b"X-Yours: 2",
                b"Upgrade: h2c",
                b"HTTP2-Settings: AAA",
            )
        )
        assert [line.split(b":")[0] for line in message.lines] == [
            b"X-Outer", b"Content-Length", b"x-request-id",
        ]  # fmt: skip
        names = {line.split(b":")[0].lower() for line in upstream.seen[0].lines}
        assert names == {
            b"host",
            b"x-yours",
            b"content-length",
            b"x-request-id",
        }


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("target", "expected_target", "expected_host"),
    [
        (b"http://there:81/a?b=c", b"/a?b=c", b"there:81"),
        (b"http://there", b"/", b"there"),
        (b"HTTPS://there/x", b"/x", b"there"),
        (b"http://there//x", b"//x", b"there"),
        (b"http://there?q", b"/?q", b"there"),
        # Names that stand in the scheme as well.
        (b"http://h/x", b"/x", b"h"),
        (b"http://http/tp", b"/tp", b"http"),
    ],
)
async def test_absolute_targets(
    target: bytes, expected_target: bytes, expected_host: bytes
) -> None:
    upstream = await Server(OK).start()
    async with sidecar(plan_for(upstream.port)) as side:
        await side.ask(b"GET %b HTTP/1.1\r\nHost: here\r\n\r\n" % target)
        assert upstream.seen[0].first == b"GET %b HTTP/1.1" % expected_target
        assert upstream.seen[0].header("host") == expected_host


@pytest.mark.anyio
async def test_a_header_line_of_one_client_never_reaches_another() -> None:
    upstream = await Server(OK).start()
    async with sidecar(plan_for(upstream.port)) as side:
        for i in range(50):
            await side.ask(get("/", b"Authorization: secret-%d" % i, b"X-Shared: 1"))
        for i, seen in enumerate(upstream.seen):
            assert seen.header("authorization") == b"secret-%d" % i
        await side.ask(get("/", b"X-Shared: 1"))
        assert upstream.seen[-1].header("authorization") is None


@pytest.mark.anyio
@pytest.mark.parametrize("count", [1, 2, 7])
@pytest.mark.parametrize("by_byte", [False, True], ids=["at once", "byte by byte"])
async def test_empty_lines_before_a_request_are_ignored(count: int, by_byte: bool) -> None:
    upstream = await Server(echo).start()
    async with sidecar(plan_for(upstream.port)) as side:
        reader, writer = await side.connect()
        raw = b"\r\n" * count + get("/a") + b"\r\n" * count + get("/b")
        for i in range(0, len(raw), 1 if by_byte else len(raw)):
            writer.write(raw[i : i + 1] if by_byte else raw)
            await asyncio.sleep(0)
        assert [(await read_message(reader)).body for _ in range(2)] == [b"/a|", b"/b|"]


@pytest.mark.anyio
async def test_prefix_host_and_fields_of_the_configuration() -> None:
    upstream = await Server(OK).start()
    plan = plan_for(upstream.port)
    configured = replace(
        plan.champion,
        path_prefix="/inner",
        host_header="model.internal",
        headers=(("X-Key", "theirs"), ("x-more", "1")),
    )
    async with sidecar(replace(plan, champion=configured)) as side:
        await side.ask(get("/a?b", b"x-key: mine", b"X-Other: 2"))
        await side.ask(get("*", method=b"OPTIONS"))
        first, second = upstream.seen
        assert first.first == b"GET /inner/a?b HTTP/1.1"
        assert first.header("host") == b"model.internal"
        assert first.header("x-key") == b"theirs"
        assert first.header("x-more") == b"1"
        assert first.header("x-other") == b"2"
        assert second.first == b"OPTIONS * HTTP/1.1", "an asterisk is not a path"


@pytest.mark.anyio
async def test_a_request_without_host_gets_one() -> None:
    """HTTP/1.0 allows it, but what is sent on is HTTP/1.1."""

    upstream = await Server(OK).start()
    async with sidecar(plan_for(upstream.port)) as side:
        await side.ask(b"GET / HTTP/1.0\r\n\r\n")
        assert upstream.seen[0].first == b"GET / HTTP/1.1"
        assert upstream.seen[0].header("host") == b"127.0.0.1:%d" % upstream.port


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("lines", "name", "kept"),
    [
        pytest.param([b"x-request-id: " + b"i" * 128], "x-request-id", True, id="id of 128 bytes"),
        pytest.param([b"x-request-id: " + b"i" * 129], "x-request-id", False, id="id of 129 bytes"),
        pytest.param([b"x-request-id: 1", b"Connection: x-request-id"], "x-request-id", True,
                     id="id listed in Connection"),
        pytest.param([b"x-request-id: 1", b"x-request-id: 2"], "x-request-id", True, id="the first of two ids"),
    ],
)  # fmt: skip
async def test_which_request_ids_are_honoured(lines: list[bytes], name: str, kept: bool) -> None:
    upstream = await Server(OK).start()
    async with sidecar(plan_for(upstream.port)) as side:
        await side.ask(get("/", *lines))
        value = lines[0].partition(b": ")[2]
        seen = upstream.seen[0].header(name)
        assert seen
        assert (seen == value) is kept


@pytest.mark.anyio
@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(get("/", b"Connection: Upgrade", b"Upgrade: h2c"), id="h2c"),
        pytest.param(get("/", b"Connection: Upgrade", b"Upgrade: websocket, H2C"), id="h2c in a list"),
        pytest.param(get("/", b"Upgrade: websocket"), id="not in Connection"),
        pytest.param(get("/", b"Connection: upgrade", b"Upgrade: websocket", version=b"1.0"), id="HTTP/1.0"),
        # httptools, and so uvicorn, would take the body for another request.
        pytest.param(post(b"abc", b"Connection: upgrade", b"Upgrade: x"), id="with a body"),
        pytest.param(post(b"0\r\n\r\n", b"Connection: upgrade", b"Upgrade: x",
                          framing=b"Transfer-Encoding: chunked"), id="with chunks"),
    ],
)  # fmt: skip
async def test_upgrades_that_are_ignored(raw: bytes) -> None:
    upstream = await Server(OK).start()
    async with sidecar(plan_for(upstream.port)) as side:
        assert (await side.ask(raw)).status == 200
        assert upstream.seen[0].header("upgrade") is None
        assert upstream.seen[0].header("connection") is None


@pytest.mark.anyio
async def test_ids_of_clients_can_be_replaced() -> None:
    own = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Request-Id: of-model\r\n\r\nok"
    upstream = await Server(own).start()
    plan = replace(plan_for(upstream.port), client_request_ids=False)
    async with sidecar(plan) as side:
        answers = [await side.ask(post(b"{}", b"X-Request-Id: mine")) for _ in range(3)]
        ids = {message.header("x-request-id") for message in answers}
        assert len(ids) == 3
        assert all(len(one or b"") == 32 for one in ids)
        assert {seen.header("x-request-id") for seen in upstream.seen} == ids
        # From the reload on, they are used again.
        side.worker.reload(replace(plan, generation=2, client_request_ids=True))
        answer = await side.ask(post(b"{}", b"X-Request-Id: mine"))
        assert upstream.seen[-1].header("x-request-id") == b"mine"
        assert answer.header("x-request-id") == b"of-model"
