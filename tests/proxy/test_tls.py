"""TLS towards clients and towards the model server, with an authority made for the test."""

from __future__ import annotations

import asyncio
import socket
import ssl
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.certificates import self_signed
from tests.support.proxy import OK, Server, plan_for, post, read_message, sidecar
from understudy.monitor.routing.plan import ListenTls, Tls


def serving(chain: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, key)
    return context


@pytest.mark.anyio
async def test_tls_to_the_model_server(tmp_path: Path) -> None:
    chain, key = self_signed(tmp_path, "model", "model.test")
    other, _ = self_signed(tmp_path, "other", "other.test")

    upstream = await Server(OK).start(tls=serving(chain, key))

    async def status(tls: Tls) -> int:
        plan = plan_for(upstream.port)
        async with sidecar(replace(plan, champion=replace(plan.champion, tls=tls))) as side:
            return (await side.ask(post())).status

    assert await status(Tls(ca=str(chain))) == 200
    assert await status(Tls(ca=str(chain), server_name="model.test")) == 200
    assert await status(Tls(verify=False)) == 200
    # Neither an authority that is not trusted nor a wrong name is passed over.
    assert await status(Tls(ca=str(other))) == 502
    assert await status(Tls(ca=str(chain), server_name="someone.else")) == 502


@pytest.mark.anyio
async def test_tls_on_the_listener_and_a_new_certificate_without_a_restart(tmp_path: Path) -> None:
    first = self_signed(tmp_path, "first", "localhost")
    second = self_signed(tmp_path, "second", "localhost")

    upstream = await Server(OK).start()
    plan = replace(plan_for(upstream.port), tls=ListenTls(*map(str, first)))
    async with sidecar(plan) as side:

        async def ask(ca: Path) -> int:
            trust = ssl.create_default_context(cafile=str(ca))
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", side.port, ssl=trust, server_hostname="localhost"
            )
            for _ in range(2):
                writer.write(post(b"x" * 100_000))
                message = await read_message(reader)
            writer.close()
            return message.status

        assert await ask(first[0]) == 200
        side.worker.reload(replace(plan, generation=2, tls=ListenTls(*map(str, second))))
        assert await ask(second[0]) == 200
        with pytest.raises(ssl.SSLCertVerificationError):
            await ask(first[0])
        # A client that does not speak TLS gets nothing, and does not affect others.
        reader, writer = await asyncio.open_connection("127.0.0.1", side.port)
        writer.write(post())
        assert b"HTTP" not in await reader.read()
        assert await ask(second[0]) == 200
        assert side.counter("requests", outcome="ok") == 6


@pytest.mark.anyio
async def test_tls_handshakes_complete_in_the_accept_queue_of_a_draining_worker(
    tmp_path: Path,
) -> None:
    chain, key = self_signed(tmp_path, "only", "localhost")

    upstream = await Server(OK).start()
    plan = replace(plan_for(upstream.port), tls=ListenTls(str(chain), str(key)))
    async with sidecar(plan) as side:
        client = socket.create_connection(("127.0.0.1", side.port))  # without the loop
        assert side.counter("connections_accepted") == 0
        draining = asyncio.create_task(side.worker.drain())
        await asyncio.sleep(0.1)
        trust = ssl.create_default_context(cafile=str(chain))
        reader, writer = await asyncio.open_connection(
            sock=client, ssl=trust, server_hostname="localhost"
        )
        writer.write(post())
        message = await read_message(reader)
        assert (message.status, message.header("connection")) == (200, b"close")
        writer.close()
        await draining
