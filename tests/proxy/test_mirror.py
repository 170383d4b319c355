"""Copies for challengers: exact, bounded, accounted for, and unnoticed by the client."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from tests.support.proxy import (
    INFER,
    OK,
    Message,
    Server,
    get,
    plan_for,
    post,
    read_message,
    reopen,
    sidecar,
)
from tests.support.proxy_mirror import challenger, outcomes
from tests.support.proxy_peer import Peer
from understudy.monitor.proxy.breaker import CLOSED, OPEN
from understudy.monitor.routing.plan import Breaker as BreakerSettings
from understudy.monitor.routing.plan import Plan, Upstream
from understudy.shadow.assignment import point, threshold


@pytest.mark.anyio
async def test_a_mirrored_request_differs_only_in_address_and_marker() -> None:
    champion, other = await Server(OK).start(), await Server(OK).start()
    one = challenger(other.port)
    one = replace(
        one,
        upstream=replace(
            one.upstream, path_prefix="/new", headers=(("x-env", "shadow"), ("x-mine", "0"))
        ),
    )
    async with sidecar(plan_for(champion.port, one)) as side:
        await side.ask(post(b'{"a":1}', b"X-Mine: 1", b"Accept: a/b", path=INFER + "?q=1"))
        await side.until(lambda: bool(other.seen))
        original, copy = champion.seen[0], other.seen[0]
        assert copy.first == b"POST /new" + INFER.encode() + b"?q=1 HTTP/1.1"
        assert copy.body == original.body == b'{"a":1}'
        assert copy.header("host") == b"127.0.0.1:%d" % other.port
        assert copy.header("x-understudy-mirror") == b"candidate"
        assert copy.header("x-env") == b"shadow"
        assert copy.header("x-mine") == b"0"
        for name in ("accept", "x-request-id", "content-length"):
            assert copy.header(name) == original.header(name)
        assert original.header("x-understudy-mirror") is None
        assert original.header("host") == b"here"
        await side.until(lambda: outcomes(side) == {"ok": 1})


@pytest.mark.anyio
async def test_a_chunked_request_is_mirrored_completely() -> None:
    champion, other = await Server(OK).start(), await Server(OK).start()
    async with sidecar(plan_for(champion.port, challenger(other.port))) as side:
        raw = b"3;x=1\r\nabc\r\n2\r\nde\r\n0\r\nX-T: 1\r\n\r\n"
        await side.ask(post(raw, framing=b"Transfer-Encoding: chunked"))
        await side.until(lambda: bool(other.seen))
        assert champion.seen[0].raw_body == raw
        assert other.seen[0].body == b"abcde"
        assert other.seen[0].header("content-length") == b"5"
        assert other.seen[0].header("transfer-encoding") is None


@pytest.mark.anyio
async def test_only_inference_is_mirrored() -> None:
    champion, other = await Server(OK).start(), await Server(OK).start()
    async with sidecar(plan_for(champion.port, challenger(other.port))) as side:
        await side.ask(get("/v2/health/ready"))
        await side.ask(post(path="/v2/models/unknown/infer"))
        assert outcomes(side) == {}
        assert side.counter("requests", model="other") == 2


@pytest.mark.anyio
async def test_the_sample_is_by_ids_that_clients_cannot_choose() -> None:
    async def chosen(rate: float) -> float:
        """The share of requests that was mirrored, all with the same id of the client."""
        champion, other = await Server(OK).start(), await Server(OK).start()
        async with sidecar(plan_for(champion.port, challenger(other.port, rate=rate))) as side:
            peer = Peer(side.folder / "records.sock")
            await peer.start()
            reader, writer = await side.connect()
            for _ in range(300):
                writer.write(post(b"{}", b"x-request-id: mine"))
                await read_message(reader)
            await side.until(side.settled)
            await side.until(lambda: len(peer.records) == 300 + len(other.seen))
            await peer.stop()
        assert {seen.header("x-request-id") for seen in other.seen} <= {b"mine"}
        asked, copied = ([r.proxy_id for r in peer.records if r.role == role] for role in (0, 1))
        assert len(set(asked)) == 300
        salt = Plan(1, Upstream("champion", "", 0)).sample_salt.encode()
        # As the evaluation plane works it out, which does not ask the worker.
        expected = {i for i in asked if point(salt, i.to_bytes(8, "little")) < threshold(rate)}
        assert set(copied) == expected
        assert len(copied) == len(set(copied))
        return len(copied) / 300

    none, some, every = [await chosen(r) for r in (0.0, 0.3, 1.0)]
    assert (none, every) == (0.0, 1.0)
    # Binomial(300, 0.3): 90 with a standard deviation of 7.9; seven of those on each side.
    assert 35 < 300 * some < 145


GARBAGE = b"this is not HTTP\r\n\r\n"
BIG = b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n" + bytes(100_000)
ENDLESS = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1000\r\n%b\r\n" % bytes(4096) * 99
)


async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_message(reader, request=True)
    await reader.read()


async def slam(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_message(reader, request=True)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("other", "outcome"),
    [
        pytest.param(Server(GARBAGE), "garbage", id="garbage"),
        pytest.param(Server(BIG), "too_large", id="a length over the limit"),
        pytest.param(Server(ENDLESS), "too_large", id="chunks over the limit"),
        pytest.param(Server(handler=hang), "timeout", id="hung"),
        pytest.param(Server(handler=slam), "upstream_reset", id="closes"),
        pytest.param(Server(OK.replace(b"200 OK", b"500 No")), "server_error", id="500"),
        pytest.param(Server(OK.replace(b"200 OK", b"404 No")), "client_error", id="404"),
        pytest.param(None, "upstream_connect", id="dead"),
    ],
)
async def test_whatever_a_challenger_does_the_client_gets_its_answer(
    other: Server | None, outcome: str
) -> None:
    champion = await Server(OK).start()
    if other is None:
        dead = await Server(OK).start()
        await dead.stop()
        port = dead.port
    else:
        port = (await other.start()).port
    limit = 0.3 if outcome == "timeout" else 30.0
    one = challenger(port, timeout=limit, max_response_bytes=200_000)
    async with sidecar(plan_for(champion.port, one)) as side:
        reader, writer = await side.connect()
        for _ in range(3):
            writer.write(post())
            message = await read_message(reader)
            assert (message.status, message.body) == (200, b"ok")
        await side.until(lambda: sum(outcomes(side).values()) == 3)
        assert outcomes(side) == {outcome: 3}
        assert side.counter("requests", arm="champion", outcome="ok") == 3
        assert side.counter("requests", arm="candidate", outcome=outcome) == 3


@pytest.mark.anyio
async def test_mirrored_requests_are_bounded_in_number_and_bytes_and_all_counted() -> None:
    champion, other = await Server(OK).start(), await Server(handler=hang).start()
    one = challenger(other.port, timeout=30.0, queue_requests=3, queue_bytes=1000)
    one = replace(one, upstream=replace(one.upstream, max_connections=2, max_waiting=3))
    async with sidecar(plan_for(champion.port, one)) as side:
        for _ in range(10):
            await side.ask(post(b"x" * 10))
        await side.until(lambda: outcomes(side).get("queue_full", 0) == 5)
        big = replace(one, queue_requests=1000, queue_bytes=1000)
        big = replace(big, upstream=replace(big.upstream, max_waiting=1000))
        side.worker.reload(replace(plan_for(champion.port, big), generation=2))
        for _ in range(4):
            await side.ask(post(b"y" * 400))
        # Two copies of 400 bytes fit into 1,000.
        await side.until(lambda: outcomes(side).get("queue_full", 0) == 7)
        side.later(30.0)
        await side.until(lambda: sum(outcomes(side).values()) == 14)


@pytest.mark.anyio
async def test_several_challengers_each_get_their_own() -> None:
    def slow(message: Message) -> bytes:
        return OK

    champion = await Server(OK).start()
    first, second = await Server(slow).start(), await Server(GARBAGE).start()
    plan = plan_for(
        champion.port,
        challenger(first.port, "one"),
        challenger(second.port, "two"),
    )
    async with sidecar(plan) as side:
        for _ in range(4):
            assert (await side.ask(post())).status == 200
        await side.until(lambda: outcomes(side, "one") == {"ok": 4})
        await side.until(lambda: outcomes(side, "two") == {"garbage": 4})
        assert {m.header("x-understudy-mirror") for m in first.seen} == {b"one"}


@pytest.mark.anyio
async def test_the_breaker_stops_mirroring_to_a_dead_challenger_and_resumes() -> None:
    champion, other = await Server(OK).start(), await Server(OK).start()
    await other.stop()
    one = challenger(other.port, breaker=BreakerSettings(3, 60.0, 60.0, 2))
    async with sidecar(plan_for(champion.port, one)) as side:
        mirror = side.worker.runtime.mirrors[0]
        for i in range(6):
            await side.ask(post())
            await side.until(lambda i=i: sum(outcomes(side).values()) == i + 1)
        assert outcomes(side) == {"upstream_connect": 3, "breaker_open": 3}
        assert mirror.breaker.state == OPEN
        await other.start(other.port)
        reopen(mirror.breaker)
        for _ in range(3):
            await side.ask(post())
            await side.until(side.settled)
        assert mirror.breaker.state == CLOSED
        assert outcomes(side) == {"upstream_connect": 3, "breaker_open": 3, "ok": 3}
