"""The parts of the evaluation plane that run as long as it does."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.patience import patient
from understudy.monitor.service import evaluation


def test_a_part_that_fails_starts_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(evaluation, "TICK_SECONDS", 0.01)
    starts = 0

    async def run() -> None:
        running = asyncio.Event()

        async def part() -> None:
            nonlocal starts
            starts += 1
            if starts < 3:
                raise RuntimeError(f"start {starts}")
            running.set()
            await asyncio.sleep(3600)

        task = asyncio.create_task(evaluation._repeat(part))
        await asyncio.wait_for(running.wait(), patient(10))
        task.cancel()

    asyncio.run(run())
    assert starts == 3
    assert caplog.text.count("a part of the evaluation plane failed; it starts again") == 2
    assert "RuntimeError: start 2" in caplog.text
