"""Several experiments that split the requests of one model, in a worker."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from tests.support.proxy import post
from tests.support.proxy_split import divided
from understudy.monitor.routing.plan import Plan, Split
from understudy.shadow.assignment import POINTS, Allocation

pytestmark = pytest.mark.anyio
HALF = POINTS // 2
WIDTH = 2
"""Arms of the plan."""


def layered(plan: Plan, **changes: Any) -> Plan:
    """The experiment ``trial`` on the first half of the units, and ``second`` on the other."""
    (trial,) = plan.splits
    allocation = Allocation().reweighed((0.8, 0.2))
    options = {"starts": allocation.starts, "arms": allocation.arms, "unit": trial.unit,
               "unit_name": trial.unit_name, "slice": (HALF, POINTS), "first": 1 + WIDTH}  # fmt: skip
    second = Split("second", 0, "other salt", **(options | changes))
    return replace(plan, splits=(replace(trial, slice=(0, HALF)), second))


def alone(plan: Plan) -> Plan:
    """Without ``second``."""
    return replace(plan, splits=layered(plan).splits[:1])


async def test_each_request_belongs_to_one_experiment_with_its_own_shares() -> None:
    async with divided(layered, weights=(0.5, 0.5)) as found:
        units = [b"unit-%d" % number for number in range(600)]
        for unit in units:
            await found.side.ask(post(b"{}", b"x-request-id: " + unit))
        records = await found.records(len(units))
    counts = Counter(record.assigned for record in records)
    assert set(counts) == {1, 2, 3, 4}
    assert all(record.arm == (record.assigned - 1) % WIDTH for record in records)
    # Six standard deviations around the declared shares.
    first, second = counts[1] + counts[2], counts[3] + counts[4]
    assert abs(first - 300) < 6 * 12.3
    assert abs(counts[2] / first - 0.5) < 6 * 0.5 / first**0.5
    assert abs(counts[4] / second - 0.2) < 6 * 0.4 / second**0.5


async def test_an_assignment_does_not_depend_on_the_other_experiments() -> None:
    """With and without ``second``, the units of ``trial`` have the same arms."""
    units = [b"unit-%d" % number for number in range(200)]
    seen: list[dict[bytes, int]] = []
    for both in (True, False):
        change = layered if both else alone
        async with divided(change) as found:
            for unit in units:
                await found.side.ask(post(b"{}", b"x-request-id: " + unit))
            records = await found.records(len(units))
        seen.append({r.request_id: r.assigned for r in records if r.assigned in (1, 2)})
    assert seen[0] == seen[1]
    assert 50 < len(seen[0]) < 150


async def test_testers_reach_the_arms_of_every_experiment() -> None:
    """Whichever slice their unit belongs to; none of them is evidence."""

    def change(plan: Plan) -> Plan:
        both = layered(plan, override_header="x-arm", overrides=(("tester", 1),))
        trial, second = both.splits
        return replace(both, splits=(replace(trial, exclude=(("x-bot", "1"),)), second))

    async with divided(change, weights=(1.0, 0.0)) as found:
        _, record = await found.record(post(b"{}", b"x-arm: candidate"))
        assert (record.arm, record.assigned) == (1, 0)
        _, record = await found.record(post(b"{}", b"x-request-id: tester"))
        assert (record.arm, record.assigned) == (1, 0)
        # Excluded from one experiment, a request may still belong to the other.
        assigned = set()
        for number in range(40):
            extra = b"x-request-id: bot-%d\r\nx-bot: 1" % number
            assigned.add((await found.record(post(b"{}", extra)))[1].assigned)
        assert assigned == {0, 3, 4}


async def test_one_that_came_later_never_takes_units_that_are_taken() -> None:
    def change(plan: Plan) -> Plan:
        return layered(plan, slice=(0, POINTS))

    async with divided(change, weights=(0.0, 1.0)) as found:
        counts: Counter[int] = Counter()
        for number in range(60):
            counts[
                (await found.record(post(b"{}", b"x-request-id: u-%d" % number)))[1].assigned
            ] += 1
    assert counts[2] > 10
    assert counts[1] == 0
    assert counts[3] > 5
