"""The loop of the evaluation plane: one flush for all parts, each of which fails alone."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest

from tests.support.evaluation import config_of
from tests.support.patience import patient
from understudy.monitor.evidence.settings import Settings
from understudy.monitor.pipeline.plane import EvaluationPlane
from understudy.monitor.service.evaluation import EvaluationLoop, make_plane
from understudy.monitor.supervisor.control_line import Reloaded

pytestmark = pytest.mark.anyio


class Line:
    """The supervisor's end of the line; it answers when ``released``."""

    def __init__(self) -> None:
        self.asked = 0
        self.released = asyncio.Event()

    async def routes(self) -> Reloaded:
        self.asked += 1
        await self.released.wait()
        return Reloaded(True, 1, None)


def plane_in(folder: Path) -> EvaluationPlane:
    (folder / "run").mkdir()
    document = config_of(folder / "state").model_dump(mode="json", by_alias=True)
    return make_plane(Settings.from_json(document), folder / "run", "run-1")


def counting(found: list[str], what: str, call: Any) -> Any:
    def counted(*arguments: Any) -> Any:
        found.append(what)
        return call(*arguments)

    return counted


async def test_records_are_evaluated_once_for_all_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plane = plane_in(tmp_path)
    assert plane.experiments is not None
    assert plane.pipeline.findings_loop is not None
    seen: list[str] = []
    for part, name in (
        (plane.pipeline, "flush"),
        (plane.experiments, "tick"),
        (plane.pipeline.findings_loop, "tick"),
    ):
        label = f"{type(part).__name__}.{name}"
        monkeypatch.setattr(part, name, counting(seen, label, getattr(part, name)))
    line: Any = Line()
    line.released.set()
    await EvaluationLoop(plane, line).step()
    assert seen == ["Pipeline.flush", "ExperimentRunner.tick", "FindingsLoop.tick"]


async def test_a_part_that_fails_or_waits_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    plane = plane_in(tmp_path)
    assert plane.experiments is not None
    assert plane.pipeline.findings_loop is not None
    seen: list[str] = []

    def broken(*_: Any) -> None:
        seen.append("findings")
        raise RuntimeError("no room")

    ticks = counting(seen, "experiments", plane.experiments.tick)
    monkeypatch.setattr(plane.experiments, "tick", ticks)
    monkeypatch.setattr(plane.pipeline.findings_loop, "tick", broken)
    line: Any = Line()
    loop = EvaluationLoop(plane, line)
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            await loop.step()
    # The supervisor does not answer: experiments wait for it, findings are tried every time.
    assert seen.count("experiments") == line.asked == 1
    assert seen.count("findings") == 3
    said = [r for r in caplog.records if "findings could not be updated" in r.getMessage()]
    assert len(said) == 1, "the same error is logged once"
    line.released.set()
    async with asyncio.timeout(patient(10.0)):
        while seen.count("experiments") < 2:
            await loop.step()
