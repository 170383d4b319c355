"""Gates whose senders are stopped again and again: no verdict, unless the target is slow itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.gates import gate, plan
from tests.support.load_server import Server, written
from tests.support.stalling import Stalled

TIGHT = """
    objectives: {p90: %s}
    payloads: {template: {inputs: [{name: x, shape: [1, 2], datatype: FP64, data: {$vector: 2}}]},
               path: /v1/models/m:predict}
    engine: {processes: 1}
    stages:
      - {name: tight, load: {rate: 100, seconds: 3}}
    """


def run(folder: Path, limit: str, server: Server) -> tuple[Any, dict[str, Any]]:
    data, junit, html = folder / "r.json", folder / "r.xml", folder / "r.html"
    file = plan(folder, TIGHT % limit)
    found = gate("--target", server.url, "--plan", file, "--json-file", data, "--junit", junit,
                 "--html", html)  # fmt: skip
    (stage,) = json.loads(data.read_text())["stages"]
    assert found.output.count("repeated once") == ("earlier" in stage)
    assert html.read_text().count("<h2>tight") == 1 + ("earlier" in stage)
    assert junit.read_text().count("requests, ") == 1 + ("earlier" in stage)
    return found, stage


def test_a_gate_whose_generator_is_stalled_says_so(tmp_path: Path) -> None:
    """Both attempts are stopped for 0.2 s of every 0.5 s."""
    with Server() as server, Stalled(0.2, 0.5):
        found, stage = run(tmp_path, "5ms", server)
    assert found.exit_code == 2, found.output
    assert "INCONCLUSIVE" in found.output
    assert "the load generator was late" in " ".join(found.output.split())
    assert (stage["verdict"], stage["earlier"]["verdict"]) == ("invalid", "invalid")
    assert stage["late"] is stage["earlier"]["late"] is True


def test_a_slow_target_fails_also_with_a_stalled_generator(tmp_path: Path) -> None:
    with Server(slots=512, seconds=2.0) as server, Stalled(0.2, 0.5):
        found, stage = run(tmp_path, "5ms", server)
    assert found.exit_code == 1, found.output
    assert "also by the time of service alone" in " ".join(found.output.split())
    assert stage["verdict"] == "failed"


def test_a_target_that_stalls_fails(tmp_path: Path) -> None:
    """It is stopped for two of every four seconds, so that more than a third of the requests wait
    for longer than half a second; a closed loop would see a few of them."""
    text = """
        objectives: {p50: 3s, p90: 500ms}
        stages:
          - {name: stall, load: {rate: 50, seconds: 12}}
        """
    data = tmp_path / "r.json"
    with Server(slots=512) as server:
        assert server.process is not None
        pid = server.process.pid
        with Stalled(2.0, 4.0, pids=lambda: [pid]):
            found = gate(
                "--target", server.url, "--plan", plan(tmp_path, text), "--json-file", data
            )
    assert found.exit_code == 1, found.output
    (stage,) = json.loads(data.read_text())["stages"]
    verdicts = {one["name"]: one["said"] for one in stage["criteria"]}
    assert (verdicts["p50"], verdicts["p90"]) == ("passed", "failed")
    assert stage["load"]["latency"]["max"] > 1.5


def test_a_stage_is_repeated_once_and_longer(tmp_path: Path) -> None:
    """Only the first attempt is stopped."""
    with Server() as server, Stalled(0.4, 0.9, first=True):
        found, stage = run(tmp_path, "2s", server)
    assert found.exit_code == 0, found.output
    assert (stage["verdict"], stage["earlier"]["verdict"]) == ("passed", "invalid")
    assert stage["repeated"] == "seconds: 6 instead of 3"
    # Until the last response; the last request is due some time before the end.
    assert stage["load"]["seconds"] > 5.5
    # Never at a lower rate: six standard deviations of a Poisson number.
    assert stage["load"]["requests"] > 600 - 6 * 600**0.5


def test_a_stage_without_enough_requests_is_repeated_with_its_counts(tmp_path: Path) -> None:
    """Two seconds are too few for this p95, eight are enough."""
    text = """
        objectives: {p95: 20s}
        stages:
          - {name: short, load: {rate: 40, seconds: 2}}
          - {name: hopeless, load: {rate: 40, seconds: 1}, objectives: {p999: 20s}}
          - {name: warm up, load: {rate: 10, seconds: 1}, judged: false}
        """
    data = tmp_path / "r.json"
    with Server() as server:
        found = gate("--target", server.url, "--plan", plan(tmp_path, text), "--json-file", data)
    assert found.exit_code == 2, found.output
    short, hopeless, warm = json.loads(data.read_text())["stages"]
    assert (short["verdict"], short["earlier"]["verdict"]) == ("passed", "invalid")
    assert short["earlier"]["late"] is False
    assert 2.0 < short["load"]["seconds"] <= 8.0
    assert (hopeless["verdict"], "earlier" in hopeless) == ("invalid", False)
    assert (warm["verdict"], "earlier" in warm) == ("shown", False)


def test_scenarios_of_loadgen_are_not_failed_by_a_stalled_generator(tmp_path: Path) -> None:
    """In a closed loop no request is due: a timer of the sender tells."""
    text = """
        engine: {processes: 1}
        stages:
          - {name: server, loadgen: {scenario: Server, rate: 100, seconds: 3, limit: 5ms}}
          - {name: single, loadgen: {scenario: SingleStream, seconds: 3, limit: 5ms}}
        """
    data = tmp_path / "r.json"
    with Server(seconds=0.001) as server, Stalled(0.2, 0.5):
        found = gate("--target", server.url, "--plan", plan(tmp_path, text), "--json-file", data)
    assert found.exit_code == 2, found.output
    for stage in json.loads(data.read_text())["stages"]:
        assert stage["verdict"] == stage["earlier"]["verdict"] == "invalid"
        assert stage["late"] is True
        assert "send lag p99: the load generator was late" in " ".join(stage["why"])


def test_a_fault_s_recovery_is_not_failed_by_a_stalled_generator(tmp_path: Path) -> None:
    pytest.importorskip("chaoslib", reason="the Chaos Toolkit is not installed")
    from tests.support.chaos import experiment

    text = """
        objectives: {p99: 50ms}
        engine: {processes: 1}
        stages:
          - name: pause
            chaos: {experiment: pause.json, load: {rate: 50}, before: 1s, after: 4s,
                    recovers_within: 100ms}
        """
    data = tmp_path / "r.json"
    with Server(slots=256) as server, Stalled(0.4, 0.9):
        written(tmp_path, "pause.json", json.dumps(experiment(server, 0.5)))
        found = gate("--target", server.url, "--plan", plan(tmp_path, text), "--json-file", data)
    assert found.exit_code == 2, found.output
    (stage,) = json.loads(data.read_text())["stages"]
    recovers = next(one for one in stage["criteria"] if one["name"] == "recovers within")
    assert recovers["said"] == "invalid", stage
    assert "time to detect" in found.output
