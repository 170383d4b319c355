"""Divided requests that are not like most: heads only, tunnels, odd units, readers that are slow."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from hashlib import blake2b

import pytest

from tests.support.proxy import INFER, Server, get, post, read_message, reopen
from tests.support.proxy_split import BY_REQUEST, NAMES, arm_of, divided, says, unit_of
from understudy.common.codecs.pointer import follow, steps
from understudy.monitor.proxy.breaker import CLOSED
from understudy.monitor.proxy.pointer import pointed
from understudy.monitor.proxy.pointer import steps as split_steps
from understudy.monitor.records.record import OUTCOMES
from understudy.monitor.routing.plan import Breaker, Plan
from understudy.shadow.assignment import OUT

EVERYONE = {"weights": (0.0, 1.0)}
BY_POINTER = {"unit": "pointer", "unit_name": "/user"} | EVERYONE
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
TUNNEL = get(INFER, b"Connection: Upgrade", b"Upgrade: websocket")


@pytest.mark.anyio
async def test_a_head_request_is_divided_like_any_other() -> None:
    async with divided() as bench:
        reader, writer = await bench.side.connect()
        for arm in (1, 0, 1):
            unit = unit_of(arm)
            writer.write(get(INFER, b"x-request-id: " + unit, method=b"HEAD"))
            message = await read_message(reader, to_head=True)
            assert message.header("content-length") == b"%d" % len(NAMES[arm])
            record = (await bench.records(len(bench.peer.records) + 1))[-1]
            assert (record.arm, record.assigned, record.unit) == (arm, arm + 1, unit)


@pytest.mark.anyio
async def test_a_tunnel_goes_to_its_arm_and_does_not_hold_up_the_breaker() -> None:
    """Probes end with the 101: a tunnel may last for days."""
    failing = True

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            message = await read_message(reader, request=True)
            if failing:
                writer.write(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n")
            elif message.header("upgrade"):
                writer.write(SWITCH)
                while data := await reader.read(100):
                    writer.write(data.upper())
                return
            else:
                writer.write(says(NAMES[1]))

    breaker = Breaker(failures=1, open_seconds=60.0, probes=1)
    other = Server(handler=script)
    async with divided(other=other, breaker=breaker, **BY_REQUEST, **EVERYONE) as bench:
        state = bench.side.worker.runtime.serving[1].breaker
        assert (await bench.side.ask(post())).status == 500
        failing = False
        reopen(state)
        reader, writer = await bench.side.connect()
        writer.write(TUNNEL)
        assert (await read_message(reader)).status == 101
        for text in (b"abc", b"def"):
            writer.write(text)
            assert await reader.readexactly(3) == text.upper()
        assert state.state == CLOSED
        message, record = await bench.record(post())
        assert (message.body, record.arm, bench.diverted()) == (b"candidate", 1, 0)
        writer.close()
        await bench.side.until(bench.side.settled)
        assert state.state == CLOSED


@pytest.mark.anyio
async def test_a_client_that_does_not_read_is_not_the_challengers_fault() -> None:
    other = Server(says(bytes(40_000_000)))
    options = {"breaker": Breaker(failures=1), "serving": {"total_timeout": 60.0}}
    async with divided(other=other, **options, **BY_REQUEST, **EVERYONE) as bench:
        _, writer = await bench.side.connect()
        writer.write(post())
        await bench.side.until(bench.side.choked)
        bench.side.later(60.0)
        (record,) = await bench.records(1)
        assert (OUTCOMES[record.outcome], record.status, record.arm) == ("client_stalled", 200, 1)
        assert bench.side.worker.runtime.serving[1].breaker.state == CLOSED


@pytest.mark.anyio
async def test_a_header_that_is_repeated_excludes_by_any_of_its_values() -> None:
    async with divided(exclude=(("x-kind", "test"),), **EVERYONE) as bench:
        _, record = await bench.record(post(b"{}", b"X-Kind: a", b"X-Kind: test"))
        assert (record.arm, record.assigned) == (0, 0)


@pytest.mark.anyio
async def test_why_there_was_no_unit_is_counted_by_reason() -> None:
    async with divided(**BY_POINTER) as bench:
        await bench.side.ask(post(b'{"users": 1}'))
        await bench.side.ask(post(b'{"user": 1'))
        await bench.side.ask(post(b'{"user": "%b"}' % (b"u" * 300_000)))
        records = await bench.records(3)
        assert {(r.arm, r.assigned, r.unit) for r in records} == {(0, 0, b"")}
        for reason in ("no_unit", "not_json", "body_too_large"):
            assert bench.unassigned(reason) == 1, reason


@pytest.mark.anyio
@pytest.mark.parametrize("size", [256, 257])
async def test_a_long_unit_is_kept_as_its_digest(size: int) -> None:
    async with divided(unit="header", unit_name="x-user", **EVERYONE) as bench:
        unit = b"u" * size
        _, record = await bench.record(post(b"{}", b"x-user: " + unit))
        digest = blake2b(unit, digest_size=32).hexdigest().encode()
        assert (record.arm, record.unit) == (1, unit if size <= 256 else digest)


@pytest.mark.parametrize(
    ("pointer", "unit"),
    [
        ("/a/1", b"y"),
        ("/a/-1", None),
        ("/a/01", None),
        ("/a/1_0", None),
        ("/a/+1", None),
        ("/a/\u0661", None),
        ("/a/-", None),
        ("/a/99999999999999999999", None),
        ("/n", b"7"),
        ("/a", None),
        ("/t", None),
        ("/a/0/0", None),
        ("/m~1n", b"z"),
        ("/-1", b"key"),
    ],
)
def test_pointers_are_followed_as_the_codecs_do(pointer: str, unit: bytes | None) -> None:
    document = {"a": list("xyxxxxxxxxxx"), "n": 7, "t": True, "m/n": "z", "-1": "key"}
    assert pointed(document, split_steps(pointer)) == (unit or b"")
    found = follow(document, steps(pointer))
    known = isinstance(found, (str, int)) and not isinstance(found, bool)
    assert known == (unit is not None)


@pytest.mark.anyio
async def test_unchanged_weights_start_a_new_epoch_when_arms_change() -> None:
    """The same shares of the same places, but another model server behind one of them."""

    async with divided() as bench:
        worker = bench.side.worker
        since = worker.runtime.traffic[0].routers[0].since
        plan = replace(worker.runtime.plan, generation=2)
        worker.reload(plan)
        assert worker.runtime.traffic[0].routers[0].since == since
        (one,) = plan.challengers
        named = replace(one.upstream, name="another")
        other = replace(one, upstream=named, serving=named)
        (split,) = plan.splits
        moved = replace(split, arms=tuple(arm * 2 for arm in split.arms))
        worker.reload(replace(plan, challengers=(other, one), splits=(moved,), generation=3))
        assert worker.runtime.traffic[0].routers[0].since == since, "the same arms in other places"
        worker.reload(replace(plan, challengers=(other,), generation=4))
        assert worker.runtime.traffic[0].routers[0].since != since


@pytest.mark.anyio
async def test_several_challengers_serve_and_are_diverted_independently() -> None:
    weights = (0.3, 0.3, 0.3)

    third = await Server(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n").start()

    def three(plan: Plan) -> Plan:
        (one,) = plan.challengers
        upstream = replace(one.upstream, name="third", port=third.port)
        two = replace(one, upstream=upstream, serving=upstream)
        return replace(plan, challengers=(one, two))

    breaker = Breaker(failures=3, open_seconds=60.0)
    async with divided(three, weights=weights, breaker=breaker) as bench:
        units = [b"r-%d" % i for i in range(120)]
        arms = [arm_of(unit, weights) for unit in units]
        assert set(arms) == {OUT, 0, 1, 2}
        reader, writer = await bench.side.connect()
        failed = 0
        for unit, arm in zip(units, arms, strict=True):
            writer.write(post(b"{}", b"x-request-id: " + unit))
            message = await read_message(reader)
            if arm == 2 and failed < 3:
                failed += 1
                assert message.status == 500
            else:
                assert message.body == NAMES[arm == 1]
        assert len(third.seen) == 3
        assert bench.diverted() == arms.count(2) - 3
        records = await bench.records(len(units))
        assert [record.assigned for record in records] == [arm + 1 for arm in arms]
        assert {r.arm for r in records if r.assigned == 3} == {0, 2}
        assert {r.arm for r in records if r.assigned == 2} == {1}
    await third.stop()
