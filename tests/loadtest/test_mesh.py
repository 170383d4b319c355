"""Chaos Mesh resources against Chaos Mesh's own schemas, fetched as a Go module."""

from __future__ import annotations

import json
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from click.testing import CliRunner

from understudy.loadtest.chaos.mesh import resources
from understudy.loadtest.errors import PlanError
from understudy.monitor.cli.main import main

MODULE = "github.com/chaos-mesh/chaos-mesh@v0.9.1-0.20260902003049-47411975a8cb"
FAULTS = (
    ("kill_process", {"port": 1}, "PodChaos"),
    ("pause_process", {"port": 1}, "PodChaos"),
    ("cpu_pressure", {"cores": 2}, "StressChaos"),
    ("memory_pressure", {"mib": 64}, "StressChaos"),
    ("fill_disk", {"path": "/data"}, "IOChaos"),
    (
        "add_fault",
        {"type": "latency", "attributes": {"latency": 200, "jitter": 50}},
        "NetworkChaos",
    ),
    ("add_fault", {"type": "bandwidth", "attributes": {"rate": 100}}, "NetworkChaos"),
    ("add_fault", {"type": "corrupt", "attributes": {"probability": 0.001}}, "NetworkChaos"),
    ("add_fault", {"type": "timeout"}, "NetworkChaos"),
    ("add_fault", {"type": "down"}, "NetworkChaos"),
    ("add_fault", {"type": "http_error", "attributes": {"status": 500}}, "HTTPChaos"),
    ("add_fault", {"type": "reset_peer"}, "HTTPChaos"),
)


def experiment(func: str, arguments: dict[str, Any]) -> dict[str, Any]:
    provider = {"type": "python", "module": "understudy.loadtest.chaos.actions", "func": func,
                "arguments": arguments}  # fmt: skip
    action = {
        "type": "action",
        "name": f"It: {func}!",
        "provider": provider,
        "pauses": {"after": 3},
    }
    return {"title": "t", "description": "d", "method": [action]}


@cache
def schemas() -> dict[str, Any]:
    go = shutil.which("go")
    if go is None:
        pytest.skip("NOT TESTED: Chaos Mesh's schemas need Go to be fetched")
    done = subprocess.run(
        [go, "mod", "download", "-json", MODULE],
        capture_output=True,
        text=True,
        timeout=150,
    )
    if done.returncode:
        pytest.skip(f"NOT TESTED: Chaos Mesh cannot be fetched: {done.stdout[-300:]}")
    folder = Path(json.loads(done.stdout)["Dir"]) / "config" / "crd" / "bases"
    found = {}
    for file in folder.glob("*.yaml"):
        crd = yaml.safe_load(file.read_text())
        found[crd["spec"]["names"]["kind"]] = crd["spec"]["versions"][0]["schema"][
            "openAPIV3Schema"
        ]
    return found


@pytest.mark.parametrize(("func", "arguments", "kind"), FAULTS)
def test_resources_are_valid(func: str, arguments: dict[str, Any], kind: str) -> None:
    (found,) = resources(experiment(func, arguments), "serving", {"app": "model"})
    assert found["kind"] == kind
    assert found["spec"]["selector"]["labelSelectors"] == {"app": "model"}
    assert ("duration" in found["spec"]) == (func != "kill_process")
    schema = schemas()[kind]
    jsonschema.validate(found, schema)
    # A schema that lets everything pass would show nothing.
    spec = schema["properties"]["spec"]["properties"]
    assert set(found["spec"]) <= set(spec)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**found, "spec": {**found["spec"], "mode": "sometimes"}}, schema)


def test_what_has_no_counterpart_is_refused(tmp_path: Path) -> None:
    for func, arguments in (("add_fault", {"type": "slicer"}), ("dance", {})):
        with pytest.raises(PlanError, match="no counterpart"):
            resources(experiment(func, arguments), "n", {"a": "b"})
    with pytest.raises(PlanError, match="no fault"):
        resources(experiment("wait", {"seconds": 1}), "n", {"a": "b"})
    with pytest.raises(PlanError, match="selector"):
        resources(experiment("pause_process", {}), "n", {})
    file = tmp_path / "e.json"
    file.write_text(json.dumps(experiment("pause_process", {"port": 1})))
    shown = CliRunner().invoke(main, ["gate", "mesh", str(file), "-n", "x", "-l", "app=m"])
    assert shown.exit_code == 0, shown.output
    assert yaml.safe_load(shown.output)["kind"] == "PodChaos"
    assert CliRunner().invoke(main, ["gate", "mesh", str(file), "-l", "app"]).exit_code == 2
