"""Durations, shares, rates and percentiles mean the same in every file, up to the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from pydantic import ValidationError

from tests.support.gates import gate, plan
from understudy.common.fields import SAVED
from understudy.monitor.cli.main import main
from understudy.monitor.config.experiment import Experiment
from understudy.monitor.config.model import Config
from understudy.monitor.config.rules import rules_of

SIDECAR = """
version: 1
listen: 127.0.0.1:8080
models: [{name: m}]
champion: {url: "http://127.0.0.1:8081", timeouts: {total: 1m30s}}
"""


def run(*arguments: object) -> tuple[int, str]:
    found = CliRunner().invoke(main, list(map(str, arguments)))
    return found.exit_code, found.output


def checked(folder: Path, more: str) -> tuple[int, str]:
    (folder / "f.yaml").write_text(SIDECAR + more)
    return run("config", "check", folder / "f.yaml")


def test_config_check_prints_the_limits_of_the_file(tmp_path: Path) -> None:
    more = "objectives: {latency_p999: '<= 1s', error_rate: '<= 1 %', throughput: '>= 60/min'}\n"
    code, output = checked(tmp_path, more + "limits: {body_rate: 2KiB/s, drain: 1 min}\n")
    assert code == 0, output
    assert [line.strip() for line in output.splitlines()[1:]] == [
        "champion.timeouts.total: 90s",
        "limits.body_rate: 2048B/s",
        "limits.drain: 60s",
        "objectives.latency_p999: at most 1s",
        "objectives.error_rate: at most 1 %",
        "objectives.throughput: at least 1/s",
    ]
    code, output = run("config", "check", tmp_path / "f.yaml", "--json")
    assert json.loads(output)["limits"]["limits.drain"] == "60s"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("limits: {drain: 20}", "limits.drain: 20 has no unit: write 20ms or 20s"),
        ("limits: {body_rate: 1024}", "limits.body_rate: 1024 has no unit: write 1024B/s or"),
        ("limits: {body_rate: 1KiB}", "limits.body_rate: not a valid rate: '1KiB'"),
        ("objectives: {latency_p99: <= 50}", "50 has no unit: write 50ms or 50s"),
        ("objectives: {error_rate: <= 0.5}", "0.5 has no unit: write 0.5 % or 50 %"),
        ("objectives: {latency_99: <= 5ms}", "did you mean 'latency_p99'?"),
        ("validation: {cases: c, max_rate: 5}", "validation.max_rate: 5 has no unit: write 5/s or"),
    ],
)
def test_a_limit_without_its_unit_is_refused(tmp_path: Path, more: str, message: str) -> None:
    code, output = checked(tmp_path, more + "\n")
    assert (code, message in output) == (2, True), output


@pytest.mark.parametrize(
    ("slo", "message"),
    [
        ({"objective": 0.999, "availability": {}}, "objective: 0.999 has no unit: write 0.999 % or"),
        ({"latency": {"within": 60, "quantile": "p99"}}, "60 has no unit: write 60ms or 60s"),
        ({"objective": "99 %", "quantile": {"quantile": "p98", "at_most": "1s"}}, "p98 is not one of"),
        ({"objective": "99 %", "availability": {}, "period": 30}, "30 has no unit: write 30h or 30d"),
    ],
)  # fmt: skip
def test_objectives_need_units(tmp_path: Path, slo: dict[str, Any], message: str) -> None:
    file = tmp_path / "slo.yaml"
    file.write_text(yaml.safe_dump({"version": 1, "service": "s", "slos": [{"name": "a", **slo}]}))
    code, output = run("slo", "explain", file)
    assert (code, message in output) == (2, True), output


def test_percentiles_have_one_name(tmp_path: Path) -> None:
    slos = [
        {"name": "tail", "objective": "99 %", "quantile": {"quantile": "p99.9", "at_most": "1s"}},
        {"name": "slow", "latency": {"within": "60ms", "quantile": "p99.9"}},
    ]
    file = tmp_path / "slo.yaml"
    file.write_text(yaml.safe_dump({"version": 1, "service": "s", "slos": slos}))
    code, output = run("slo", "explain", file)
    assert (code, "s/slow: 99.9 % of requests good" in output) == (0, True), output
    for name in ("latency_p99.9", "latency_p999"):
        metrics = [{"metric": name, "margin": "5 %"}]
        declared = Experiment.model_validate(
            {"name": "e", "challengers": ["c"], "metrics": metrics}
        )
        assert rules_of(declared).hypotheses[0].name == "latency_p99.9"


def test_the_gate_prints_every_limit_as_it_was_understood(tmp_path: Path) -> None:
    text = """
    objectives: {p90: 500ms, p999: 2 min, errors: 5 %, rate: 600/min}
    limits: {seconds: 90, rate: 100/s}
    stages:
      - {name: steady, load: {rate: 60, seconds: 8}}
      - {name: own, load: {rate: 120/min, seconds: 1m}, objectives: {preset: interactive}}
    """
    found = gate("--target", "http://127.0.0.1:1", "--plan", plan(tmp_path, text), "--check")
    assert found.exit_code == 0, found.output
    lines = [line.strip() for line in found.output.splitlines()]
    assert lines[1 : lines.index("steady: load")] == [
        "limits.rate: 100/s", "limits.seconds: 90s", "engine.timeout: 30s"
    ]  # fmt: skip
    assert lines[lines.index("steady: load") + 1 : lines.index("own: load")] == [
        "rate: 60/s", "seconds: 8s", "p90: at most 500ms", "p99.9: at most 2m",
        "errors: at most 5 % of the requests", "rate: at least 10/s good answers",
    ]  # fmt: skip
    assert [one for one in lines[lines.index("own: load") + 1 :] if not one.startswith("note")] == [
        "rate: 2/s", "seconds: 60s", "p95: at most 100ms", "p99: at most 500ms",
        "errors: at most 0.1 % of the requests",
    ]  # fmt: skip


def test_state_of_an_earlier_version_has_numbers_of_seconds() -> None:
    saved = {"name": "e", "challengers": ["c"], "max_duration": 3600.0, "settle": 5}
    with pytest.raises(ValidationError):
        Experiment.model_validate(saved)
    found = Experiment.model_validate(saved, context=SAVED)
    assert (found.max_duration, found.settle) == (3600.0, 5.0)
    dumped = found.model_dump(mode="json", exclude_unset=True)
    assert (dumped["max_duration"], dumped["settle"]) == ("60m", "5s")
    assert Experiment.model_validate(dumped) == found


def test_a_configuration_is_dumped_with_units() -> None:
    config = Config.model_validate(yaml.safe_load(SIDECAR))
    dumped = config.model_dump(mode="json", by_alias=True)
    assert dumped["champion"]["timeouts"]["total"] == "90s"
    assert Config.model_validate(dumped) == config
