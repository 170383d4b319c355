"""Connections that are upgraded: bytes flow both ways until one side ends."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.proxy import OK, Server, get, plan_for, read_message, sidecar
from understudy.monitor.proxy.memory import SMALL


@pytest.mark.anyio
async def test_an_upgrade_becomes_a_tunnel() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"Upgrade: websocket" in head
        assert b"connection: upgrade" in head.lower()
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nhi"
        )
        while data := await reader.read(100):
            writer.write(data.upper())

    upstream = await Server(handler=script).start()
    async with sidecar(plan_for(upstream.port)) as side:
        reader, writer = await side.connect()
        writer.write(get("/ws", b"Connection: Upgrade", b"Upgrade: websocket"))
        message = await read_message(reader)
        assert message.status == 101
        assert message.header("upgrade") == b"websocket"
        assert await reader.readexactly(2) == b"hi"
        for text in (b"abc", b"GET / HTTP/1.1\r\n\r\n"):
            writer.write(text)
            assert await reader.readexactly(len(text)) == text.upper()
        writer.close()
        await side.until(lambda: upstream.closed == 1)
        await side.until(lambda: side.counter("requests", outcome="ok") == 1)


SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
ASK = get("/ws", b"Connection: Upgrade", b"Upgrade: websocket")


@pytest.mark.anyio
async def test_bytes_before_the_switch_are_forwarded_and_reading_continues() -> None:
    size = 3_000_000
    got = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await got.wait()
        writer.write(SWITCH)
        await reader.readexactly(size)
        writer.write(b"all")
        await reader.read()

    upstream = await Server(handler=script).start()
    async with sidecar(plan_for(upstream.port)) as side:
        reader, writer = await side.connect()
        writer.write(ASK + bytes(size))
        # More than the worker keeps of what is pipelined: it stops reading.
        await side.until(lambda: any(len(c._buffer) > SMALL for c in side.worker.clients))
        got.set()
        assert (await read_message(reader)).status == 101
        assert await reader.readexactly(3) == b"all"


@pytest.mark.anyio
async def test_the_last_bytes_of_a_tunnel_arrive() -> None:
    size = 4_000_000
    received = bytearray()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(SWITCH)
        while data := await reader.read(1 << 16):
            received.extend(data)
            await asyncio.sleep(0.001)

    upstream = await Server(handler=script).start(kernel_buffer=1 << 14)
    async with sidecar(plan_for(upstream.port)) as side:
        reader, writer = await side.connect()
        writer.write(ASK)
        assert (await read_message(reader)).status == 101
        writer.write(bytes(size))
        writer.close()
        await side.until(lambda: upstream.closed == 1)
        assert len(received) == size


@pytest.mark.anyio
async def test_a_tunnel_ends_with_its_upstream() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(SWITCH + b"bye")

    upstream = await Server(handler=script).start()
    async with sidecar(plan_for(upstream.port)) as side:
        reader, writer = await side.connect()
        writer.write(ASK)
        assert (await read_message(reader)).status == 101
        assert await reader.read() == b"bye"
        assert side.counter("requests", outcome="ok") == 1


@pytest.mark.anyio
async def test_an_upgrade_that_is_declined_is_an_ordinary_answer() -> None:
    upstream = await Server(OK).start()
    async with sidecar(plan_for(upstream.port)) as side:
        reader, writer = await side.connect()
        writer.write(ASK + get("/next"))
        for _ in range(2):
            assert (await read_message(reader)).body == b"ok"
        assert [m.first for m in upstream.seen] == [b"GET /ws HTTP/1.1", b"GET /next HTTP/1.1"]
        assert upstream.connections == 2, "a connection is not reused after an upgrade request"


@pytest.mark.anyio
async def test_an_unsolicited_switch_is_garbage() -> None:
    upstream = await Server(SWITCH).start()
    async with sidecar(plan_for(upstream.port)) as side:
        assert (await side.ask(get())).status == 502
