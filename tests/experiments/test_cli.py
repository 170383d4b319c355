"""``understudy experiment`` against a running service."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.support.canaries import GUARDRAILS, challenger
from tests.support.patience import eventually
from tests.support.world import Load, Model, World
from understudy.monitor.cli.main import main

STAGES = [
    {"weight": 0.0, "requests": 50, "gate": "manual"},
    {"weight": 0.5, "requests": 1_000_000},
    {"weight": 1.0},
]


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(main, ["experiment", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    return result


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with World(tmp_path, Model("second")) as running:
        yield running


def test_an_experiment_from_start_to_end_on_the_command_line(world: World, tmp_path: Path) -> None:
    url = ("--url", world.service.control)
    none = run("status", *url)
    assert "no experiments; start one" in none.output
    file = tmp_path / "ramp.yaml"
    declared = {"challengers": ["other0"], "mode": "canary", "metrics": GUARDRAILS}
    file.write_text(json.dumps({**declared, "stages": STAGES}))
    begun = run("start", file, *url)
    assert (begun.exit_code, "ramp has started" in begun.output) == (0, True)
    assert run("start", file, *url).exit_code == 2, "there is one of that name"
    load = Load(world.service.url)
    eventually(lambda: challenger(world)["phase"] == "waiting")
    shown = run("status", "ramp", *url)
    assert "waiting at stage shadow (1 of 3)" in " ".join(shown.output.split())
    assert "error_rate" in shown.output
    # What the evidence says goes on while somebody is waited for.
    in_short = run("status", *url).output
    assert in_short.startswith("ramp  canary  other0: ")
    assert "waiting at 0 %" in in_short
    code = run("status", "ramp", "--json", "--exit-code", *url)
    assert json.loads(code.output)["name"] == "ramp"
    assert code.exit_code in (0, 10), "promote, or more evidence is wanted again meanwhile"
    looked = run("watch", "ramp", "--once", *url)
    assert looked.exit_code == 0
    assert "●" in looked.output
    assert "█" in looked.output
    went_on = run("promote", "ramp", "--why", "looks well", "--who", "ada", *url)
    assert went_on.output.strip() == "other0: running at 50 %"
    again = run("promote", "ramp", *url)
    assert (again.exit_code, "force" in again.output) == (2, True)
    page = tmp_path / "report.html"
    # A plot needs two looks with evidence, and looks are a matter of time.
    eventually(lambda: run("report", "ramp", "-o", page, *url) and "<svg" in page.read_text())
    assert run("pause", "ramp", *url).output.strip() == "other0: paused at 50 %"
    assert run("resume", "ramp", *url).output.strip() == "other0: running at 50 %"
    assert run("abort", "ramp", *url).exit_code == 2, "--why is needed"
    gone = run("abort", "ramp", "--why", "a wrong build", "--json", *url)
    assert json.loads(gone.output)["challengers"][0]["phase"] == "aborted"
    assert run("report", "ramp", "-o", page, *url).exit_code == 0
    text = page.read_text()
    assert "a wrong build" in text
    assert "<svg" in text
    assert "http" not in text.replace("http-equiv", ""), "it needs nothing from elsewhere"
    assert set(load.stop()) == {"200"}


def test_clear_errors(world: World, tmp_path: Path) -> None:
    url = ("--url", world.service.control)
    unknown = run("status", "nothing", *url)
    assert (unknown.exit_code, "there is no experiment 'nothing'" in unknown.output) == (1, True)
    away = run("status", "--url", "http://127.0.0.1:9")
    assert (away.exit_code, "is 'understudy serve' running?" in away.output) == (1, True)
    file = tmp_path / "bad.yaml"
    file.write_text("challengers: [nobody]\n")
    bad = run("start", file, *url)
    assert bad.exit_code == 2
    assert "challengers[0]: there is no challenger 'nobody'" in bad.output
    file.write_text("challengers: [other0]\nmetrics: [{metric: error_rate, margin: 0.1}]\n")
    assert "metrics[0].margin: 0.1 has no unit" in run("start", file, *url).output
    file.write_text("challengers: [other0]\nmode: party\n")
    assert "mode: " in run("start", file, *url).output
    assert "cannot be read" in run("start", tmp_path / "none.yaml", *url).output


@pytest.mark.parametrize(
    "command",
    ["start", "status", "watch", "promote", "pause", "resume", "abort", "report", "plan", "replay"],
)
def test_every_command_has_help(command: str) -> None:
    text = run(command, "--help").output
    assert text.startswith("Usage: ")
    assert len(text.splitlines()) > 5
