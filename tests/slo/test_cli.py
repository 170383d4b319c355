"""The command as a person and a script use it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from understudy.monitor.cli.main import main

SLO = """
version: 1
service: delays
slos:
  - {name: availability, objective: 99.9 %, availability: , rate: 20}
  - {name: cheap, objective: 75 %, cost: {at_most: 0.001}}
"""


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "slo.yaml"
    path.write_text(SLO)
    return str(path)


def said(*arguments: str, code: int = 0) -> str:
    done = CliRunner().invoke(main, ["slo", *arguments])
    assert done.exit_code == code, done.output
    return done.output


def test_explain_shows_minutes_and_budget(file: str) -> None:
    text = said("explain", file)
    assert "99.9 % of requests good over 30 d" in text
    assert "good    a response with an outcome other than server_error" in text
    assert "good    a prediction costs at most 0.001" in text
    assert "51,840 of 51,840,000 at 20/s" in text
    lines = [line.split() for line in text.splitlines()]
    assert ["100", "%", "51.8", "s", "2", "%", "4.32", "min", "10", "%", "43.2", "min"] in lines
    assert "it can never fire; lowered to 3.2 x" in text
    few = said("explain", file, "--rate", "0.002", "--bad", "50%")
    assert "waits for the minimum number" in few


def test_explain_as_json(file: str) -> None:
    done = CliRunner().invoke(main, ["slo", "explain", file, "--json", "--bad", "0.1"])
    found = json.loads(done.stdout)
    first = found["slos"][0]["faults"][0]
    assert first["bad"] == 0.1
    assert first["page"]["after_seconds"] == pytest.approx(518.4)
    assert first["page"]["budget_spent"] == pytest.approx(0.02)
    assert found["slos"][1]["alerts"][0]["reason"]


def test_generate_writes_files(file: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    listed = said("generate", file, "-o", str(out), "--label", "release=prom", "--namespace", "ml",
                  "--page-webhook", "http://127.0.0.1:1/p", "--runbooks", "https://w/{alert}")  # fmt: skip
    names = {path.name for path in out.iterdir()}
    assert {str(out / name) for name in names} <= set(listed.splitlines())
    assert {"delays-availability.rules.yml", "delays-alerts.rules.yml", "alertmanager.yml",
            "delays.prometheusrule.yaml", "delays-availability-60s.tests.yml"} <= names  # fmt: skip
    manifest = yaml.safe_load((out / "delays.prometheusrule.yaml").read_text())
    assert manifest["kind"] == "PrometheusRule"
    assert manifest["metadata"] == {
        "name": "understudy-delays", "namespace": "ml", "labels": {"release": "prom"}}  # fmt: skip
    alerts = [r for g in manifest["spec"]["groups"] for r in g["rules"] if "alert" in r]
    assert {a["annotations"]["runbook_url"] for a in alerts} == {
        f"https://w/{a['alert']}" for a in alerts
    }
    routes = yaml.safe_load((out / "alertmanager.yml").read_text())
    assert routes["receivers"][0]["webhook_configs"][0]["url"] == "http://127.0.0.1:1/p"


def test_files_left_by_an_earlier_run_are_named(file: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    text = said("generate", file, "-o", str(out))
    assert "pages have no receiver" in text
    assert "that is gone" not in text
    other = tmp_path / "other.yaml"
    other.write_text(SLO.replace("delays", "delays-eu"))
    assert "that is gone" not in said("generate", str(other), "-o", str(out))
    Path(file).write_text(SLO.replace("cheap", "dear"))
    text = said("generate", file, "-o", str(out), "--page-webhook", "http://127.0.0.1:1/p")
    assert "delays-cheap.rules.yml: of an objective that is gone" in text
    assert text.count("that is gone") == 1
    assert "pages have no receiver" not in text


def test_parts_to_standard_output(file: str) -> None:
    done = CliRunner().invoke(main, ["slo", "generate", file, "--only", "prometheusrule"])
    assert yaml.safe_load(done.stdout)["kind"] == "PrometheusRule"
    done = CliRunner().invoke(main, ["slo", "generate", file, "--json", "--only", "rules"])
    assert json.loads(done.stdout).keys() == {
        "delays-availability.rules.yml", "delays-cheap.rules.yml", "delays-alerts.rules.yml"}  # fmt: skip


def test_faults_end_with_two(file: str, tmp_path: Path) -> None:
    assert "cannot be read" in said("explain", str(tmp_path / "none.yaml"), code=2)
    Path(file).write_text(SLO.replace("99.9 %", "199 %"))
    assert "slos[0].objective" in said("generate", file, code=2)
    assert "not a valid share" in said("explain", file, "--bad", "5x", code=2)
    (tmp_path / "taken").write_text("")
    Path(file).write_text(SLO)
    assert "is a file" in said("generate", file, "-o", str(tmp_path / "taken"), code=2)
    assert "cannot be written" in said(
        "generate", file, "-o", str(tmp_path / "taken" / "x"), code=2
    )
    assert "NAME=VALUE" in said("generate", file, "--label", "x", code=2)
