"""Faults of every kind under load, against the real service, a real network, a real Prometheus."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner

from tests.support.load_server import Server, written
from tests.support.patience import eventually, patient
from tests.support.ports import free_port
from tests.support.rehearsed_gates import gate
from tests.support.service import REAL, Service
from tools.parts.debian import environment, need
from understudy.loadtest.chaos import actions, probes
from understudy.loadtest.chaos.experiment import load_experiment
from understudy.loadtest.chaos.library import FAULTS, experiment
from understudy.loadtest.errors import LoadTestError, PlanError
from understudy.loadtest.faultproxy.server import FaultProxy
from understudy.loadtest.payloads.files import recorded
from understudy.monitor.cli.main import main

pytest.importorskip("chaoslib", reason="NOT TESTED: the Chaos Toolkit is not installed")
pytestmark = pytest.mark.integration


def ready(folder: Path, name: str, lasts: float, **changes: object) -> None:
    written(folder, f"{name}.json", json.dumps(experiment(name, changes, lasts)))


def test_every_ready_experiment_is_one(tmp_path: Path) -> None:
    for name, fault in FAULTS.items():
        assert callable(getattr(actions, fault.func))
        printed = CliRunner().invoke(
            main, ["gate", "fault", name, "--answers", "http://127.0.0.1:1/", "--seconds", "2"]
        )
        assert printed.exit_code == 0, printed.output
        load_experiment(written(tmp_path, f"{name}.json", printed.output))
    changed = experiment("latency", {"latency": 5, "proxy": "other"}, 1.0)
    arguments = changed["method"][0]["provider"]["arguments"]
    assert (arguments["proxy"], arguments["attributes"]) == ("other", {"latency": 5})
    assert "kill-worker" in CliRunner().invoke(main, ["gate", "fault"]).output
    # An attribute that the fault has and does not use by default is one all the same.
    jitter = experiment("latency", {"jitter": 9}, 1.0)["method"][0]["provider"]["arguments"]
    assert jitter["attributes"] == {"latency": 200, "jitter": 9}
    # What ends by itself does not end before the fault.
    pressed = experiment("cpu", {}, 300.0)["method"][0]["provider"]["arguments"]
    assert pressed["seconds"] == 300.0
    for wrong, said in (
        (["plague"], "choose one of pause-champion"),
        (["latency", "--set", "latency"], "KEY=VALUE"),
        (["latency", "--set", "latncy=5"], "no argument 'latncy'"),
        (["latency", "--set", "latency=["], "is not valid YAML"),
        (["latency", "--seconds", "-1"], "duration must be positive"),
    ):
        found = CliRunner().invoke(main, ["gate", "fault", *wrong])
        assert (found.exit_code, said in found.output) == (2, True), found.output


def test_the_sidecar_s_own_processes_die_and_its_clock_jumps(tmp_path: Path) -> None:
    faketime = need("libfaketime.so.1")
    clock = written(tmp_path, "clock", "+0")
    with Server(slots=256, seconds=0.002) as model:
        service = Service(tmp_path, REAL, champion={"url": model.url})
        preloaded = {
            "LD_PRELOAD": str(faketime), "FAKETIME_TIMESTAMP_FILE": str(clock),
            "FAKETIME_NO_CACHE": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }  # fmt: skip
        with service.start(**preloaded):
            port = int(service.url.rpartition(":")[2])
            ready(tmp_path, "kill-evaluation", 0.5, port=port)
            ready(tmp_path, "kill-worker", 0.5, port=port)
            ready(tmp_path, "clock", 0.5, file=str(clock), seconds=-7200)
            config = {"config": str(service.file), "port": port, "share": 0.5}
            ready(tmp_path, "sidecar-errors", 3.0, **config)
            before_file = service.file.read_text()
            stages = "".join(
                f"""
              - name: {name}
                chaos: {{experiment: {name}.json, load: {{rate: 60}}, before: 500ms, after: 1200ms,
                        lost_at_most: {lost}}}"""
                for name, lost in (
                    ("kill-evaluation", 0),
                    ("clock", 0),
                    ("sidecar-errors", "90 %"),
                    ("kill-worker", "50 %"),
                )
            )
            code, found, said = gate(
                tmp_path, service.url, f"objectives: {{p99: 2s}}\nstages:{stages}"
            )
            assert code == 0, said
            before = service.children()
            assert len(before) >= 3, "what was killed is there again"
            assert service.file.read_text() == before_file
            assert "on purpose" in service.log
            eventually(
                lambda: (
                    {httpx.post(f"{service.url}/x", json={}).status_code for _ in range(30)}
                    == {200}
                )
            )
    injected = found["sidecar-errors"]["load"]
    assert set(injected["statuses"]) == {"200", "503"}
    assert injected["statuses"]["503"] > 10
    assert clock.read_text() == "+0"
    for name in ("kill-evaluation", "clock"):
        load = found[name]["load"]
        assert (load["failed"], set(load["statuses"])) == (0, {"200"}), said


WORLD = """
import os, socket, subprocess, sys, time
folder, port = sys.argv[1], sys.argv[2]
def ip(*words, inside=False):
    command = ["ip", *words]
    if inside:
        command = ["nsenter", "-t", str(there.pid), "-n", *command]
    subprocess.run(command, check=True)
ip("link", "set", "lo", "up")
there = subprocess.Popen(["unshare", "-n", "sleep", "600"])
while os.readlink(f"/proc/{there.pid}/ns/net") == os.readlink("/proc/self/ns/net"):
    time.sleep(0.02)
try:
    ip("link", "add", "here", "type", "veth", "peer", "name", "there", "netns", str(there.pid))
    ip("addr", "add", "10.77.0.1/24", "dev", "here")
    ip("link", "set", "here", "up")
    ip("addr", "add", "10.77.0.2/24", "dev", "there", inside=True)
    ip("link", "set", "there", "up", inside=True)
    server = subprocess.Popen(["nsenter", "-t", str(there.pid), "-n", sys.executable, "-m",
        "http.server", port, "--bind", "10.77.0.2", "--directory", folder], stderr=subprocess.DEVNULL)
    try:
        while True:
            try:
                socket.create_connection(("10.77.0.2", int(port)), 1).close()
                break
            except OSError:
                time.sleep(0.05)
        done = subprocess.run([sys.executable, "-m", "understudy", "gate", "--target",
            f"http://10.77.0.2:{port}", "--plan", f"{folder}/gate.yaml", "--json-file",
            f"{folder}/r.json"])
    finally:
        server.kill()
finally:
    there.kill()
sys.exit(done.returncode)
"""


def test_a_partition_between_two_network_namespaces(tmp_path: Path) -> None:
    """In a separate network namespace: this needs no root if the kernel allows user namespaces."""
    tools = [shutil.which(name, path="/usr/bin:/bin:/usr/sbin:/sbin") for name in ("ip", "nsenter")]
    if not all(tools) or not actions.partition_possible():
        pytest.skip("NOT TESTED: no network namespaces here, or no iproute2")
    written(
        tmp_path, "cut.json", json.dumps(experiment("partition", {"device": "here"}, seconds=1.0))
    )
    written(
        tmp_path,
        "gate.yaml",
        textwrap.dedent("""
        objectives: {p99: 400ms}
        payloads: {path: /, method: GET}
        stages:
          - name: cut
            chaos: {experiment: cut.json, load: {rate: 20}, before: 1s, after: 4s,
                    recovers_within: 1h}
        """),
    )
    command = ["unshare", "--map-root-user", "--net", "--mount", sys.executable, "-c", WORLD,
               str(tmp_path), str(free_port())]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False,
                          timeout=patient(120),
                          cwd=Path(__file__).parents[2])  # fmt: skip
    said = done.stdout + done.stderr
    if "Operation not permitted" in said or "unshare failed" in said:
        pytest.skip(f"NOT TESTED: this kernel does not allow a network namespace: {said[-200:]}")
    assert done.returncode == 0, said
    (stage,) = json.loads((tmp_path / "r.json").read_text())["stages"]
    # The server opens a connection for each request, and there is no way to it while it lasts.
    assert stage["chaos"]["lost"] + stage["chaos"]["slow"] >= 5
    assert stage["chaos"]["depth"] > 0.5
    assert set(stage["load"]["errors"]) <= {"unreachable", "connect timeout"}
    assert stage["load"]["statuses"]["200"] > 20


def test_cutting_a_link_that_is_not_there_is_an_error_and_leaves_nothing() -> None:
    with pytest.raises((LoadTestError, PlanError), match="cut_link"):
        actions.cut_link("no-such-device")
    assert actions.undo() == 0
    with pytest.raises(PlanError, match="FAKETIME_TIMESTAMP_FILE"):
        actions.jump_clock("/nowhere/clock", 5)


def test_the_delay_until_the_alert_and_prometheus_away(tmp_path: Path) -> None:
    rules = {"alert": "ModelDown", "expr": "up == 0"}
    written(tmp_path, "rules.json", json.dumps({"groups": [{"name": "g", "rules": [rules]}]}))
    written(tmp_path, "metrics", "model_up 1\n")
    port = free_port()
    with subprocess.Popen(
        [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1", "--directory",
         str(tmp_path)], stderr=subprocess.DEVNULL,
    ) as model:  # fmt: skip
        config = {
            "global": {"scrape_interval": "200ms", "scrape_timeout": "200ms",
                       "evaluation_interval": "200ms"},
            "rule_files": ["rules.json"],
            "scrape_configs": [
                {"job_name": "model", "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}
            ],
        }  # fmt: skip
        written(tmp_path, "prometheus.yml", json.dumps(config))
        listen = f"127.0.0.1:{free_port()}"
        prometheus = subprocess.Popen(
            [need("prometheus"), f"--config.file={tmp_path}/prometheus.yml", "--log.level=error",
             f"--storage.tsdb.path={tmp_path}/tsdb", f"--web.listen-address={listen}"],
            env=environment(),
        )  # fmt: skip
        try:
            url = f"http://{listen}"
            eventually(lambda: probes.query(url, "model_up") == 1.0)
            ready(tmp_path, "pause-champion", 2.0, port=port)
            code, found, said = gate(
                tmp_path,
                f"http://127.0.0.1:{port}",
                f"""
                objectives: {{p99: 1s}}
                engine: {{arrivals: even}}
                payloads: {{path: /metrics, method: GET}}
                stages:
                  - name: paused
                    chaos:
                      experiment: pause-champion.json
                      load: {{rate: 20}}
                      before: 1s
                      after: 1500ms
                      alert: {{url: "{url}", name: ModelDown}}
                      detected_within: 1h
                      budget: {{objective: 99.9 %, period: 1d, burned_at_most: 50 %}}
                """,
            )
            assert code == 0, said
            chaos = found["paused"]["chaos"]
            assert 0.0 < chaos["alert_after"] < found["paused"]["seconds"]
            bad = chaos["lost"] + chaos["slow"]
            assert chaos["budget_burned"] == pytest.approx(bad / (0.001 * 86400 * 20), rel=0.15)
            with FaultProxy() as faults:
                made = actions.add_proxy(faults.url, "prometheus", "127.0.0.1:0", listen)
                through = f"http://{made['listen']}"
                assert probes.query(through, "model_up") == 1.0
                actions.add_fault(faults.url, "prometheus", "down")
                assert not probes.answers(f"{through}/-/ready")
                assert probes.alert_firing(through, "ModelDown") is False
                assert actions.undo("down") == 1
                assert probes.answers(f"{through}/-/ready")
        finally:
            prometheus.kill()
            prometheus.wait()
            model.kill()


def test_recorded_traffic_is_replayed_with_its_own_times_and_payloads(tmp_path: Path) -> None:
    asked = [{"instances": [{"x": number}]} for number in range(12)]
    with Server() as model:
        service = Service(
            tmp_path, REAL, champion={"url": model.url}, records={"log": {"path": "records"}}
        )
        with service.start():
            for number, body in enumerate(asked):
                httpx.post(f"{service.url}/v1/models/m:predict", json=body).raise_for_status()
                if number == 5:
                    time.sleep(0.8)  # a pause that the replay has to have as well
            assert service.stop() == 0
        folder, lines = tmp_path / "records", tmp_path / "recorded.jsonl"
        exported = CliRunner().invoke(main, ["records", "export", str(folder), "-o", str(lines)])
        assert exported.exit_code == 0, exported.output
        seen = [one.body for one in recorded(lines, 100, {})]
        assert [json.loads(body) for body in seen] == asked
        code, found, said = gate(
            tmp_path,
            model.url,
            """
            payloads: {records: recorded.jsonl}
            objectives: {errors: 0}
            stages: [{name: again, load: {shape: trace, trace: recorded.jsonl}}]
            """,
        )
        assert code == 0, said
        assert found["again"]["load"]["statuses"] == {"200": 12}
        times = [one.at or 0.0 for one in recorded(lines, 100, {})]
        length = times[-1] - times[0]
        assert 0.8 <= length <= found["again"]["load"]["seconds"] < 10.0 * length
    with pytest.raises(PlanError, match="records export"):
        recorded(folder, 1, {})
