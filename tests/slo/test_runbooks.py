"""Every alert has its page, every page its alert, and what pages name exists."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from tests.support.promql import metrics
from understudy import __version__
from understudy.monitor.cli.main import main
from understudy.monitor.config.runbooks import PUBLIC, runbook_url
from understudy.monitor.slo.catalogue import alerts_of
from understudy.monitor.slo.load import load
from understudy.monitor.slo.rules import ALERT
from understudy.monitor.slo.scope import Scope

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "docs" / "runbooks").glob("*.md"))
ALERTS = alerts_of(Scope())
SECTIONS = ["What it means", "What to check", "What to do", "How to silence it"]


def test_each_alert_has_its_page_and_each_page_its_alert() -> None:
    assert {page.stem for page in PAGES} == {ALERT, *(alert.name for alert in ALERTS)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_says_four_things_and_names_its_severities(page: Path) -> None:
    text = page.read_text("utf-8")
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == SECTIONS
    assert text.startswith(f"# {page.stem}\n")
    severities = {alert.severity for alert in ALERTS if alert.name == page.stem}
    said = re.search(r"^\*\*(.*?)\*\* when ", text, re.MULTILINE)
    assert said is not None
    wanted = severities or {"page", "ticket"}
    assert set(re.findall("page|ticket", said[1].lower())) == wanted
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert (page.parent / target).exists(), target
    assert f"alertname={page.stem}" in text


def test_the_rules_in_deploy_link_to_pages_that_exist() -> None:
    folder = ROOT / "deploy" / "prometheus"
    documents = [yaml.safe_load(path.read_text()) for path in folder.glob("*.prometheusrule.yaml")]
    assert len(documents) == 2
    groups = [group for document in documents for group in document["spec"]["groups"]]
    alerts = [rule for group in groups for rule in group["rules"] if "alert" in rule]
    assert {rule["alert"] for rule in alerts} == {page.stem for page in PAGES}
    for rule in alerts:
        url = rule["annotations"]["runbook_url"]
        assert url == runbook_url(PUBLIC, rule["alert"])
        path = url.partition(f"/v{__version__}/")[2]
        assert (ROOT / path).exists(), url
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert rule["labels"]["service"] == "understudy"


def test_metrics_in_the_pages_are_those_of_rules_or_known() -> None:
    """A metric that a page names is one that a rule uses or that the collector has."""
    packages = ("telemetry", "service", "kafka")
    files = (path for name in packages for path in (ROOT / "monitor" / name).glob("*.py"))
    source = "".join(path.read_text() for path in files)
    used = {name for alert in ALERTS for name in metrics(alert.expr)}
    for page in PAGES:
        for name in re.findall(r"understudy_\w+", page.read_text("utf-8")):
            if name in ("understudy_sli", "understudy_kind") or name in used:
                continue
            words = re.sub(r"_total$", "", name.removeprefix("understudy_")).split("_")
            # Some names are put together of a common beginning and a list.
            ends = ["_".join(words[n:]) for n in range(len(words))]
            assert any(f'"{end}"' in source for end in ends), f"{page.name}: {name}"


def test_alerts_are_one_for_each_name_and_severity() -> None:
    named = [(alert.name, alert.severity) for alert in ALERTS]
    assert len(set(named)) == len(named)
    for alert in ALERTS:
        assert alert.summary
        assert alert.description
        # Of what is summed away nothing can be said.
        expressions = "\n".join((*(record.expr for record in alert.records), alert.expr))
        grouped = re.findall(r"by \(([^)]*)\)", expressions)
        known = {name.strip() for names in grouped[:1] for name in names.split(",")}
        said = set(re.findall(r"\$labels\.(\w+)", alert.summary + alert.description))
        assert said <= (known or {"instance"}), alert.name


def test_the_default_objectives_are_compiled() -> None:
    found = load(ROOT / "deploy" / "prometheus" / "slo.yaml")
    assert len(found.slos) == 6
    assert found.notices == ()


def test_no_generated_file_has_a_relative_link() -> None:
    """A pager opens nothing else than an absolute URL: in rules, the chart, examples, dashboards."""
    folders = ("deploy", "helm", "examples")
    files = [path for name in folders for path in (ROOT / name).rglob("*") if path.is_file()]
    seen = 0
    for path in files:
        if path.suffix not in (".yml", ".yaml", ".json"):
            continue
        for url in re.findall(
            r"(?:runbook|findings?)_url[\"']?: *[\"']?([^\s\"',}]+)", path.read_text()
        ):
            seen += 1
            assert url.startswith("https://"), (path, url)
    assert seen > 100


def test_runbooks_are_set_once_for_rules_and_messages(tmp_path: Path) -> None:
    file = tmp_path / "understudy.yaml"
    file.write_text(yaml.safe_dump({
        "version": 1, "listen": "127.0.0.1:0", "models": [{"name": "m"}],
        "champion": {"url": "http://127.0.0.1:1"},
        "runbooks": {"url": "https://wiki.example/{version}/{alert}"},
        "notify": [{"kind": "webhook", "url": "http://127.0.0.1:1", "link": "https://u.example"}],
    }))  # fmt: skip
    done = CliRunner().invoke(main, ["slo", "generate", str(file), "--only", "rules", "--json"])
    assert done.exit_code == 0, done.output
    rules = [
        rule
        for document in json.loads(done.stdout).values()
        for group in document["groups"]
        for rule in group["rules"]
        if "alert" in rule
    ]
    for rule in rules:
        url = f"https://wiki.example/{__version__}/{rule['alert']}"
        assert rule["annotations"]["runbook_url"] == url
        found = rule["labels"]["understudy_kind"] == "finding"
        own = rule["annotations"].get("findings_url")
        assert own == ("https://u.example/?model={{ $labels.model }}" if found else None)
    relative = ["slo", "generate", str(file), "--runbooks", "docs/runbooks"]
    done = CliRunner().invoke(main, relative)
    assert done.exit_code == 2
    assert "not an absolute URL" in done.output
