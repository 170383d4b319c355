"""Every metric and label that the rules name is there when a real service is scraped."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.all_alerts import ALL
from tests.support.patience import eventually
from tests.support.plane_process import PlaneProcess
from tests.support.promql import metrics
from tests.support.service import ROOT
from tests.support.world import PATH, Load, Model, World
from tools.metrics_reference import SOURCES, metrics_of
from understudy.monitor.config.slo import SloFile
from understudy.monitor.slo.compile import compiled
from understudy.monitor.slo.kafka_alerts import kafka_alerts
from understudy.monitor.slo.model import Events, over
from understudy.monitor.slo.scope import Scope

CHAT = "/v1/chat/completions"
OF_PROMETHEUS = {"up": {"instance", "job"}}
TARGET = {"instance", "job", "namespace"}
"""Labels that Prometheus adds itself."""


def test_metrics_and_labels_are_parsed_from_expressions() -> None:
    found = metrics(
        'sum by (arm) (rate(a_total{b="x{",c=~"d|e"}[5m])) / on() group_left sum(f:g) > bool 1e-3'
        " and max by (i, j) (h offset 1h)"
    )
    assert found == {"a_total": {"arm", "b", "c"}, "f:g": set(), "h": {"i", "j"}}


def exported(text: str) -> dict[str, set[str]]:
    """By metric: the labels that its samples have."""
    found: dict[str, set[str]] = defaultdict(set)
    for name, labels in re.findall(r"^(\w+)(\{.*\})? \S+$", text, re.MULTILINE):
        found[name] |= set(re.findall(r'(\w+)="', labels))
    return found


def undocumented(text: str) -> dict[str, set[str]]:
    """Metrics of an exposition that docs/metrics.md lacks, or their labels that it lacks."""
    known = {one.name: set(one.labels) for _, path in SOURCES for one in metrics_of(path)}
    found = {}
    for name, labels in exported(text).items():
        stem = name if name in known else re.sub(r"_(bucket|count|sum)$", "", name)
        missing = labels - known.get(stem, set()) - {"le", "quantile"}
        if name.startswith("understudy_") and (stem not in known or missing):
            found[name] = missing
    return found


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Everything is switched on, and something is wrong everywhere."""
    tensor = {"name": "x", "shape": [1, 2], "datatype": "FP64", "data": [1.0, 2.0]}
    case = {"name": "one", "request": {"inputs": [tensor]}, "expect": {"p": 0.5}}
    (tmp_path / "cases.jsonl").write_text(json.dumps(case) + "\n")
    experiment = {
        "name": "e", "model": "m", "challengers": ["other0"], "mode": "split", "weights": {"other0": 0.3},
        "unit": {"by": "header", "name": "x-user"}, "label": {"prediction": "p", "threshold": 0.4},
        "cost": {"champion": {"per_request": 0.001}, "other0": {"per_request": 0.001}},
        "metrics": [{"metric": "error_rate", "margin": "5 pp"}],
    }  # fmt: skip
    performance = {"prediction": "p", "threshold": 0.4}
    world = World(
        tmp_path,
        Model(),
        models=[
            {"name": "m", "performance": performance},
            {"name": "chat", "paths": [CHAT], "goodput": {"e2e": "1h"}},
        ],
        experiments=[experiment],
        monitoring={"learn": 200},
        validation={"cases": str(tmp_path / "cases.jsonl"), "every": "300ms"},
        notify=[{"kind": "webhook", "url": "http://127.0.0.1:9"}],
        objectives={"latency_p99": "<= 62ms"},
    )
    with world:
        yield world


@pytest.mark.integration
def test_every_metric_and_label_is_exported(world: World) -> None:
    load = Load(world.service.url)
    load.answered(300)
    url = world.service.url + PATH
    tensor = {"name": "x", "shape": [1, 2], "datatype": "FP64", "data": [1.0, None]}
    for number in range(20):
        ours = {"x-request-id": f"mine-{number}", "x-user": f"u{number}"}
        httpx.post(url, json={"inputs": [tensor]}, headers=ours)
    httpx.post(url, content=b"no json")
    asked = {"model": "a", "messages": [{"role": "user", "content": "Is it?"}]}
    assert httpx.post(world.service.url + CHAT, json=asked).status_code == 200
    labels = [{"request_id": f"mine-{number}", "label": 1} for number in range(20)]

    def joined() -> bool:
        answer = httpx.post(world.service.control + "/v1/feedback", json=labels)
        return bool(answer.status_code == 200)

    eventually(joined)
    # What passed fails: a finding.
    control = world.service.control
    eventually(lambda: httpx.get(control + "/v1/validation").json()["rounds"] >= 1)
    world.challengers[0].kill()
    file = compiled(SloFile.model_validate(ALL), "test")
    wanted: dict[str, set[str]] = defaultdict(set)
    # What needs a cluster is looked for below.
    alerts = [alert for alert in file.alerts if alert.kind != "kafka"]
    expressions = [alert.expr for alert in alerts if not alert.records]
    expressions += [record.expr for alert in alerts for record in alert.records]
    recorded = {record.name for alert in alerts for record in alert.records}
    for slo in file.slos:
        sli = slo.sli
        found = [sli.bad, sli.total] if isinstance(sli, Events) else [sli.bad]
        expressions += [over(one, 300.0) for one in found]
        # What the unit tests send looks like what is exported.
        expressions += [one.series for one in sli.trial]
    expressions += [one.series for alert in alerts for one in alert.trial.series]
    for expression in expressions:
        for name, named in metrics(expression).items():
            if name not in recorded:
                wanted[name] |= named

    def missing() -> dict[str, Any]:
        there = {
            **exported(httpx.get(world.service.control + "/metrics").text),
            **OF_PROMETHEUS,
        }
        return {
            name: named - there.get(name, set()) if name in there else "not exported"
            for name, named in wanted.items()
            if name not in there or named - there[name] - TARGET
        }

    try:
        eventually(lambda: not missing())
    except AssertionError:
        raise AssertionError(missing()) from None
    text = httpx.get(world.service.control + "/metrics").text
    assert undocumented(text) == {}
    assert re.search(
        r'^understudy_request_duration_seconds_bucket\{.*le="0.062"', text, re.MULTILINE
    )
    load.stop()


def test_kafka_metrics_of_a_sidecar_are_exported(tmp_path: Path) -> None:
    kafka = {"bootstrap": ["127.0.0.1:9"], "spool": {"path": str(tmp_path / "spool")}}
    with PlaneProcess(tmp_path, evaluation={"mode": "kafka"}, kafka=kafka) as plane:
        text = plane.get("/metrics").text
        assert undocumented(text) == {}
        there = exported(text)
        for alert in kafka_alerts(Scope()):
            for name, named in metrics(alert.expr).items():
                if name.startswith("understudy_kafka_") and "routes" not in name:
                    assert named - TARGET <= there[name], name


def test_metrics_of_an_evaluator_are_exported() -> None:
    """Read from its source: a real one needs a cluster, which its own tests have."""
    source = (ROOT / "monitor" / "service" / "evaluator_api.py").read_text("utf-8")
    for alert in kafka_alerts(Scope()):
        for name, named in metrics(alert.expr).items():
            if not name.startswith("understudy_evaluator_"):
                continue
            stem = name.removeprefix("understudy_").removesuffix("_total")
            known = (f'"{stem}"', f'"{stem.removeprefix("evaluator_blocks_")}"')
            assert any(one in source for one in known), name
            for label in named - TARGET:
                assert f'"{label}"' in source, (name, label)
