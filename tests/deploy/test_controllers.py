"""The templates for Argo Rollouts and Flagger, against their rules and a real Prometheus.

Argo's rules: a condition is looked at for each measurement; a body that is not 2xx is an Error, and
more errors in a row than ``consecutiveErrorLimit`` (4) end the run; neither condition true is
Inconclusive, and more of these than ``inconclusiveLimit`` end it as well.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.canaries import canary
from tests.support.patience import eventually
from tests.support.prometheus import Prometheus
from tests.support.world import Load, Model, World

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
ARGO = yaml.safe_load((DEPLOY / "argo" / "analysis-template.yaml").read_text())
METRIC = ARGO["spec"]["metrics"][0]
FLAGGER = yaml.safe_load((DEPLOY / "flagger" / "metric-template.yaml").read_text())
CANARY = yaml.safe_load((DEPLOY / "flagger" / "canary.yaml").read_text())
CONSECUTIVE_ERRORS = 4


def holds(condition: str, result: dict[str, Any]) -> bool:
    """The one kind of condition that the template uses."""
    match = re.fullmatch(r'result\.(\w+) == "(\w+)"', condition)
    assert match is not None, condition
    return bool(result[match[1]] == match[2])


def argo(measurements: list[dict[str, Any] | None]) -> str:
    """The phase of an analysis run after these measurements; None is one that failed."""
    errors = inconclusive = failures = successes = 0
    for data in measurements:
        if data is None:
            errors += 1
            if errors > CONSECUTIVE_ERRORS:
                return "Error"
            continue
        errors = 0
        body = json.loads(json.dumps({"data": data}, allow_nan=False))
        assert METRIC["provider"]["web"]["jsonPath"] == "{$.data}"
        result = body["data"]
        if holds(METRIC["failureCondition"], result):
            failures += 1
            if failures > METRIC["failureLimit"]:
                return "Failed"
        elif holds(METRIC["successCondition"], result):
            successes += 1
            if successes >= METRIC["consecutiveSuccessLimit"]:
                return "Successful"
        else:
            successes = 0
            inconclusive += 1
            if inconclusive > METRIC["inconclusiveLimit"]:
                return "Inconclusive"
    return "Running"


def said(decision: str) -> dict[str, Any]:
    return {"decision": decision, "reasons": []}


def test_continue_keeps_an_analysis_running_for_a_month() -> None:
    waiting: list[dict[str, Any] | None] = [said("continue")] * (30 * 24 * 120)
    assert argo(waiting) == "Running"
    assert argo([*waiting, said("promote")]) == "Successful"
    assert argo([*waiting, said("rollback")]) == "Failed"
    assert argo([said("invalid"), said("continue")]) == "Running"


def test_a_restart_in_the_middle_does_not_end_it() -> None:
    assert argo([said("continue"), *[None] * 4, said("promote")]) == "Successful"
    assert argo([said("continue"), *[None] * 5, said("promote")]) == "Error"


def test_the_templates_ask_for_what_there_is() -> None:
    assert ARGO["kind"] == "AnalysisTemplate"
    assert METRIC["provider"]["web"]["url"].endswith("/v1/argo/{{args.experiment}}")
    hooks = {hook["type"]: hook["url"] for hook in CANARY["spec"]["analysis"]["webhooks"]}
    assert set(hooks) == {"rollback", "confirm-traffic-increase", "confirm-promotion"}
    for kind, url in hooks.items():
        assert url.endswith(f"/v1/flagger/candidate-canary/{kind}")
    asked = CANARY["spec"]["analysis"]["metrics"][0]
    assert asked["templateRef"]["name"] == FLAGGER["metadata"]["name"]
    assert asked["thresholdRange"] == {"min": 0}


@pytest.mark.integration
@pytest.mark.parametrize(("mode", "value"), [("second", 1.0), ("drop", -1.0)])
def test_the_metric_template_yields_one_number(tmp_path: Path, mode: str, value: float) -> None:
    (tmp_path / "prometheus").mkdir()
    with World(tmp_path, Model(mode), experiments=[canary()]) as world:
        port = int(world.service.control.rpartition(":")[2])
        prometheus = Prometheus(tmp_path / "prometheus", port, "exemplar-storage", "prometheus-2")
        try:
            query = FLAGGER["spec"]["query"].replace("{{ variables.experiment }}", "ramp")
            assert prometheus.value(query) == 0.0, "no traffic yet"
            load = Load(world.service.url)
            eventually(lambda: prometheus.value(query) == value)
            assert load.stop()["200"] > 0
        finally:
            prometheus.stop()
