"""Limits on the pieces of a message, and shares of the event loop's turns."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.forms import in_python
from tests.support.proxy import OK, Server, get, plan_for, post, read_message, sidecar
from tests.support.proxy_mirror import challenger, outcomes
from understudy.monitor.errors import HttpError
from understudy.monitor.proxy.framing import OVERHEAD_LIMIT, Chunked
from understudy.monitor.proxy.turns import PIECES, PacedConnection, Turns, merge

CHUNKED_OK = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
INTERIM = b"HTTP/1.1 103 Early Hints\r\n\r\n"

# The parser ---------------------------------------------------------------------------------------

LINE = st.sampled_from(
    [b"1", b"3", b"a", b"0", b"00002", b"1;a", b'2;b="c"', b"x", b"1;" + b"e" * 30]
)
TEXT = st.lists(st.one_of(LINE, st.binary(max_size=12), st.just(b"abc")), max_size=30)


def parsed(stream: bytes, cuts: list[int], limit: int) -> tuple[object, ...]:
    """What a body's parser makes of a stream in these cuts, with ``limit`` lines in a turn."""
    body, pieces = Chunked(), []
    taken = 0
    error = ""
    try:
        for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
            piece = stream[begin:end]
            while piece and not body.done:
                consumed = body.feed(piece, pieces, limit)
                assert body.lines <= limit
                assert consumed > 0
                taken += consumed
                piece = piece[consumed:]
    except HttpError as fault:
        return fault.reason, fault.detail, b"".join(pieces)
    return error, body.done, body.size, body.framed, taken, b"".join(pieces)


@given(TEXT, st.lists(st.integers(0, 200), max_size=6), st.integers(1, 8))
def test_any_bound_on_lines_in_a_turn_gives_the_same_body(
    parts: list[bytes], cuts: list[int], limit: int
) -> None:
    stream = b"\r\n".join(parts)
    cuts = sorted(min(cut, len(stream)) for cut in cuts)
    whole = parsed(stream, [], 1 << 30)
    assert parsed(stream, [], limit) == whole
    cut = parsed(stream, cuts, limit)
    # Where a fault is found in a line depends on how it is cut, and nothing else does.
    assert cut == whole or (cut[0] and cut[0] == whole[0])


@given(
    st.lists(st.tuples(st.binary(min_size=1, max_size=9), st.integers(0, 40)), max_size=20),
    st.integers(1, 5),
    st.integers(1, 30),
)
def test_a_valid_body_is_followed_with_any_bound(
    chunks: list[tuple[bytes, int]], limit: int, step: int
) -> None:
    framed = b"".join(
        b"%x%b\r\n%b\r\n" % (len(data), b";" + b"e" * extension if extension else b"", data)
        for data, extension in chunks
    )
    stream = framed + b"0\r\nX-T: 1\r\n\r\n"
    cuts = list(range(step, len(stream), step))
    payload = b"".join(data for data, _ in chunks)
    expected = ("", True, len(payload), len(stream), len(stream), payload)
    assert parsed(stream + b"GET", cuts, limit) == expected


def test_extensions_may_exceed_the_payload_by_an_allowance() -> None:
    chunk = b"1;%b\r\na\r\n" % (b"e" * 496)
    line = len(chunk) - 3
    allowed = OVERHEAD_LIMIT // line
    Chunked().feed(chunk * allowed, None)
    with pytest.raises(HttpError) as caught:
        Chunked().feed(chunk * (allowed + 1), None)
    assert (caught.value.status, caught.value.reason) == (400, "chunk_overhead")
    # A signature for each chunk, as some storage clients send, is far below.
    signed = b"400;chunk-signature=%b\r\n%b\r\n" % (b"a" * 64, b"d" * 1024)
    assert Chunked().feed(signed * 1000, None) == 1000 * len(signed)
    # Small chunks without extensions are slow, but nothing that has to be refused.
    assert Chunked().feed(b"1\r\na\r\n" * 100_000, None) == 600_000


@given(st.lists(st.binary(max_size=3), min_size=1, max_size=400))
def test_merged_pieces_are_few_and_the_same(parts: list[bytes]) -> None:
    pieces: list[bytes] = []
    for part in parts:
        pieces.append(part)
        merge(pieces)
        assert len(pieces) <= 65
    assert b"".join(pieces) == b"".join(parts)


# Turns --------------------------------------------------------------------------------------------


class Waiting:
    """A connection that counts its turns."""

    def __init__(self, turns: Turns, work: int) -> None:
        self.turns, self.work = turns, work
        self.served = 0

    def go_on(self) -> None:
        self.served += 1
        self.turns.spend(self.work)
        self.turns.wait(self)  # type: ignore[arg-type]


@in_python
@pytest.mark.anyio
async def test_waiting_connections_are_served_in_turn() -> None:
    loop = asyncio.get_running_loop()
    turns = Turns(loop, 100)
    light, heavy = Waiting(turns, 1), Waiting(turns, 1000)
    for connection in (light, heavy):
        turns.wait(connection)  # type: ignore[arg-type]
    for _ in range(40):
        await asyncio.sleep(0)
    assert light.served > 10
    assert abs(light.served - heavy.served) <= 1


class Reading(asyncio.Transport):
    """A transport that counts how often its connection goes on reading."""

    resumed = 0

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        self.resumed += 1


class Large(PacedConnection):
    """A connection of which each read has 256 KiB."""

    def data_received(self, data: bytes) -> None:
        self._spend(len(data))


@pytest.mark.anyio
async def test_few_connections_with_large_reads_go_on_in_one_turn() -> None:
    """Each of them reads before it can be told to wait, so that all together would take a turn of
    many times its budget."""
    turns = Turns(asyncio.get_running_loop(), 256)
    connections = [Large(turns) for _ in range(20)]
    for connection in connections:
        connection.transport = Reading()
        for _ in range(3):
            connection.data_received(b"x" * (256 << 10))
    resumed = 0
    for _ in range(10):
        await asyncio.sleep(0)
        before, resumed = resumed, sum(c.transport.resumed for c in connections)  # type: ignore[union-attr]
        assert resumed - before <= 2
    assert resumed >= 5


@in_python
@pytest.mark.anyio
async def test_a_queue_with_a_pause_leaves_the_turns_between_to_others() -> None:
    turns = Turns(asyncio.get_running_loop(), 100, pause=3600.0)
    waiting = Waiting(turns, 1)
    turns.wait(waiting)  # type: ignore[arg-type]
    for _ in range(40):
        await asyncio.sleep(0)
    assert waiting.served == 0


# Requests -----------------------------------------------------------------------------------------


def lines(count: int) -> list[bytes]:
    return [b"x-%d: y" % number for number in range(count)]


@pytest.mark.anyio
async def test_header_lines_of_a_request_are_limited() -> None:
    champion = await Server(OK).start()
    async with sidecar(plan_for(champion.port)) as side:
        # Host and Content-Length are two more.
        assert (await side.ask(post(b"{}", *lines(126)))).status == 200
        answer = await side.ask(post(b"{}", *lines(127)))
        assert answer.status == 431
        assert b"more than 128 header" in answer.body
        assert side.counter("rejected", reason="header_lines") == 1
        assert len(champion.seen) == 1


@pytest.mark.anyio
async def test_empty_lines_before_a_request_are_limited() -> None:
    champion = await Server(OK).start()
    async with sidecar(plan_for(champion.port)) as side:
        assert (await side.ask(b"\r\n" * 64 + get())).status == 200
        assert (await side.ask(b"\r\n" * 65 + get())).status == 400
        assert side.counter("rejected", reason="empty_lines") == 1


@pytest.mark.anyio
@pytest.mark.parametrize("fault", [b"", b"1;" + b"e" * 900 + b"\r\na\r\n"])
async def test_an_upload_of_tiny_chunks_arrives_whole(fault: bytes) -> None:
    """It takes many turns; the request that follows at once is the next one."""
    seen: list[bytes] = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            message = await read_message(reader, request=True)
            seen.append(message.body)
            writer.write(OK)

    champion = await Server(handler=script).start()
    count = 40 * PIECES
    upload = b"1\r\na\r\n" * count + fault * 30
    framing = b"Transfer-Encoding: chunked"
    async with sidecar(plan_for(champion.port)) as side:
        reader, writer = await side.connect()
        writer.write(post(upload + b"0\r\n\r\n", framing=framing) + get("/next"))
        if fault:
            assert (await read_message(reader)).status == 400
            assert side.counter("rejected", reason="chunk_overhead") == 1
            return
        assert (await read_message(reader)).status == 200
        assert (await read_message(reader)).status == 200
        assert seen == [b"a" * count, b""]


@pytest.mark.anyio
async def test_a_client_that_leaves_amid_its_turns_leaves_nothing_behind() -> None:
    champion = await Server(OK).start()
    async with sidecar(plan_for(champion.port)) as side:
        _, writer = await side.connect()
        upload = b"1\r\na\r\n" * (100 * PIECES)
        writer.write(post(upload, framing=b"Transfer-Encoding: chunked"))
        await side.until(lambda: bool(side.worker.active))
        writer.transport.abort()
        await side.until(lambda: side.counter("requests", outcome="incomplete") == 1)


# Responses ----------------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("good", "bad", "reason"),
    [
        (INTERIM * 64 + OK, INTERIM * 65 + OK, "interim"),
        (
            OK.replace(b"\r\n\r\n", b"\r\n%b\r\n\r\n" % b"\r\n".join(lines(127))),
            OK.replace(b"\r\n\r\n", b"\r\n%b\r\n\r\n" % b"\r\n".join(lines(128))),
            "header_lines",
        ),
        (
            INTERIM.replace(b"\r\n\r\n", b"\r\nLink: a\r\n\r\n") * 60 + OK,
            INTERIM.replace(b"\r\n\r\n", b"\r\nLink: a\r\nX: b\r\nY: c\r\n\r\n") * 43 + OK,
            "header_lines",
        ),
        (
            INTERIM.replace(b"\r\n\r\n", b"\r\nX: %b\r\n\r\n" % (b"a" * 4000)) * 16 + OK,
            INTERIM.replace(b"\r\n\r\n", b"\r\nX: %b\r\n\r\n" % (b"a" * 4000)) * 17 + OK,
            "interim",
        ),
        (
            CHUNKED_OK + b"1\r\na\r\n" * 5000 + b"0\r\n\r\n",
            CHUNKED_OK + (b"1;%b\r\na\r\n" % (b"e" * 900)) * 30 + b"0\r\n\r\n",
            "chunk_overhead",
        ),
    ],
)
async def test_pieces_of_a_response_are_limited(good: bytes, bad: bytes, reason: str) -> None:
    answers = [good, bad]
    champion = await Server(lambda _: answers.pop(0)).start()
    async with sidecar(plan_for(champion.port)) as side:
        reader, writer = await side.connect()
        writer.write(get())
        while (message := await read_message(reader)).status < 200:
            pass
        assert message.status == 200
        assert side.counter("responses_refused", arm="champion", reason=reason) == 0
        writer.write(get())
        cut = False
        try:
            while (message := await read_message(reader)).status < 200:
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            cut = True
        # Cut when a part of it was forwarded.
        assert message.status == 502 or (cut and reason == "chunk_overhead")
        assert side.counter("responses_refused", arm="champion", reason=reason) == 1
        assert side.counter("requests", outcome="garbage") == 1


@pytest.mark.anyio
async def test_a_response_of_tiny_chunks_arrives_whole() -> None:
    count = 40 * PIECES
    answer = CHUNKED_OK + b"1\r\na\r\n" * count + b"0\r\n\r\n"
    champion = await Server(answer).start()
    async with sidecar(plan_for(champion.port)) as side:
        reader, writer = await side.connect()
        for _ in range(3):  # the connection to the model server is used again
            writer.write(post())
            assert (await read_message(reader)).body == b"a" * count
        assert champion.connections == 1


@pytest.mark.anyio
async def test_bytes_behind_a_response_of_tiny_chunks_spoil_the_connection() -> None:
    count = 400 * PIECES
    answer = CHUNKED_OK + b"1\r\na\r\n" * count + b"0\r\n\r\n" + OK * 2
    champion = await Server(answer).start()
    async with sidecar(plan_for(champion.port)) as side:
        reader, writer = await side.connect()
        for number in range(1, 4):
            writer.write(post())
            assert (await read_message(reader)).body == b"a" * count
            assert champion.connections == number


@pytest.mark.anyio
async def test_a_mirrored_response_is_limited_as_it_is_on_the_wire() -> None:
    """Payload 4,000 bytes, on the wire 24,000."""
    champion = await Server(OK).start()
    answer = CHUNKED_OK + b"1\r\na\r\n" * 4000 + b"0\r\n\r\n"
    other = await Server(answer).start()
    for limit, outcome in ((10_000, "too_large"), (24_005, "ok"), (24_004, "too_large")):
        async with sidecar(
            plan_for(champion.port, challenger(other.port, max_response_bytes=limit))
        ) as side:
            await side.ask(post())
            await side.until(lambda side=side: bool(outcomes(side)))
            assert outcomes(side) == {outcome: 1}


@pytest.mark.anyio
async def test_interim_responses_count_as_a_part_of_a_mirrored_response() -> None:
    champion = await Server(OK).start()
    other = await Server(INTERIM * 20 + OK).start()
    for limit, outcome in ((100, "too_large"), (20 * len(INTERIM) + 2, "ok")):
        async with sidecar(
            plan_for(champion.port, challenger(other.port, max_response_bytes=limit))
        ) as side:
            await side.ask(post())
            await side.until(lambda side=side: bool(outcomes(side)))
            assert outcomes(side) == {outcome: 1}


@pytest.mark.anyio
async def test_a_slow_client_of_many_chunks_gets_all_of_them() -> None:
    """Backpressure and shares of turns stop the same connection for different reasons."""
    count = 60_000
    champion = await Server(CHUNKED_OK + b"1\r\na\r\n" * count + b"0\r\n\r\n").start()
    async with sidecar(plan_for(champion.port), kernel_buffer=4096) as side:
        reader, writer = await side.connect()
        transport: Any = reader._transport  # type: ignore[attr-defined]
        writer.write(post())
        for _ in range(5):
            transport.pause_reading()
            await asyncio.sleep(0.05)
            transport.resume_reading()
            await asyncio.sleep(0.02)
        assert (await read_message(reader)).body == b"a" * count


@pytest.mark.anyio
async def test_the_limits_are_those_of_the_configuration() -> None:
    champion = await Server(INTERIM * 3 + OK).start()
    plan = plan_for(champion.port)
    few = replace(plan.champion, max_interim=2)
    async with sidecar(replace(plan, champion=few)) as side:
        reader, writer = await side.connect()
        writer.write(get())
        statuses = [(await read_message(reader)).status for _ in range(3)]
        assert statuses == [103, 103, 502]
