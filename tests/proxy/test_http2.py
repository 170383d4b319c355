"""HTTP/2 on both sides: curl, a chain of two sidecars, and peers that abuse the protocol."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import ssl
import struct
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.certificates import self_signed
from tests.support.proxy import OK, Server, Sidecar, echo, get, plan_for, post, sidecar
from understudy.common import http2 as engine
from understudy.monitor.routing.plan import ListenTls, Tls

CURL = shutil.which("curl")
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADERS, RST, SETTINGS, PING, GOAWAY, CONTINUATION = 1, 3, 4, 6, 7, 9
# :method GET, :scheme http, :path /, :authority "a", without the dynamic table.
GET = b"\x82\x86\x84\x01\x01a"


def frame(kind: int, payload: bytes = b"", flags: int = 0, stream: int = 0) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


async def ended(reader: asyncio.StreamReader) -> bytes:
    """All that is sent until the connection closes."""
    data = b""
    async with asyncio.timeout(20):
        with contextlib.suppress(ConnectionError):
            while part := await reader.read(1 << 16):
                data += part
    return data


async def send(writer: asyncio.StreamWriter, data: bytes) -> None:
    with contextlib.suppress(ConnectionError):
        writer.write(data)
        await writer.drain()


async def curl(*arguments: str) -> tuple[str, bytes]:
    """The version of HTTP and the status, and the body."""
    assert CURL is not None
    command = (CURL, "-s", "-w", "\n%{http_version} %{http_code}", *arguments)
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    said, _ = await process.communicate()
    body, _, last = said.rpartition(b"\n")
    return last.decode(), body


@pytest.mark.anyio
@pytest.mark.skipif(CURL is None, reason="NOT TESTED: curl over HTTP/2: curl is not installed")
async def test_curl_over_h2c_to_a_server_of_http1(tmp_path: Path) -> None:
    upstream = await Server(echo).start()
    large = tmp_path / "large"
    large.write_bytes(b"x" * 3_000_000)
    async with sidecar(plan_for(upstream.port)) as side:
        url = f"http://127.0.0.1:{side.port}/v2/models/m/infer"
        said = await curl("--http2-prior-knowledge", url)
        assert said == ("2 200", b"/v2/models/m/infer|")
        said = await curl("--http2-prior-knowledge", "--data", "{}", url)
        assert said == ("2 200", b"/v2/models/m/infer|{}")
        said = await curl("--http2-prior-knowledge", "--data-binary", f"@{large}", url)
        assert said == ("2 200", b"/v2/models/m/infer|" + large.read_bytes())
        assert (await curl("--http2-prior-knowledge", "-I", url))[0] == "2 200"
        assert (await curl(url))[0] == "1.1 200"
        assert side.counter("requests", outcome="ok", model="m") == 5
    first = upstream.seen[1]
    assert first.header("host") == f"127.0.0.1:{side.port}".encode()
    assert first.header("content-length") == b"2"
    await upstream.stop()


@pytest.mark.anyio
@pytest.mark.skipif(CURL is None, reason="NOT TESTED: curl over HTTP/2: curl is not installed")
async def test_http2_is_agreed_on_in_the_tls_handshake(tmp_path: Path) -> None:
    files = self_signed(tmp_path, "first", "localhost")
    upstream = await Server(echo).start()
    plan = replace(plan_for(upstream.port), tls=ListenTls(*map(str, files)))
    async with sidecar(plan) as side:
        url = f"https://localhost:{side.port}/x"
        assert await curl("--cacert", str(files[0]), url) == ("2 200", b"/x|")
        assert await curl("--http1.1", "--cacert", str(files[0]), url) == ("1.1 200", b"/x|")
        # And to a model server: another sidecar, which speaks both.
        outer = replace(
            plan_for(side.port),
            champion=replace(
                plan_for(side.port).champion, http2=True, tls=Tls(True, str(files[0]), "localhost")
            ),
        )
        async with sidecar(outer) as front:
            assert (await front.ask(post(b"{}"))).body == b"/v2/models/m/infer|{}"
            assert front.counter("upstream_connects") == 1
    await upstream.stop()


@pytest.mark.anyio
async def test_a_server_without_http2_over_tls_cannot_be_reached(tmp_path: Path) -> None:
    chain, key = self_signed(tmp_path, "model", "model.test")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, key)
    upstream = await Server().start(tls=context)
    plan = plan_for(upstream.port)
    champion = replace(plan.champion, http2=True, tls=Tls(True, str(chain), "model.test"))
    async with sidecar(replace(plan, champion=champion)) as side:
        assert (await side.ask(post())).status == 502
        assert side.counter("upstream_connect_failures", reason="tls") >= 1
    await upstream.stop()


@contextlib.asynccontextmanager
async def chain(upstream: Server) -> AsyncIterator[tuple[Sidecar, Sidecar]]:
    """HTTP/1.1 to one sidecar, HTTP/2 from it to the next, and HTTP/1.1 to ``upstream``."""
    async with sidecar(plan_for(upstream.port)) as back:
        plan = plan_for(back.port)
        plan = replace(plan, champion=replace(plan.champion, http2=True))
        async with sidecar(plan) as front:
            yield front, back


@pytest.mark.anyio
async def test_bodies_of_every_framing_pass_a_chain() -> None:
    upstream = await Server(echo).start()
    async with chain(upstream) as (front, back):
        assert (await front.ask(post(b"{}"))).body == b"/v2/models/m/infer|{}"
        large = bytes(range(256)) * 8_000
        assert (await front.ask(post(large))).body == b"/v2/models/m/infer|" + large
        chunks = b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in (b"a" * 70_000, b"b" * 300_000))
        raw = post(chunks + b"0\r\n\r\n", framing=b"Transfer-Encoding: chunked")
        assert (
            await front.ask(raw)
        ).body == b"/v2/models/m/infer|" + b"a" * 70_000 + b"b" * 300_000
        assert (await front.ask(get("/x?y=1"))).body == b"/x?y=1|"
        assert (await front.ask(get("/x", method=b"HEAD"), to_head=True)).status == 200
        assert back.counter("connections_accepted") == 1
        assert (
            back.counter("requests", outcome="ok") == front.counter("requests", outcome="ok") == 5
        )
    await upstream.stop()


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("answer", "status", "body"),
    [
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
        (b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", 503, b""),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            200,
            b"abc",
        ),
    ],
)
async def test_answers_of_every_framing_pass_a_chain(
    answer: bytes, status: int, body: bytes
) -> None:
    upstream = await Server(answer).start()
    async with chain(upstream) as (front, _):
        for _ in range(2):
            message = await front.ask(post(b"{}"))
            assert (message.status, message.body) == (status, body)
    await upstream.stop()


@pytest.mark.anyio
async def test_a_reset_flood_ends_the_connection_and_no_other(tmp_path: Path) -> None:
    upstream = await Server(echo).start()
    async with sidecar(plan_for(upstream.port)) as side:
        reader, writer = await side.connect()
        data = PREFACE + frame(SETTINGS)
        for stream in range(1, 8001, 2):
            data += frame(HEADERS, GET, 5, stream) + frame(RST, struct.pack(">I", 8), 0, stream)
        await send(writer, data)
        answer = await ended(reader)
        writer.close()
        assert frame(GOAWAY)[3:4] in answer
        await side.until(side.settled)
        # Those that were begun are the last ones of a read, whose reset is in the next one.
        assert side.counter("requests") <= 20
        assert side.counter("rejected", reason="reset") >= engine.RESETS[0]
        assert (await side.ask(post(b"{}"))).status == 200
    await upstream.stop()


def _fields(size: int) -> bytes:
    """A field with a long value, without the dynamic table."""
    return b"\x00\x01x\x7f" + _integer(size - 127) + b"v" * size


def _integer(number: int) -> bytes:
    out = b""
    while number >= 128:
        out += bytes([number % 128 + 128])
        number //= 128
    return out + bytes([number])


FLOODS = {
    "continuations": frame(HEADERS, GET, 0, 1) + frame(CONTINUATION, b"", 0, 1) * 5000,
    "large fields": frame(HEADERS, GET + _fields(16_000), 0, 1)
    + frame(CONTINUATION, _fields(16_000), 0, 1) * 100,
    # One entry of the dynamic table, named thousands of times.
    "bomb": frame(HEADERS, GET + b"\x40\x01x\x7f" + _integer(3900 - 127) + b"v" * 3900, 0, 1)
    + frame(CONTINUATION, b"\xbe" * 16_000, 4, 1),
    "settings": frame(SETTINGS, struct.pack(">HI", 4, 65535) * 6) * 20_000,
    "too many settings": frame(SETTINGS, struct.pack(">HI", 4, 65535) * 2000),
    "garbage": b"\x00\x00\x05\xff\xff\xff\xff\xff\xff" * 9000 + b"\x00" * 4000,
    "even stream": frame(HEADERS, GET, 5, 2),
    "data without a request": frame(0, b"x", 0, 1),
    "a window beyond the limit": frame(8, struct.pack(">I", 0x7FFFFFFF)) * 2,
}


@pytest.mark.anyio
@pytest.mark.parametrize("flood", FLOODS)
async def test_a_flood_ends_its_own_connection_only(flood: str) -> None:
    upstream = await Server(echo).start()
    async with sidecar(plan_for(upstream.port)) as side:
        reader, writer = await side.connect()
        sending = asyncio.create_task(send(writer, PREFACE + frame(SETTINGS) + FLOODS[flood]))
        await ended(reader)
        await sending
        writer.close()
        await side.until(lambda: not side.worker.clients)
        assert not upstream.seen
        assert (await side.ask(post(b"{}"))).status == 200
    await upstream.stop()


@pytest.mark.anyio
async def test_a_peer_that_pings_and_does_not_read_ends_bounded() -> None:
    upstream = await Server(echo).start()
    async with sidecar(plan_for(upstream.port), kernel_buffer=8192) as side:
        _, writer = await side.connect()
        await send(writer, PREFACE + frame(SETTINGS))
        with contextlib.suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(20):
                while side.worker.clients or not side.counter("connections_accepted"):
                    writer.write(frame(PING, b"12345678") * 1000)
                    await writer.drain()
        await side.until(lambda: not side.worker.clients)
        assert (await side.ask(post(b"{}"))).status == 200
    await upstream.stop()


@pytest.mark.anyio
async def test_a_client_with_a_window_of_zero_holds_no_more_than_its_marks() -> None:
    size = 4_000_000
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size
    upstream = await Server(answer).start()
    async with sidecar(plan_for(upstream.port)) as side:
        _, writer = await side.connect()
        data = PREFACE + frame(SETTINGS, struct.pack(">HI", 4, 0))
        for stream in range(1, 21, 2):
            data += frame(HEADERS, GET, 5, stream)
        await send(writer, data)
        await side.until(lambda: len(upstream.seen) == 10)
        await side.until(side.choked)
        (client,) = side.worker.clients
        await side.stalled(lambda: client.engine.queued_body_size())
        # A mark, and a read of the model server that was under way, for each.
        assert client.engine.queued_body_size() <= 10 * (64 + 512) * 1024
        assert side.worker.runtime.memory.used >= client.engine.queued_body_size()
        assert (await side.ask(post(b"{}"))).status == 200
        writer.close()
    await upstream.stop()


@pytest.mark.anyio
async def test_a_preface_in_pieces_and_one_that_comes_late() -> None:
    upstream = await Server(echo).start()
    async with sidecar(plan_for(upstream.port)) as side:
        reader, writer = await side.connect()
        data = PREFACE + frame(SETTINGS) + frame(HEADERS, GET, 5, 1)
        for at in range(len(data)):
            await send(writer, data[at : at + 1])
            await asyncio.sleep(0)
        async with asyncio.timeout(20):
            found = b""
            while b"/|" not in found:
                found += await reader.read(4096)
        writer.close()
        # After a request of HTTP/1.1 it is no request.
        reader, writer = await side.connect()
        await send(writer, post(b"{}"))
        await reader.readuntil(b"{}")
        await send(writer, PREFACE)
        assert b" 400 " in await ended(reader)
        writer.close()
    await upstream.stop()


@pytest.mark.anyio
async def test_a_client_that_does_not_read_a_large_answer_stops_its_server_only() -> None:
    part, parts = b"x" * 65_536, 4_000  # a quarter of a gigabyte
    sent = 0

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        while b"/x" not in await reader.readuntil(b"\r\n\r\n"):
            writer.write(OK)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (len(part) * parts))
        for _ in range(parts):
            writer.write(part)
            await writer.drain()
            sent += len(part)

    upstream = await Server(handler=script).start(kernel_buffer=65_536)
    async with chain(upstream) as (front, back):
        _, writer = await front.connect()
        writer.write(get("/x"))
        await front.until(front.choked)
        await front.stalled(lambda: sent)
        assert sent < 32 * 1024 * 1024
        (client,) = back.worker.clients
        assert client.engine.queued_body_size() <= 2 * 1024 * 1024
        # Its other streams go on, though the first has filled its window.
        for _ in range(3):
            assert (await front.ask(get("/y"))).body == b"ok"
        assert len(front.worker.runtime.champion.pool.open) == 1
        writer.close()
    await upstream.stop()
