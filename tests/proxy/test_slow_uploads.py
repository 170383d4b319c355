"""Clients that upload slowly: they hold no connection to a model server, and are cut in the end."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from tests.support.proxy import OK, Message, Server, echo, plan_for, post, read_message, sidecar
from understudy.monitor.routing.plan import Plan

CHUNKED = b"Transfer-Encoding: chunked"


def one_connection(plan: Plan) -> Plan:
    return replace(plan, champion=replace(plan.champion, max_connections=1, max_waiting=1))


@pytest.mark.anyio
@pytest.mark.parametrize("framing", [b"Content-Length: 100", CHUNKED])
async def test_slow_uploads_hold_no_connection_to_the_model_server(framing: bytes) -> None:
    champion = await Server(OK).start()
    async with sidecar(one_connection(plan_for(champion.port))) as side:
        slow = [await side.connect() for _ in range(5)]
        part = b"3\r\nabc\r\n" if framing == CHUNKED else b"abc"
        for _, writer in slow:
            writer.write(post(part, framing=framing))
        await side.until(lambda: len(side.worker.active) == 5)
        for _ in range(3):
            assert (await side.ask(post())).status == 200
        assert champion.connections == 1
        assert len(champion.seen) == 3
        end = b"0\r\n\r\n" if framing == CHUNKED else bytes(97)
        for _, writer in slow:
            writer.write(end)
        for reader, _ in slow:
            assert (await read_message(reader)).status in (200, 503)  # one may wait


@pytest.mark.anyio
@pytest.mark.parametrize("framing", [b"", CHUNKED])
async def test_a_gathered_body_arrives_unchanged(framing: bytes) -> None:
    champion = await Server(echo).start()
    async with sidecar(plan_for(champion.port)) as side:
        reader, writer = await side.connect()
        raw = post(b"4\r\nbody\r\n0\r\n\r\n" if framing else b"body", framing=framing or None)
        for byte in raw:
            writer.write(bytes([byte]))
            await asyncio.sleep(0)
        message = await read_message(reader)
        assert message.body.endswith(b"|body")
        (seen,) = champion.seen
        assert seen.raw_body == raw.partition(b"\r\n\r\n")[2]


@pytest.mark.anyio
@pytest.mark.parametrize("framing", [b"Content-Length: 1000", CHUNKED])
async def test_a_body_that_is_too_large_to_keep_is_streamed(framing: bytes) -> None:
    begun = asyncio.Event()
    seen: list[Message] = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # The head and a part of the body arrive while the client has not sent the rest.
        await reader.readuntil(b"abc")
        begun.set()
        await reader.readuntil(b"end" if framing != CHUNKED else b"0\r\n\r\n")
        writer.write(OK)

    champion = await Server(handler=script).start()
    plan = plan_for(champion.port)
    plan = replace(plan, capture=replace(plan.capture, max_body_bytes=500))
    async with sidecar(plan) as side:
        reader, writer = await side.connect()
        first = b"abc" + bytes(600)
        last = bytes(394) + b"end"
        if framing == CHUNKED:
            writer.write(post(b"%x\r\n%b\r\n" % (len(first), first), framing=framing))
        else:
            writer.write(post(first, framing=framing))
        await asyncio.wait_for(begun.wait(), 20)
        writer.write(b"0\r\n\r\n" if framing == CHUNKED else last)
        seen.append(await read_message(reader))
    assert seen[0].status == 200


@pytest.mark.anyio
@pytest.mark.parametrize("large", [False, True])
async def test_a_body_that_arrives_too_slowly_is_refused(large: bool) -> None:
    """Also one that is streamed: its connection is free again."""
    champion = await Server(OK).start()
    plan = one_connection(plan_for(champion.port, body_timeout=0.3, body_rate=10_000))
    if large:
        plan = replace(plan, capture=replace(plan.capture, max_body_bytes=1))
    async with sidecar(plan) as side:
        reader, writer = await side.connect()
        writer.write(post(b"ab", framing=b"Content-Length: 1000"))
        message = await read_message(reader)
        assert message.status == 408
        assert message.header("connection") == b"close"
        assert side.counter("rejected", reason="slow_body") == 1
        assert side.counter("requests", outcome="rejected") == 1
        assert (await side.ask(post())).status == 200


@pytest.mark.anyio
async def test_a_long_body_has_the_time_that_its_size_takes() -> None:
    """It arrives for longer than ``body_timeout``, at more than ``body_rate``."""
    champion = await Server(OK).start()
    async with sidecar(plan_for(champion.port, body_timeout=10.0, body_rate=2)) as side:
        for seconds in (25.0, 35.0):
            reader, writer = await side.connect()
            writer.write(post(bytes(50), framing=b"Content-Length: 100"))
            await side.until(lambda: [e.request_size for e in side.exchanges()] == [50])
            side.later(seconds)  # 10 and 50 / 2 are allowed
            if seconds < 35.0:
                writer.write(bytes(50))
                assert (await read_message(reader)).status == 200
                assert len(champion.seen[0].body) == 100
            else:
                assert (await read_message(reader)).status == 408
                assert side.counter("rejected", reason="slow_body") == 1


@pytest.mark.anyio
async def test_time_in_which_the_model_server_does_not_read_does_not_count() -> None:
    size = 8 * 1024 * 1024

    read = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        await read.wait()
        reader._transport.resume_reading()  # type: ignore[attr-defined]
        left = size
        while left:
            left -= len(await reader.read(min(left, 1 << 20)))
        writer.write(OK)

    champion = await Server(handler=script).start(kernel_buffer=4096)
    plan = plan_for(champion.port, body_timeout=10.0, body_rate=1 << 20)  # 18 s for all of it
    async with sidecar(plan, kernel_buffer=4096) as side:
        reader, writer = await side.connect()
        writer.write(post(bytes(size)))
        await side.until(side.blocked)
        await side.stalled(side.held)
        side.later(40.0)
        (exchange,) = side.exchanges()
        # As if it had not read for 40 s by now.
        assert exchange._blocked_ns < 0
        exchange.started_ns -= 40_000_000_000
        exchange._blocked_ns += 40_000_000_000
        read.set()
        assert (await read_message(reader)).status == 200


@pytest.mark.anyio
async def test_a_client_that_leaves_before_its_body_is_whole_never_reaches_a_server() -> None:
    champion = await Server(OK).start()
    async with sidecar(plan_for(champion.port)) as side:
        _, writer = await side.connect()
        writer.write(post(b"ab", framing=b"Content-Length: 1000"))
        await side.until(lambda: bool(side.worker.active))
        writer.close()
        await side.until(lambda: side.counter("requests", outcome="incomplete") == 1)
        assert champion.connections == 0
