"""A model server with several addresses, whose name changes: what requests notice of it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from tests.support.patience import patient
from tests.support.ports import free_port
from tests.support.proxy import (
    OK,
    Message,
    Server,
    Sidecar,
    get,
    plan_for,
    post,
    read_message,
    sidecar,
)
from understudy.monitor.proxy.pool import MOST_TRIED, Pool
from understudy.monitor.routing.plan import Plan

NAME = "model.test"


class Names:
    """What the system's resolver says of :data:`NAME`; ``held`` is a resolver that hangs."""

    def __init__(self) -> None:
        self.hosts: list[str] = []
        self.asked = 0
        self.held = threading.Event()
        self.held.set()

    def __call__(self, host: str, *_: Any, **__: Any) -> list[Any]:
        assert host == NAME
        self.asked += 1
        self.held.wait()
        if not self.hosts:
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        return [
            (socket.AF_INET6 if ":" in one else socket.AF_INET, 1, 6, "", (one, 0))
            for one in self.hosts
        ]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[Names]:
    found = Names()
    monkeypatch.setattr(socket, "getaddrinfo", found)
    yield found
    found.held.set()


def named(port: int, **settings: Any) -> Plan:
    plan = plan_for(port)
    settings = {"host": NAME, "resolve_every": 0.5, **settings}
    return replace(plan, champion=replace(plan.champion, **settings))


def answer(host: str) -> Callable[[Message], bytes]:
    return lambda message: (
        b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b"
        % (
            len(host),
            host.encode(),
        )
    )


async def pods(*hosts: str, port: int = 0) -> dict[str, Server]:
    """A server at each of the addresses, on one port."""
    port = port or free_port()
    return {host: await Server(answer(host)).start(port, host=host) for host in hosts}


@contextlib.contextmanager
def black_hole(host: str, port: int) -> Iterator[None]:
    """An address where nothing answers: its queue of handshakes is full."""
    with contextlib.ExitStack() as stack:
        full = stack.enter_context(socket.socket())
        full.bind((host, port))
        full.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex((host, port))
        yield


async def served(side: Sidecar, count: int) -> Counter[str]:
    """Statuses, or who answered, of requests one after the other on one connection."""
    seen: Counter[str] = Counter()
    reader, writer = await side.connect()
    for _ in range(count):
        writer.write(post())
        message = await read_message(reader)
        seen[message.body.decode() if message.status == 200 else str(message.status)] += 1
    writer.close()
    return seen


def pool_of(side: Sidecar) -> Pool:
    return side.worker.runtime.champion.pool


@pytest.mark.anyio
async def test_requests_are_spread_over_all_addresses(names: Names) -> None:
    names.hosts = ["127.0.0.2", "127.0.0.3", "127.0.0.4"]
    servers = await pods(*names.hosts)
    async with sidecar(named(servers["127.0.0.2"].port)) as side:
        await served(side, 5)
        await side.until(lambda: all(e.open for e in pool_of(side).endpoints.all.values()))
        # Each has a connection now, so that they take turns.
        assert await served(side, 300) == dict.fromkeys(names.hosts, 100)
        assert {host: server.connections for host, server in servers.items()} == dict.fromkeys(
            names.hosts, 1
        )
        await side.until(lambda: side.counter("addresses_ready") == 3)


@pytest.mark.anyio
async def test_one_dead_address_of_two_fails_no_request(names: Names) -> None:
    names.hosts = ["127.0.0.2", "127.0.0.3"]
    servers = await pods("127.0.0.3")
    port = servers["127.0.0.3"].port
    with black_hole("127.0.0.2", port):
        async with sidecar(named(port, connect_timeout=10.0)) as side:
            answers = await asyncio.gather(*(side.ask(post()) for _ in range(20)))
            assert {m.status for m in answers} == {200}
            assert await served(side, 100) == {"127.0.0.3": 100}
            await side.until(
                lambda: side.counter("upstream_connect_failures", reason="timeout") > 0
            )
            assert len(pool_of(side).endpoints.used) == 1
            assert side.counter("requests", outcome="ok") == 120


@pytest.mark.anyio
async def test_a_slow_address_is_not_cut_when_the_next_one_is_tried(names: Names) -> None:
    """It stays in the race until the time limit (RFC 8305, 5)."""
    names.hosts = ["127.0.0.2", "127.0.0.3"]
    port = free_port()
    slow = socket.socket()
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    slow.bind(("127.0.0.2", port))
    slow.listen(0)
    with black_hole("127.0.0.3", port), slow:
        fillers = []
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.2", port))
            fillers.append(filler)
        async with sidecar(named(port, connect_timeout=20.0)) as side:
            asking = asyncio.create_task(side.ask(post()))
            await side.until(
                lambda: sum(e.opening for e in pool_of(side).endpoints.all.values()) == 2
            )
            for filler in fillers:
                filler.close()
            # The kernel repeats a handshake that was dropped a second ago.
            upstream = Server(OK)
            upstream._server = await asyncio.start_server(upstream._serve, sock=slow)
            assert (await asking).status == 200
            assert side.counter("retries") == 0


@pytest.mark.anyio
async def test_a_request_tries_a_bounded_number_of_addresses(names: Names) -> None:
    names.hosts = [f"127.0.1.{i}" for i in range(1, 51)]
    async with sidecar(named(free_port())) as side:
        assert (await side.ask(post())).status == 502
        assert side.counter("upstream_connect_failures", reason="refused") == 2 * MOST_TRIED
        assert side.counter("cold_starts") == 0
        servers = await pods(names.hosts[0], port=side.plan.champion.port)
        async with asyncio.timeout(patient(30)):
            while (await side.ask(post())).status != 200:
                await asyncio.sleep(0.01)
        assert servers[names.hosts[0]].connections >= 1
        assert side.counter("cold_starts") == 1


@pytest.mark.anyio
async def test_an_address_that_refuses_is_set_aside_and_used_again(names: Names) -> None:
    names.hosts = ["127.0.0.2", "127.0.0.3"]
    servers = await pods("127.0.0.3")
    port = servers["127.0.0.3"].port
    async with sidecar(named(port)) as side:
        assert await served(side, 50) == {"127.0.0.3": 50}
        refused = side.counter("upstream_connect_failures", reason="refused")
        assert 1 <= refused <= 3  # and not one for each request
        assert side.counter("cold_starts") == 0
        await side.until(lambda: side.counter("addresses_aside") == 1)
        servers |= await pods("127.0.0.2", port=port)
        seen: Counter[str] = Counter()
        async with asyncio.timeout(patient(30)):
            while not seen["127.0.0.2"]:
                seen += await served(side, 10)
                await asyncio.sleep(0.05)
        assert not set(seen) - set(names.hosts)


@pytest.mark.anyio
async def test_the_other_family_is_used_when_the_preferred_one_is_dead(names: Names) -> None:
    """``localhost`` is ::1 and 127.0.0.1 to most systems, and many servers listen on the second."""
    names.hosts = ["::1", "127.0.0.1"]
    servers = await pods("127.0.0.1")
    async with sidecar(named(servers["127.0.0.1"].port)) as side:
        assert await served(side, 20) == {"127.0.0.1": 20}
        assert side.counter("retries") == 0


@pytest.mark.anyio
async def test_new_addresses_are_used_and_those_that_are_gone_are_drained(names: Names) -> None:
    release = asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            message = await read_message(reader, request=True)
            if message.body == b"slow":
                await release.wait()
            writer.write(OK)

    port = free_port()
    old = await Server(handler=slow).start(port, host="127.0.0.2")
    names.hosts = ["127.0.0.2"]
    async with sidecar(named(port)) as side:
        flowing = asyncio.create_task(side.ask(post(b"slow")))
        assert await served(side, 3) == {"ok": 3}
        await side.until(lambda: pool_of(side).busy == 1 and pool_of(side).idle == 1)
        await pods("127.0.0.3", port=port)
        names.hosts = ["127.0.0.3"]
        # The idle connection is closed, the busy one is not.
        await side.until(lambda: old.closed == 1)
        assert await served(side, 5) == {"127.0.0.3": 5}
        assert not flowing.done()
        release.set()
        assert (await flowing).body == b"ok"
        await side.until(lambda: old.closed == 2)


@pytest.mark.anyio
async def test_addresses_stay_in_use_when_the_name_cannot_be_resolved(names: Names) -> None:
    names.hosts = ["127.0.0.2"]
    servers = await pods("127.0.0.2")
    async with sidecar(named(servers["127.0.0.2"].port, max_age=0.1)) as side:
        assert await served(side, 1) == {"127.0.0.2": 1}
        names.hosts = []
        await side.until(lambda: side.counter("upstream_lookups", outcome="failed") >= 2)
        assert await served(side, 20) == {"127.0.0.2": 20}


@pytest.mark.anyio
async def test_a_resolver_that_hangs_delays_nothing(names: Names) -> None:
    names.hosts = ["127.0.0.2"]
    servers = await pods("127.0.0.2")
    async with sidecar(named(servers["127.0.0.2"].port, max_age=0.05)) as side:
        assert await served(side, 1) == {"127.0.0.2": 1}
        names.held.clear()
        asked = names.asked
        await side.until(lambda: names.asked > asked)
        # Connections are opened all the same.
        before = servers["127.0.0.2"].connections
        async with asyncio.timeout(patient(10)):
            while servers["127.0.0.2"].connections < before + 3:
                assert await served(side, 5) == {"127.0.0.2": 5}
                await asyncio.sleep(0.02)
        # A new configuration begins with the addresses that were known.
        plan = replace(side.plan, generation=2)
        plan = replace(plan, champion=replace(plan.champion, first_byte_timeout=21.0))
        side.worker.reload(plan)
        assert await served(side, 5) == {"127.0.0.2": 5}


@pytest.mark.anyio
async def test_a_name_without_an_address_yet(names: Names) -> None:
    """A pod that starts: its name is known when it is ready."""
    port = free_port()
    async with sidecar(named(port)) as side:
        async with asyncio.timeout(patient(10)):
            for _ in range(20):
                message = await side.ask(post())
                assert message.status == 502
                assert b'"outcome": "upstream_connect"' in message.body
        assert side.counter("upstream_connect_failures", reason="resolve") == 40
        assert names.asked <= 10, "a failed look-up is not repeated for each request"
        servers = await pods("127.0.0.2", port=port)
        names.hosts = ["127.0.0.2"]
        async with asyncio.timeout(patient(10)):
            while (await side.ask(post())).status != 200:
                await asyncio.sleep(0.05)
        assert servers["127.0.0.2"].connections >= 1


@pytest.mark.anyio
async def test_a_resolver_that_hangs_at_the_start_is_a_502(names: Names) -> None:
    names.held.clear()
    async with sidecar(named(1, connect_timeout=0.1)) as side:
        assert (await side.ask(post())).status == 502
        assert side.counter("upstream_connect_failures", reason="resolve") == 2


@pytest.mark.anyio
async def test_old_connections_get_no_new_request(names: Names) -> None:
    names.hosts = ["127.0.0.2"]
    servers = await pods("127.0.0.2")
    upstream = servers["127.0.0.2"]
    async with sidecar(named(upstream.port, max_age=0.5)) as side:
        await served(side, 10)
        assert upstream.connections == 1
        async with asyncio.timeout(patient(30)):
            while upstream.connections < 4:
                # Never idle for long: without a maximum age it would stay the same connection.
                assert await served(side, 1) == {"127.0.0.2": 1}
                await asyncio.sleep(0.02)
        # An idle one is closed, too.
        await side.until(lambda: not pool_of(side).open)


@pytest.mark.anyio
async def test_an_exchange_may_last_longer_than_its_connection_is_young() -> None:
    go_on = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_message(reader, request=True)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab")
        await go_on.wait()
        writer.write(b"cd")
        await reader.read()

    upstream = await Server(handler=script).start()
    plan = plan_for(upstream.port)
    async with sidecar(replace(plan, champion=replace(plan.champion, max_age=0.1))) as side:
        asking = asyncio.create_task(side.ask(post()))
        await asyncio.sleep(1.0)
        go_on.set()
        assert (await asking).body == b"abcd"
        await side.until(lambda: upstream.closed == 1)


@pytest.mark.anyio
async def test_connections_are_never_more_than_allowed_and_none_is_forgotten(names: Names) -> None:
    names.hosts = [f"127.0.0.{i}" for i in range(2, 10)]
    servers = await pods(*names.hosts)
    plan = named(servers["127.0.0.2"].port, max_connections=3)
    async with sidecar(plan) as side:
        for _ in range(5):
            answers = await asyncio.gather(*(side.ask(post()) for _ in range(40)))
            assert {message.status for message in answers} == {200}
            pool = pool_of(side)
            assert len(pool.open) <= 3
            assert sum(e.open for e in pool.endpoints.all.values()) == len(pool.open)
        # All are idle, and to other addresses than the next request's: it need not wait.
        names.hosts = ["127.0.0.10"]
        await pods("127.0.0.10", port=servers["127.0.0.2"].port)
        async with asyncio.timeout(patient(10)):
            while "127.0.0.10" not in await served(side, 1):
                await asyncio.sleep(0.05)


@pytest.mark.anyio
async def test_the_descriptors_of_attempts_that_lost_the_race_are_closed(names: Names) -> None:
    names.hosts = ["127.0.0.2", "127.0.0.3"]
    servers = await pods("127.0.0.3")
    port = servers["127.0.0.3"].port
    with black_hole("127.0.0.2", port):
        async with sidecar(named(port, max_age=0.05)) as side:
            await served(side, 5)
            pool = pool_of(side)

            def quiet() -> bool:
                return not (pool._tasks or pool.open)

            await side.until(quiet)
            before = len(os.listdir("/proc/self/fd"))
            for _ in range(20):
                for endpoint in pool.endpoints.all.values():
                    pool.endpoints.reached(endpoint)  # forget that it was tried
                await side.ask(get())
            await side.until(quiet)
            await side.until(lambda: len(os.listdir("/proc/self/fd")) <= before)
