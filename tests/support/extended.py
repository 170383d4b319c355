"""Runs what CONTRIBUTING.md adds, in a copy of the tree: a service, its traffic, and a gate.

``python -m tests.support.extended FOLDER`` prints what it found as one JSON object.
"""

from __future__ import annotations

import json
import os
import random
import sys
from pathlib import Path
from typing import Any

import httpx

from tests.support.gates import gate, plan
from tests.support.load_server import Server
from tests.support.patience import eventually
from tests.support.service import REAL, Service
from tests.support.webhook_receiver import Receiver
from understudy.monitor.config.load import parse
from understudy.monitor.errors import ConfigError
from understudy.monitor.findings.channels.messages import QUIET_SECONDS

LEARNED = 500
CONFIG: dict[str, Any] = {
    "models": [
        {
            "name": "m",
            "protocol": "auto",
            "paths": ["/echo/batch"],
            "features": ["amount"],
            "predictions": ["score"],
        }
    ],
    "workers": 1,
    "monitoring": {
        "learn": LEARNED,
        "detectors": [{"series": "amount", "kind": "page_cusum", "options": {"limit": 25}}],
    },
    "experiments": [
        {
            "name": "x",
            "challengers": ["candidate"],
            "metrics": [{"metric": "first_byte_mean", "margin": "20 %"}],
        }
    ],
}
WRONG: dict[str, dict[str, Any]] = {
    "protocol": {"models": [{"name": "m", "protocol": "batch-jsn"}]},
    "option": {
        "monitoring": {
            "detectors": [{"series": "a", "kind": "page_cusum", "options": {"delta": 1}}]
        }
    },
    "setting": {
        "notify": [{"kind": "pagerduty", "url": "http://127.0.0.1:9/", "token_env": "TOKEN"}]
    },
    "metric": {
        "experiments": [{"name": "x", "challengers": ["c"], "metrics": [{"metric": "first_byte"}]}],
        "challengers": [{"name": "c", "url": "http://127.0.0.1:9", "mirror": {"rate": 1.0}}],
    },
}


def problems() -> dict[str, str]:
    """What the configuration says of values that are nearly right."""
    found = {}
    for name, changes in WRONG.items():
        whole = {
            "version": 1,
            "listen": "127.0.0.1:0",
            "models": [{"name": "m"}],
            "champion": {"url": "http://127.0.0.1:9"},
            **changes,
        }
        try:
            parse(json.dumps(whole), "file", Path())
        except ConfigError as error:
            found[name] = str(error)
    return found


def send(service: Service, client: httpx.Client, requests: int, mean: float) -> None:
    """``requests`` of ten rows each."""
    chance = random.Random(1)
    for _ in range(requests):
        rows = [[chance.gauss(mean, 1.0)] for _ in range(10)]
        answer = client.post(service.url + "/echo/batch", json={"batch": rows})
        assert answer.json() == {"batch": rows}


def evidence(service: Service) -> dict[str, Any]:
    """What the control API shows of the only metric of the experiment."""
    shown = httpx.get(service.control + "/v1/experiments/x").json()
    found: dict[str, Any] = shown["challengers"][0]["metrics"][0]
    return found


def gate_of(folder: Path, server: Server, at_most: float) -> dict[str, Any]:
    """Exit code and result of a gate with the new stage."""
    assert server.process is not None
    text = f"stages: [{{name: m, memory: {{pid: {server.process.pid}, at_most: {at_most}}}}}]"
    out = folder / "gate.json"
    done = gate("--target", server.url, "--plan", plan(folder, text), "--json-file", out)
    return {"exit": done.exit_code, "output": done.output, "result": json.loads(out.read_text())}


def seen(folder: Path, there: Receiver) -> dict[str, Any]:
    """Run the service and the gate; what they said."""
    found: dict[str, Any] = {"problems": problems()}
    with Server() as server:
        service = Service(
            folder,
            REAL,
            **CONFIG,
            champion={"url": server.url},
            challengers=[{"name": "candidate", "url": server.url, "mirror": {"rate": 1.0}}],
            notify=[
                {
                    "kind": "pagerduty",
                    "url": there.url,
                    "secret_env": "ROUTING_KEY",
                    "severity": "info",
                }
            ],
        )
        with service.start(ROUTING_KEY="k-1"), httpx.Client(trust_env=False) as client:
            send(service, client, LEARNED // 10 + 10, 0.0)
            send(service, client, 60, 3.0)
            # The drift that the detector corroborates may have been sent before.
            eventually(
                lambda: [r for r in there.requests if b"page_cusum" in r.body],
                "no alert came",
                seconds=QUIET_SECONDS + 30.0,
            )
            eventually(lambda: evidence(service)["records"]["champion"] > 0, "no evidence came")
            found["evidence"] = evidence(service)
            found["metrics"] = httpx.get(service.control + "/metrics").text
        found["alerts"] = [request.json for request in there.requests]
        found["gates"] = [gate_of(folder, server, at_most) for at_most in (1e12, 1.0)]
    return found


def main(folder: Path) -> None:
    there = Receiver()
    there.start()
    try:
        found = seen(folder, there)
    finally:
        # Its thread would keep this process alive.
        there.stop()
    print(json.dumps(found))


if __name__ == "__main__":
    os.environ.setdefault("NO_COLOR", "1")
    main(Path(sys.argv[1]))
