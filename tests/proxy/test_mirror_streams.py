"""Large bodies are mirrored while they arrive, and a challenger never slows the client."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from tests.support.proxy import (
    OK,
    Message,
    Server,
    Sidecar,
    plan_for,
    post,
    read_message,
    sidecar,
)
from tests.support.proxy_mirror import challenger, outcomes
from tests.support.proxy_peer import Peer
from understudy.monitor.proxy.client import ClientConnection
from understudy.monitor.records import record
from understudy.monitor.routing.plan import Plan

MIB = 1 << 20
CHUNKED = b"Transfer-Encoding: chunked"
PAUSES = b"Content-Length: 1000"


def small_capture(plan: Plan) -> Plan:
    """Bodies above 100 bytes are not kept."""
    return replace(plan, capture=replace(plan.capture, max_body_bytes=100))


def chunks(*parts: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)


async def received(side: Sidecar, server: Server, count: int) -> Message:
    await side.until(lambda: len(server.seen) == count)
    return server.seen[-1]


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("raw", "framing"),
    [
        pytest.param(bytes(range(256)) * 20, None, id="a length"),
        pytest.param(chunks(b"x" * 101) + b"0\r\n\r\n", CHUNKED, id="one chunk"),
        pytest.param(
            chunks(b"a" * 60, b"b" * 60, b"c") + b"0;e=1\r\nX-T: 1\r\n\r\n", CHUNKED, id="chunks"
        ),
    ],
)
@pytest.mark.parametrize("size", [17, 1 << 16], ids=["in pieces", "at once"])
async def test_a_body_that_is_not_kept_is_mirrored_as_it_came(
    raw: bytes, framing: bytes | None, size: int
) -> None:
    champion, other = await Server(OK).start(), await Server(OK).start()
    async with sidecar(small_capture(plan_for(champion.port, challenger(other.port)))) as side:
        reader, writer = await side.connect()
        whole = post(raw, b"x-request-id: one", framing=framing)
        for begin in range(0, len(whole), size):
            writer.write(whole[begin : begin + size])
            await asyncio.sleep(0)
        assert (await read_message(reader)).status == 200
        original, mirrored = await received(side, champion, 1), await received(side, other, 1)
        assert mirrored.raw_body == original.raw_body == raw
        for name in ("content-length", "transfer-encoding", "x-request-id"):
            assert mirrored.header(name) == original.header(name)
        assert mirrored.header("x-understudy-mirror") == b"candidate"
        await side.until(lambda: outcomes(side) == {"ok": 1})
        # Its connections are used again, for small requests as well.
        await side.ask(post(b"{}"))
        await side.until(lambda: outcomes(side) == {"ok": 2})
        assert other.connections == 1


@pytest.mark.anyio
async def test_a_challenger_that_does_not_read_never_slows_an_upload() -> None:
    """The champion gets the whole upload while the challenger has read nothing of it."""
    size = 48 * MIB

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        left = size
        while left:
            left -= len(await reader.read(min(left, 1 << 16)))
        writer.write(OK)

    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.sleep(600)

    champion = await Server(handler=take).start()
    other = await Server(handler=deaf).start(kernel_buffer=4096)
    one = challenger(other.port, queue_bytes=2 * MIB)
    peak = 0
    async with sidecar(plan_for(champion.port, one)) as side:
        peer = Peer(side.folder / "records.sock")
        await peer.start()
        reader, writer = await side.connect()
        writer.write(post(b"", framing=b"Content-Length: %d" % size))
        block = bytes(1 << 16)
        for _ in range(size >> 16):
            writer.write(block)
            await writer.drain()
            (client,) = side.worker.clients
            assert isinstance(client, ClientConnection)
            peak = max(peak, side.held())
        assert (await read_message(reader)).status == 200
        # Nothing told it to give up but the queue: it has no time limit that could have passed.
        assert outcomes(side) == {"fell_behind": 1}
        await side.until(lambda: len(peer.records) == 2)
        (mirrored,) = (r for r in peer.records if r.role == record.ROLE_MIRROR)
        assert mirrored.outcome == record.FELL_BEHIND
        assert mirrored.duration_ns > 0
        assert not side.worker.runtime.mirrors[0].held_bytes
        await peer.stop()
    assert peak < 2 * MIB + 2 * MIB, "the queue, and what is on its way to the champion"
    await other.stop()


@pytest.mark.anyio
async def test_the_challenger_gets_each_piece_when_it_arrives() -> None:
    champion = await Server(OK).start()
    pieces: asyncio.Queue[bytes] = asyncio.Queue()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for _ in range(2):
            pieces.put_nowait(await reader.readexactly(500))
        writer.write(OK)
        await reader.read()

    other = await Server(handler=script).start()
    # Longer between the pieces than the challenger may take: its time begins with the last one.
    one = challenger(other.port, timeout=0.3)
    async with sidecar(small_capture(plan_for(champion.port, one))) as side:
        reader, writer = await side.connect()
        writer.write(post(b"a" * 500, framing=PAUSES))
        assert await pieces.get() == b"a" * 500
        await asyncio.sleep(0.7)
        writer.write(b"b" * 500)
        assert await pieces.get() == b"b" * 500
        assert (await read_message(reader)).status == 200
        await side.until(lambda: outcomes(side) == {"ok": 1})


@pytest.mark.anyio
async def test_a_challenger_that_takes_the_body_and_never_answers_is_late() -> None:
    champion = await Server(OK).start()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    other = await Server(handler=script).start()
    one = challenger(other.port, timeout=0.3)
    async with sidecar(small_capture(plan_for(champion.port, one))) as side:
        assert (await side.ask(post(bytes(1000)))).status == 200
        await side.until(lambda: outcomes(side) == {"timeout": 1})


@pytest.mark.anyio
async def test_a_mirrored_upload_ends_with_its_client() -> None:
    champion, other = await Server(OK).start(), await Server(OK).start()
    async with sidecar(small_capture(plan_for(champion.port, challenger(other.port)))) as side:
        _, writer = await side.connect()
        writer.write(post(b"a" * 500, framing=PAUSES))
        await side.until(lambda: other.connections == 1)
        writer.close()
        await side.until(lambda: outcomes(side) == {"cancelled": 1})
        await side.until(lambda: other.closed == 1)
        assert side.counter("requests", role="primary", outcome="incomplete") == 1
        # Nothing is charged to either: the breaker has seen nothing.
        assert side.worker.runtime.mirrors[0].breaker.epoch == 1


@pytest.mark.anyio
async def test_a_challenger_may_answer_before_it_has_the_whole_body() -> None:
    champion = await Server(OK).start()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 No\r\nContent-Length: 0\r\n\r\n")
        await reader.read()

    other = await Server(handler=script).start()
    async with sidecar(small_capture(plan_for(champion.port, challenger(other.port)))) as side:
        reader, writer = await side.connect()
        writer.write(post(b"a" * 500, framing=PAUSES))
        await side.until(lambda: outcomes(side) == {"client_error": 1})
        writer.write(b"b" * 500)
        assert (await read_message(reader)).status == 200
        assert other.closed == 1, "the connection cannot be used again"


@pytest.mark.anyio
async def test_an_expected_body_is_mirrored_once_the_champion_asked_for_it() -> None:
    async def asks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if b"expect" in head.lower():
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        await reader.readexactly(1000)
        writer.write(OK)
        await reader.read()

    champion, other = await Server(handler=asks).start(), await Server(OK).start()
    async with sidecar(small_capture(plan_for(champion.port, challenger(other.port)))) as side:
        reader, writer = await side.connect()
        writer.write(post(b"", b"Expect: 100-continue", framing=PAUSES))
        assert (await read_message(reader)).status == 100
        assert other.connections == 0
        writer.write(bytes(1000))
        assert (await read_message(reader)).status == 200
        mirrored = await received(side, other, 1)
        assert mirrored.body == bytes(1000)
        assert mirrored.header("expect") is None


@pytest.mark.anyio
async def test_what_waits_for_a_connection_to_the_challenger_is_bounded() -> None:
    """Its only connection is busy, so the body would have to wait with us."""
    champion = await Server(OK).start()
    never = asyncio.Event()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_message(reader, request=True)
        await never.wait()

    other = await Server(handler=hang).start()
    one = challenger(other.port, queue_bytes=10_000)
    one = replace(one, upstream=replace(one.upstream, max_connections=1))
    async with sidecar(small_capture(plan_for(champion.port, one))) as side:
        assert (await side.ask(post(b"{}"))).status == 200
        await side.until(lambda: other.connections == 1)
        assert (await side.ask(post(bytes(9_000)))).status == 200
        assert outcomes(side) == {}, "it fits into the queue, and waits"
        assert (await side.ask(post(bytes(9_000)))).status == 200
        await side.until(lambda: outcomes(side) == {"fell_behind": 1})
        never.set()
        for timed in tuple(side.worker.active):
            timed.stop()


@pytest.mark.anyio
async def test_the_records_of_a_large_request_are_those_of_a_pair() -> None:
    champion, other = await Server(OK).start(), await Server(OK).start()
    async with sidecar(small_capture(plan_for(champion.port, challenger(other.port)))) as side:
        peer = Peer(side.folder / "records.sock")
        await peer.start()
        reader, writer = await side.connect()
        writer.write(post(chunks(b"x" * 300), b"x-request-id: big", framing=CHUNKED))
        await side.until(lambda: other.connections == 1)
        await asyncio.sleep(0.5)
        writer.write(chunks(b"y" * 300) + b"0\r\n\r\n")
        await read_message(reader)
        await side.until(lambda: len(peer.records) == 2)
        one, two = sorted(peer.records, key=lambda r: r.role)
        assert one.request_id == two.request_id == b"big"
        assert one.request_size == two.request_size == 600, "payload, without its framing"
        assert one.request_body is two.request_body is None
        assert one.response_body == two.response_body == b"ok"
        assert min(one.duration_ns, two.duration_ns) >= 5e8, "both contain the upload"
        await peer.stop()
