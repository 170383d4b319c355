"""``Expect: 100-continue``: who asks for the body, and what is answered before it is sent."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from tests.support.proxy import OK, Server, echo, plan_for, post, read_message, sidecar

EXPECT = b"Expect: 100-continue"
CHUNKED = b"Transfer-Encoding: chunked"
LARGE = 300_000
"""More than is kept of a body."""


@pytest.mark.anyio
@pytest.mark.parametrize("framing", [b"Content-Length: 5", CHUNKED])
async def test_the_proxy_asks_for_a_small_body_itself(framing: bytes) -> None:
    """The model server gets head and body together, without the expectation: its own 100 would be
    a second one for the client."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server.seen.append(await read_message(reader, request=True))
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n" + OK)
        await reader.read()

    server = await Server(handler=script).start()
    async with sidecar(plan_for(server.port)) as side:
        reader, writer = await side.connect()
        writer.write(post(b"", EXPECT, framing=framing))
        assert (await read_message(reader)).first == b"HTTP/1.1 100 Continue"
        assert server.connections == 0
        writer.write(b"hello" if framing != CHUNKED else b"5\r\nhello\r\n0\r\n\r\n")
        assert (await read_message(reader)).status == 200
        (seen,) = server.seen
        assert seen.body == b"hello"
        assert seen.header("expect") is None


@pytest.mark.anyio
@pytest.mark.parametrize("raw", [post(b"hello", EXPECT), post(b"", EXPECT, framing=b"")])
async def test_no_100_when_there_is_nothing_to_wait_for(raw: bytes) -> None:
    """The body came with the head, or there is none."""
    server = await Server(echo).start()
    async with sidecar(plan_for(server.port)) as side:
        assert (await side.ask(raw)).status == 200
        assert server.seen[0].header("expect") is None


@pytest.mark.anyio
async def test_an_http_1_0_client_gets_no_100() -> None:
    server = await Server(echo).start()
    async with sidecar(plan_for(server.port)) as side:
        reader, writer = await side.connect()
        writer.write(
            post(b"", EXPECT, framing=b"Content-Length: 5").replace(b"HTTP/1.1", b"HTTP/1.0")
        )
        await side.until(lambda: len(side.worker.active) == 1)
        writer.write(b"hello")
        assert (await read_message(reader)).body.endswith(b"|hello")
        assert server.seen[0].header("expect") is None


@pytest.mark.anyio
async def test_the_model_server_asks_for_a_large_body() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        assert EXPECT in head
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        await reader.readexactly(LARGE)
        writer.write(OK)
        await reader.read()

    server = await Server(handler=script).start()
    async with sidecar(plan_for(server.port)) as side:
        reader, writer = await side.connect()
        writer.write(post(b"", EXPECT, framing=b"Content-Length: %d" % LARGE))
        assert (await read_message(reader)).status == 100
        writer.write(bytes(LARGE))
        assert (await read_message(reader)).status == 200


@pytest.mark.anyio
async def test_the_model_server_declines_a_large_body_before_it_is_sent() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n")
        await reader.read()

    server = await Server(handler=script).start()
    async with sidecar(plan_for(server.port)) as side:
        message = await side.ask(post(b"", EXPECT, framing=b"Content-Length: %d" % LARGE))
        assert (message.status, message.header("connection")) == (413, b"close")
        assert side.counter("requests", outcome="client_error") == 1


@pytest.mark.anyio
async def test_a_chunked_body_that_grows_is_streamed_without_the_expectation() -> None:
    server = await Server(echo).start()
    async with sidecar(plan_for(server.port)) as side:
        reader, writer = await side.connect()
        writer.write(post(b"", EXPECT, framing=CHUNKED))
        assert (await read_message(reader)).status == 100
        writer.write(b"%x\r\n%b\r\n" % (LARGE, bytes(LARGE)) + b"0\r\n\r\n")
        assert (await read_message(reader)).body.endswith(bytes(LARGE))
        assert server.seen[0].header("expect") is None


@pytest.mark.anyio
@pytest.mark.parametrize("lines", [(EXPECT,), ()])
async def test_a_body_that_is_too_large_is_refused_before_it_is_sent(
    lines: tuple[bytes, ...],
) -> None:
    server = await Server(echo).start()
    async with sidecar(plan_for(server.port, body_bytes=1000)) as side:
        assert (await side.ask(post(bytes(1000)))).status == 200
        reader, writer = await side.connect()
        writer.write(post(b"", *lines, framing=b"Content-Length: 1001"))
        message = await read_message(reader)
        assert (message.status, message.header("connection")) == (413, b"close")
        # A client that sends it nevertheless can read the response.
        writer.write(bytes(1001))
        assert await reader.read() == b""
        assert side.counter("rejected", reason="body_too_large") == 1
        assert len(server.seen) == 1


@pytest.mark.anyio
@pytest.mark.parametrize("kept", [100, 256 * 1024])
async def test_a_chunked_body_is_refused_once_it_is_too_large(kept: int) -> None:
    """Also when it is being forwarded already."""
    server = await Server(echo).start()
    plan = plan_for(server.port, body_bytes=1000)
    plan = replace(plan, capture=replace(plan.capture, max_body_bytes=kept))
    async with sidecar(plan) as side:
        assert (
            await side.ask(post(b"3e8\r\n%b\r\n0\r\n\r\n" % bytes(1000), framing=CHUNKED))
        ).status == 200
        reader, writer = await side.connect()
        writer.write(post(b"1f4\r\n%b\r\n" % bytes(500), framing=CHUNKED))
        await side.until(lambda: len(side.worker.active) == 1)
        writer.write(b"1f5\r\n%b\r\n0\r\n\r\n" % bytes(501))
        assert (await read_message(reader)).status == 413
        assert side.counter("rejected", reason="body_too_large") == 1
        assert side.counter("requests", outcome="rejected") == 1
        assert len(server.seen) == 1
