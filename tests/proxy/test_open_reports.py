"""A request of an experiment is reported while it has not finished."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest

from tests.support.patience import patient
from tests.support.proxy import Server, post, read_message
from tests.support.proxy_split import divided, says, unit_of
from understudy.monitor.records.record import OK, OPEN, OPEN_AFTER_NS


@pytest.mark.anyio
async def test_a_slow_request_is_reported_at_doubling_ages_and_then_ends() -> None:
    answer = asyncio.Event()

    async def waits(reader: Any, writer: Any) -> None:
        await read_message(reader, request=True)
        await answer.wait()
        writer.write(says(b"candidate"))
        await writer.drain()

    async with divided(other=Server(handler=waits), unit="header", unit_name="x-user") as bench:
        reader, writer = await bench.side.connect()
        writer.write(post(b"{}", b"x-user: " + unit_of(1), b"x-request-id: slow"))
        async with asyncio.timeout(patient(20)):
            while len(bench.peer.records) < 2:
                await asyncio.sleep(0.02)
        # A request that finishes at once has one record.
        quick = post(b"{}", b"x-user: " + unit_of(0), b"x-request-id: quick")
        assert (await bench.side.ask(quick)).body == b"champion"
        answer.set()
        assert (await read_message(reader)).body == b"candidate"
        await bench.side.until(lambda: any(r.outcome == OK for r in mine(bench)))
        *reports, end = mine(bench)
        assert len(reports) >= 2
        for report in reports:
            assert (report.outcome, report.arm, report.assigned) == (OPEN, 1, 2)
            assert (report.unit, report.status) == (unit_of(1), 0)
            assert report.request_body is report.response_body is None
            assert report.started == end.started, "by which the end is recognised"
        ages = [report.duration_ns for report in reports]
        assert ages[0] >= OPEN_AFTER_NS
        assert all(later >= 2 * age for age, later in itertools.pairwise(ages))
        assert (end.outcome, end.assigned) == (OK, 2)
        assert end.duration_ns > ages[-1]
        assert [r.outcome for r in bench.peer.records if r.request_id == b"quick"] == [OK]


def mine(bench: Any) -> list[Any]:
    return [r for r in bench.peer.records if r.request_id == b"slow"]
