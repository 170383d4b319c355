"""What happens to divided requests when a challenger fails, and when the weights change."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from tests.support.proxy import Message, Server, post, read_message, reopen
from tests.support.proxy_split import BY_REQUEST, NAMES, arm_of, asks_by, divided, says, unit_of
from understudy.monitor.proxy.breaker import CLOSED, HALF_OPEN, OPEN
from understudy.monitor.records.record import OUTCOMES, ROLES
from understudy.monitor.routing.plan import Breaker, Plan
from understudy.shadow.assignment import Allocation

BREAKER = Breaker(failures=3, open_seconds=60.0, max_open_seconds=60.0, probes=2)
EXPECTED = {
    "server_error": 500,
    "timeout": 504,
    "upstream_reset": 502,
    "upstream_connect": 502,
    "garbage": 502,
    "model_overload": 429,
}


class Failing:
    """A challenger that fails in one way until it is healed."""

    def __init__(self, how: str) -> None:
        self.how = how
        self.hung = 0
        self.server = Server(handler=self._serve)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await read_message(reader, request=True)
            if self.how == "server_error":
                writer.write(b"HTTP/1.1 500 No\r\nContent-Length: 4\r\n\r\nmine")
            elif self.how == "timeout":
                self.hung += 1
                await reader.read()
                return
            elif self.how == "upstream_reset":
                return
            elif self.how == "garbage":
                writer.write(b"not HTTP\r\n\r\n")
            elif self.how == "model_overload":
                writer.write(b"HTTP/1.1 429 Busy\r\nContent-Length: 0\r\n\r\n")
            else:
                writer.write(says(NAMES[1]))


@pytest.mark.anyio
@pytest.mark.parametrize("how", EXPECTED)
async def test_a_failing_challenger_is_diverted_and_recovers(how: str) -> None:
    failing = Failing(how)
    limit = 60.0
    serving = {"first_byte_timeout": limit}
    async with divided(other=failing.server, breaker=BREAKER, serving=serving) as bench:
        if how == "upstream_connect":
            await failing.server.stop()
        raw = asks_by("id", unit_of(1))
        for number in range(3):
            answer = asyncio.create_task(bench.record(raw))
            if how == "timeout":
                await bench.side.until(lambda number=number: failing.hung == number + 1)
                bench.side.later(limit)
            message, record = await answer
            assert message.status == EXPECTED[how], "its own error, and no second try"
            assert (record.arm, record.assigned) == (1, 2)
            assert OUTCOMES[record.outcome] == how
            assert (message.body == b"mine") == (how == "server_error")
            assert bench.side.counter("requests", arm="candidate", outcome=how) == number + 1
        breaker = bench.side.worker.runtime.serving[1].breaker
        assert breaker.state == OPEN
        assert bench.champion.seen == []
        for number in range(4):
            message, record = await bench.record(raw)
            assert message.body == b"champion"
            assert (record.arm, record.assigned, record.unit) == (0, 2, unit_of(1))
            assert bench.diverted() == number + 1
        await bench.side.until(lambda: bench.side.counter("serving_breaker") == OPEN)
        failing.how = "healed"
        if how == "upstream_connect":
            await failing.server.start(failing.server.port)
        reopen(breaker)
        for state in (HALF_OPEN, CLOSED, CLOSED):
            message, record = await bench.record(raw)
            assert (message.body, record.arm, record.assigned) == (b"candidate", 1, 2)
            assert breaker.state == state
        assert bench.diverted() == 4
        await bench.side.until(lambda: bench.side.counter("serving_breaker") == CLOSED)


@pytest.mark.anyio
async def test_a_clients_own_faults_do_not_open_the_breaker() -> None:
    other = Server(b"HTTP/1.1 400 Bad\r\nContent-Length: 0\r\n\r\n")
    async with divided(other=other, breaker=BREAKER, weights=(0.0, 1.0), **BY_REQUEST) as bench:
        for _ in range(5):
            assert (await bench.side.ask(post())).status == 400
        for _ in range(5):
            _, writer = await bench.side.connect()
            writer.write(post(b"{}")[:-1])
            await bench.side.until(lambda: bool(bench.side.worker.active))
            writer.close()
            await bench.side.until(bench.side.settled)
        assert bench.side.worker.runtime.serving[1].breaker.state == CLOSED
        assert bench.diverted() == 0


@pytest.mark.anyio
async def test_an_override_is_ignored_while_the_arms_breaker_is_open() -> None:
    failing = Failing("server_error")
    options = {"breaker": BREAKER, "override_header": "x-arm"}
    async with divided(other=failing.server, **options) as bench:
        raw = post(b"{}", b"X-Arm: candidate")
        answers = [(await bench.side.ask(raw)).status for _ in range(4)]
        assert answers == [500, 500, 500, 200]
        records = await bench.records(4)
        assert [(r.arm, r.assigned) for r in records] == [(1, 0)] * 3 + [(0, 0)]


@pytest.mark.anyio
async def test_requests_served_by_a_challenger_are_not_mirrored() -> None:
    async with divided(copies=1.0) as bench:
        units = [b"r-%d" % i for i in range(40)]
        for unit in units:
            await bench.side.ask(asks_by("id", unit))
        mine = {unit for unit in units if arm_of(unit) == 0}
        assert 0 < len(mine) < 40
        records = await bench.records(40 + len(mine))
        copies = [r for r in records if ROLES[r.role] == "mirror"]
        assert {r.request_id for r in copies} == mine
        assert all((r.arm, r.assigned) == (1, 0) for r in copies)
        marked = [m for m in bench.other.seen if m.header("x-understudy-mirror")]
        assert {m.header("x-request-id") for m in marked} == mine
        assert len(bench.other.seen) == 40
        assert not any(m.header("x-understudy-mirror") for m in bench.champion.seen)


def reweighed(plan: Plan, weights: tuple[float, ...]) -> Plan:
    (split,) = plan.splits
    after = Allocation(split.starts, split.arms).reweighed(weights)
    split = replace(split, starts=after.starts, arms=after.arms)
    return replace(plan, splits=(split,), generation=plan.generation + 1)


@pytest.mark.anyio
async def test_new_weights_move_only_the_necessary_units() -> None:
    units = [b"user-%d" % i for i in range(300)]
    async with divided(weights=(0.9, 0.1), unit="header", unit_name="x-user") as bench:
        worker = bench.side.worker
        serving = worker.runtime.serving[1]
        reader, writer = await bench.side.connect()
        inside = {unit for unit in units if arm_of(unit, (0.9, 0.1)) == 1}
        # The same, up, down, the same again: who is in stays in while it grows, and the reverse.
        for share, grows in ((0.1, True), (0.5, True), (0.2, False), (0.2, False)):
            plan = reweighed(worker.runtime.plan, (1 - share, share))
            since = worker.runtime.traffic[0].routers[0].since
            same = plan.splits == worker.runtime.plan.splits
            worker.reload(plan)
            assert (worker.runtime.traffic[0].routers[0].since == since) == same
            assert worker.runtime.serving[1] is serving, "its connections are kept"
            before, inside = inside, set()
            for unit in units:
                writer.write(asks_by("header", unit))
                if (await read_message(reader)).body == b"candidate":
                    inside.add(unit)
            assert before <= inside if grows else inside <= before
            assert not same or inside == before
            # Binomial: seven standard deviations are at most 0.21 of 300.
            assert abs(len(inside) / 300 - share) < 0.21
        assert bench.other.connections == 1
        records = await bench.records(1200)
        assert {r.unit for r in records[-300:] if r.arm == 1} == inside
        assert all(r.assigned == r.arm + 1 for r in records)
        weights = [names["splits"][0]["weights"] for names in bench.peer.names]  # type: ignore[index]
        assert weights[-1] == pytest.approx([0.8, 0.2])


@pytest.mark.anyio
@pytest.mark.parametrize("gone", [False, True], ids=["weight 0", "no challenger"])
async def test_requests_in_flight_stay_with_their_arm(gone: bool) -> None:
    """One waits for its answer, one for the rest of its body: both began under the old weights."""

    release = asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await read_message(reader, request=True)
            await release.wait()
            writer.write(says(NAMES[1]))

    async with divided(
        other=Server(handler=slow), weights=(0.0, 1.0), unit="pointer", unit_name="/u"
    ) as bench:
        raw = post(b'{"u": "one"}')
        worker = bench.side.worker
        first, first_writer = await bench.side.connect()
        first_writer.write(raw)
        second, second_writer = await bench.side.connect()
        second_writer.write(raw[:-4])
        await bench.side.until(lambda: len(worker.active) == 2 and bench.other.connections == 1)
        plan = reweighed(worker.runtime.plan, (1.0, 0.0))
        if gone:
            plan = replace(plan, splits=(), challengers=())
        worker.reload(plan)
        assert (await bench.side.ask(raw)).body == b"champion"
        second_writer.write(raw[-4:])
        await bench.side.until(lambda: bench.other.connections == 2)
        release.set()
        for reader, writer in ((first, first_writer), (second, second_writer)):
            assert (await read_message(reader)).body == b"candidate"
            writer.write(raw)
            assert (await read_message(reader)).body == b"champion"
        by_arm = [(r.arm, r.assigned) for r in await bench.records(5)]
        new = (0, 0) if gone else (0, 1)
        assert sorted(by_arm) == sorted([(1, 2)] * 2 + [new] * 3)
        if gone:
            await bench.side.until(lambda: bench.other.closed == 2)


@pytest.mark.anyio
async def test_a_response_does_not_reveal_the_arm() -> None:
    def tell(message: Message) -> bytes:
        assert message.header("x-understudy-mirror") is None
        return says(b"same")

    async with divided(champion=Server(tell), other=Server(tell)) as bench:
        answers = [await bench.side.ask(asks_by("id", unit_of(arm))) for arm in (0, 1)]
        heads = [m.head.replace(unit_of(arm), b"") for arm, m in enumerate(answers)]
        assert heads[0] == heads[1]
        assert len(bench.champion.seen) == len(bench.other.seen) == 1
