"""Models that are known from requests are read and watched by the settings of their entry."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson

from tests.support.plane_process import ARMS, encoded
from understudy.monitor.config.model import Config
from understudy.monitor.evidence.settings import Settings
from understudy.monitor.health import watches
from understudy.monitor.health.findings_loop import FindingsLoop
from understudy.monitor.pipeline.pipeline import Pipeline
from understudy.monitor.records.handoff import Names


class Service:
    def __init__(self, folder: Path, *models: dict[str, Any], **more: Any) -> None:
        document = {
            "version": 1,
            "listen": "127.0.0.1:0",
            "state_dir": str(folder),
            "models": list(models),
            "champion": {"url": "http://127.0.0.1:9"},
            **more,
        }
        self.config = Config.model_validate(document)
        self.pipeline = Pipeline(Settings.from_json(self.config.model_dump(mode="json")))
        self.loop = FindingsLoop(self.config, None, lambda: 0.0)
        self.pipeline.findings_loop = self.loop

    def send(self, model: str, count: int, request: Any, answer: Any, version: str = "") -> None:
        names = Names(1, ((model, version, "auto"),), tuple(ARMS))
        batch = [encoded(request, answer, request_id=f"r-{n}") for n in range(count)]
        self.pipeline.take(names, count, b"".join(batch))
        self.pipeline.flush()


GOOD = {"a": [1.0]}, {"p": [0.1]}


def test_settings_of_the_entry_hold_for_all_that_it_matches(tmp_path: Path) -> None:
    listed = {"name": "listed"}
    match = {"match": "*", "classes": {"of": "p", "labels": ["cat", "dog"]}}
    service = Service(tmp_path, listed, match)
    scores = orjson.dumps(
        {"outputs": [{"name": "p", "shape": [1, 2], "datatype": "FP64", "data": [0.1, 0.9]}]}
    )
    for model in ("listed", "org/m:Q4"):
        service.send(model, 3, GOOD[0], scores)
    found = service.pipeline.predictions
    assert "class" in found["org/m:Q4", "", "champion"].by_name
    assert "class" not in found["listed", "", "champion"].by_name


def test_what_is_not_read_is_not_read_of_any_of_them(tmp_path: Path) -> None:
    service = Service(tmp_path, {"name": "listed"}, {"match": "*", "read": False})
    for model in ("listed", "m"):
        service.send(model, 100, *GOOD)
        service.send(model, 100, b"\0\1", b"\0\1")
    assert {key[0] for key in service.pipeline.features} == {"listed"}
    assert {key[0] for key in service.pipeline.undecodable} == {"listed"}
    assert service.loop.watches.readability.keys() == {("listed", "")}


def test_blindness_of_each_is_found_and_outlasts_restart_and_reload(tmp_path: Path) -> None:
    service = Service(tmp_path, {"match": "*"})
    service.send("good", 100, *GOOD)
    service.send("bad", 100, b"\0\1", {"p": [0.1]}, "2")
    (warning,) = service.loop.watches.warnings()
    assert warning.startswith("model 'bad' is blind: 0 of 100 requests could be read")
    again = Service(tmp_path, {"match": "*"})
    again.loop.load_state(orjson.loads(orjson.dumps(service.loop.dump_state())))
    assert again.loop.watches.warnings() == [warning]
    again.loop.watches.configure(again.config)
    assert again.loop.watches.warnings() == [warning]
    without = Service(tmp_path, {"name": "good"})
    without.loop.load_state(orjson.loads(orjson.dumps(service.loop.dump_state())))
    assert without.loop.watches.warnings() == []


def test_objectives_hold_for_each_and_outlast_a_restart(tmp_path: Path) -> None:
    objectives = {"latency_p50": "<= 1ms"}
    services = [
        Service(tmp_path, {"name": "a"}, {"match": "*"}, objectives=objectives) for _ in range(2)
    ]
    service, again = services
    service.send("m", 600, *GOOD)
    keys = {("a", ""), ("other", ""), ("m", "")}
    assert service.loop.watches.objectives.keys() == keys
    again.loop.load_state(orjson.loads(orjson.dumps(service.loop.dump_state())))
    again.loop.watches.configure(again.config)
    for one in services:
        watch = one.loop.watches.objectives["m", ""]
        assert watch.dump_state() == service.loop.watches.objectives["m", ""].dump_state()
        assert watch.dump_state() != one.loop.watches.objectives["a", ""].dump_state()


def test_no_more_are_watched_than_are_kept(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(watches, "_MOST_MODELS", 3)
    service = Service(tmp_path, {"match": "*"})
    for number in range(5):
        service.send(f"m{number}", 20, *GOOD)
    assert len(service.loop.watches.readability) == 3
