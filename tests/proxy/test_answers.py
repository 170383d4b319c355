"""What reaches the client of an answer, and where each answer ends."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from tests.support.proxy import OK, Server, get, plan_for, post, read_message, sidecar


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("request_", "answer", "body", "kept_alive"),
    [
        pytest.param(get("/", method=b"HEAD"), b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", b"", True,
                     id="HEAD"),
        pytest.param(get(), b"HTTP/1.1 204 No Content\r\n\r\n", b"", True, id="204"),
        pytest.param(get(), b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", b"", True, id="304"),
        pytest.param(get(), b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"", True, id="empty"),
        pytest.param(get(), b"HTTP/1.1 200\r\nContent-Length: 1\r\n\r\nx", b"x", True, id="no reason"),
        pytest.param(
            get(), b"HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n3;e=1\r\nabc\r\n0\r\nx-t: 1\r\n\r\n",
            b"abc", True, id="chunked with extension and trailer"),
        pytest.param(get(), b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx", b"x", True, id="HTTP/1.0 answer"),
        pytest.param(get("/", version=b"1.0"), OK, b"ok", False, id="HTTP/1.0 client"),
        pytest.param(get("/", b"Connection: keep-alive", version=b"1.0"), OK, b"ok", True,
                     id="HTTP/1.0 client, keep-alive"),
        pytest.param(get("/", b"Connection: close"), OK, b"ok", False, id="close"),
        pytest.param(get(), b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx", b"x", True,
                     id="the upstream closes"),
        pytest.param(get("*", method=b"OPTIONS"), OK, b"ok", True, id="OPTIONS *"),
    ],
)  # fmt: skip
async def test_answers(request_: bytes, answer: bytes, body: bytes, kept_alive: bool) -> None:
    upstream = await Server(answer).start()
    async with sidecar(plan_for(upstream.port)) as side:
        to_head = request_.startswith(b"HEAD")
        reader, writer = await side.connect()
        for _ in range(2 if kept_alive else 1):
            writer.write(request_)
            message = await read_message(reader, to_head=to_head)
            assert message.body == body
            assert message.first.startswith(b"HTTP/1.1 ")
        if not kept_alive:
            assert message.header("connection") == b"close"
            assert await reader.read() == b""


@pytest.mark.anyio
async def test_an_old_client_gets_chunks_without_their_framing() -> None:
    answer = (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    )
    upstream = await Server(answer).start()
    async with sidecar(plan_for(upstream.port)) as side:
        reader, writer = await side.connect()
        writer.write(get("/", b"Connection: keep-alive", version=b"1.0"))
        message = await read_message(reader)
        assert message.body == b"abcde"
        assert message.header("transfer-encoding") is None


@pytest.mark.anyio
async def test_an_answer_that_ends_with_the_connection() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_message(reader, request=True)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\npart one ")
        await asyncio.sleep(0.02)
        writer.write(b"part two")

    upstream = await Server(handler=script).start()
    async with sidecar(plan_for(upstream.port)) as side:
        message = await side.ask(get())
        assert message.body == b"part one part two"
        assert message.header("connection") == b"close"
        assert side.counter("requests", outcome="ok") == 1


@pytest.mark.anyio
async def test_expect_continue_goes_through_both_ways() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        writer.write(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
        body = await reader.readexactly(300_000)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n" + body[-5:])
        await reader.read()

    upstream = await Server(handler=script).start()
    async with sidecar(plan_for(upstream.port)) as side:
        reader, writer = await side.connect()
        writer.write(post(b"", b"Expect: 100-continue", framing=b"Content-Length: 300000"))
        assert (await read_message(reader)).status == 100
        hints = await read_message(reader)
        assert (hints.status, hints.header("link")) == (103, b"</a>")
        writer.write(bytes(299_995) + b"hello")
        assert (await read_message(reader)).body == b"hello"


@pytest.mark.anyio
async def test_events_arrive_one_by_one() -> None:
    release = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_message(reader, request=True)
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        for i in range(3):
            event = b"data: %d\n\n" % i
            writer.write(b"%x\r\n%b\r\n" % (len(event), event))
            await release.wait()
            release.clear()
        writer.write(b"0\r\n\r\n")
        await reader.read()

    upstream = await Server(handler=script).start()
    async with sidecar(plan_for(upstream.port)) as side:
        reader, writer = await side.connect()
        writer.write(get("/stream"))
        await reader.readuntil(b"\r\n\r\n")
        for i in range(3):
            # The next event is not sent before this one has arrived.
            await reader.readuntil(b"data: %d\n\n\r\n" % i)
            release.set()
        assert await reader.readexactly(5) == b"0\r\n\r\n"


GARBAGE = [
    b"nonsense\r\n\r\n",
    b"\x00\x01\x02\x03\x04\x05",
    b"HTTP/1.1 999 Odd\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nxx",
    b"HTTP/1.1 200 OK\r\nX: a\r\n folded\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\nContent-Length: 0\n\n" + b" " * 70_000,
    b"HTTP/1.1 200 OK\r\nX: " + b"a" * 70_000,
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
]


@pytest.mark.anyio
@pytest.mark.parametrize("answer", GARBAGE, ids=range(len(GARBAGE)))
async def test_upstream_garbage_is_a_502(answer: bytes) -> None:
    upstream = await Server(answer).start()
    async with sidecar(plan_for(upstream.port)) as side:
        message = await side.ask(post())
        assert message.status == 502
        assert side.counter("requests", outcome="garbage") == 1


@pytest.mark.anyio
async def test_bad_chunks_in_a_response_abort_it() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_message(reader, request=True)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        await asyncio.sleep(0.02)
        writer.write(b"zz\r\n")
        await reader.read()

    upstream = await Server(handler=script).start()
    async with sidecar(plan_for(upstream.port)) as side:
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await side.ask(post())
        assert side.counter("requests", outcome="garbage") == 1


@pytest.mark.anyio
async def test_bytes_beyond_a_response_are_not_the_next_response() -> None:
    upstream = await Server(OK + OK.replace(b"ok", b"no")).start()
    async with sidecar(plan_for(upstream.port)) as side:
        for _ in range(3):
            assert (await side.ask(get())).body == b"ok"
        assert upstream.connections == 3


@pytest.mark.anyio
async def test_an_early_answer_ends_an_upload() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")
        await reader.read(1000)

    upstream = await Server(handler=script).start()
    async with sidecar(plan_for(upstream.port)) as side:
        reader, writer = await side.connect()
        writer.write(post(b"x" * 1000, framing=b"Content-Length: 1000000"))
        message = await read_message(reader)
        assert (message.status, message.body) == (413, b"big")
        assert message.header("connection") == b"close"
        writer.write(b"x" * 1000)
        assert await reader.read() == b""


@pytest.mark.anyio
async def test_a_response_is_forwarded_unchanged() -> None:
    """Order, case, duplicates, reason, chunk extensions and trailers."""
    head = (
        b"HTTP/1.1 299 Odd  Reason\r\nX-b: 2\r\nx-A: 1\r\nX-b: 3\r\nx-empty:\r\n"
        b"Set-Cookie: a=1\r\nSet-Cookie: b=2\r\nX-Latin: \xe9"
    )
    chunks = b'3;e="a b"\r\nabc\r\n000A\r\n0123456789\r\n00;z\r\nX-T: 1\r\nx-t: 2\r\n\r\n'
    raw = head + b"\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for cut in range(len(raw) + 1):
            await read_message(reader, request=True)
            writer.write(raw[:cut])
            await asyncio.sleep(0)
            writer.write(raw[cut:])
        await reader.read()

    upstream = await Server(handler=script).start()
    async with sidecar(plan_for(upstream.port)) as side:
        reader, writer = await side.connect()
        for _ in range(len(raw) + 1):
            writer.write(get("/", b"x-request-id: r"))
            message = await read_message(reader)
            assert message.head == head + b"\r\nTransfer-Encoding: chunked\r\nx-request-id: r"
            assert message.raw_body == chunks
        assert upstream.connections == 1


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("request_", "answer", "absent"),
    [
        pytest.param(get(), b"HTTP/1.1 204 No\r\nTransfer-Encoding: chunked\r\n\r\n", "transfer-encoding",
                     id="204 with a coding"),
        pytest.param(get(), b"HTTP/1.1 204 No\r\nContent-Length: 5\r\n\r\n", "content-length",
                     id="204 with a length"),
        pytest.param(get("/", method=b"HEAD", version=b"1.0"),
                     b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "transfer-encoding",
                     id="a coding for HTTP/1.0"),
    ],
)  # fmt: skip
async def test_ambiguous_response_framing_is_removed(
    request_: bytes, answer: bytes, absent: str
) -> None:
    upstream = await Server(answer).start()
    async with sidecar(plan_for(upstream.port)) as side:
        message = await side.ask(request_, to_head=True)
        assert message.header(absent) is None


@pytest.mark.anyio
async def test_an_old_client_gets_no_interim_answers() -> None:
    upstream = await Server(b"HTTP/1.1 103 Hints\r\nLink: x\r\n\r\n" + OK).start()
    async with sidecar(plan_for(upstream.port)) as side:
        assert (await side.ask(get("/", version=b"1.0"))).status == 200
        assert (await side.ask(get("/"))).status == 103


@pytest.mark.anyio
async def test_nothing_follows_an_answer_without_an_end() -> None:
    closing = Server(handler=_until_close)
    upstream = await closing.start()
    async with sidecar(plan_for(upstream.port)) as side:
        reader, writer = await side.connect()
        writer.write(get("/one") + get("/two"))
        raw = await reader.read()
        assert raw.endswith(b"\r\n\r\nthe end")
        assert upstream.connections == 1


async def _until_close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_message(reader, request=True)
    writer.write(b"HTTP/1.1 200 OK\r\n\r\nthe end")


@pytest.mark.anyio
async def test_requests_pipelined_after_a_close_are_ignored() -> None:
    upstream = await Server(OK).start()
    plan = plan_for(upstream.port)
    for champion in (plan.champion, replace(plan.champion, max_connections=1, max_waiting=0)):
        async with sidecar(replace(plan, champion=champion)) as side:
            reader, writer = await side.connect()
            writer.write(post(b"", b"Connection: close") + get("/after"))
            message = await read_message(reader)
            assert message.status == (200 if champion is plan.champion else 503)
            assert await reader.read() == b""
            await side.until(lambda side=side: not side.worker.clients)
            assert side.counter("requests") == 1
    assert [m for m in upstream.seen if b"/after" in m.first] == []
