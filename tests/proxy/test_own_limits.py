"""What our own limits cause is never charged to a model server, and never leaves the records."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import cast

import pytest

from tests.support.proxy import OK, Server, Sidecar, plan_for, post, read_message, sidecar
from tests.support.proxy_mirror import challenger
from tests.support.proxy_peer import Peer
from understudy.monitor.proxy.pool import Pool
from understudy.monitor.proxy.upstream import Sink, UpstreamConnection
from understudy.monitor.records import record
from understudy.monitor.records.record import Record
from understudy.monitor.routing.plan import Breaker


async def until_recorded(peer: Peer, count: int) -> list[Record]:
    while len(peer.records) < count:
        await asyncio.sleep(0.01)
    assert len(peer.records) == count
    return peer.records


class Held:
    """A server that answers when it is told to, a request on each connection at a time."""

    def __init__(self) -> None:
        self.release = asyncio.Event()

    async def start(self) -> Server:
        async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                await read_message(reader, request=True)
                await self.release.wait()
                writer.write(OK)

        return await Server(handler=script).start()


class OccupiesOne:
    """An exchange that keeps the connection that it is given."""

    def __init__(self) -> None:
        self.has_one = False

    def on_ready(self, connection: UpstreamConnection) -> None:
        self.has_one = True


async def occupy(side: Sidecar, pool: Pool) -> None:
    """Take the only connection of ``pool`` and keep it, whatever the time."""
    other = OccupiesOne()
    connection = pool.take()
    if connection is None:
        pool.enqueue(cast(Sink, other))
        await side.until(lambda: other.has_one)


@pytest.mark.anyio
async def test_waiting_for_our_own_connections_is_our_overload() -> None:
    """A slow server is to blame for what it was sent, and for nothing that waited for us."""
    held = Held()
    champion = await held.start()
    plan = plan_for(champion.port)
    one = replace(plan.champion, max_connections=1, first_byte_timeout=0.5)
    async with sidecar(replace(plan, champion=one)) as side:
        peer = Peer(side.folder / "records.sock")
        await peer.start()
        assert (await side.ask(post())).status == 504
        await occupy(side, side.worker.runtime.champion.pool)
        assert (await side.ask(post())).status == 503
        found = {r.outcome: r for r in await until_recorded(peer, 2)}
        assert set(found) == {record.TIMEOUT, record.OVERLOAD}
        assert found[record.TIMEOUT].queue_ns == 0
        assert found[record.OVERLOAD].queue_ns > 0
        await peer.stop()


@pytest.mark.anyio
async def test_a_server_has_its_whole_time_after_the_wait_for_our_connection() -> None:
    """A mirrored request that waited for us is not late as long as the challenger is in time."""
    champion, held = await Server(OK).start(), Held()
    other = await held.start()
    one = challenger(other.port, timeout=30.0)
    one = replace(one, upstream=replace(one.upstream, max_connections=1))
    async with sidecar(plan_for(champion.port, one)) as side:
        peer = Peer(side.folder / "records.sock")
        await peer.start()
        for _ in range(2):
            await side.ask(post())
        pool = side.worker.runtime.mirrors[0].arm.pool
        await side.until(lambda: pool.busy == 1 and len(pool.waiting) == 1)
        await asyncio.sleep(0.3)
        held.release.set()
        found = [r for r in await until_recorded(peer, 4) if r.role == record.ROLE_MIRROR]
        assert [r.outcome for r in found] == [record.OK, record.OK]
        first, second = sorted(found, key=lambda r: r.queue_ns)
        assert first.queue_ns == 0
        assert 0.25e9 < second.queue_ns <= second.duration_ns
        await peer.stop()


@pytest.mark.anyio
async def test_a_mirrored_request_that_never_got_a_connection_is_our_overload() -> None:
    champion, held = await Server(OK).start(), Held()
    other = await held.start()
    one = challenger(other.port, timeout=0.5)
    one = replace(one, upstream=replace(one.upstream, max_connections=1))
    async with sidecar(plan_for(champion.port, one)) as side:
        peer = Peer(side.folder / "records.sock")
        await peer.start()
        await side.ask(post())
        await until_recorded(peer, 2)
        await occupy(side, side.worker.runtime.mirrors[0].arm.pool)
        await side.ask(post())
        found = [r for r in await until_recorded(peer, 4) if r.role == record.ROLE_MIRROR]
        assert [r.outcome for r in found] == [record.TIMEOUT, record.OVERLOAD]
        await peer.stop()


@pytest.mark.anyio
@pytest.mark.parametrize("why", [record.QUEUE_FULL, record.BREAKER_OPEN])
async def test_every_chosen_request_ends_in_a_record(why: int) -> None:
    """A mirrored request that is not sent says so, by request id, with its reason."""
    champion = await Server(OK).start()
    other = await Server(OK.replace(b"200 OK", b"500 No")).start()
    one = challenger(other.port, breaker=Breaker(1, 60.0, 60.0, 1))
    if why == record.QUEUE_FULL:
        one = replace(one, queue_bytes=5)
    async with sidecar(plan_for(champion.port, one)) as side:
        peer = Peer(side.folder / "records.sock")
        await peer.start()
        sent = 0
        if why == record.BREAKER_OPEN:
            await side.ask(post(b"{}"))
            await until_recorded(peer, 2)
            sent = 2
        body = bytes(10)
        await side.ask(post(body, b"x-request-id: mine"))
        found = (await until_recorded(peer, sent + 2))[sent:]
        assert {r.request_id for r in found} == {b"mine"}
        assert [r.outcome for r in found if r.role == record.ROLE_MIRROR] == [why]
        (skipped,) = (r for r in found if r.role == record.ROLE_MIRROR)
        assert (skipped.duration_ns, skipped.response_body) == (0, None)
        assert skipped.request_size == len(body)
        await peer.stop()


@pytest.mark.anyio
async def test_a_server_that_does_not_read_the_request_is_late_itself() -> None:
    """The client cannot send the rest, since the server does not read: that is not the client's
    slowness."""

    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.sleep(30)

    champion = await Server(handler=deaf).start(kernel_buffer=4096)
    async with sidecar(plan_for(champion.port), kernel_buffer=4096) as side:
        _, writer = await side.connect()
        size = 32 * 1024 * 1024
        raw = post(bytes(16), framing=b"Content-Length: %d" % size)
        writer.write(raw + bytes(size - 16))
        await side.until(side.blocked)
        side.later(side.plan.champion.total_timeout or 0.0)
        assert side.counter("requests", outcome="timeout") == 1
