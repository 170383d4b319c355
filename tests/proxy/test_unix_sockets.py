"""A model server on a Unix socket."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.proxy import (
    INFER,
    Message,
    Server,
    echo,
    get,
    plan_for,
    post,
    sidecar,
)
from understudy.monitor.routing.plan import Plan


def plan_of(path: Path) -> Plan:
    plan = plan_for(1)
    return replace(
        plan, champion=replace(plan.champion, host="localhost", socket=str(path), path_prefix="/v2")
    )


async def listen(server: Server, path: Path) -> asyncio.Server:
    # Kept by the server, since the loop does not keep it.
    server._server = await asyncio.start_unix_server(server._serve, str(path))
    return server._server


@pytest.mark.anyio
async def test_requests_over_a_unix_socket(tmp_path: Path) -> None:
    upstream = Server(echo)
    await listen(upstream, tmp_path / "model.sock")
    async with sidecar(plan_of(tmp_path / "model.sock")) as side:
        for _ in range(3):
            answer: Message = await side.ask(post(b"{}"))
            assert answer.body == b"/v2" + INFER.encode() + b"|{}"
        assert upstream.connections == 1
        assert (await side.ask(get(version=b"1.0"))).status == 200
        without_host = b"GET /x HTTP/1.0\r\n\r\n"
        assert (await side.ask(without_host)).status == 200
        assert upstream.seen[-1].header("host") == b"localhost"


@pytest.mark.anyio
async def test_a_socket_that_comes_goes_and_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "model.sock"
    async with sidecar(plan_of(path)) as side:
        assert (await side.ask(post())).status == 502
        assert side.counter("upstream_connect_failures", reason="refused") == 2
        upstream = Server(echo)
        server = await listen(upstream, path)
        assert (await side.ask(post())).status == 200
        server.close()
        for writer in tuple(upstream._writers):
            writer.close()
        await side.until(lambda: not side.worker.runtime.champion.pool.open)
        # Its file is still there, and no server listens any more.
        assert (await side.ask(post())).status == 502
        path.unlink(missing_ok=True)
        upstream = Server(echo)
        await listen(upstream, path)
        assert (await side.ask(post())).status == 200
