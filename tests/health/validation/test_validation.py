"""Known cases against a real HTTP server that can be made wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from tests.support.patience import eventually
from tests.support.plane_process import PlaneProcess
from tests.support.validation_cases import CASES, Model, write
from understudy.monitor.cli.main import main
from understudy.monitor.errors import ValidationCaseError
from understudy.monitor.health.validation.cases import load_cases


@pytest.fixture
def model() -> Iterator[Model]:
    running = Model()
    yield running
    running.server.shutdown()


def config(tmp_path: Path, model: Model, **more: Any) -> dict[str, Any]:
    return {
        "version": 1,
        "listen": "127.0.0.1:0",
        "models": [{"name": "m", "protocol": "kserve-v1"}],
        "champion": {"url": model.url},
        "validation": {
            "cases": str(write(tmp_path / "cases.jsonl", CASES)), "every": "300ms", "max_rate": "1000/s",
            **more,
        },
    }  # fmt: skip


def test_validate_command_runs_one_round(tmp_path: Path, model: Model) -> None:
    path = tmp_path / "understudy.yaml"
    path.write_text(yaml.safe_dump(config(tmp_path, model)))
    good = CliRunner().invoke(main, ["validate", "--config", str(path)])
    assert good.exit_code == 0, good.output
    assert "2 of 2 golden cases pass" in good.output
    assert model.marked == 8
    model.factor, model.careless = -0.1, True
    bad = CliRunner().invoke(main, ["validate", "--config", str(path), "--json"])
    assert bad.exit_code == 1
    groups = {group["kind"]: group for group in json.loads(bad.output)["groups"]}
    assert groups["golden"]["failures"][0] == {"case": "one", "wrong": "p: -0.1 instead of 0.1"}
    assert "not up" in groups["directional"]["failures"][0]["wrong"]
    assert "expected a rejection" in groups["malformed"]["failures"][0]["wrong"]
    assert groups["labelled"]["failed"] == 1
    assert groups["invariance"]["failed"] == 0
    model.server.shutdown()
    model.server.server_close()
    unreachable = CliRunner().invoke(main, ["validate", "--config", str(path)])
    assert unreachable.exit_code == 1
    assert "no answer" in unreachable.output


def test_a_case_that_passed_and_fails_opens_a_finding(tmp_path: Path, model: Model) -> None:
    document = config(tmp_path, model)
    more = {"models": document["models"], "validation": document["validation"]}
    champion = {"name": "champion", "url": model.url}
    with PlaneProcess(tmp_path, champion=champion, challengers=[], **more) as plane:
        eventually(lambda: plane.get("/v1/validation").json()["rounds"] >= 1)
        assert plane.metric("understudy_validation_pass_ratio", kind="golden") == 1.0
        assert plane.get("/v1/findings").json()["findings"] == []
        model.factor = 0.2

        def of_golden_cases() -> list[dict[str, Any]]:
            # The model changed in the middle of a round: cases of other kinds may fail first.
            findings = plane.get("/v1/findings").json()["findings"]
            return [f for f in findings if "p: 0.2 instead of 0.1" in f["title"]]

        (finding,) = eventually(of_golden_cases)
        assert finding["kind"] == "validation"
        assert finding["severity"] == "critical"
        assert plane.status()["records"]["eligible"] == 0, "it is no traffic"
        model.factor = 0.1
        eventually(lambda: not plane.get("/v1/findings?state=open").json()["findings"])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 1"),
        ("5", "must be an object"),
        ('{"kind": "odd", "request": {}}', "kind: 'odd'"),
        ('{"request": {}}', "expect: is required"),
        ('{"request": {}, "expect": 5}', "expect: must be an object"),
        ('{"kind": "directional", "request": {}, "other": {}, "prediction": "p", "direction": "x"}',
         "direction: 'x'"),
        ("", "between 1 and"),
    ],
)  # fmt: skip
def test_invalid_files_are_rejected(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "cases.jsonl"
    path.write_text(line)
    with pytest.raises(ValidationCaseError, match=message):
        load_cases(path)
    with pytest.raises(ValidationCaseError, match="cannot be read"):
        load_cases(tmp_path / "none.jsonl")
