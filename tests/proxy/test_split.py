"""Requests divided among arms: who is served by whom, and what the records say of it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any

import pytest

from tests.proxy.test_handoff import Peer
from tests.support.proxy import (
    INFER,
    Message,
    Server,
    Sidecar,
    get,
    plan_for,
    post,
    read_message,
    run,
    sidecar,
)
from understudy.monitor.records.record import Record
from understudy.monitor.routing.plan import Breaker, Challenger, Plan, Split, Upstream
from understudy.shadow.assignment import OUT, Allocation, point, threshold

SALT = "salt"
NAMES = (b"champion", b"candidate")


def says(name: bytes) -> bytes:
    """An answer whose body tells who gave it."""
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(name), name)


@dataclass
class Divided:
    """A worker with an experiment, its two model servers, and who takes its records."""

    side: Sidecar
    peer: Peer
    champion: Server
    other: Server

    async def records(self, count: int) -> list[Record]:
        """All records, once there are ``count``."""
        await self.side.until(lambda: len(self.peer.records) >= count)
        assert len(self.peer.records) == count
        return self.peer.records

    async def record(self, raw: bytes) -> tuple[Message, Record]:
        """The answer to one request, and its record."""
        before = len(self.peer.records)
        message = await self.side.ask(raw)
        return message, (await self.records(before + 1))[-1]

    def unassigned(self, reason: str = "no_unit") -> int:
        return self.side.counter("unassigned", experiment="trial", reason=reason)

    def diverted(self) -> int:
        return self.side.counter("diverted", experiment="trial")


def split_plan(
    champion: int,
    other: int,
    weights: tuple[float, ...] = (0.5, 0.5),
    copies: float = 0.0,
    breaker: Breaker | None = None,
    serving: dict[str, Any] | None = None,
    **split: Any,
) -> Plan:
    allocation = Allocation().reweighed(weights)
    upstream = Upstream("candidate", "127.0.0.1", other, host_header="new", **(serving or {}))
    one = Challenger(upstream, copies, breaker=breaker or Breaker(), serving=upstream)
    options = {"starts": allocation.starts, "arms": allocation.arms} | split
    return replace(plan_for(champion, one), splits=(Split("trial", 0, SALT, **options),))


@contextlib.asynccontextmanager
async def divided(
    change: Callable[[Plan], Plan] = lambda plan: plan,
    champion: Server | None = None,
    other: Server | None = None,
    **options: Any,
) -> AsyncIterator[Divided]:
    """A running experiment between two servers that say who they are."""
    champion = await (champion or Server(says(NAMES[0]))).start()
    other = await (other or Server(says(NAMES[1]))).start()
    plan = change(split_plan(champion.port, other.port, **options))
    async with sidecar(plan) as side:
        peer = Peer(side.folder / "records.sock")
        await peer.start()
        try:
            yield Divided(side, peer, champion, other)
        finally:
            await peer.stop()
            await champion.stop()
            await other.stop()


def arm_of(unit: bytes, weights: tuple[float, ...] = (0.5, 0.5)) -> int:
    """What understudy.shadow.assignment says, worked out without the proxy."""
    salt = blake2b(SALT.encode(), digest_size=32).digest()
    return Allocation().reweighed(weights).arm(point(salt, unit))


def unit_of(arm: int, weights: tuple[float, ...] = (0.5, 0.5)) -> bytes:
    """A unit that belongs to ``arm``."""
    return next(u for u in (b"unit-%d" % i for i in range(10_000)) if arm_of(u, weights) == arm)


def asks_by(by: str, unit: bytes) -> bytes:
    if by == "header":
        return post(b"{}", b"X-USER:  " + unit + b" ")
    if by == "cookie":
        return post(b"{}", b"Cookie: a=1; uid=" + unit + b"; uidx=2")
    if by == "pointer":
        return post(b'{"a": [{"u/v": "' + unit + b'"}]}')
    return post(b"{}", b"x-request-id: " + unit)


UNITS = {"header": "x-user", "cookie": "uid", "pointer": "/a/0/u~1v", "request": ""}


@pytest.mark.parametrize("by", UNITS)
def test_a_unit_stays_with_its_arm_and_the_record_tells_which(by: str) -> None:
    async def main() -> None:
        async with divided(unit=by, unit_name=UNITS[by]) as bench:
            units = [b"unit-%d" % i for i in range(20)] * 3
            assert {arm_of(unit) for unit in units} == {0, 1}
            reader, writer = await bench.side.connect()
            for unit in units:
                writer.write(asks_by(by, unit))
                assert (await read_message(reader)).body == NAMES[arm_of(unit)]
            records = await bench.records(len(units))
            for unit, record in zip(units, records, strict=True):
                arm = arm_of(unit)
                assert (record.unit, record.arm, record.assigned) == (unit, arm, arm + 1)
                assert (record.role, record.status) == (0, 200)
                assert record.response_body == NAMES[arm]
            assert all(seen.header("host") == b"here" for seen in bench.champion.seen)
            assert all(seen.header("host") == b"new" for seen in bench.other.seen)
            assert bench.unassigned() == bench.diverted() == 0

    run(main())


def test_hundreds_of_units_are_divided_as_the_allocation_says() -> None:
    async def main() -> None:
        weights = (0.6, 0.3)  # the rest takes no part
        async with divided(weights=weights) as bench:
            units = [b"r-%d" % i for i in range(600)]
            reader, writer = await bench.side.connect()
            for unit in units:
                writer.write(post(b"{}", b"x-request-id: " + unit))
                arm = arm_of(unit, weights)
                assert (await read_message(reader)).body == NAMES[max(arm, 0)]
            got = {r.request_id: (r.arm, r.assigned) for r in await bench.records(600)}
            arms = {unit: arm_of(unit, weights) for unit in units}
            assert set(arms.values()) == {OUT, 0, 1}
            assert got == {unit: (max(arm, 0), arm + 1) for unit, arm in arms.items()}
            (split,) = bench.peer.names[-1]["splits"]  # type: ignore[misc]
            assert split["experiment"] == "trial"
            assert split["weights"] == pytest.approx(list(weights))

    run(main())


def test_a_header_that_names_an_arm_decides_and_does_not_count() -> None:
    async def main() -> None:
        async with divided(override_header="x-arm") as bench:
            for arm, wish in ((1, b"candidate"), (0, b"champion"), (1, b"candidate")):
                unit = b"x-request-id: " + unit_of(1 - arm)
                message, record = await bench.record(post(b"{}", unit, b"X-Arm: " + wish))
                assert message.body == NAMES[arm]
                assert (record.arm, record.assigned, record.unit) == (arm, 0, b"")
            unit = b"x-request-id: " + unit_of(1)
            _, record = await bench.record(post(b"{}", unit, b"X-Arm: nobody"))
            assert (record.arm, record.assigned) == (1, 2)

    run(main())


def test_listed_units_go_where_the_list_says_and_do_not_count() -> None:
    async def main() -> None:
        mine, yours, long = unit_of(0), unit_of(1), "u" * 200
        overrides = ((mine.decode(), 1), (yours.decode(), 0), (long, 1))
        async with divided(unit="header", unit_name="x-user", overrides=overrides) as bench:
            for unit, arm in ((mine, 1), (yours, 0), (long.encode(), 1)):
                message, record = await bench.record(asks_by("header", unit))
                assert (message.body, record.arm, record.assigned) == (NAMES[arm], arm, 0)
                assert record.unit == unit or len(record.unit) == 64

    run(main())


def test_excluded_requests_have_no_part() -> None:
    async def main() -> None:
        exclude = (("x-kind", "test"), ("x-bot", "1"))
        async with divided(weights=(0.0, 1.0), exclude=exclude, override_header="x-arm") as bench:
            for line in (b"X-Kind: test", b"x-bot:1"):
                message, record = await bench.record(post(b"{}", line, b"X-Arm: candidate"))
                assert message.body == b"champion"
                assert (record.arm, record.assigned, record.unit) == (0, 0, b"")
            _, record = await bench.record(post(b"{}", b"X-Kind: tests"))
            assert (record.arm, record.assigned) == (1, 2)
            assert bench.unassigned() == 0

    run(main())


def test_the_holdout_never_takes_part_whatever_the_weights() -> None:
    async def main() -> None:
        salt = blake2b(SALT.encode(), digest_size=32, person=b"holdout").digest()
        units = [b"r-%d" % i for i in range(200)]
        held = {unit for unit in units if point(salt, unit) < threshold(0.2)}
        # Binomial(200, 0.2): 40 with a standard deviation of 5.7.
        assert 10 < len(held) < 75
        async with divided(weights=(0.0, 1.0), holdout=0.2) as bench:
            reader, writer = await bench.side.connect()
            for unit in units:
                writer.write(post(b"{}", b"x-request-id: " + unit))
                await read_message(reader)
            for record in await bench.records(200):
                out = record.unit in held
                assert (record.arm, record.assigned) == ((0, 0) if out else (1, 2))

    run(main())


@pytest.mark.parametrize("by", ["header", "cookie", "pointer"])
def test_without_a_unit_the_champion_serves_and_it_is_counted(by: str) -> None:
    async def main() -> None:
        async with divided(weights=(0.0, 1.0), unit=by, unit_name=UNITS[by]) as bench:
            lines = (b"X-User:", b"X-Users: 1", b"Cookie: uid=; xuid=3", b"Cookie: uid")
            for number, raw in enumerate((post(b"{}", *lines), post(b""), get(INFER)), 1):
                message, record = await bench.record(raw)
                assert message.body == b"champion"
                assert (record.arm, record.assigned, record.unit) == (0, 0, b"")
                assert bench.unassigned() == number
            assert (await bench.side.ask(get("/v2/health/ready"))).body == b"champion"
            assert bench.unassigned() == 3, "what is no inference is not asked for a unit"

    run(main())
