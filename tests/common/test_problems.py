"""Files of the product that are damaged give plain messages, whatever is wrong in them."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.all_alerts import ALL
from tests.support.specimen import SPECIMEN
from understudy.common.text import visible
from understudy.loadtest.chaos.experiment import load_experiment as load_chaos
from understudy.loadtest.errors import LoadTestError
from understudy.loadtest.gate.plan_file import load_plan
from understudy.monitor.baseline.model import Baseline
from understudy.monitor.cli.experiment_offline import load_experiment
from understudy.monitor.cli.main import main
from understudy.monitor.config.load import load as load_config
from understudy.monitor.errors import UnderstudyError
from understudy.monitor.health.validation.cases import load_cases
from understudy.monitor.slo.load import load as load_slo

PLAN = {
    "version": 1,
    "target": "http://127.0.0.1:1",
    "objectives": {"p99.9": "50ms", "errors": "1 %", "rate": "5/s", "alpha": 0.01},
    "payloads": {"template": {"a": 1}, "path": "/x", "headers": {"a": "b"}, "count": 3},
    "checks": {"statuses": [200], "schema": {"type": "object"}, "tolerance": 0.1},
    "engine": {"processes": 1, "timeout": "3s", "arrivals": "even", "verify": True},
    "limits": {"rate": "500/s", "seconds": 60},
    "stages": [
        {"name": "a", "load": {"shape": "ramp", "rate": 1, "to": 5, "seconds": 3}, "judged": False},
        {"name": "b", "capacity": {"start": 1, "most": 5, "headroom": "10 %"}},
        {"name": "c", "chaos": {"experiment": "e.json", "load": {"rate": 1}, "before": "1s",
                                "budget": {"objective": "99 %", "period": "30d"}}},
        {"name": "d", "compare": {"other": "http://127.0.0.1:2", "load": {"rate": 1}}},
        {"name": "e", "cold_start": {"command": ["true"], "within": "3s"}},
        {"name": "f", "loadgen": {"scenario": "Server", "rate": 5, "limit": "1s"}},
    ],
}  # fmt: skip
EXPERIMENT = {
    "name": "e",
    "challengers": ["c"],
    "mode": "canary",
    "unit": {"by": "header", "name": "x"},
    "metrics": [
        {"metric": "error_rate", "margin": "1 pp"},
        {"metric": "latency_p99.9", "margin": "5 %"},
    ],
    "stages": [{"weight": 0.1, "seconds": "5m"}],
    "max_duration": "3d",
    "slice": [0, 0.5],
}
OPENSLO = {
    "apiVersion": "openslo/v1",
    "kind": "SLO",
    "metadata": {"name": "a"},
    "spec": {
        "service": "s",
        "indicator": {"metadata": {"name": "i"}, "spec": {"ratioMetric": {
            "good": {"metricSource": {"type": "Prometheus", "spec": {"query": "good_total"}}},
            "total": {"metricSource": {"type": "Prometheus", "spec": {"query": "all_total"}}}}}},
        "timeWindow": [{"duration": "28d", "isRolling": True}],
        "budgetingMethod": "Occurrences",
        "objectives": [{"target": 0.99}],
    },
}  # fmt: skip
CHAOS = {
    "version": "1.0.0",
    "title": "t",
    "description": "d",
    "method": [{"type": "action", "name": "a",
                "provider": {"type": "process", "path": "true"}}],
}  # fmt: skip
CASE = {"kind": "golden", "name": "x", "request": {"a": 1}, "expect": {"p": 1}, "tolerance": 0.1}


def _baseline() -> dict[str, Any]:
    """The baseline of a small file."""
    rows = "".join(f"{n},{'xyz'[n % 3]},{n % 10 / 10},{n % 2}\n" for n in range(100))
    with TemporaryDirectory() as folder:
        (Path(folder) / "rows.csv").write_text(f"a,b,p,t\n{rows}")
        arguments = ["build", f"{folder}/rows.csv", "-o", f"{folder}/b.json"]
        made = CliRunner().invoke(
            main, ["baseline", *arguments, "--target", "t", "--prediction", "p"]
        )
        assert made.exit_code == 0, made.output
        found: dict[str, Any] = json.loads((Path(folder) / "b.json").read_text())
    return found


FILES: dict[str, tuple[Callable[[Path], object], dict[str, Any], str]] = {
    "the sidecar's configuration": (load_config, yaml.safe_load(SPECIMEN), "f.yaml"),
    "a plan of the gate": (load_plan, PLAN, "f.yaml"),
    "objectives": (load_slo, ALL, "f.yaml"),
    "OpenSLO": (load_slo, OPENSLO, "f.yaml"),
    "an experiment": (load_experiment, EXPERIMENT, "f.yaml"),
    "a fault": (load_chaos, CHAOS, "f.json"),
    "validation cases": (load_cases, CASE, "f.jsonl"),
    "a baseline": (Baseline.load, _baseline(), "f.json"),
}
RAW = re.compile(
    r"pydantic|Input should|Value error|validation error|type=|input_value|Traceback|function-"
    r"|object has no attribute|<class|KeyError|TypeError",
    re.IGNORECASE,
)
"""Words of libraries, which say nothing to a user."""
VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 2000), st.floats(), st.just(10**400),
    st.sampled_from(["", "x", "5", "5 sec", "1,5 %", "p999", "-3s", "1e999s", "99.9 %", "\x1b[2J"]),
    st.text(max_size=5), st.just([]), st.just({}), st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(min_size=1, max_size=3), st.integers(), max_size=2),
)  # fmt: skip


def places(value: Any) -> list[list[Any]]:
    """The paths of all parts of a document but itself."""
    keys = (
        value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    )
    found = []
    for key in keys:
        found += [[key], *([key, *rest] for rest in places(value[key]))]
    return found


def outcome(load: Callable[[Path], object], name: str, content: bytes) -> str:
    """The message about a file; empty where it can be read after all."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        try:
            load(path)
        except (UnderstudyError, LoadTestError) as error:
            return str(error).replace(folder, "")
    return ""


def written(document: Any, name: str) -> bytes:
    if name.endswith((".json", ".jsonl")):
        return json.dumps(document).encode()
    return yaml.safe_dump(document, allow_unicode=False).encode()


@pytest.mark.parametrize("kind", FILES)
def test_the_files_are_valid_before_they_are_damaged(kind: str) -> None:
    load, document, name = FILES[kind]
    assert outcome(load, name, written(document, name)) == ""


@pytest.mark.parametrize("kind", FILES)
@settings(max_examples=60)
@given(data=st.data())
def test_a_damaged_value_gives_a_plain_message(kind: str, data: st.DataObject) -> None:
    load, document, name = FILES[kind]
    damaged = copy.deepcopy(document)
    *way, last = data.draw(st.sampled_from(places(document)))
    parent = damaged
    for step in way:
        parent = parent[step]
    how = data.draw(st.sampled_from(["value", "remove", "rename"]))
    if how == "value":
        parent[last] = data.draw(VALUES)
    elif how == "remove":
        del parent[last]
    elif isinstance(last, str):
        parent[data.draw(st.text(min_size=1, max_size=8))] = parent.pop(last)
    said = outcome(load, name, written(damaged, name))
    assert not RAW.search(said), said
    assert visible(said, lines=True) == said


@pytest.mark.parametrize("kind", FILES)
@settings(max_examples=40)
@given(data=st.data())
def test_damaged_bytes_give_a_plain_message(kind: str, data: st.DataObject) -> None:
    load, document, name = FILES[kind]
    content = written(document, name)
    at = data.draw(st.integers(0, len(content)))
    gone = data.draw(st.integers(0, 10))
    damaged = content[:at] + data.draw(st.binary(max_size=6)) + content[at + gone :]
    said = outcome(load, name, damaged)
    assert not RAW.search(said), said


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("objectives: {p50: 50}", "objectives.p50: 50 has no unit: write 50ms or 50s"),
        ("objectives: {errors: 0.5}", "objectives.errors: 0.5 has no unit: write 0.5 % or 50 %"),
        ("objectives: {errors: 1}", "objectives.errors: 1 has no unit: write 1 % or 100 %"),
        ("objectives: {errors: 100 %}", "must be less than 100 % (found '100 %')"),
        ("objectives: {p99: 0s}", "objectives.p99: must be greater than 0 (found '0s')"),
        ("objectives: {rate: 90}", "objectives.rate: 90 has no unit: write 90/s or 90/min"),
        ("objectives: {p999: 1s, p99.9: 2s}", "objectives: p99.9 is given twice"),
        ("objectives: {p9.99: 1s}", "unknown key; did you mean 'p99.9'?"),
        ("engine: {timout: 3s}", "engine.timout: unknown key; did you mean 'timeout'?"),
        ("engine: {timeout: 30}", "engine.timeout: 30 has no unit: write 30ms or 30s"),
        ("engine: {verify: perhaps}", "true or false (found 'perhaps')"),
        ("engine: {arrivals: evn}", "must be 'poisson', 'gamma' or 'even'; did you mean 'even'?"),
        ("limits: {rate: 9}", "limits.rate: 9 has no unit: write 9/s or 9/min"),
    ],
)
def test_plans_say_what_was_meant(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "plan.yaml"
    file.write_text(f"{text}\nstages: [{{name: a, load: {{rate: 1}}}}]\n")
    with pytest.raises(LoadTestError) as caught:
        load_plan(file)
    assert message in str(caught.value)
