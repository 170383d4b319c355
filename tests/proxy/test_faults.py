"""Injected errors: their share, their status, and where they are counted."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from tests.support.patience import patient
from tests.support.proxy import OK, Server, plan_for, post, sidecar
from understudy.monitor.routing.plan import Fault


@pytest.mark.anyio
async def test_a_share_of_the_requests_gets_the_injected_status() -> None:
    upstream = await Server(OK).start()
    plan = replace(plan_for(upstream.port), faults=(Fault(0, 0.5, 599),))
    async with sidecar(plan) as side:
        answers = [await side.ask(post()) for _ in range(80)]
        statuses = [answer.status for answer in answers]
        # Half of eighty: fewer than fifteen of either has a probability below 1e-7.
        assert 15 <= statuses.count(599) <= 65
        assert set(statuses) == {200, 599}
        assert len(upstream.seen) == statuses.count(200)
        injected = next(answer for answer in answers if answer.status == 599)
        assert b"an injected error" in injected.body
        assert injected.header("x-request-id")
    plan = replace(plan_for(upstream.port), faults=(Fault(1, 1.0, 503),))
    async with sidecar(plan) as side:
        assert {(await side.ask(post())).status for _ in range(5)} == {200}, "of another arm"


@pytest.mark.anyio
async def test_a_request_whose_body_is_still_to_come_is_answered_and_cut_off() -> None:
    upstream = await Server(OK).start()
    plan = replace(plan_for(upstream.port), faults=(Fault(0, 1.0, 503),))
    # A body that is too large to wait for.
    plan = replace(plan, capture=replace(plan.capture, max_body_bytes=8))
    async with sidecar(plan) as side:
        reader, writer = await asyncio.open_connection("127.0.0.1", side.port)
        writer.write(b"POST /v2/models/m/infer HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nabc")
        assert b" 503 " in await asyncio.wait_for(reader.read(), patient(10))
        writer.close()
