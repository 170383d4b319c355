"""Draining and reloading: what is under way goes on, and the accounts stay exact."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.patience import patient
from tests.support.proxy import (
    OK,
    Server,
    Sidecar,
    get,
    plan_for,
    post,
    read_message,
    sidecar,
    silent,
)
from tests.support.proxy_mirror import challenger, outcomes
from tests.support.proxy_peer import Peer
from understudy.monitor.proxy.acceptor import Acceptor
from understudy.monitor.records.record import OUTCOMES, ROLES
from understudy.monitor.routing.plan import Tls


@pytest.mark.anyio
async def test_draining_finishes_requests_in_flight() -> None:
    release = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_message(reader, request=True)
        await release.wait()
        writer.write(OK)
        await reader.read()

    upstream = await Server(handler=script).start()
    async with sidecar(plan_for(upstream.port)) as side:
        idle_reader, _ = await side.connect()
        reader, writer = await side.connect()
        writer.write(post())
        await side.until(lambda: upstream.connections == 1)
        draining = asyncio.create_task(side.worker.drain())
        assert await idle_reader.read() == b""
        assert not draining.done()
        release.set()
        message = await read_message(reader)
        assert message.status == 200
        assert message.header("connection") == b"close"
        assert await reader.read() == b""


@pytest.mark.anyio
async def test_a_socket_that_another_worker_has_shut_down_does_not_hold_up_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A worker that accepts for one that is started again ends before it, or after."""
    calls = 0
    accept = Acceptor._accept

    def counted(self: Acceptor) -> None:
        nonlocal calls
        calls += 1
        accept(self)

    monkeypatch.setattr(Acceptor, "_accept", counted)
    upstream = await Server(OK).start()
    async with sidecar(plan_for(upstream.port, drain_timeout=patient(600.0))) as side:
        side.worker._listeners[0].dup().shutdown(socket.SHUT_RD)
        for _ in range(300):
            await asyncio.sleep(0)
        assert calls <= 1
        await asyncio.wait_for(side.worker.drain(), patient(30.0))


@pytest.mark.anyio
async def test_a_new_plan_takes_over_between_requests() -> None:
    old = await Server(OK).start()
    new = await Server(OK.replace(b"ok", b"NU")).start()
    async with sidecar(plan_for(old.port)) as side:
        reader, writer = await side.connect()
        writer.write(get())
        assert (await read_message(reader)).body == b"ok"
        side.worker.reload(replace(plan_for(new.port), generation=2))
        writer.write(get())
        assert (await read_message(reader)).body == b"NU"
        await side.until(lambda: old.closed == 1)


@pytest.mark.anyio
async def test_a_drain_has_a_limit_and_aborted_requests_are_recorded() -> None:
    upstream, other = await silent().start(), await silent().start()
    plan = plan_for(upstream.port, challenger(other.port), drain_timeout=0.3)
    quick = await Server(OK).start()
    async with sidecar(plan) as side:
        peer = Peer(side.folder / "records.sock")
        await peer.start()
        reader, writer = await side.connect()
        writer.write(post(b"{}", b"x-request-id: cut"))
        await side.until(lambda: upstream.connections == 1)
        # Its champion answers, its copy does not.
        side.worker.reload(
            replace(plan_for(quick.port, challenger(other.port), drain_timeout=0.3), generation=2)
        )
        assert (await side.ask(post(b"{}", b"x-request-id: copied"))).status == 200
        await side.until(lambda: other.connections == 1)
        await side.worker.drain()
        assert not side.worker.active
        assert (await read_message(reader)).status == 503
        assert await reader.read() == b""
        assert outcomes(side) == {"cancelled": 2}, "also the copy of the request cut short"
        seen = {(r.request_id, ROLES[r.role], OUTCOMES[r.outcome]) for r in peer.records}
        assert seen == {
            (b"cut", "primary", "shutdown"),
            (b"cut", "mirror", "cancelled"),
            (b"copied", "primary", "ok"),
            (b"copied", "mirror", "cancelled"),
        }
        eligible = side.counter("records_eligible")
        assert eligible == side.counter("records_sent") + side.counter("records_dropped") == 4
        await peer.stop()


@pytest.mark.anyio
async def test_a_draining_worker_accepts_no_connection() -> None:
    upstream = await silent().start()
    async with sidecar(plan_for(upstream.port, drain_timeout=4.0)) as side:
        _, writer = await side.connect()
        writer.write(post())
        await side.until(lambda: upstream.connections == 1)
        draining = asyncio.create_task(side.worker.drain())
        await asyncio.sleep(0.05)
        with pytest.raises(ConnectionError):
            await side.ask(get())
        writer.close()
        await draining
        assert side.counter("requests", outcome="cancelled") == 1


@pytest.mark.anyio
async def test_connections_in_the_accept_queue_of_a_draining_worker_are_served() -> None:
    """Connections that the kernel has made and the worker has not accepted yet, with their requests
    and without."""

    upstream = await Server(OK).start()
    async with sidecar(plan_for(upstream.port)) as side:
        clients = []
        for number in range(80):  # as many as fit into the queue
            # Without the loop, which would accept it.
            client = socket.create_connection(("127.0.0.1", side.port))
            if number % 2:
                client.sendall(get())
            clients.append(client)
        assert side.counter("connections_accepted") == 0
        draining = asyncio.create_task(side.worker.drain())
        await asyncio.sleep(0.1)
        for number, client in enumerate(clients):
            reader, writer = await asyncio.open_connection(sock=client)
            if not number % 2:
                writer.write(get())
            message = await read_message(reader)
            assert (message.status, message.header("connection")) == (200, b"close")
            assert await reader.read() == b""
        await draining
        with pytest.raises(ConnectionRefusedError):
            await side.connect()
        assert side.counter("requests", outcome="ok") == 80


@pytest.mark.anyio
async def test_active_clients_of_a_draining_worker_are_answered_or_refused() -> None:
    async def client(side: Sidecar) -> int:
        answered = 0
        while True:
            try:
                reader, writer = await side.connect()
            except ConnectionRefusedError:
                return answered
            writer.write(get())
            assert (await read_message(reader)).status == 200
            answered += 1
            writer.close()

    upstream = await Server(OK).start()
    async with sidecar(plan_for(upstream.port)) as side:
        clients = [asyncio.create_task(client(side)) for _ in range(20)]
        await side.until(lambda: side.counter("requests", outcome="ok") > 200)
        await side.worker.drain()
        answered = sum(await asyncio.gather(*clients))
        assert answered == side.counter("requests", outcome="ok")


@pytest.mark.anyio
async def test_requests_in_flight_and_waiting_survive_a_reload() -> None:
    release = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await read_message(reader, request=True)
            await release.wait()
            writer.write(OK)

    old, new = await Server(handler=script).start(), await Server(OK).start()
    plan = plan_for(old.port)
    plan = replace(plan, champion=replace(plan.champion, max_connections=1))
    async with sidecar(plan) as side:
        under_way = asyncio.create_task(side.ask(post()))
        await side.until(lambda: old.connections == 1)
        pool = side.worker.runtime.champion.pool
        waiting = [asyncio.create_task(side.ask(post())) for _ in range(3)]
        await side.until(lambda: len(pool.waiting) == 3)
        side.worker.reload(replace(plan_for(new.port), generation=2))
        assert (await side.ask(post())).status == 200
        assert not under_way.done()
        release.set()
        for task in (under_way, *waiting):
            assert (await task).status == 200
        # The old pool keeps nothing when its last request is over.
        await side.until(lambda: not pool.open)


@pytest.mark.anyio
async def test_a_retired_challenger_leaves_no_gauges() -> None:
    champion, other = await Server(OK).start(), await Server(OK).start()
    plan = plan_for(champion.port, challenger(other.port))
    async with sidecar(plan) as side:
        await side.ask(post())
        await side.until(lambda: outcomes(side) == {"ok": 1})
        await side.until(lambda: side.counter("pool_idle", arm="candidate") == 1)
        side.worker.reload(replace(plan_for(champion.port), generation=2))
        assert side.counter("pool_idle", arm="candidate") == 0
        await side.until(lambda: other.closed == 1)
        assert outcomes(side) == {"ok": 1}


@pytest.mark.anyio
async def test_an_invalid_plan_changes_nothing(tmp_path: Path) -> None:
    upstream = await Server(OK).start()
    plan = plan_for(upstream.port)
    missing = Tls(ca=str(tmp_path / "missing.pem"))
    bad = replace(plan, generation=2, champion=replace(plan.champion, tls=missing))
    async with sidecar(plan) as side:
        before = side.worker.runtime
        with pytest.raises(OSError, match="No such file"):
            side.worker.reload(bad)
        assert side.worker.runtime is before
        assert (await side.ask(get())).status == 200
