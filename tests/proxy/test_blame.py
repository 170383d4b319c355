"""An outcome names the side that caused it: the client, the model server, the network, or us."""

from __future__ import annotations

import asyncio
import socket
import struct
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.proxy import (
    OK,
    Server,
    Sidecar,
    get,
    plan_for,
    post,
    read_message,
    shrink,
    sidecar,
    silent,
)
from tests.support.proxy_mirror import challenger, outcomes
from understudy.monitor.proxy.breaker import CLOSED, OPEN
from understudy.monitor.records import record
from understudy.monitor.routing.plan import Breaker, Plan
from understudy.monitor.slo import sli

TOO_LARGE = b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig"
BUSY = b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n"
UNTIL_CLOSE = b"HTTP/1.1 413 Too Large\r\n\r\nbig"


def reset(writer: asyncio.StreamWriter) -> None:
    """End the connection with a RST."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def ended(side: Sidecar, **labels: str) -> None:
    await side.until(lambda: side.counter("requests", role="primary", **labels) == 1)


class Refuses:
    """A model server that answers after the first byte of a body, and resets the connection when it
    is told to."""

    def __init__(self, answer: bytes) -> None:
        self.answered, self.go, self.gone = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._answer = answer

    async def start(self) -> Server:
        async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(1)
            await self.go.wait()
            writer.write(self._answer)
            await writer.drain()
            reset(writer)
            self.gone.set()

        return await Server(handler=script).start()


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("answer", "status", "outcome"),
    [
        pytest.param(TOO_LARGE, 413, "client_error", id="whole"),
        pytest.param(TOO_LARGE[:-1], 413, "upstream_reset", id="cut off"),
        pytest.param(b"HTTP/2 413\r\n\r\n", 502, "garbage", id="malformed"),
        pytest.param(b"", 502, "upstream_reset", id="nothing"),
    ],
)
async def test_an_answer_in_the_socket_is_read_before_the_connection_is_called_reset(
    answer: bytes, status: int, outcome: str
) -> None:
    """The model server refuses an upload and is gone before all of it was sent, so that sending the
    next piece fails while the answer waits to be read."""
    refuses = Refuses(answer)
    upstream = await refuses.start()
    async with sidecar(plan_for(upstream.port)) as side:
        reader, writer = await side.connect()
        writer.write(post(bytes(300_000), framing=b"Content-Length: 100000000"))
        pool = side.worker.runtime.champion.pool
        await side.until(lambda: bool(pool.open))
        (connection,) = pool.open
        assert connection.transport is not None
        connection.transport.pause_reading()  # the loop was busy when the answer came
        refuses.go.set()
        await refuses.gone.wait()
        await asyncio.sleep(0.05)
        writer.write(bytes(300_000))
        if outcome == "upstream_reset" and answer:
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 413")
        else:
            message = await read_message(reader)
            assert message.status == status
            assert message.body == b"big" or status == 502
        await ended(side, outcome=outcome)


@pytest.mark.anyio
async def test_an_answer_that_ends_with_the_connection_ends_also_while_the_client_sends() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(UNTIL_CLOSE)
        writer.write_eof()
        await asyncio.sleep(600)

    upstream = await Server(handler=script).start(kernel_buffer=4096)
    async with sidecar(plan_for(upstream.port), kernel_buffer=4096) as side:
        reader, writer = await side.connect()
        writer.write(post(b"", framing=b"Content-Length: 100000000") + bytes(4_000_000))
        message = await read_message(reader)
        assert (message.status, message.body) == (413, b"big")
        await ended(side, outcome="client_error")
        writer.transport.abort()
    await upstream.stop()


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        pytest.param(OK, "ok", id="after the answer"),
        pytest.param(OK[:-1], "upstream_reset", id="within the answer"),
    ],
)
async def test_a_reset_counts_only_if_the_answer_is_not_whole(answer: bytes, outcome: str) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_message(reader, request=True)
        writer.write(answer)
        await writer.drain()
        reset(writer)

    upstream = await Server(handler=script).start()
    async with sidecar(plan_for(upstream.port)) as side:
        reader, writer = await side.connect()
        writer.write(post())
        if outcome == "ok":
            assert (await read_message(reader)).body == b"ok"
            await side.until(lambda: not side.worker.runtime.champion.pool.open)
            writer.write(post())
            assert (await read_message(reader)).body == b"ok", "on a new connection"
        await side.until(lambda: side.counter("requests", outcome=outcome) >= 1)
        assert side.counter("requests") == side.counter("requests", outcome=outcome)


# The client -------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_client_that_closes_its_side_gets_its_answer() -> None:
    """``printf … | nc`` and others: the request is whole, and the client waits."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await read_message(reader, request=True)
            await closed.wait()
            writer.write(OK)

    closed = asyncio.Event()
    upstream = await Server(handler=script).start()
    async with sidecar(plan_for(upstream.port)) as side:
        reader, writer = await side.connect()
        writer.write(post() + post())  # the second one waits for the first
        await side.until(lambda: upstream.connections == 1)
        writer.write_eof()
        (client,) = side.worker.clients
        await side.until(lambda: client.ended_ns > 0)  # type: ignore[attr-defined]
        closed.set()
        assert (await read_message(reader)).body == b"ok"
        assert (await read_message(reader)).body == b"ok"
        assert await reader.read() == b""
        assert side.counter("requests", outcome="ok") == 2


@pytest.mark.anyio
async def test_a_client_that_closed_its_side_and_gets_no_answer_soon_has_left() -> None:
    upstream = await silent().start()
    async with sidecar(plan_for(upstream.port)) as side:
        _, writer = await side.connect()
        writer.write(post())
        await side.until(lambda: upstream.connections == 1)
        writer.write_eof()
        await ended(side, outcome="cancelled")
        await side.until(lambda: upstream.closed == 1)


@pytest.mark.anyio
async def test_a_client_that_closes_its_side_within_a_request_has_left() -> None:
    upstream = await Server(OK).start()
    async with sidecar(plan_for(upstream.port)) as side:
        for body in (b"a", bytes(300_000)):
            reader, writer = await side.connect()
            writer.write(post(body, framing=b"Content-Length: 1000000"))
            await side.until(lambda: bool(side.worker.active))
            writer.write_eof()
            assert await reader.read() == b""
            await side.until(side.settled)
        assert side.counter("requests", outcome="incomplete") == 2


@pytest.mark.anyio
async def test_a_client_that_leaves_since_the_model_server_does_not_read_has_given_up() -> None:
    """It could not send the rest: that is not for it to answer for."""

    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.sleep(600)

    upstream = await Server(handler=deaf).start(kernel_buffer=4096)
    async with sidecar(plan_for(upstream.port), kernel_buffer=4096) as side:
        _, writer = await side.connect()
        writer.write(post(b"", framing=b"Content-Length: 100000000") + bytes(20_000_000))
        await side.until(lambda: bool(side.worker.active))
        await side.stalled(side.held)
        writer.transport.abort()
        (exchange,) = side.worker.active
        exchange.cancel()  # type: ignore[attr-defined]
        await ended(side, outcome="cancelled")
    await upstream.stop()


def large(size: int) -> Server:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_message(reader, request=True)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + bytes(size))
        await reader.read()

    return Server(handler=script)


def quick(plan: Plan) -> Plan:
    return replace(plan, champion=replace(plan.champion, between_bytes_timeout=0.5))


@pytest.mark.anyio
async def test_a_client_that_stops_reading_is_to_blame_itself() -> None:
    upstream = await large(8 << 20).start()
    async with sidecar(quick(plan_for(upstream.port)), kernel_buffer=4096) as side:
        _, writer = await side.connect()
        shrink(writer.get_extra_info("socket"), 4096)
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(post())
        await ended(side, outcome="client_stalled")
        assert not side.counter("requests", outcome="timeout")


@pytest.mark.anyio
async def test_a_client_that_reads_slowly_is_not_cut_off() -> None:
    """What is in the buffers takes it several times as long as a pause may last."""
    size = 400_000
    upstream = await large(size).start()
    async with sidecar(quick(plan_for(upstream.port)), kernel_buffer=4096) as side:
        listener = socket.socket()
        shrink(listener, 4096)
        listener.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(listener, ("127.0.0.1", side.port))
        await loop.sock_sendall(listener, post())
        left, pauses = size, 0
        data = b""
        while b"\r\n\r\n" not in data:
            data += await loop.sock_recv(listener, 100)
        left -= len(data.partition(b"\r\n\r\n")[2])
        while left:
            left -= len(await loop.sock_recv(listener, 2000))
            pauses += 1
            if pauses < 60:
                await asyncio.sleep(0.05)
        await ended(side, outcome="ok")
        listener.close()


# The model server -------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("overload", "status", "outcome"),
    [
        pytest.param((429,), b"429 Busy", "model_overload", id="by default"),
        pytest.param((), b"429 Busy", "client_error", id="a limit by client"),
        pytest.param((429, 503), b"503 Busy", "model_overload", id="another status"),
        pytest.param((429,), b"503 Busy", "server_error", id="not declared"),
    ],
)
async def test_a_model_server_that_says_so_is_overloaded(
    overload: tuple[int, ...], status: bytes, outcome: str
) -> None:
    answer = OK.replace(b"200 OK", status)
    champion, other = await Server(answer).start(), await Server(answer).start()
    one = challenger(other.port, breaker=Breaker(failures=2))
    plan = plan_for(champion.port, one)
    plan = replace(plan, models=(replace(plan.models[0], overload=overload),))
    async with sidecar(plan) as side:
        for _ in range(2):
            message = await side.ask(post())
            assert message.first == b"HTTP/1.1 " + status, "the client gets it as it is"
        await side.until(lambda: outcomes(side) == {outcome: 2})
        assert side.counter("requests", role="primary", outcome=outcome) == 2
        breaker = side.worker.runtime.mirrors[0].breaker
        assert breaker.state == (CLOSED if outcome == "client_error" else OPEN)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("answer", "outcome"),
    [(b"SSH-2.0-nothing\r\n\r\n", "garbage"), (b"HTTP/1.1 200 OK\r\nCont", "upstream_reset")],
)
async def test_a_malformed_answer_is_told_from_a_broken_one(answer: bytes, outcome: str) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_message(reader, request=True)
        writer.write(answer)
        await writer.drain()

    upstream = await Server(handler=script).start()
    async with sidecar(plan_for(upstream.port)) as side:
        message = await side.ask(post())
        assert message.status == 502
        assert b'"outcome": "%b"' % outcome.encode() in message.body
        await ended(side, outcome=outcome)


# The table --------------------------------------------------------------------------------------


def test_every_end_has_a_side() -> None:
    ends = {index for index, name in enumerate(record.OUTCOMES) if name in record.ENDS}
    assert record.SIDES.keys() == ends - {record.OK}
    assert set(record.SIDES.values()) == {"client", "model", "network", "ours"}


def test_objectives_leave_out_what_clients_cause_and_nothing_else() -> None:
    of_clients = {
        record.OUTCOMES[o]
        for o, side in record.SIDES.items()
        if side == record.CLIENT and o != record.CLIENT_ERROR
    }
    assert set(sli.NOT_ASKED) == of_clients
    only_mirrored = record.NOT_SENT | {record.TOO_LARGE, record.FELL_BEHIND}
    rest = {record.OUTCOMES[o] for o in record.SIDES.keys() - only_mirrored}
    assert set(sli.ERRORS) == rest - of_clients - {"client_error"}


def test_the_documented_table_is_what_holds() -> None:
    text = (Path(__file__).parents[2] / "docs" / "failures.md").read_text()
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.partition("## Who is to blame")[2].splitlines()
        if line.startswith("| `")
    ]
    documented = {row[0].strip("`"): row[1] for row in rows}
    sides = {record.OUTCOMES[o]: side for o, side in record.SIDES.items()}
    assert documented == {"ok": "–", **sides}

    def having(word: str, column: int) -> set[str]:
        return {row[0].strip("`") for row in rows if row[column].startswith(word)}

    assert having("error", 3) == set(sli.ERRORS)
    assert having("left out", 3) == set(sli.NOT_ASKED)
    assert having("failure", 5) == {record.OUTCOMES[o] for o in record.CHARGED}


@pytest.mark.anyio
async def test_other_paths_have_the_same_outcomes() -> None:
    upstream = await Server(BUSY).start()
    async with sidecar(plan_for(upstream.port)) as side:
        assert (await side.ask(get("/metrics"))).status == 429
        await side.until(lambda: side.counter("requests", outcome="model_overload") == 1)
