"""The upstream that is slow, dead or rude: limits, retries, and which connections are used."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import replace

import pytest

from tests.support.proxy import (
    OK,
    Server,
    echo,
    get,
    plan_for,
    post,
    read_message,
    sidecar,
    silent,
)


@pytest.mark.anyio
async def test_a_client_that_leaves_cancels_the_upstream() -> None:
    started = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_message(reader, request=True)
        started.set()
        await reader.read()

    upstream = await Server(handler=script).start()
    async with sidecar(plan_for(upstream.port)) as side:
        _, writer = await side.connect()
        writer.write(post())
        await started.wait()
        writer.close()
        await side.until(lambda: upstream.closed == 1)
        assert side.counter("requests", outcome="cancelled") == 1


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("upstream", "limit", "status"),
    [
        pytest.param(silent(), {"first_byte_timeout": 0.2}, 504, id="first byte"),
        pytest.param(silent(), {"total_timeout": 0.2}, 504, id="total"),
        pytest.param(silent(b"HTTP/1.1 100 Continue\r\n\r\n"), {"first_byte_timeout": 0.2}, 504,
                     id="only an interim answer"),
    ],
)  # fmt: skip
async def test_timeouts(upstream: Server, limit: dict[str, float], status: int) -> None:
    await upstream.start()
    plan = plan_for(upstream.port)
    async with sidecar(replace(plan, champion=replace(plan.champion, **limit))) as side:
        reader, writer = await side.connect()
        writer.write(post(b"{}", b"x-request-id: slow-one"))
        message = await read_message(reader)
        if message.status == 100:
            message = await read_message(reader)
        assert message.status == status
        assert b'"outcome": "timeout"' in message.body
        assert message.header("x-request-id") == b"slow-one"
        assert side.counter("requests", outcome="timeout") == 1


@pytest.mark.anyio
@pytest.mark.parametrize("limit", ["first_byte_timeout", "total_timeout"])
async def test_the_connection_of_a_late_request_is_closed(limit: str) -> None:
    got = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_message(reader, request=True)
        got.set()
        await reader.read()

    upstream = await Server(handler=script).start()
    plan = plan_for(upstream.port)
    plan = replace(plan, champion=replace(plan.champion, **{limit: 15.0}))
    async with sidecar(plan) as side:
        asked = asyncio.create_task(side.ask(post()))
        await got.wait()
        side.later(5.0)
        assert side.worker.active
        side.later(15.0)
        assert (await asked).status == 504
        await side.until(lambda: upstream.closed == 1)


@pytest.mark.anyio
async def test_a_stalled_stream_is_aborted() -> None:
    begin = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc"
    upstream = await silent(begin).start()
    async with sidecar(plan_for(upstream.port)) as side:
        reader, writer = await side.connect()
        writer.write(post())
        await reader.readuntil(b"\r\n\r\nabc")
        side.later(side.plan.champion.total_timeout or 0.0)
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await reader.readexactly(97)
        assert side.counter("requests", outcome="timeout") == 1


@pytest.mark.anyio
async def test_a_refused_connection_is_tried_once_more() -> None:
    upstream = await Server(OK).start()
    port = upstream.port
    await upstream.stop()
    async with sidecar(plan_for(port)) as side:
        message = await side.ask(post())
        assert message.status == 502
        assert b'"outcome": "upstream_connect"' in message.body
        assert side.counter("retries") == 1
        assert side.counter("upstream_connect_failures") == 2
        assert side.counter("requests", outcome="upstream_connect") == 1
        upstream = await Server(OK).start(port)
        assert (await side.ask(post())).status == 200
        assert side.counter("cold_starts", arm="champion") == 1


@pytest.mark.anyio
async def test_a_request_that_was_sent_is_not_sent_twice() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_message(reader, request=True)

    upstream = await Server(handler=script).start()
    async with sidecar(plan_for(upstream.port)) as side:
        assert (await side.ask(post())).status == 502
        assert upstream.connections == 1
        assert side.counter("requests", outcome="upstream_reset") == 1


@pytest.mark.anyio
async def test_connections_are_reused_and_old_ones_are_not() -> None:
    upstream = await Server(OK).start()
    async with sidecar(plan_for(upstream.port)) as side:
        for _ in range(5):
            assert (await side.ask(get())).status == 200
        assert upstream.connections == 1
        (idle,) = side.worker.runtime.champion.pool.open
        idle.usable_until -= side.plan.champion.idle_timeout
        assert (await side.ask(get())).status == 200
        assert upstream.connections == 2


@pytest.mark.anyio
async def test_the_upstream_says_how_long_it_waits() -> None:
    answer = b"HTTP/1.1 200 OK\r\nKeep-Alive: timeout=1\r\nContent-Length: 0\r\n\r\n"
    upstream = await Server(answer).start()
    async with sidecar(plan_for(upstream.port)) as side:
        await side.ask(get())
        await asyncio.sleep(0.05)
        await side.ask(get())
        assert upstream.connections == 2


@pytest.mark.anyio
async def test_busy_connections_make_requests_wait_and_a_full_queue_refuses() -> None:
    release = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await read_message(reader, request=True)
            await release.wait()
            writer.write(OK)

    upstream = await Server(handler=script).start()
    plan = plan_for(upstream.port)
    plan = replace(plan, champion=replace(plan.champion, max_connections=1, max_waiting=1))
    async with sidecar(plan) as side:
        first = asyncio.create_task(side.ask(post()))
        await side.until(lambda: side.worker.runtime.champion.pool.busy == 1)
        second = asyncio.create_task(side.ask(post()))
        await side.until(lambda: len(side.worker.runtime.champion.pool.waiting) == 1)
        refused = await side.ask(post())
        assert refused.status == 503
        assert b'"outcome": "overload"' in refused.body
        release.set()
        assert (await first).status == (await second).status == 200
        assert side.counter("queue", outcome="ok") == 1


@pytest.mark.anyio
async def test_a_connection_that_is_never_accepted_times_out() -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        # The kernel accepts into the queue until it is full and drops what comes then.
        fillers = []
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
            fillers.append(filler)
        plan = plan_for(port)
        plan = replace(plan, champion=replace(plan.champion, connect_timeout=0.2))
        async with sidecar(plan) as side:
            message = await side.ask(post())
            assert message.status == 502
            assert b'"outcome": "upstream_connect"' in message.body
            assert side.counter("retries") == 1
        for filler in fillers:
            filler.close()


@pytest.mark.anyio
@pytest.mark.parametrize("host", ["no.such.host.invalid", "two..dots"])
async def test_an_unresolvable_host_name_is_a_502(host: str) -> None:
    plan = plan_for(1)
    plan = replace(plan, champion=replace(plan.champion, host=host))
    async with sidecar(plan) as side:
        for _ in range(2):
            assert (await side.ask(post())).status == 502
        assert side.worker.runtime.champion.pool._connecting == 0


@pytest.mark.anyio
async def test_a_pooled_connection_that_the_server_closed_is_not_used() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_message(reader, request=True)
        writer.write(OK)

    upstream = await Server(handler=script).start()
    async with sidecar(plan_for(upstream.port)) as side:
        reader, writer = await side.connect()
        for number in range(1, 6):
            writer.write(post())
            assert (await read_message(reader)).status == 200
            await side.until(lambda n=number: upstream.closed == n)
            await side.until(lambda: not side.worker.runtime.champion.pool.open)


@pytest.mark.anyio
async def test_a_pooled_connection_with_unsolicited_bytes_is_not_used() -> None:
    speak = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_message(reader, request=True)
        writer.write(OK)
        await speak.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
        await reader.read()

    upstream = await Server(handler=script).start()
    async with sidecar(plan_for(upstream.port)) as side:
        assert (await side.ask(get())).body == b"ok"
        speak.set()
        await side.until(lambda: upstream.closed == 1)
        assert (await side.ask(get())).body == b"ok"


@pytest.mark.anyio
async def test_a_server_that_answers_early_and_stops_reading_is_disconnected() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        await held.wait()
        writer.write(b"HTTP/1.1 413 No\r\nContent-Length: 0\r\n\r\n")
        await asyncio.sleep(60)

    held = asyncio.Event()

    upstream = await Server(handler=script).start(kernel_buffer=4096)
    async with sidecar(plan_for(upstream.port)) as side:
        reader, writer = await side.connect()
        writer.write(post(b"", framing=b"Content-Length: 100000000") + bytes(20_000_000))
        await side.until(lambda: side.worker.runtime.champion.pool.busy == 1)
        await side.stalled(side.held)
        assert side.held() > 0
        held.set()
        assert (await read_message(reader)).status == 413
        # What is left to send is dropped; its place in the pool would be taken for good.
        await side.until(lambda: not side.worker.runtime.champion.pool.open)
        writer.transport.abort()
    await upstream.stop()


@pytest.mark.anyio
async def test_one_connection_serves_many_clients_in_turn() -> None:
    upstream = await Server(echo).start()
    plan = plan_for(upstream.port)
    plan = replace(plan, champion=replace(plan.champion, max_connections=1))
    async with sidecar(plan) as side:
        answers = await asyncio.gather(*(side.ask(get(f"/{i}")) for i in range(100)))
        assert [a.body for a in answers] == [b"/%d|" % i for i in range(100)]
        assert upstream.connections == 1
