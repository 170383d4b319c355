"""A user's configuration with objectives, a real service and a slow model server."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import httpx

from tests.support.patience import eventually, patient
from tests.support.service import REAL, ROOT, Service
from tests.support.world import PATH, Model
from understudy.common.units import MINUTE

BODY = {"inputs": [{"name": "x", "shape": [1], "datatype": "FP64", "data": [1.0]}]}


def test_a_slow_model_server_misses_its_objective(tmp_path: Path) -> None:
    model = Model("slow")
    service = Service(
        tmp_path,
        REAL,
        workers=1,
        models=[{"name": "m", "version": "1"}],
        champion={"url": model.url},
        objectives={"latency_p99": "<= 50ms", "error_rate": "<= 1 %"},
        # The least that the configuration allows: two blocks of ten seconds are enough then.
        monitoring={"run_length": 1000},
    )
    done = threading.Event()

    def send() -> None:
        with httpx.Client(base_url=service.url, timeout=patient(30.0)) as client:
            while not done.is_set():
                assert client.post(PATH, json=BODY).status_code == 200

    def found() -> list[dict[str, object]]:
        command = (sys.executable, "-m", "understudy", "findings", "list", "--json")
        output = subprocess.run(
            [*command, "--url", service.control], capture_output=True, text=True, cwd=ROOT
        )
        assert output.returncode == 0, output.stderr
        findings: list[dict[str, object]] = json.loads(output.stdout)["findings"]
        return [one for one in findings if one["kind"] == "objective"]

    clients = [threading.Thread(target=send, daemon=True) for _ in range(4)]
    try:
        with service:
            for client in clients:
                client.start()
            url = f"{service.control}/v1/findings"
            seen = lambda: "objective/" in httpx.get(url).text  # noqa: E731
            eventually(seen, "a finding", seconds=2 * MINUTE)
            (finding,) = found()
            metrics = httpx.get(f"{service.control}/metrics").text
            done.set()
            for client in clients:
                client.join(patient(30.0))
    finally:
        model.kill()
    assert finding["key"] == "objective/m/1//champion/latency_p99"
    assert finding["severity"] == "critical"
    assert "latency_p99 of champion is" in str(finding["title"])
    assert 'understudy_findings_open{kind="objective",model="m",severity="critical"} 1.0' in metrics
