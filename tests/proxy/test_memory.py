"""One budget of memory for all connections: who exceeds it, and who is served beside them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from tests.support.proxy import (
    OK,
    Server,
    Sidecar,
    echo,
    get,
    plan_for,
    post,
    read_message,
    sidecar,
    silent,
)
from tests.support.proxy_mirror import challenger
from understudy.monitor.proxy.memory import GRACE_SECONDS, SMALL, Memory
from understudy.monitor.routing.plan import Plan

MIB = 1 << 20
BODY = bytes(200_000)


class Peer:
    def __init__(self, memory: Memory, size: int) -> None:
        self.memory = memory
        self.size = size
        self.evicted = False

    def evict(self) -> None:
        self.evicted = True
        self.memory.give(self.size)


def slow(memory: Memory, size: int) -> Peer:
    peer = Peer(memory, size)
    memory.waits(peer)
    memory.force(size)
    return peer


def test_copies_get_half() -> None:
    memory = Memory(1000)
    assert memory.copy(500)
    assert not memory.copy(1)
    assert memory.take(500)
    assert not memory.take(1)
    memory.give(700)
    assert memory.copy(200)
    assert memory.used == 500


def test_those_that_are_slow_for_longest_go_first() -> None:
    memory = Memory(1000)
    first, second, third = (slow(memory, 300) for _ in range(3))
    memory.moves(first)
    fourth = slow(memory, 300)
    assert (first.evicted, second.evicted, third.evicted, fourth.evicted) == (0, 1, 0, 0)
    assert memory.used == 900
    huge = slow(memory, 5000)
    assert (first.evicted, third.evicted, fourth.evicted, huge.evicted) == (0, 1, 1, 1)
    assert memory.used == 300


def test_no_client_is_cut_off_at_once_for_what_can_be_streamed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    memory = Memory(1000)
    now = 10.0
    monkeypatch.setattr("understudy.monitor.proxy.memory.monotonic", lambda: now)
    peer = slow(memory, 900)
    assert not memory.take(200)
    assert not peer.evicted
    now += GRACE_SECONDS + 0.01
    assert memory.take(200)
    assert peer.evicted
    assert memory.used == 200


# At a worker ------------------------------------------------------------------------------------


@asynccontextmanager
async def small(server: Server, **kwargs: Any) -> AsyncIterator[Sidecar]:
    """A worker with one MiB, in which nothing may be left accounted for at the end."""
    await server.start()
    plan = kwargs.pop("plan", lambda plan: plan)(plan_for(server.port, memory_bytes=MIB))
    async with sidecar(plan, **kwargs) as side:
        yield side
        memory = side.worker.runtime.memory
        for writer in side._clients:
            writer.transport.abort()
        await side.until(lambda: not side.worker.clients and memory.used == 0)
        assert not memory._slow


def few(plan: Plan) -> Plan:
    return replace(plan, champion=replace(plan.champion, max_connections=2))


async def served(side: Sidecar, size: int = 100_000) -> None:
    """A client beside the others, with a body of some size, as quick as it can."""
    message = await side.ask(post(bytes(size)))
    assert message.status == 200


@pytest.mark.anyio
@pytest.mark.parametrize("framing", [b"Content-Length: 200001", b"Transfer-Encoding: chunked"])
async def test_slow_uploads_are_cut_off_for_others(framing: bytes) -> None:
    """24 × 200 kB do not fit into one MiB."""
    async with small(Server(echo)) as side:
        body = BODY if framing.startswith(b"C") else b"%x\r\n%b\r\n" % (len(BODY), BODY)
        slow_ones = []
        for _ in range(4):
            reader, writer = await side.connect()
            writer.write(post(body, framing=framing))
            slow_ones.append((reader, writer))
        memory = side.worker.runtime.memory
        await side.until(lambda: memory.used >= 2 * len(BODY))
        before = memory.used
        assert before <= MIB
        later = side.worker.loop.time() + GRACE_SECONDS
        await side.until(lambda: side.worker.loop.time() > later)
        for _ in range(20):
            reader, writer = await side.connect()
            writer.write(post(body, framing=framing))
            await served(side)
            assert memory.used <= MIB
        message = await read_message(slow_ones[0][0])
        assert (message.status, message.header("connection")) == (408, b"close")
        assert json.loads(message.body)["outcome"] == "rejected"
        assert side.counter("rejected", reason="slow_client") >= 2
        assert side.counter("requests", outcome="ok") == 20


@pytest.mark.anyio
async def test_a_body_that_finds_no_memory_is_streamed() -> None:
    """As long as the others are not slow: the body is neither kept nor recorded."""
    server = Server(echo)
    async with small(server) as side:
        memory = side.worker.runtime.memory
        assert memory.take(MIB - SMALL)
        reader, writer = await side.connect()
        writer.write(post(BODY[:100_000], framing=b"Content-Length: 200000"))
        await side.until(lambda: side.worker.runtime.champion.pool.busy == 1)
        writer.write(BODY[100_000:])
        assert (await read_message(reader)).body.endswith(BODY)
        await served(side)
        memory.give(MIB - SMALL)
        await side.until(lambda: side.counter("payloads_dropped") > 0)


@pytest.mark.anyio
async def test_slow_uploads_hold_no_more_than_half_of_the_connections() -> None:
    """Though they all come at once, when none is slower than the others."""

    def eight(plan: Plan) -> Plan:
        return replace(plan, champion=replace(plan.champion, max_connections=8))

    async with small(Server(echo), plan=eight) as side:
        for _ in range(40):
            _, writer = await side.connect()
            writer.write(post(BODY[:-1], framing=b"Content-Length: %d" % len(BODY)))
        await side.until(lambda: side.counter("rejected", reason="slow_client") > 20)
        assert side.worker.runtime.champion.pool.busy <= 5
        await served(side)
        await served(side, 10)


@pytest.mark.anyio
async def test_requests_that_wait_for_the_model_server_are_refused_when_they_are_too_many() -> None:
    """The model server is slow, and no client is: ours, and 503. Small ones still wait."""
    async with small(silent(), plan=few) as side:
        clients = []
        for _ in range(12):
            reader, writer = await side.connect()
            writer.write(post(BODY))
            clients.append((reader, writer))
        await side.until(lambda: side.counter("rejected", reason="memory") > 0)
        await side.stalled(lambda: side.counter("rejected", reason="memory"))
        refused = side.counter("rejected", reason="memory")
        assert refused >= 5
        assert side.counter("requests", outcome="overload") == refused
        assert side.worker.runtime.memory.used <= MIB
        _, writer = await side.connect()
        writer.write(post(b"{}"))
        pool = side.worker.runtime.champion.pool
        await side.until(lambda: len(pool.waiting) == 12 - refused - 2 + 1)
        assert side.counter("rejected", reason="slow_client") == 0


@pytest.mark.anyio
@pytest.mark.parametrize("line", [b"X: 1", b"Connection: close"])
async def test_clients_that_do_not_read_are_cut_off_for_others(line: bytes) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n" + BODY

    def answers(message: Any) -> bytes:
        return answer if b"/big" in message.first else OK

    async with small(Server(answers), kernel_buffer=4096) as side:
        memory = side.worker.runtime.memory

        def cut_off() -> int:
            return side.counter("rejected", reason="slow_client")

        for number in range(1, 21):
            reader, writer = await side.connect()
            reader._transport.pause_reading()  # type: ignore[attr-defined]
            writer.write(get("/big", line))

            def stuck(number: int = number) -> bool:
                choked = sum(c._choked for c in side.worker.clients)  # type: ignore[attr-defined]
                return cut_off() + choked >= number

            await side.until(stuck)
            assert memory.used <= MIB
            assert (await side.ask(post())).status == 200
        assert cut_off() >= 5
        assert side.held() < MIB + 20 * SMALL


@pytest.mark.anyio
async def test_pipelined_bytes_count() -> None:
    async with small(silent()) as side:
        for _ in range(40):
            _, writer = await side.connect()
            writer.write(post(b"{}") + bytes(250_000))
        await side.until(lambda: side.counter("rejected", reason="slow_client") > 0)
        await side.stalled(lambda: side.counter("rejected", reason="slow_client"))
        assert side.held() <= MIB
        assert side.counter("requests", outcome="client_stalled") > 0


@pytest.mark.anyio
async def test_heads_that_do_not_end_count() -> None:
    async with small(Server(OK)) as side:
        readers = []
        for _ in range(50):
            reader, writer = await side.connect()
            writer.write(b"GET / HTTP/1.1\r\nX: " + b"a" * 30_000)
            readers.append(reader)
        await side.until(lambda: side.counter("rejected", reason="slow_client") > 10)
        assert side.held() <= MIB
        assert (await read_message(readers[0])).status == 408
        await served(side, 10)


@pytest.mark.anyio
async def test_copies_for_records_and_mirrors_give_way() -> None:
    """Requests go on, and their mirrored ones are left out for a reason of ours."""
    other = await Server(OK).start()

    def mirrored(plan: Plan) -> Plan:
        return replace(plan, challengers=(challenger(other.port),))

    async with small(Server(echo), plan=mirrored) as side:
        memory = side.worker.runtime.memory
        await served(side)
        await side.until(lambda: side.counter("mirror", outcome="ok") == 1)
        assert memory.used == 0
        assert memory.take(MIB // 2)
        await served(side)
        await served(side, 100)
        memory.give(MIB // 2)
        assert side.counter("mirror", outcome="queue_full") == 1
        await side.until(lambda: side.counter("mirror", outcome="ok") == 2)
        # Of the request, and of its response.
        await side.until(lambda: side.counter("payloads_dropped") == 2)


@pytest.mark.anyio
async def test_an_upload_that_the_model_server_does_not_read_counts() -> None:
    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.sleep(60)

    server = Server(handler=deaf)
    async with small(server) as side:
        _, writer = await side.connect()
        size = 32 * MIB
        writer.write(post(b"", framing=b"Content-Length: %d" % size) + bytes(size))
        memory = side.worker.runtime.memory
        await side.until(lambda: memory.used > 0)
        await side.stalled(side.held)
        assert memory.used <= side.held() <= memory.used + SMALL
        await server.stop()


@pytest.mark.anyio
async def test_a_reload_changes_the_limit() -> None:
    async with small(Server(OK)) as side:
        await side.until(lambda: side.counter("connection_memory_limit") == MIB)
        plan = side.plan
        side.worker.reload(replace(plan, limits=replace(plan.limits, memory_bytes=2 * MIB)))
        assert side.worker.runtime.memory.limit == 2 * MIB
        await side.until(lambda: side.counter("connection_memory_limit") == 2 * MIB)
