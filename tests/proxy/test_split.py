"""Requests divided among arms: who is served by whom, and what the records say of it."""

from __future__ import annotations

from hashlib import blake2b

import pytest

from tests.support.proxy import (
    INFER,
    get,
    post,
    read_message,
)
from tests.support.proxy_split import BY_REQUEST, NAMES, SALT, arm_of, asks_by, divided, unit_of
from understudy.shadow.assignment import OUT, point, threshold

TRACE = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
UNITS = {"header": "x-user", "cookie": "uid", "pointer": "/a/0/u~1v"}


@pytest.mark.anyio
@pytest.mark.parametrize("by", UNITS)
async def test_a_unit_stays_with_its_arm_and_the_record_tells_which(by: str) -> None:
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


@pytest.mark.anyio
async def test_single_requests_are_split_by_ids_that_clients_cannot_choose() -> None:
    async with divided(**BY_REQUEST) as bench:
        reader, writer = await bench.side.connect()
        for _ in range(200):
            writer.write(post(b"{}", b"x-request-id: mine", b"traceparent: " + TRACE))
            message = await read_message(reader)
            assert message.header("x-request-id") == b"mine"
        records = await bench.records(200)
        for record in records:
            arm = arm_of(record.unit)
            assert record.unit == b"%016x" % record.proxy_id
            assert (record.request_id, record.arm, record.assigned) == (b"mine", arm, arm + 1)
        assert len({record.proxy_id for record in records}) == 200
        assert all(seen.header("traceparent") == TRACE for seen in bench.other.seen)
        # Binomial(200, 0.5): 100 with a standard deviation of 7.1; more than six of those.
        assert 55 < sum(record.arm for record in records) < 145


@pytest.mark.anyio
async def test_units_are_split_as_the_allocation_says() -> None:
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


@pytest.mark.anyio
async def test_a_header_that_names_an_arm_decides_and_does_not_count() -> None:
    async with divided(override_header="x-arm") as bench:
        for arm, wish in ((1, b"candidate"), (0, b"champion"), (1, b"candidate")):
            unit = b"x-request-id: " + unit_of(1 - arm)
            message, record = await bench.record(post(b"{}", unit, b"X-Arm: " + wish))
            assert message.body == NAMES[arm]
            assert (record.arm, record.assigned, record.unit) == (arm, 0, b"")
        unit = b"x-request-id: " + unit_of(1)
        _, record = await bench.record(post(b"{}", unit, b"X-Arm: nobody"))
        assert (record.arm, record.assigned) == (1, 2)


@pytest.mark.anyio
async def test_listed_units_go_where_the_list_says_and_do_not_count() -> None:
    mine, yours, long = unit_of(0), unit_of(1), "u" * 200
    overrides = ((mine.decode(), 1), (yours.decode(), 0), (long, 1))
    async with divided(unit="header", unit_name="x-user", overrides=overrides) as bench:
        for unit, arm in ((mine, 1), (yours, 0), (long.encode(), 1)):
            message, record = await bench.record(asks_by("header", unit))
            assert (message.body, record.arm, record.assigned) == (NAMES[arm], arm, 0)
            assert record.unit == unit or len(record.unit) == 64


@pytest.mark.anyio
async def test_excluded_requests_take_no_part() -> None:
    exclude = (("x-kind", "test"), ("x-bot", "1"))
    options = {"exclude": exclude, "override_header": "x-arm", **BY_REQUEST}
    async with divided(weights=(0.0, 1.0), **options) as bench:
        for line in (b"X-Kind: test", b"x-bot:1"):
            message, record = await bench.record(post(b"{}", line, b"X-Arm: candidate"))
            assert message.body == b"champion"
            assert (record.arm, record.assigned, record.unit) == (0, 0, b"")
        _, record = await bench.record(post(b"{}", b"X-Kind: tests"))
        assert (record.arm, record.assigned) == (1, 2)
        assert bench.unassigned() == 0


@pytest.mark.anyio
async def test_the_holdout_never_takes_part_whatever_the_weights() -> None:
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


@pytest.mark.anyio
@pytest.mark.parametrize("by", ["header", "cookie", "pointer"])
async def test_without_a_unit_the_champion_serves_and_it_is_counted(by: str) -> None:
    async with divided(weights=(0.0, 1.0), unit=by, unit_name=UNITS[by]) as bench:
        lines = (b"X-User:", b"X-Users: 1", b"Cookie: uid=; xuid=3", b"Cookie: uid")
        for number, raw in enumerate((post(b"{}", *lines), post(b""), get(INFER)), 1):
            message, record = await bench.record(raw)
            assert message.body == b"champion"
            assert (record.arm, record.assigned, record.unit) == (0, 0, b"")
            assert bench.unassigned() == number
        assert (await bench.side.ask(get("/v2/health/ready"))).body == b"champion"
        assert bench.unassigned() == 3, "only inference requests need a unit"
