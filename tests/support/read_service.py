"""A pipeline with its findings, fed with records whose payloads can or cannot be read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.support.plane_process import ARMS, MODEL, encoded
from understudy.monitor.config.model import Config
from understudy.monitor.evidence.settings import Settings
from understudy.monitor.health.findings_loop import FindingsLoop
from understudy.monitor.pipeline.pipeline import Pipeline
from understudy.monitor.records.handoff import Names


class Service:
    """A pipeline with its findings, fed with records."""

    def __init__(
        self,
        folder: Path,
        experiments: Sequence[Any] = (),
        blind: float = 0.1,
        learn: int = 0,
        **model: Any,
    ) -> None:
        document = {
            "version": 1,
            "listen": "127.0.0.1:0",
            "state_dir": str(folder),
            "models": [{**MODEL, **model}],
            "champion": {"url": "http://127.0.0.1:9"},
            "challengers": [{"name": "candidate", "url": "http://127.0.0.1:8"}],
            "experiments": list(experiments),
            "monitoring": {"blind": blind, "learn": learn},
        }
        self.pipeline = Pipeline(Settings.from_json(document))
        self.config = Config.model_validate(document)
        self.loop = FindingsLoop(self.config, None, lambda: 0.0)
        self.pipeline.findings_loop = self.loop
        self.now = 0.0
        self.number = 0

    def send(self, count: int, request: Any, answer: Any, **more: Any) -> None:
        names = Names(1, (("delays", "1", "open-inference-v2"),), tuple(ARMS))
        records = []
        for _ in range(count):
            self.number += 1
            records.append(encoded(request, answer, request_id=f"r-{self.number}", **more))
        self.pipeline.take(names, count, b"".join(records))
        self.pipeline.flush()
        self.now += 60.0
        self.loop.tick(self.now)

    def open(self) -> dict[str, str]:
        """Titles of open findings, by key."""
        return {f.signal.key: f.signal.title for f in self.loop.service.ledger.open()}

    def untested(self) -> dict[str, str]:
        return {
            one["check"]: one["words"]
            for one in self.loop.watches.untested()
            if one["reason"] == "unreadable"
        }


GOOD = {"a": [1.0]}, {"p": [0.1]}
