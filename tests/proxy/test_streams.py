"""Streams through a worker: unchanged, timed, counted by what their end says, and recorded."""

from __future__ import annotations

import asyncio
import contextlib
import zlib
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import orjson
import pytest

from tests.support.llm_streams import chunk, delta, sse
from tests.support.proxy import OK, Server, Sidecar, plan_for, post, read_message, sidecar
from tests.support.proxy_mirror import challenger
from tests.support.proxy_peer import Peer
from understudy.common.codecs.detect import by_path
from understudy.common.events import decode_times
from understudy.monitor.archive.lines import read_record, record_line
from understudy.monitor.errors import RecordError
from understudy.monitor.proxy.routes import protocols_of
from understudy.monitor.records.encode import encode
from understudy.monitor.records.record import (
    OUTCOMES,
    ROLE_MIRROR,
    ROLE_PRIMARY,
    Record,
    decode_batch,
)
from understudy.monitor.routing.plan import Challenger, Model, Plan

CHAT = "/v1/chat/completions"
ANSWER = sse(chunk(delta(content="a")), chunk(delta("stop", content="b")), "[DONE]")


def plan(port: int, *challengers: Challenger) -> Plan:
    return replace(
        plan_for(port, *challengers), models=(Model("m", "1", "auto", (CHAT, "/api/chat")),)
    )


def chunked(body: bytes, kind: bytes = b"text/event-stream", size: int = 7) -> bytes:
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(
        (
            b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nTransfer-Encoding: chunked\r\n\r\n" % kind,
            *(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces),
            b"0\r\n\r\n",
        )
    )


def plain(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: %d\r\n\r\n%b" % (
        len(body),
        body,
    )


def unframed(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + body


@contextlib.asynccontextmanager
async def recorded(of: Plan) -> AsyncIterator[tuple[Sidecar, Peer]]:
    """A worker, and the records that it sends."""
    async with sidecar(of) as side:
        peer = Peer(side.folder / "records.sock")
        await peer.start()
        yield side, peer
        await peer.stop()


async def record_of(side: Sidecar, peer: Peer, role: int = ROLE_PRIMARY) -> Record:
    def found() -> list[Record]:
        side.worker._handoff.flush()
        return [one for one in peer.records if one.role == role]

    await side.until(lambda: bool(found()))
    return found()[0]


@pytest.mark.anyio
@pytest.mark.parametrize("framed", [chunked, plain, unframed])
@pytest.mark.parametrize(
    ("body", "outcome"),
    [
        pytest.param(ANSWER, "ok", id="ok"),
        pytest.param(
            sse(chunk(delta(content="a")), {"error": {"message": "x"}}, "[DONE]"),
            "stream_error",
            id="error",
        ),
        pytest.param(sse(chunk(delta(content="a"))), "truncated", id="truncated"),
    ],
)
async def test_its_end_decides_and_the_bytes_are_the_same(
    framed: Callable[[bytes], bytes], body: bytes, outcome: str
) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_message(reader, request=True)
        writer.write(framed(body))
        if framed is not unframed:
            await reader.read()

    upstream = await Server(handler=script).start()
    async with recorded(plan(upstream.port)) as (side, peer):
        message = await side.ask(post(path=CHAT))
        assert message.body == body
        await side.until(lambda: side.counter("requests", outcome=outcome) == 1)
        events = body.count(b"\n\n")
        assert side.counter("stream_events", outcome=outcome) == events
        assert side.counter("first_event") == 1
        record = await record_of(side, peer)
        assert OUTCOMES[record.outcome] == outcome
        assert record.response_body == body
        times = decode_times(record.events)
        assert times is not None
        assert times.events == len(times.first) == events
        assert 0 < times.first[0] <= record.duration_ns / 1000
    await upstream.stop()


@pytest.mark.anyio
async def test_a_plain_answer_has_no_events() -> None:
    upstream = await Server(OK).start()
    async with recorded(plan(upstream.port)) as (side, peer):
        await side.ask(post(path=CHAT))
        record = await record_of(side, peer)
        assert (record.events, record.response_body) == (b"", b"ok")
        assert side.counter("stream_events") == 0
    await upstream.stop()


@pytest.mark.anyio
@pytest.mark.parametrize("size", [150, 1000, 1 << 20])
async def test_a_long_stream_is_recorded_to_its_end(size: int) -> None:
    """Far beyond the limit of captures, in small chunks and in large ones."""
    count = 12_000
    event = chunk(delta(content="of no importance"))
    body = sse(
        *[event] * count, chunk(delta("length")), chunk(usage={"prompt_tokens": 1}), "[DONE]"
    )
    sent = chunked(body, size=size)

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_message(reader, request=True)
        writer.write(sent)
        await writer.drain()
        await reader.read()

    upstream = await Server(handler=script).start()
    async with recorded(plan(upstream.port)) as (side, peer):
        limit = side.worker.runtime.capture_limit
        assert len(body) > 4 * limit
        message = await side.ask(post(path=CHAT))
        assert message.raw_body == sent.partition(b"\r\n\r\n")[2]
        record = await record_of(side, peer)
        assert record.response_body is not None
        assert len(record.response_body) <= limit
        assert record.response_headers.endswith(b"content-encoding: deflate")
        assert zlib.decompressobj(-15).decompress(record.response_body) == body
        times = decode_times(record.events)
        assert times is not None
        assert times.events == count + 3
        assert side.worker.runtime.memory.used == 0
    await upstream.stop()


@pytest.mark.anyio
async def test_a_client_that_leaves_keeps_its_first_event() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_message(reader, request=True)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        while not reader.at_eof() and not writer.is_closing():
            writer.write(sse(chunk(delta(content="a"))))
            await asyncio.sleep(0.01)

    upstream = await Server(handler=script).start()
    async with recorded(plan(upstream.port)) as (side, peer):
        reader, writer = await side.connect()
        writer.write(post(path=CHAT))
        await reader.readuntil(b"}]}\n\n")
        writer.transport.abort()
        record = await record_of(side, peer)
        assert OUTCOMES[record.outcome] == "cancelled"
        times = decode_times(record.events)
        assert times is not None
        assert times.events >= 1
        assert record.response_body is None
        assert side.counter("first_event", outcome="cancelled") == 1
    await upstream.stop()


@pytest.mark.anyio
async def test_mirrored_streams_are_judged_alike() -> None:
    champion = await Server(chunked(ANSWER)).start()
    other = await Server(chunked(sse(chunk(delta(content="a")), {"error": "boom"}))).start()
    async with recorded(plan(champion.port, challenger(other.port))) as (side, peer):
        assert (await side.ask(post(path=CHAT))).body == ANSWER
        record = await record_of(side, peer, ROLE_MIRROR)
        assert OUTCOMES[record.outcome] == "stream_error"
        assert decode_times(record.events) is not None
        assert side.counter("mirror", outcome="stream_error") == 1
    await champion.stop()
    await other.stop()


@pytest.mark.anyio
async def test_streams_of_http2_are_timed_and_kept_alike() -> None:
    upstream = await Server(chunked(ANSWER)).start()
    async with sidecar(plan(upstream.port)) as back:
        of_front = plan(back.port)
        of_front = replace(of_front, champion=replace(of_front.champion, http2=True))
        async with recorded(of_front) as (front, peer):
            assert (await front.ask(post(path=CHAT))).body == ANSWER
            record = await record_of(front, peer)
            assert record.response_body == ANSWER
            times = decode_times(record.events)
            assert times is not None
            assert times.events == ANSWER.count(b"\n\n")
            assert front.counter("stream_events", outcome="ok") == times.events
    await upstream.stop()


@pytest.mark.anyio
async def test_a_client_that_does_not_read_is_no_stall_of_the_model() -> None:
    event = sse(chunk(delta(content="x" * 30_000)))
    count = 60

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_message(reader, request=True)
        writer.write(chunked(event * count + ANSWER, size=1 << 14))
        await writer.drain()
        await reader.read()

    upstream = await Server(handler=script).start(kernel_buffer=16_384)
    async with sidecar(plan(upstream.port), kernel_buffer=16_384) as side:
        peer = Peer(side.folder / "records.sock")
        await peer.start()
        reader, writer = await side.connect()
        writer.write(post(path=CHAT))
        await side.until(side.choked)
        await side.stalled(lambda: side.held())
        message = await read_message(reader)
        assert message.body == event * count + ANSWER
        record = await record_of(side, peer)
        times = decode_times(record.events)
        assert times is not None
        assert times.blocked > 0
        assert times.excused
        await peer.stop()
    await upstream.stop()


def test_records_without_events_are_as_before_and_those_with_survive() -> None:
    for events in (b"", b"times"):
        for body in (None, b"", b"body"):
            _, parts = encode(
                0, 0, 200, 0, 0, 1.5, 10, 5, 0, 0, 2, b"id", b"t", b"", b"/", b"", b"", b"ask", body,
                events=events,
            )  # fmt: skip
            data = b"".join(parts)
            (one,) = decode_batch(data)
            assert (one.events, one.response_body, one.request_body) == (events, body, b"ask")
            (again,) = decode_batch(read_record(orjson.loads(record_line(one))["record"]))
            assert (again.events, again.response_body) == (events, body)
            for size in range(1, len(data)):
                with pytest.raises(RecordError):
                    decode_batch(data[:size])


@pytest.mark.parametrize(
    ("path", "protocol"),
    [
        ("/v1/chat/completions", "openai-chat"),
        ("/openai/v1/chat/completions", "openai-chat"),
        ("/openai/deployments/gpt/chat/completions", "openai-chat"),
        ("/v1/completions", "openai-completions"),
        ("/completions", "openai-completions"),
        ("/serving/v1/responses", "openai-responses"),
        ("/v1/embeddings", "openai-embeddings"),
        ("/rerank", "openai-embeddings"),
        ("/anthropic/v1/messages", "anthropic-messages"),
        ("/v2/models/m/generate", "triton-generate"),
        ("/v2/models/m/versions/3/generate_stream", "triton-generate"),
        ("/generate_stream", "tgi"),
        ("/api/generate", "ollama"),
        ("/api/chat", "ollama"),
        ("/v2/models/m/infer", "open-inference-v2"),
        ("/our/completions", "auto"),
    ],
)
def test_workers_and_codecs_name_protocols_alike(path: str, protocol: str) -> None:
    assert protocols_of(Model("m", "1", "auto", (path,))) == [protocol]
    assert (by_path(path) or "auto") == protocol
