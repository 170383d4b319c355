"""Evidence belongs to the model servers that it was gathered on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from understudy.monitor.config.compile import compile_plan
from understudy.monitor.config.model import Config
from understudy.monitor.experiments.runner import ExperimentRunner
from understudy.monitor.routing.routes import Routes

NOW = 1_800_000_000.0


def config(folder: Path, **changes: Any) -> Config:
    challenger = {"name": "candidate", "url": "http://127.0.0.1:9002", **changes}
    return Config.model_validate(
        {
            "version": 1,
            "listen": "127.0.0.1:0",
            "state_dir": str(folder),
            "models": [{"name": "m", "protocol": "kserve-v1"}],
            "champion": {"url": changes.pop("champion", "http://127.0.0.1:9001")},
            "challengers": [{k: v for k, v in challenger.items() if k != "champion"}],
            "experiments": [
                {
                    "name": "x",
                    "challengers": ["candidate"],
                    "mode": "canary",
                    "stages": [{"weight": 0.5, "requests": 10}, {"weight": 1.0}],
                }
            ],
        }
    )


def promoted(folder: Path) -> ExperimentRunner:
    """The first version has been promoted and serves everybody."""
    runner = ExperimentRunner(config(folder), clock=lambda: NOW)
    live = runner.live["x"]
    contestant = live.contestants["candidate"]
    contestant.rollout = contestant.rollout.__class__.from_state(
        {**contestant.rollout.dump_state(), "phase": "promoted", "weight": 1.0, "index": 1}
    )
    live.experiment.contests["candidate"].served = [500, 500]
    runner.save_changes()
    assert Routes.load(folder).serving == {"x"}
    return runner


NEXT = [
    {"url": "http://127.0.0.1:9003"},
    {"headers": {"x-model-version": "3"}},
    {"host": "version-3.example"},
    {"champion": "http://127.0.0.1:9004"},
]


@pytest.mark.parametrize("change", NEXT, ids=lambda change: next(iter(change)))
def test_the_next_version_does_not_inherit_a_promotion(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    """Traffic of one canary leaked into the next one."""
    runner = promoted(tmp_path)
    runner.configure(config(tmp_path, **change))
    live = runner.live["x"]
    assert live.contestants["candidate"].rollout.phase == "running"
    assert live.contestants["candidate"].rollout.weight == 0.5
    assert live.experiment.contests["candidate"].served == [0, 0]
    report = runner.ended.find("x")
    assert "declared again with other model servers" in str(report)


@pytest.mark.parametrize("change", NEXT, ids=lambda change: next(iter(change)))
def test_nor_when_the_configuration_changed_while_the_service_was_stopped(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    state = promoted(tmp_path).dump_state()
    later = config(tmp_path, **change)
    plan = compile_plan(later, 1, Routes.load(tmp_path))
    assert not plan.splits, "the champion serves until the new experiment begins"
    runner = ExperimentRunner(later, clock=lambda: NOW + 60.0)
    runner.load_state(state)
    live = runner.live["x"]
    assert live.contestants["candidate"].rollout.phase == "running"
    assert live.experiment.contests["candidate"].served == [0, 0]
    assert "its model servers changed" in str(runner.ended.find("x"))


@pytest.mark.parametrize(
    "change", [{"max_connections": 32}, {"headers": {"Authorization": "Bearer of-today"}}]
)
def test_other_settings_of_a_server_change_nothing(tmp_path: Path, change: dict[str, Any]) -> None:
    runner = promoted(tmp_path)
    same = config(tmp_path, **change)
    runner.configure(same)
    assert runner.live["x"].contestants["candidate"].rollout.phase == "promoted"
    assert runner.live["x"].experiment.contests["candidate"].served == [500, 500]
    again = ExperimentRunner(same, clock=lambda: NOW + 60.0)
    again.load_state(runner.dump_state())
    assert again.live["x"].contestants["candidate"].rollout.phase == "promoted"
    assert compile_plan(same, 1, Routes.load(tmp_path)).splits
