"""Every manifest against the schemas of every Kubernetes from the oldest that the chart takes, and
against those of the custom resources, all from their own projects."""

from __future__ import annotations

import copy
import json
import re
from typing import Any

import pytest
import yaml

from tests.support.chart import CASES, NEWEST, ROOT, render
from tests.support.kubernetes_schemas import problems
from tools.parts import kubernetes

EXAMPLES = sorted(
    [
        *(ROOT / "examples" / "kubernetes").glob("*.yaml"),
        *(ROOT / "deploy" / "argo").glob("*.yaml"),
        *(ROOT / "deploy" / "flagger").glob("metric*.yaml"),
    ]
)


def unique(version: str) -> list[dict[str, Any]]:
    """What all cases together render, each thing once; between the oldest and the newest Kubernetes
    the two largest cases stand for all."""
    found: dict[str, dict[str, Any]] = {}
    ends = (kubernetes.KUBERNETES[0], NEWEST)
    for case in CASES if version in ends else ("everything", "a model server with everything"):
        for one in render(case, version):
            shape = {**one, "metadata": {k: v for k, v in one["metadata"].items() if k != "name"}}
            if one["kind"] in ("ConfigMap", "Secret"):
                shape = {**shape, "data": sorted(one["data"])}
            found.setdefault(json.dumps(shape, sort_keys=True), one)
    return list(found.values())


@pytest.mark.parametrize("version", kubernetes.KUBERNETES)
def test_every_manifest_is_valid(version: str) -> None:
    manifests = unique(version)
    kinds = {one["kind"] for one in manifests}
    assert len(kinds) >= 13, kinds
    for one in manifests:
        assert not problems(one, version), (one["kind"], one["metadata"]["name"])


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_every_example_is_valid(path: Any) -> None:
    if path.name.startswith("values-"):
        pytest.skip("values are checked where they are rendered")
    for one in yaml.safe_load_all(path.read_text()):
        assert not problems(one), one["metadata"]["name"]
        spoilt = copy.deepcopy(one)
        spoilt["spek"] = {}
        assert problems(spoilt), "a schema that lets everything pass would show nothing"
        if "spec" in one:
            spoilt = copy.deepcopy(one)
            spoilt["spec"]["replicaz"] = 1
            assert problems(spoilt), one["kind"]


@pytest.mark.parametrize("name", ["argo-rollouts", "flagger"])
def test_controllers_can_find_the_names_that_they_ask(name: str) -> None:
    """They ask from a separate namespace, where a bare name cannot be resolved."""
    text = yaml.safe_dump_all(
        yaml.safe_load_all((ROOT / "examples" / "kubernetes" / f"{name}.yaml").read_text())
    )
    hosts = re.findall(r"http://([^:/\s]+)", text)
    assert hosts
    assert all(re.fullmatch(r"[a-z-]+\.[a-z-]+\.svc", host) for host in hosts), hosts


def test_values_of_the_examples_render() -> None:
    folder = ROOT / "examples" / "kubernetes"
    monitored = (folder / "values-monitored.yaml").read_text()
    for name, more in (
        ("values-monitored", ""),
        ("values-gateway", ""),
        ("values-gated", monitored),
    ):
        manifests = render(more + (folder / f"{name}.yaml").read_text())
        assert all(not problems(one) for one in manifests)
    kinds = [one["kind"] for one in render(monitored)]
    assert {"PodMonitor", "PrometheusRule"} <= set(kinds)


def test_an_old_cluster_gets_no_field_that_it_does_not_know() -> None:
    """The sleep of preStop is of 1.30; the schemas of 1.29 and 1.30 tell them apart or agree."""
    (model,) = [
        one for one in render("least", kubernetes.KUBERNETES[0]) if one["kind"] == "Deployment"
    ]
    hook = model["spec"]["template"]["spec"]["containers"][0]["lifecycle"]["preStop"]
    assert set(hook) == {"exec"}
    hook["slep"] = {"seconds": 1}
    assert problems(model, kubernetes.KUBERNETES[0])
    assert problems({**model, "spec": {**model["spec"], "replicas": "two"}}, NEWEST)
