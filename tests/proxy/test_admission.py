"""Connections of clients: counted from the moment they are accepted, within the descriptors."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import resource
import socket
import ssl
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.certificates import self_signed
from tests.support.proxy import OK, Server, get, plan_for, post, read_message, sidecar
from understudy.monitor.proxy import descriptors
from understudy.monitor.proxy.descriptors import for_clients, none_left, raise_limit
from understudy.monitor.routing.plan import ListenTls, Plan


@contextlib.contextmanager
def descriptor_limit(soft: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def encrypted(plan: Plan, folder: Path) -> tuple[Plan, ssl.SSLContext]:
    chain, key = self_signed(folder, "only", "localhost")
    trust = ssl.create_default_context(cafile=str(chain))
    return replace(plan, tls=ListenTls(str(chain), str(key))), trust


async def secure(port: int, trust: ssl.SSLContext) -> Any:
    return await asyncio.open_connection("127.0.0.1", port, ssl=trust, server_hostname="localhost")


# Descriptors ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("most", "upstreams", "expected"),
    [(20_000, 512, 19_456), (1024, 256, 736), (96, 256, 32), (1, 256, 1)],
)
def test_descriptors_are_reserved_for_model_servers(
    most: int, upstreams: int, expected: int
) -> None:
    assert for_clients(most, upstreams) == expected


def test_the_soft_limit_is_raised_to_the_hard_one() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with descriptor_limit(min(200, hard)):
        raise_limit()
        assert descriptors.limit() == (hard if hard != resource.RLIM_INFINITY else 1 << 30)


def test_which_errors_mean_that_none_is_left() -> None:
    assert none_left(OSError(errno.EMFILE, ""))
    assert none_left(OSError(errno.ENFILE, ""))
    assert not none_left(OSError(errno.ECONNREFUSED, ""))
    assert not none_left(ssl.SSLError(1, ""))


@pytest.mark.anyio
async def test_few_descriptors_limit_clients_and_not_model_servers(
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = await Server(OK).start()
    with descriptor_limit(400):
        async with sidecar(plan_for(server.port, connections=1000)) as side:
            most = for_clients(400, 256)
            assert side.counter("connections_limit") == most
            assert "limits.connections is 1000" in caplog.text
    with descriptor_limit(20_000):
        async with sidecar(plan_for(server.port, connections=1000)) as side:
            assert side.counter("connections_limit") == 1000
            side.worker.reload(plan_for(server.port, connections=7))
            assert side.counter("connections_limit") == 7


@pytest.mark.anyio
async def test_accepting_waits_for_descriptors_and_makes_room(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It does not try again at once, which would take all of the processor."""
    server = await Server(OK).start()
    async with sidecar(plan_for(server.port)) as side:
        served = await side.connect()
        served[1].write(get())
        assert (await read_message(served[0])).status == 200
        # Every descriptor of the process is taken.
        taken: list[socket.socket] = []
        waiting = socket.socket()
        waiting.setblocking(False)
        with descriptor_limit(max(map(int, os.listdir("/proc/self/fd"))) + 1):
            take_all(taken)
            waiting.connect_ex(("127.0.0.1", side.port))
            await side.until(lambda: side.counter("descriptors_exhausted", where="accept") >= 2)
            await side.until(lambda: side.counter("descriptors_short") == 1)
            assert side.counter("descriptors_exhausted", where="accept") < 50
            # The idle client makes room, and the connection to the model server is still there.
            assert await served[0].read() == b""
            reader, writer = await asyncio.open_connection(sock=waiting)
            writer.write(get())
            assert (await read_message(reader)).status == 200
            writer.close()
            for one in taken:
                one.close()
        assert caplog.text.count("no file descriptor left") == 1


@pytest.mark.anyio
async def test_no_descriptor_for_the_model_server_is_our_overload() -> None:
    """The model server is not to blame, and no breaker opens."""
    server = await Server(OK).start()
    async with sidecar(plan_for(server.port)) as side:
        reader, writer = await side.connect()
        await side.until(lambda: len(side.worker.clients) == 1)
        taken: list[socket.socket] = []
        with descriptor_limit(max(map(int, os.listdir("/proc/self/fd"))) + 1):
            take_all(taken)
            writer.write(post())
            message = await read_message(reader)
            for one in taken:
                one.close()
        assert message.status == 503
        assert side.counter("requests", outcome="overload") == 1
        assert side.counter("descriptors_exhausted", where="connect") == 1
        assert side.counter("upstream_connect_failures") == 0
        writer.write(post())
        assert (await read_message(reader)).status == 200


def take_all(taken: list[socket.socket]) -> None:
    """Take every descriptor that is left."""
    with contextlib.suppress(OSError):
        while True:
            taken.append(socket.socket())


# Idle and silent clients ------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_new_client_takes_the_place_of_that_which_was_idle_for_the_longest() -> None:
    server = await Server(OK).start()
    async with sidecar(plan_for(server.port, connections=3)) as side:
        idle = [await side.connect() for _ in range(3)]
        await side.until(lambda: len(side.worker.clients) == 3)
        for reader, writer in idle[1:]:
            writer.write(get())
            assert (await read_message(reader)).status == 200
        ready = side.worker.loop.time() + 0.6
        await side.until(lambda: side.worker.loop.time() > ready)
        assert (await side.ask(get())).status == 200
        assert await idle[0][0].read() == b""
        assert side.counter("connections_reclaimed") == 1
        for reader, writer in idle[1:]:
            writer.write(get())
            assert (await read_message(reader)).status == 200


@pytest.mark.anyio
async def test_a_client_that_sends_nothing_has_the_time_of_a_head() -> None:
    """And one that has sent a request the longer time between requests."""
    server = await Server(OK).start()
    async with sidecar(plan_for(server.port)) as side:
        used_reader, used = await side.connect()
        used.write(get())
        assert (await read_message(used_reader)).status == 200
        reader, _ = await side.connect()
        await side.until(lambda: len(side.worker.clients) == 2)
        side.later(side.plan.limits.header_timeout - 10.0)
        assert len(side.worker.clients) == 2
        side.later(side.plan.limits.header_timeout)
        assert await reader.read() == b""
        used.write(get())
        assert (await read_message(used_reader)).status == 200


# TLS --------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_handshakes_count_as_connections_and_end_in_time(tmp_path: Path) -> None:
    server = await Server(OK).start()
    plan, trust = encrypted(plan_for(server.port, connections=4, header_timeout=5.0), tmp_path)
    async with sidecar(plan) as side:
        silent_ones = [await side.connect() for _ in range(4)]
        await side.until(lambda: len(side.worker.opening) == 4)
        assert side.counter("connections_open") == 4
        with pytest.raises((ConnectionError, ssl.SSLError)):
            await secure(side.port, trust)
        assert side.counter("rejected", reason="connections") >= 1
        for reader, _ in silent_ones:
            assert await reader.read() == b""
        await side.until(lambda: not side.worker.opening)
        assert side.counter("rejected", reason="handshake") == 4
        reader, writer = await secure(side.port, trust)
        writer.write(get())
        assert (await read_message(reader)).status == 200
        assert side.counter("connections_open") == 1
        writer.close()
        await side.until(lambda: side.counter("connections_open") == 0)


@pytest.mark.anyio
async def test_clients_that_break_off_their_handshake_leave_nothing(tmp_path: Path) -> None:
    server = await Server(OK).start()
    plan, trust = encrypted(plan_for(server.port), tmp_path)
    async with sidecar(plan) as side:
        for data in (b"", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00"):
            _, writer = await side.connect()
            await side.until(lambda: len(side.worker.opening) == 1)
            writer.write(data)
            writer.close()
            await side.until(lambda: not side.worker.opening)
        assert side.counter("rejected", reason="handshake") == 3
        assert side.counter("connections_open") == 0
        reader, writer = await secure(side.port, trust)
        writer.write(get())
        assert (await read_message(reader)).status == 200
        writer.close()
