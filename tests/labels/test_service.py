"""The store behind its thread: offers never wait, trouble is shown and passes."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from understudy.monitor.errors import StateError
from understudy.monitor.labels import service
from understudy.monitor.labels.label import Label
from understudy.monitor.labels.service import LabelService
from understudy.monitor.labels.store import Prediction

ROOMY = 256 * 1024 * 1024


def prediction(request_id: str, arm: str = "champion") -> Prediction:
    return Prediction(request_id, arm, False, "m", 0.0, time.time(), {"p": [0.5]})


async def with_feedback(
    folder: Path, use: Callable[[LabelService], Awaitable[Any]], after: int = 0
) -> Any:
    feedback = LabelService(folder, 1000.0, ROOMY, after=after)
    try:
        return await use(feedback)
    finally:
        await feedback.close()


@pytest.mark.anyio
async def test_a_label_finds_a_prediction_that_was_offered_a_moment_ago(tmp_path: Path) -> None:
    async def use(feedback: LabelService) -> None:
        feedback.offer(prediction("r"))
        assert feedback.summary()["queued"] == 1
        assert await feedback.add([Label("r", 0, 1)]) == ["joined"]
        assert [joined.request_id for joined in await feedback.take(0)] == ["r"]
        await feedback.tidy(1)
        assert await feedback.take(0) == []
        assert feedback.summary()["queued"] == 0

    await with_feedback(tmp_path, use)


@pytest.mark.anyio
async def test_offered_predictions_survive_a_stop(tmp_path: Path) -> None:
    async def offer(feedback: LabelService) -> None:
        feedback.offer(prediction("r"))

    async def label(feedback: LabelService) -> list[str]:
        return await feedback.add([Label("r", 0, 1)])

    await with_feedback(tmp_path, offer)
    assert await with_feedback(tmp_path, label) == ["joined"]


@pytest.mark.anyio
async def test_the_oldest_offers_are_dropped_when_the_queue_is_full(tmp_path: Path) -> None:
    async def use(feedback: LabelService) -> None:
        for i in range(service.MOST_WAITING + 3):
            feedback.offer(prediction(str(i)))
        assert feedback.dropped == 3
        found = await feedback.add([Label("2", 0, 1), Label("3", 0, 1)])
        assert found == ["orphan", "joined"]
        assert feedback.summary()["waiting"]["predictions"] == service.MOST_WAITING

    await with_feedback(tmp_path, use)


@pytest.mark.anyio
async def test_predictions_wait_for_the_disk_and_labels_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    folder.write_text("in the way")

    async def use(feedback: LabelService) -> None:
        assert "cannot be opened" in feedback.summary()["error"]
        for i in range(service.MOST_WAITING):
            feedback.offer(prediction(str(i)))
        assert not await feedback.flush()
        feedback.offer(prediction("one more"))
        assert feedback.dropped == 1
        with pytest.raises(StateError, match="cannot be opened"):
            await feedback.add([Label("1", 0, 1)])
        await feedback.tidy(0)
        assert feedback.summary()["failures"] >= 4
        folder.unlink()
        assert await feedback.add([Label("1", 0, 1), Label("0", 0, 1)]) == ["joined", "orphan"]
        assert feedback.summary()["error"] is None
        assert feedback.dropped == 1, "nothing else was let go of"

    await with_feedback(folder, use)


@pytest.mark.anyio
async def test_a_call_after_the_end_is_refused(tmp_path: Path) -> None:
    async def use(feedback: LabelService) -> LabelService:
        return feedback

    feedback = await with_feedback(tmp_path, use)
    with pytest.raises(StateError, match="stopping"):
        await feedback.add([Label("r", 0, 1)])


@pytest.mark.anyio
async def test_changed_bounds_apply_from_the_next_purge(tmp_path: Path) -> None:
    async def use(feedback: LabelService) -> None:
        for i in range(100):
            feedback.offer(prediction(str(i)))
        await feedback.flush()
        feedback.configure(1000.0, ROOMY, 10)
        await feedback.tidy(0)
        assert feedback.summary()["waiting"]["predictions"] == 10
        assert feedback.summary()["purged"] == {"size": 90}

    await with_feedback(tmp_path, use)
