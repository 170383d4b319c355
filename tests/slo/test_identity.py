"""Whose model it is: rules are about the models of their file, and installations are separate."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from tests.support.all_alerts import ALL
from tests.support.promtool import is_true, passes, write
from understudy.monitor.cli.main import main
from understudy.monitor.config.slo import SloFile
from understudy.monitor.slo import alertmanager
from understudy.monitor.slo.compile import compiled
from understudy.monitor.slo.compiled import Compiled
from understudy.monitor.slo.rules import ALERT

pytestmark = pytest.mark.integration

REQUESTS = "understudy_requests_total"
DOWN = "UnderstudyModelServerDown"
AVAILABLE = {"name": "availability", "objective": "99.9 %", "availability": {}}
WHOSE = {"model": "delays", "namespace": "prod", "cluster": "eu", "arm": "new"}


def file_of(**more: Any) -> dict[str, Any]:
    return {"version": 1, "service": "s", "slos": [AVAILABLE], **more}


def of(**more: Any) -> Compiled:
    return compiled(SloFile.model_validate(file_of(**more)), "test")


def requests(outcome: str, values: str, **labels: str) -> dict[str, str]:
    known = {"job": "understudy", "model": "delays", "arm": "champion", "role": "primary", **labels}
    inside = ",".join(f'{name}="{value}"' for name, value in known.items())
    return {"series": f'{REQUESTS}{{{inside},outcome="{outcome}"}}', "values": values}


def fails_after_an_hour(**labels: str) -> list[dict[str, str]]:
    """Ten requests a second, which fail from the second hour on; samples are 15 s apart."""
    return [
        requests("ok", "0+150x240 36000+0x239", **labels),
        requests("upstream_connect", "0+0x240 150+150x239", **labels),
    ]


def well(**labels: str) -> list[dict[str, str]]:
    return [requests("ok", "0+160x480", **labels)]


def firing(count: int, at: str, **labels: str) -> dict[str, Any]:
    inside = ",".join(f'{name}="{value}"' for name, value in labels.items())
    alerts = f'count(ALERTS{{alertstate="firing",severity="page",{inside}}}) or vector(0)'
    return is_true(f"({alerts}) == bool {count}", at)


def tried(
    folder: Path, files: dict[str, Any], series: list[dict[str, str]], checks: list[dict[str, Any]]
) -> None:
    test = {"interval": "15s", "input_series": series, "promql_expr_test": checks}
    write(folder, {**files, "test.yml": {
        "rule_files": list(files), "evaluation_interval": "15s", "tests": [test]}})  # fmt: skip
    passes(folder, "test.yml")


@pytest.mark.usefixtures("promtool")
def test_two_files_in_one_prometheus_page_only_their_own(tmp_path: Path) -> None:
    files: dict[str, Any] = {}
    for name in ("delays", "fraud"):
        path = tmp_path / f"{name}.yaml"
        path.write_text(
            yaml.safe_dump(file_of(service=name, model=name, scrape={"job": "understudy"}))
        )
        out = tmp_path / name
        done = CliRunner().invoke(main, ["slo", "generate", str(path), "-o", str(out)])
        assert done.exit_code == 0, done.output
        assert not (out / "installation.rules.yml").exists()
        files |= {f"{name}/{one.name}": yaml.safe_load(one.read_text())
                  for one in out.glob("*.rules.yml")}  # fmt: skip
    series = [
        *well(instance="a", namespace="p", model="delays"),
        *fails_after_an_hour(instance="b", namespace="p", model="fraud"),
    ]
    checks = [
        check
        for name in (DOWN, ALERT)
        for check in (
            firing(1, "70m", alertname=name, service="fraud", namespace="p"),
            firing(0, "70m", alertname=name, service="delays"),
        )
    ]
    tried(tmp_path, files, series, checks)


@pytest.mark.usefixtures("promtool")
def test_one_of_two_clusters_down_pages_with_its_name(tmp_path: Path) -> None:
    """The many requests of the one that is well do not hide those of the other."""
    files = of(identity=["cluster", "namespace"], scrape={"job": "understudy"}).rule_files()
    series = [
        *well(instance="a", cluster="us", namespace="prod"),
        *fails_after_an_hour(instance="b", cluster="eu", namespace="prod"),
    ]
    checks = [
        check
        for name in (DOWN, ALERT)
        for check in (
            firing(1, "90m", alertname=name, cluster="eu", namespace="prod"),
            firing(0, "90m", alertname=name, cluster="us"),
            firing(0, "59m", alertname=name),
        )
    ]
    ratio = 'slo:sli_error:ratio_rate1h{cluster="%s"}'
    checks.append(is_true(f"sum({ratio % 'us'}) == bool 0", "90m"))
    checks.append(is_true(f"sum({ratio % 'eu'}) > bool 0.4", "90m"))
    tried(tmp_path, files, series, checks)


@pytest.mark.usefixtures("promtool")
@pytest.mark.parametrize(("identity", "pages"), [(["namespace"], 1), ([], 0)])
def test_namespaces_are_separate_unless_nothing_is(
    tmp_path: Path, identity: list[str], pages: int
) -> None:
    files = of(identity=identity).rule_files()
    series = [
        requests("ok", "0+100000x480", namespace="staging"),
        *fails_after_an_hour(namespace="prod"),
    ]
    checks = [firing(pages, "90m", alertname=name) for name in (DOWN, ALERT)]
    tried(tmp_path, files, series, checks)


_SELECTOR = re.compile(r"((?:understudy_|up\b)\w*)(?:\{([^}]*)\})?")
_NO_MODEL = re.compile("understudy_(feedback_.*|cost_.*)|up")
_ARM = re.compile("understudy_(requests|request_duration|mirror|undecodable|arm_|feedback|cost).*")


def test_every_selector_has_the_matchers_of_the_file() -> None:
    found = compiled(SloFile.model_validate({**ALL, **WHOSE}), "test")
    seen = set()
    for name, data in found.rule_files().items():
        for rule in (rule for group in data["groups"] for rule in group["rules"]):
            for metric, inside in _SELECTOR.findall(rule["expr"]):
                if rule.get("record") == "understudy_slo_error_budget_remaining":
                    continue
                seen.add(metric)
                assert 'namespace="prod"' in inside, rule
                assert 'cluster="eu"' in inside, rule
                of_models = name != "installation.rules.yml"
                has_model = 'model="delays"' in inside
                assert has_model == (
                    of_models
                    and not _NO_MODEL.fullmatch(metric)
                    and metric != "understudy_arm_state"
                ), rule
                if (
                    of_models
                    and _ARM.fullmatch(metric)
                    and "experiment"
                    not in str(rule["alert" if "alert" in rule else "record"]).lower()
                ):
                    assert 'arm="new"' in inside, rule
    assert len(seen) > 40


def test_every_grouping_has_the_identity() -> None:
    file = {**ALL, "identity": ["cluster", "namespace"]}
    rules = [
        rule
        for data in compiled(SloFile.model_validate(file), "test").rule_files().values()
        for group in data["groups"]
        for rule in group["rules"]
    ]
    grouped = 0
    for rule in rules:
        for call in re.findall(r"\b(?:sum|max|min|count|avg) ?(?:by \([^)]*\))? ?\(", rule["expr"]):
            if "max(slo:" in rule["expr"] and call == "max(":
                continue  # `without (sloth_window)`: everything else stays
            assert call.split("(", 1)[1].startswith("cluster, namespace"), rule["expr"]
            grouped += 1
    assert grouped > 150
    for inhibition in alertmanager.inhibitions(("cluster", "namespace")):
        assert inhibition["equal"][-2:] == ["cluster", "namespace"]
    routes = alertmanager.routes(("cluster", "namespace"))
    assert {"cluster", "namespace"} <= set(routes["group_by"])


def test_the_installation_is_watched_once_and_apart(tmp_path: Path) -> None:
    path = tmp_path / "slo.yaml"
    path.write_text(yaml.safe_dump({"version": 1, "service": "platform", "installation": True,
                                    "identity": ["cluster"], "scrape": {"job": "u"}}))  # fmt: skip
    out = tmp_path / "out"
    done = CliRunner().invoke(main, ["slo", "generate", str(path), "-o", str(out)])
    assert done.exit_code == 0, done.output
    assert {one.name for one in out.iterdir()} == {
        "installation.rules.yml", "installation-60s.tests.yml", "installation.prometheusrule.yaml",
        "alertmanager.yml"}  # fmt: skip
    rules = yaml.safe_load((out / "installation.rules.yml").read_text())["groups"]
    names = {rule["alert"] for group in rules for rule in group["rules"]}
    assert {"UnderstudyNotSeen", "UnderstudyRecordsDropped", "UnderstudyKafkaAway"} <= names
    assert DOWN not in names
    inhibitions = yaml.safe_load((out / "alertmanager.yml").read_text())["inhibit_rules"]
    assert all("cluster" in one["equal"] and "namespace" not in one["equal"] for one in inhibitions)
    both = of(installation=True)
    assert "installation.rules.yml" in both.rule_files()
    path.write_text(yaml.safe_dump(file_of()))
    arguments = ["slo", "generate", str(path), "--only", "rules", "--json"]
    plain, more = (CliRunner().invoke(main, [*arguments, *extra]).stdout
                   for extra in ([], ["--installation"]))  # fmt: skip
    assert "UnderstudyNotSeen" not in plain
    assert "UnderstudyNotSeen" in more
    assert "service: understudy" not in plain


def test_a_removed_target_of_another_job_is_not_seen() -> None:
    """``up`` exists for everything that is scraped in a namespace."""
    (alert,) = [one for one in of(installation=True, namespace="prod").alerts
                if one.name == "UnderstudyNotSeen"]  # fmt: skip
    assert 'up{job="understudy",namespace="prod"} == 0' in alert.expr
    (alert,) = [one for one in of(installation=True, scrape={"job=~": "a|b"}).alerts
                if one.name == "UnderstudyNotSeen"]  # fmt: skip
    assert 'up{job=~"a|b"} == 0' in alert.expr


def explained(folder: Path, **more: Any) -> str:
    path = folder / "slo.yaml"
    path.write_text(yaml.safe_dump(file_of(**more)))
    done = CliRunner().invoke(main, ["slo", "explain", str(path), "--installation"])
    assert done.exit_code == 0, done.output
    return done.output


def test_explain_names_the_models(tmp_path: Path) -> None:
    text = explained(tmp_path, scrape={"job": "understudy"})
    assert "  of      all models of the job understudy\n" in text
    assert "Besides, all models of the job understudy: UnderstudyBlind, UnderstudyDrift" in text
    assert "Besides, installation, all sidecars of the job understudy: UnderstudyConfig" in text
    text = explained(tmp_path, model=["a", "b"], namespace="prod", arm="new")
    assert '  of      models a and b, arm new of all scraped jobs with namespace="prod"\n' in text
    freshness = {"name": "labels", "objective": "90 %", "freshness": {"within": "6h"}}
    text = explained(tmp_path, slos=[freshness], model="a")
    assert "labels: its series have no label model; it counts those of every model" in text


def test_several_models_are_one_pattern() -> None:
    found = of(model=["a.b", "c"])
    assert r'model=~"a\\.b|c"' in str(found.slos[0].sli.bad)


def test_a_sidecars_rules_are_about_its_models(tmp_path: Path) -> None:
    path = tmp_path / "understudy.yaml"
    path.write_text(yaml.safe_dump({
        "version": 1, "listen": "127.0.0.1:0", "models": [{"name": "delays"}, {"name": "fares"}],
        "champion": {"url": "http://127.0.0.1:1"}}))  # fmt: skip
    done = CliRunner().invoke(main, ["slo", "explain", str(path)])
    assert done.exit_code == 0, done.output
    assert "of      models delays and fares of all scraped jobs" in done.output
