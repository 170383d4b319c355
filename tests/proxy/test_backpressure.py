"""The slower side holds back the faster one, in both directions, and memory stays bounded."""

from __future__ import annotations

import asyncio
import socket
from itertools import count
from pathlib import Path

import pytest

from tests.support.forms import in_python
from tests.support.proxy import (
    INFER,
    Server,
    Sidecar,
    get,
    plan_for,
    post,
    read_message,
    shrink,
    sidecar,
    worker_process,
)
from understudy.monitor.proxy.endpoints import Endpoint
from understudy.monitor.proxy.upstream import UpstreamConnection


@pytest.mark.anyio
async def test_large_bodies_pass_both_ways_while_the_slow_side_holds_back_the_fast_one() -> None:
    size = 48 * 1024 * 1024
    peak = 0

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        left = size
        while left:
            left -= len(await reader.read(min(left, 1 << 16)))
            if left % 7 == 0:
                await asyncio.sleep(0)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        block = bytes(1 << 16)
        for _ in range(size >> 16):
            writer.write(block)
            await writer.drain()
        await reader.read()

    upstream = await Server(handler=script).start()
    async with sidecar(plan_for(upstream.port)) as side:
        reader, writer = await side.connect()

        writer.write(post(b"", framing=b"Content-Length: %d" % size))
        block = bytes(1 << 16)
        for _ in range(size >> 16):
            writer.write(block)
            await writer.drain()
            peak = max(peak, side.held())
        await reader.readuntil(b"\r\n\r\n")
        left = size
        while left:
            left -= len(await reader.read(1 << 16))
            peak = max(peak, side.held())
            if left % 3 == 0:
                await asyncio.sleep(0)
        await side.until(lambda: side.counter("response_bytes") == size)
        assert side.counter("request_bytes") == size
    # Two buffers of at most a mark and one read each, and not the body.
    assert 0 < peak < 2 * 1024 * 1024


async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    await asyncio.sleep(60)


def small_kernel_buffers(side: Sidecar, size: int = 4096) -> None:
    """The kernel takes little from the worker's connections to the champion."""
    pool = side.worker.runtime.champion.pool
    attempt = pool._attempt

    async def shrunk(endpoint: Endpoint) -> UpstreamConnection:
        connection = await attempt(endpoint)
        assert connection.transport is not None
        shrink(connection.transport.get_extra_info("socket"), size)
        return connection

    pool._attempt = shrunk  # type: ignore[method-assign]


@in_python
@pytest.mark.anyio
async def test_an_upload_that_the_server_does_not_read_is_held_back_from_the_first_byte() -> None:
    """Also when the first bytes came before there was a connection."""

    upstream = await Server(handler=deaf).start(kernel_buffer=4096)
    async with sidecar(plan_for(upstream.port)) as side:
        small_kernel_buffers(side)
        _, writer = await side.connect()
        size = 64 << 20
        sent = 0

        async def send() -> None:
            nonlocal sent
            writer.write(post(b"", framing=b"Content-Length: %d" % size) + bytes(250_000))
            await writer.drain()
            for _ in range((size - 250_000) >> 16):
                writer.write(bytes(1 << 16))
                await writer.drain()
                sent += 1 << 16

        sending = asyncio.create_task(send())
        await side.until(lambda: side.worker.runtime.champion.pool.busy == 1)
        await side.stalled(lambda: sent)
        assert 0 < side.held() < 1 << 20
        sending.cancel()
        writer.transport.abort()
        for connection in tuple(side.worker.runtime.champion.pool.open):
            assert connection.transport is not None
            connection.transport.abort()
    await upstream.stop()


@pytest.mark.anyio
async def test_a_client_that_does_not_read_holds_back_its_answer() -> None:
    size = 64 << 20
    written = 0

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        await read_message(reader, request=True)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        for _ in range(size >> 16):
            writer.write(bytes(1 << 16))
            await writer.drain()
            written += 1 << 16
        await reader.read()

    upstream = await Server(handler=script).start()
    async with sidecar(plan_for(upstream.port), kernel_buffer=4096) as side:
        reader, writer = await side.connect()
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(get("/big"))
        await side.until(lambda: written > 0)
        await side.stalled(lambda: written)
        assert written < size
        assert 0 < side.held() < 1 << 20
        writer.transport.abort()
        await side.until(lambda: side.counter("requests", outcome="cancelled") == 1)


@pytest.mark.anyio
async def test_a_client_that_pipelines_without_reading_gets_no_further_responses() -> None:
    size, count = 50_000, 600
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + bytes(size)
    upstream = await Server(answer).start()
    async with sidecar(plan_for(upstream.port), kernel_buffer=4096) as side:
        reader, writer = await side.connect()
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(get("/b") * count)
        await side.until(lambda: len(upstream.seen) > 1)
        await side.stalled(lambda: len(upstream.seen))
        assert len(upstream.seen) < count
        assert side.held() < 1 << 20
        # A worker that waited for the client goes on when it reads.
        reader._transport.resume_reading()  # type: ignore[attr-defined]
        for _ in range(count):
            assert len((await read_message(reader)).body) == size


@pytest.mark.anyio
@pytest.mark.parametrize("line", [b"X: 1", b"Connection: close"], ids=["kept alive", "close"])
async def test_a_client_that_never_reads_its_response_is_disconnected(line: bytes) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n" + bytes(60000)
    upstream = await Server(answer).start()
    async with sidecar(plan_for(upstream.port), kernel_buffer=4096) as side:
        loop = asyncio.get_running_loop()
        with socket.socket() as client:
            shrink(client, 4096)
            client.setblocking(False)
            await loop.sock_connect(client, ("127.0.0.1", side.port))
            await loop.sock_sendall(client, get("/", line))
            await side.until(lambda: side.counter("requests", outcome="ok") == 1)
            assert side.held() > 0
            side.later(side.plan.limits.keepalive_timeout - 30.0)
            assert side.held() > 0
            periods = count(2)

            def gone() -> bool:
                # Each time later: the kernel may still have passed on a little of the response.
                side.later(next(periods) * side.plan.limits.keepalive_timeout)
                return not side.worker.clients

            await side.until(gone)


@pytest.mark.anyio
async def test_the_memory_of_a_worker_stays_flat(tmp_path: Path) -> None:
    """A worker process; the body goes up and an equal one comes down."""
    size = 128 << 20
    block = bytes(1 << 20)

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            left = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
            while left:
                left -= len(await reader.read(min(left, 1 << 20)))
            length = size if b"/big" in head else 2
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % length)
            for begin in range(0, length, len(block)):
                writer.write(block[: length - begin])
                await writer.drain()

    upstream = await Server(handler=script).start()
    async with worker_process(plan_for(upstream.port), tmp_path) as (port, pid):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)

        async def exchange(path: str, length: int) -> None:
            writer.write(post(b"", path=path, framing=b"Content-Length: %d" % length))
            for begin in range(0, length, len(block)):
                writer.write(block[: length - begin])
                await writer.drain()
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 ")
            left = size if path == "/big" else 2
            while left:
                left -= len(await reader.read(min(left, 1 << 20)))

        for _ in range(20):
            await exchange(INFER, 2)
        before = peak_memory(pid)
        await exchange("/big", size)
        await exchange("/big", size)
        assert peak_memory(pid) - before < 8 << 20
        writer.close()


def peak_memory(pid: int) -> int:
    """The most memory that a process has had, in bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024
