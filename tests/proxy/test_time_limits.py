"""Time limits: of pauses and of the first byte, and of the whole only where one is set."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.proxy import (
    INFER,
    OK,
    Server,
    plan_for,
    post,
    read_message,
    sidecar,
    silent,
)
from tests.support.proxy_mirror import challenger, outcomes
from understudy.monitor.config.compile import compile_plan
from understudy.monitor.config.load import parse
from understudy.monitor.errors import ConfigError
from understudy.monitor.evidence.arms import arms_of
from understudy.monitor.routing.plan import Plan, Upstream

EVENTS = 60
HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def stream(pause: float, events: int = EVENTS) -> Server:
    """A model server that sends an event after each pause."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await read_message(reader, request=True)
            writer.write(HEAD)
            for _ in range(events):
                await asyncio.sleep(pause)
                writer.write(b"5\r\nevent\r\n")
            writer.write(b"0\r\n\r\n")

    return Server(handler=script)


def limited(plan: Plan, **limits: float | None) -> Plan:
    return replace(plan, champion=replace(plan.champion, **limits))  # type: ignore[arg-type]


@pytest.mark.anyio
async def test_a_response_that_flows_is_not_cut() -> None:
    """It takes several times as long as a pause or the first byte may."""
    champion = await stream(0.05).start()
    plan = limited(
        plan_for(champion.port),
        total_timeout=None,
        first_byte_timeout=1.0,
        between_bytes_timeout=1.0,
    )
    async with sidecar(plan) as side:
        assert (await side.ask(post())).body == b"event" * EVENTS
        assert side.counter("requests", outcome="ok") == 1


@pytest.mark.anyio
async def test_a_response_that_pauses_for_too_long_is_cut() -> None:
    champion = await silent(HEAD + b"5\r\nevent\r\n").start()
    plan = limited(plan_for(champion.port), total_timeout=None, between_bytes_timeout=0.3)
    async with sidecar(plan) as side:
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await side.ask(post())
        await side.until(lambda: side.counter("requests", outcome="timeout") == 1)


@pytest.mark.anyio
async def test_a_model_server_that_does_not_read_is_late_without_a_total() -> None:
    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.sleep(30)

    champion = await Server(handler=deaf).start(kernel_buffer=4096)
    plan = limited(plan_for(champion.port), total_timeout=None, between_bytes_timeout=60.0)
    async with sidecar(plan, kernel_buffer=4096) as side:
        _, writer = await side.connect()
        writer.write(post(bytes(16), framing=b"Content-Length: 33554432") + bytes((1 << 25) - 16))
        await side.until(side.blocked)
        side.later(0.0)  # notes what has arrived by now
        side.later(30.0)
        assert side.counter("requests", outcome="timeout") == 0
        side.later(61.0)
        assert side.counter("requests", outcome="timeout") == 1


@pytest.mark.anyio
async def test_a_model_server_that_never_asks_for_an_expected_body_is_late() -> None:
    async def quiet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(30)

    champion = await Server(handler=quiet).start()
    plan = limited(plan_for(champion.port), total_timeout=None, between_bytes_timeout=0.3)
    async with sidecar(plan) as side:
        reader, writer = await side.connect()
        writer.write(post(b"", b"Expect: 100-continue", framing=b"Content-Length: 300000"))
        assert (await read_message(reader)).status == 504


@pytest.mark.anyio
async def test_a_model_has_its_own_time_for_the_first_byte() -> None:
    """The slow model has longer than the server's limit; another one does not."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await read_message(reader, request=True)
            await asyncio.sleep(0.8)
            writer.write(OK)

    champion = await Server(handler=script).start()
    plan = limited(plan_for(champion.port), total_timeout=None, first_byte_timeout=0.2)
    slow = replace(plan.models[0], name="slow", paths=("/slow",), first_byte_timeout=30.0)
    async with sidecar(replace(plan, models=(*plan.models, slow))) as side:
        assert (await side.ask(post(path="/slow"))).status == 200
        assert (await side.ask(post(path=INFER))).status == 504


@pytest.mark.anyio
@pytest.mark.parametrize("mirrored", [False, True])
async def test_a_model_has_its_own_limits_of_pauses_and_of_the_whole(mirrored: bool) -> None:
    """A model that thinks within its response, and one whose responses must not be long."""
    server = await stream(0.7, 3).start()
    plan = plan_for(server.port)
    if mirrored:
        champion = await Server(OK).start()
        plan = plan_for(champion.port, challenger(server.port))
    quick = replace(plan.models[0], name="quick", paths=("/quick",), total_timeout=0.2)
    slow = replace(plan.models[0], name="slow", paths=("/slow",), between_bytes_timeout=30.0)
    plan = replace(plan, models=(quick, slow))
    if mirrored:
        (one,) = plan.challengers
        upstream = replace(one.upstream, between_bytes_timeout=0.3, total_timeout=None)
        plan = replace(plan, challengers=(replace(one, upstream=upstream),))
    else:
        plan = limited(plan, between_bytes_timeout=0.3, total_timeout=None)
    async with sidecar(plan) as side:
        role = "mirror" if mirrored else "primary"
        for path, outcome in (("/slow", "ok"), ("/quick", "timeout")):
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                await side.ask(post(path=path))

            def ends(name: str = path[1:], outcome: str = outcome) -> bool:
                return bool(side.counter("requests", model=name, role=role, outcome=outcome))

            await side.until(ends)


@pytest.mark.anyio
async def test_a_pause_of_the_worker_makes_no_one_late() -> None:
    """What arrived while the worker could not run is read before its limits are checked: an answer,
    and the rest of an upload."""
    limit = 2.0
    loop = asyncio.get_running_loop()
    wake, woken = socket.socketpair()
    with socket.create_server(("127.0.0.1", 0)) as server, wake, woken:
        plan = plan_for(server.getsockname()[1], body_timeout=limit, body_rate=1 << 20)
        async with sidecar(limited(plan, first_byte_timeout=limit)) as side:
            reader, writer = await side.connect()
            writer.write(post(b"x" * 1000, b"x-request-id: first"))
            model, _ = await loop.run_in_executor(None, server.accept)
            assert b"first" in await loop.run_in_executor(None, model.recv, 1 << 16)
            with model, socket.create_connection(("127.0.0.1", side.port)) as upload:
                upload.sendall(post(b"ab", framing=b"Content-Length: 4"))
                await side.until(lambda: len(side.exchanges()) == 2)

                def pause() -> None:
                    loop.remove_reader(woken)
                    model.sendall(OK)
                    upload.sendall(b"cd")
                    time.sleep(limit + 0.5)

                # In the middle of the loop's work on what has arrived.
                loop.add_reader(woken, pause)
                wake.send(b"x")
                assert (await read_message(reader)).status == 200
                await side.until(lambda: all(e.request_complete for e in side.exchanges()))
                assert side.counter("rejected") == 0


@pytest.mark.anyio
async def test_a_mirrored_response_flows_as_long_as_the_original_would() -> None:
    champion, other = await Server(OK).start(), await stream(0.05).start()
    slow = await silent(HEAD + b"5\r\nevent\r\n").start()
    for server, outcome in ((other, "ok"), (slow, "timeout")):
        one = challenger(server.port, timeout=None)
        limits = replace(one.upstream, first_byte_timeout=1.0, between_bytes_timeout=1.0)
        async with sidecar(plan_for(champion.port, replace(one, upstream=limits))) as side:
            await side.ask(post())
            await side.until(lambda side=side: bool(outcomes(side)), 20)
            assert outcomes(side) == {outcome: 1}


TEXT = """
version: 1
listen: 127.0.0.1:0
models: [{name: slow, first_byte: 10m}, {name: quick}]
champion: {url: "http://127.0.0.1:1"}
challengers: [{name: candidate, url: "http://127.0.0.1:2"}]
experiments: [{name: trial, model: slow, challengers: [candidate]}]
"""


def test_no_default_cuts_a_response_that_flows() -> None:
    config = parse(TEXT, "f.yaml", Path("/"))
    plan = compile_plan(config, 1)
    upstreams: list[Upstream] = [plan.champion, *(c.upstream for c in plan.challengers)]
    for upstream in upstreams:
        assert upstream.total_timeout is None
        assert (upstream.first_byte_timeout, upstream.between_bytes_timeout) == (120.0, 120.0)
    assert [c.timeout for c in plan.challengers] == [None]
    assert [model.first_byte_timeout for model in plan.models] == [600.0, None]
    limits = arms_of(config, config.experiments[0]).limits_of("candidate")
    assert (limits.first_byte, limits.total) == (600.0, 300.0)


def test_limits_and_overload_of_a_model_reach_the_plan() -> None:
    own = "between_bytes: 5m, total: 1h, overload: [429, 503]"
    config = parse(TEXT.replace("first_byte: 10m", own), "f.yaml", Path("/"))
    slow, quick = compile_plan(config, 1).models
    assert (slow.between_bytes_timeout, slow.total_timeout) == (300.0, 3600.0)
    assert (quick.between_bytes_timeout, quick.total_timeout) == (None, None)
    assert (slow.overload, quick.overload) == ((429, 503), (429,))
    limits = arms_of(config, config.experiments[0]).limits_of("candidate")
    assert (limits.first_byte, limits.total) == (120.0, 3600.0)
    with pytest.raises(ConfigError, match="overload"):
        parse(TEXT.replace("first_byte: 10m", "overload: [200]"), "f.yaml", Path("/"))
