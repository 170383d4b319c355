"""The unit tests that are generated, run by promtool; and that they notice what is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from tests.support.all_alerts import ALL
from tests.support.promtool import check, passes, run, write
from tools.parts.debian import need
from understudy.monitor.cli.main import main
from understudy.monitor.config.slo import SloFile
from understudy.monitor.slo import alertmanager
from understudy.monitor.slo.alerts import SHARE
from understudy.monitor.slo.compile import compiled
from understudy.monitor.slo.compiled import Compiled

pytestmark = pytest.mark.integration


def everything() -> Compiled:
    return compiled(SloFile.model_validate(ALL), "test")


@pytest.mark.usefixtures("promtool")
def test_every_rule_file_is_valid(tmp_path: Path) -> None:
    files = everything().rule_files()
    write(tmp_path, files)
    check(tmp_path, *files)


@pytest.mark.usefixtures("promtool")
def test_every_alert_of_the_catalogue_fires_once_and_ends_once(tmp_path: Path) -> None:
    found = everything()
    parts = tuple(f"{name}-" for name in found.parts())
    assert parts == ("everything-alerts-", "installation-")
    tests = {n: data for n, data in found.test_files().items() if n.startswith(parts)}
    assert sum(len(data["tests"]) for data in tests.values()) == len(found.alerts)
    write(tmp_path, {**found.rule_files(), **tests})
    for name in tests:
        passes(tmp_path, name)


@pytest.mark.usefixtures("promtool")
@pytest.mark.parametrize("name", ["between", "accuracy"])
def test_pages_come_when_they_are_predicted(tmp_path: Path, name: str) -> None:
    """One objective that counts events and one that counts time; all of them, at all rates, are in
    the benchmark `slo-alerts`."""
    found = everything()
    (slo,) = [slo for slo in found.slos if slo.name == name]
    tests = {n: d for n, d in found.test_files((1.0,)).items() if n == f"{slo.id}-60s.tests.yml"}
    write(tmp_path, {**found.rule_files(), **tests})
    for test in tests:
        passes(tmp_path, test)


@pytest.mark.usefixtures("promtool")
def test_a_wrong_factor_is_noticed(tmp_path: Path) -> None:
    found = everything()
    tests = found.test_files((1.0,))
    rules: dict[str, Any] = found.rule_files()["everything-accuracy.rules.yml"]
    text = json.dumps(rules)
    assert "14.4 *" in text
    write(
        tmp_path,
        {
            "everything-accuracy.rules.yml": json.loads(
                text.replace("14.4 *", "36 *").replace("6 *", "36 *")
            ),
            "it.tests.yml": tests["everything-accuracy-60s.tests.yml"],
        },
    )
    good, said = run(tmp_path, "it.tests.yml")
    assert not good
    assert "FAILED" in said


@pytest.mark.usefixtures("promtool")
def test_shares_in_alerts_are_a_hundred_percent_only_when_they_are(tmp_path: Path) -> None:
    values = {
        0.5: "50%",
        0.99989: "99.99%",
        0.99999: "more than 99.99%",
        1.0: "100%",
        1e-5: "0.001%",
    }
    rules = [{"alert": "Bad", "expr": "x > 0", "annotations": {"text": SHARE}}]
    alerts = [
        {"exp_labels": {"share": str(value)}, "exp_annotations": {"text": text}}
        for value, text in values.items()
    ]
    series = [{"series": f'x{{share="{value}"}}', "values": f"{value} {value}"} for value in values]
    test = {"interval": "1m", "input_series": series,
            "alert_rule_test": [{"eval_time": "1m", "alertname": "Bad", "exp_alerts": alerts}]}  # fmt: skip
    write(tmp_path, {"it.rules.yml": {"groups": [{"name": "a", "rules": rules}]},
                     "it.tests.yml": {"rule_files": ["it.rules.yml"], "tests": [test]}})  # fmt: skip
    passes(tmp_path, "it.tests.yml")


def test_no_alert_rounds_a_share_in_another_way() -> None:
    text = json.dumps(everything().rule_files())
    assert text.count("humanizePercentage") == text.count(json.dumps(SHARE)[1:-1]) > 5


def test_the_command_tests_what_it_generates(tmp_path: Path, promtool: Path) -> None:
    file = tmp_path / "slo.yaml"
    slo = {"name": "a", "objective": "99.99 %", "availability": None, "severities": ["page"]}
    file.write_text(yaml.safe_dump({"version": 1, "service": "s", "alerts": "none", "slos": [slo]}))
    tool = ["--promtool", str(promtool)]
    done = CliRunner().invoke(main, ["slo", "test", str(file), "--quick", *tool])
    assert done.exit_code == 0, done.output
    assert "2 tests of 1 rule files: passed" in done.output
    done = CliRunner().invoke(main, ["slo", "test", str(file), "--promtool", "no-such-tool"])
    assert done.exit_code == 2
    assert "install Prometheus" in done.output


def test_alertmanager_accepts_the_routes(tmp_path: Path) -> None:
    import subprocess

    from tools.parts.debian import ROOT as PARTS

    amtool = need("prometheus-alertmanager").with_name("amtool")
    if not amtool.exists():
        pytest.skip(f"NOT TESTED: amtool is not in {PARTS}")
    write(tmp_path, {"am.yml": alertmanager.document({"page": "http://127.0.0.1:1/page"})})
    subprocess.run([str(amtool), "check-config", "am.yml"], cwd=tmp_path, check=True)

    def route(**labels: str) -> str:
        done = subprocess.run(
            [str(amtool), "config", "routes", "test", "--config.file=am.yml",
             *(f"{k}={v}" for k, v in labels.items())],
            cwd=tmp_path, check=True, capture_output=True, text=True,
        )  # fmt: skip
        return done.stdout.strip()

    assert route(severity="page") == route(severity="critical") == "page"
    assert route(severity="page", alertname="UnderstudyDrift") == "page"
    assert route(severity="ticket") == route(severity="warning") == "ticket"
