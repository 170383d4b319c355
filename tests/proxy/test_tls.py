"""TLS towards clients and towards the model server, with an authority made for the test."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.certificates import Authority, self_signed
from tests.support.proxy import OK, Server, Sidecar, plan_for, post, read_message, sidecar
from understudy.monitor.proxy import worker
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


def asking_for_certificates(chain: Path, key: Path, ca: Path) -> ssl.SSLContext:
    context = serving(chain, key)
    context.load_verify_locations(ca)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def replace_files(old: tuple[Path, Path], new: tuple[Path, Path]) -> None:
    """As Kubernetes replaces those of a secret: other files of the same names."""
    for before, after in zip(old, new, strict=True):
        os.replace(after, before)


@pytest.mark.anyio
async def test_a_certificate_for_the_model_server(tmp_path: Path) -> None:
    authority, stranger = Authority(tmp_path), Authority(tmp_path, "stranger")
    context = asking_for_certificates(*authority.issue("model"), authority.ca)
    upstream = await Server(OK).start(tls=context)

    async def status(certificate: tuple[Path, Path] | None) -> int:
        plan = plan_for(upstream.port)
        own = dict(zip(("certificate", "key"), map(str, certificate or ()), strict=False))
        tls = Tls(ca=str(authority.ca), **own)
        async with sidecar(replace(plan, champion=replace(plan.champion, tls=tls))) as side:
            return (await side.ask(post())).status

    assert await status(authority.issue("ours")) == 200
    assert await status(None) == 502
    assert await status(stranger.issue("other")) == 502


@pytest.mark.anyio
async def test_a_new_certificate_for_the_model_server_is_used_without_a_reload(
    tmp_path: Path,
) -> None:
    first, second = Authority(tmp_path, "first"), Authority(tmp_path, "second")
    chain, key = first.issue("model")
    upstream = await Server(OK).start(tls=asking_for_certificates(chain, key, first.ca))
    port = upstream.port
    ours = second.issue("ours")
    plan = plan_for(port)
    tls = Tls(ca=str(first.ca), certificate=str(ours[0]), key=str(ours[1]))
    async with sidecar(replace(plan, champion=replace(plan.champion, tls=tls))) as side:
        pool = side.worker.runtime.champion.pool
        assert (await side.ask(post())).status == 502
        # The certificate is replaced, and then its key: in between the two do not fit.
        new = first.issue("new")
        os.replace(new[0], ours[0])
        pool.sweep(pool._looked_at + 10.0)
        assert side.counter("certificate_changes", outcome="failed") == 1
        pool.sweep(pool._looked_at + 10.0)
        assert side.counter("certificate_changes", outcome="failed") == 1
        os.replace(new[1], ours[1])
        pool.sweep(pool._looked_at + 10.0)
        assert side.counter("certificate_changes", outcome="ok") == 1
        assert (await side.ask(post())).status == 200
        # Connections that were made with the certificate before are not used any more.
        opened = upstream.connections
        replace_files(ours, first.issue("newer"))
        pool.sweep(pool._looked_at + 10.0)
        await side.until(lambda: not pool.open)
        assert (await side.ask(post())).status == 200
        assert upstream.connections == opened + 1


@pytest.mark.anyio
async def test_a_reload_reads_the_certificate_for_the_model_server(tmp_path: Path) -> None:
    first, second = Authority(tmp_path, "first"), Authority(tmp_path, "second")
    upstream = await Server(OK).start(tls=asking_for_certificates(*first.issue("model"), first.ca))
    ours = second.issue("ours")
    plan = plan_for(upstream.port)
    tls = Tls(ca=str(first.ca), certificate=str(ours[0]), key=str(ours[1]))
    plan = replace(plan, champion=replace(plan.champion, tls=tls))
    async with sidecar(plan) as side:
        assert (await side.ask(post())).status == 502
        replace_files(ours, first.issue("new"))
        side.worker.reload(replace(plan, generation=2))
        assert (await side.ask(post())).status == 200


async def ask_with(side: Sidecar, ca: Path, certificate: tuple[Path, Path] | None = None) -> int:
    """The status that a client with this certificate gets. Raises ConnectionRefusedError when it gets none."""
    trust = ssl.create_default_context(cafile=str(ca))
    if certificate is not None:
        trust.load_cert_chain(*certificate)
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", side.port, ssl=trust, server_hostname="localhost"
    )
    try:
        writer.write(post())
        return (await read_message(reader)).status
    except (asyncio.IncompleteReadError, OSError) as error:
        raise ConnectionRefusedError from error
    finally:
        writer.transport.abort()


@pytest.mark.anyio
async def test_clients_have_to_show_a_certificate(tmp_path: Path) -> None:
    authority, clients, others = (Authority(tmp_path, n) for n in ("servers", "clients", "others"))
    chain, key = authority.issue("listener")
    upstream = await Server(OK).start()
    tls = ListenTls(str(chain), str(key), str(clients.ca))
    plan = replace(plan_for(upstream.port), tls=tls)
    async with sidecar(plan) as side:
        ours, stranger = clients.issue("ours"), others.issue("stranger")
        assert await ask_with(side, authority.ca, ours) == 200
        for certificate in (None, stranger, authority.issue("same-as-the-servers")):
            with pytest.raises(ConnectionRefusedError):
                await ask_with(side, authority.ca, certificate)
        assert len(upstream.seen) == 1
        # A second authority is added to the file, and the first one removed later.
        clients.ca.write_bytes(clients.ca.read_bytes() + others.ca.read_bytes())
        side.worker.reload(replace(plan, generation=2))
        assert await ask_with(side, authority.ca, stranger) == 200
        assert await ask_with(side, authority.ca, ours) == 200
        clients.ca.write_bytes(others.ca.read_bytes())
        side.worker.reload(replace(plan, generation=3))
        assert await ask_with(side, authority.ca, stranger) == 200
        for certificate in (None, ours):
            with pytest.raises(ConnectionRefusedError):
                await ask_with(side, authority.ca, certificate)


@pytest.mark.anyio
async def test_a_new_certificate_of_the_listener_is_used_without_a_reload(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "LOOK_SECONDS", 0.1)
    first, second = Authority(tmp_path, "first"), Authority(tmp_path, "second")
    files = first.issue("listener")
    upstream = await Server(OK).start()
    plan = replace(plan_for(upstream.port), tls=ListenTls(*map(str, files)))
    async with sidecar(plan) as side:
        assert await ask_with(side, first.ca) == 200
        new = second.issue("new")
        # Half of it: what was there stays in use, whole.
        os.replace(new[0], files[0])
        await side.until(lambda: side.counter("certificate_changes", outcome="failed") == 1)
        assert await ask_with(side, first.ca) == 200
        os.replace(new[1], files[1])
        await side.until(lambda: side.counter("certificate_changes", outcome="ok") == 1)
        assert await ask_with(side, second.ca) == 200


@pytest.mark.anyio
async def test_a_reload_with_a_bad_certificate_leaves_the_one_before(tmp_path: Path) -> None:
    first, second = Authority(tmp_path, "first"), Authority(tmp_path, "second")
    chain, key = first.issue("listener")
    other, _ = second.issue("other")
    upstream = await Server(OK).start()
    plan = replace(plan_for(upstream.port), tls=ListenTls(str(chain), str(key)))
    async with sidecar(plan) as side:
        with pytest.raises(ssl.SSLError):
            side.worker.reload(replace(plan, generation=2, tls=ListenTls(str(other), str(key))))
        assert await ask_with(side, first.ca) == 200
