"""The unit is in the body: it is awaited, but neither for ever nor whatever its size."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pytest

from tests.support.patience import patient
from tests.support.proxy import post, read_message, silent
from tests.support.proxy_split import NAMES, arm_of, divided, unit_of
from understudy.monitor.records.record import OUTCOMES
from understudy.monitor.routing.plan import Plan

BY = {"unit": "pointer", "unit_name": "/user"}
CHUNKED = b"Transfer-Encoding: chunked"


def body_of(unit: bytes, padding: int = 0) -> bytes:
    return b'{"pad": "%b", "user": "%b"}' % (b"p" * padding, unit)


def chunks(body: bytes, size: int, extension: bytes = b"") -> bytes:
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    framed = [b"%x%b\r\n%b\r\n" % (len(part), extension, part) for part in parts]
    return b"".join((*framed, b"0\r\n\r\n"))


def capturing(limit: int) -> object:
    """Keep bodies of up to ``limit`` bytes."""
    return lambda plan: replace(plan, capture=replace(plan.capture, max_body_bytes=limit))


def impatient(plan: Plan) -> Plan:
    return replace(plan, champion=replace(plan.champion, total_timeout=0.4))


@pytest.mark.anyio
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize("arm", [0, 1])
async def test_a_body_in_many_pieces_is_awaited_and_sent_as_it_came(
    arm: int, chunked: bool
) -> None:
    async with divided(**BY) as bench:
        unit = unit_of(arm)
        body = body_of(unit, 50)
        raw = chunks(body, 7) if chunked else body
        request = post(raw, framing=CHUNKED if chunked else None)
        reader, writer = await bench.side.connect()
        end = request.index(b"\r\n\r\n") + 4
        for at in range(end, len(request) + 1):
            writer.write(request[at - 1 if at > end else 0 : at])
            await writer.drain()
            if at == len(request) // 2:
                await asyncio.sleep(0.05)
                assert bench.champion.seen == bench.other.seen == []
            await asyncio.sleep(0)
        assert (await read_message(reader)).body == NAMES[arm]
        (seen,) = (bench.champion, bench.other)[arm].seen
        assert (seen.body, seen.raw_body) == (body, raw)
        (record,) = await bench.records(1)
        assert (record.arm, record.assigned, record.unit) == (arm, arm + 1, unit)
        assert (record.request_body, record.request_size) == (body, len(body))


@pytest.mark.anyio
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
async def test_a_body_over_the_limit_is_not_held_back_and_goes_to_the_champion(
    chunked: bool,
) -> None:
    change = capturing(1000)
    async with divided(change, weights=(0.0, 1.0), **BY) as bench:  # type: ignore[arg-type]
        for padding, arm in ((1000, 0), (100, 1)):
            body = body_of(b"u", padding)
            raw = chunks(body, 100) if chunked else body
            request = post(raw, framing=CHUNKED if chunked else None)
            reader, writer = await bench.side.connect()
            writer.write(request[:400])
            await asyncio.sleep(0.05)
            writer.write(request[400:])
            assert (await read_message(reader)).body == NAMES[arm]
            seen = (bench.champion, bench.other)[arm].seen[-1]
            assert seen.raw_body == raw
        first, second = await bench.records(2)
        assert (first.arm, first.assigned, first.unit) == (0, 0, b"")
        assert (second.arm, second.assigned, second.unit) == (1, 2, b"u")
        assert bench.unassigned("body_too_large") == 1


@pytest.mark.anyio
async def test_buffered_bodies_are_bounded_however_they_are_framed() -> None:
    """A chunk of one byte may have an extension."""

    change = capturing(1024)
    async with divided(change, weights=(0.0, 1.0), **BY) as bench:  # type: ignore[arg-type]
        body = body_of(b"u", 500)
        for cut in (False, True):
            request = post(chunks(body, 1, b";x=" + b"y" * 20), framing=CHUNKED)
            assert len(request) > 8 * 1024
            reader, writer = await bench.side.connect()
            if cut:
                for at in range(0, len(request) - 10, 1000):
                    writer.write(request[at : min(at + 1000, len(request) - 10)])
                    await asyncio.sleep(0.001)
                    assert bench.side.held() < 12_000
                writer.write(request[-10:])
            else:
                writer.write(request)
            assert (await read_message(reader)).body == b"champion"
            assert bench.champion.seen[-1].body == body
        assert [(r.arm, r.assigned) for r in await bench.records(2)] == [(0, 0)] * 2
        assert bench.unassigned("body_too_large") == 2


@pytest.mark.anyio
async def test_a_request_that_expects_a_100_is_divided_like_any_other() -> None:
    async with divided(weights=(0.0, 1.0), **BY) as bench:
        reader, writer = await bench.side.connect()
        raw = post(body_of(b"u"), b"Expect: 100-continue")
        end = raw.index(b"\r\n\r\n") + 4
        writer.write(raw[:end])
        assert (await read_message(reader)).status == 100
        writer.write(raw[end:])
        assert (await read_message(reader)).status == 200
        (record,) = await bench.records(1)
        assert (record.arm, record.assigned) == (1, 2)


@pytest.mark.anyio
async def test_a_slow_body_times_out_and_reaches_no_server() -> None:
    async with divided(impatient, **BY) as bench:
        reader, writer = await bench.side.connect()
        writer.write(post(body_of(b"u"))[:-1])
        message = await read_message(reader)
        assert message.status == 408
        assert json.loads(message.body)["outcome"] == "rejected"
        assert message.header("connection") == b"close"
        (record,) = await bench.records(1)
        assert OUTCOMES[record.outcome] == "rejected"
        assert (record.arm, record.assigned) == (0, 0)
        assert bench.champion.connections == bench.other.connections == 0
        assert bench.side.counter("rejected", reason="slow_body") == 1


@pytest.mark.anyio
async def test_a_client_that_leaves_while_its_body_is_awaited() -> None:
    async with divided(**BY) as bench:
        _, writer = await bench.side.connect()
        writer.write(post(body_of(b"u"))[:-1])
        await bench.side.until(lambda: bool(bench.side.worker.active))
        writer.close()
        (record,) = await bench.records(1)
        assert (OUTCOMES[record.outcome], record.status) == ("incomplete", 499)
        assert (record.arm, record.assigned, record.request_body) == (0, 0, None)
        await bench.side.until(bench.side.settled)
        assert bench.champion.connections == bench.other.connections == 0


@pytest.mark.anyio
async def test_a_body_whose_framing_breaks_while_it_is_awaited() -> None:
    async with divided(**BY) as bench:
        reader, writer = await bench.side.connect()
        writer.write(post(b"3\r\nabc\r\n", framing=CHUNKED))
        await bench.side.until(lambda: bool(bench.side.worker.active))
        writer.write(b"zz\r\n")
        assert (await read_message(reader)).status == 400
        (record,) = await bench.records(1)
        assert OUTCOMES[record.outcome] == "rejected"
        assert bench.champion.connections == bench.other.connections == 0


@pytest.mark.anyio
@pytest.mark.parametrize("size", [1, 13, 200, 100_000])
async def test_pipelined_requests_are_each_divided_and_answered_in_order(size: int) -> None:
    async with divided(**BY) as bench:
        units = [b"unit-%d" % i for i in range(30)]
        bodies = [body_of(unit, i) for i, unit in enumerate(units)]
        stream = b"".join(
            post(chunks(b, 9), framing=CHUNKED) if i % 3 else post(b) for i, b in enumerate(bodies)
        )
        reader, writer = await bench.side.connect()
        for at in range(0, len(stream), size):
            writer.write(stream[at : at + size])
            await asyncio.sleep(0)
        for unit in units:
            assert (await read_message(reader)).body == NAMES[arm_of(unit)]
        records = await bench.records(30)
        assert [r.unit for r in records] == units
        assert [r.request_body for r in records] == bodies


@pytest.mark.anyio
async def test_a_request_pipelined_after_a_rejected_one_is_served() -> None:
    busy = silent()
    serving = {"max_connections": 1, "max_waiting": 0}
    # The challenger has one connection and no queue: a request that would have to wait is rejected.
    async with divided(other=busy, serving=serving, **BY) as bench:
        raw = post(body_of(unit_of(1)))
        reader, writer = await bench.side.connect()
        writer.write(raw[:-3])
        await bench.side.until(lambda: bool(bench.side.worker.active))
        writer.write(raw[-3:] + post(body_of(unit_of(0))))
        assert (await read_message(reader)).status == 503
        async with asyncio.timeout(patient(5)):
            assert (await read_message(reader)).body == b"champion"
        first, second = await bench.records(2)
        assert OUTCOMES[first.outcome] == "overload"
        assert [(r.arm, r.assigned) for r in (first, second)] == [(1, 2), (0, 1)]
