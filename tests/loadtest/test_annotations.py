"""Stages of a gate as annotations, at a receiver that keeps what Grafana would get.

The requests are those of Grafana's HTTP API for annotations; there is no Grafana here to take them.
"""

from __future__ import annotations

import http.server
import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.gates import gate, plan
from tests.support.load_server import Server
from tools.dashboards.board import GATE_TAG
from understudy.loadtest.gate.annotations import TAG

PLAN = """
    objectives: {p95: 20s, errors: 5 %}
    payloads: {template: {instances: [{a: 1}]}, path: /v1/models/m:predict}
    stages:
      - {name: steady, load: {rate: 50, seconds: 5}}
      - {name: short, load: {rate: 50, seconds: 1}, judged: false}
"""


class Grafana:
    def __init__(self, status: int = 200) -> None:
        self.got: list[tuple[str, str | None, dict[str, Any]]] = []
        owner = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                owner.got.append((self.path, self.headers["Authorization"], body))
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


def test_each_stage_becomes_a_region(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAFANA_TOKEN", "secret")
    grafana = Grafana()
    begun = time.time()
    with Server(seconds=0.002) as server:
        found = gate("--target", server.url, "--plan", plan(tmp_path, PLAN), "--grafana",
                     grafana.url + "/")  # fmt: skip
    assert "annotation" not in found.output
    assert [path for path, _, _ in grafana.got] == ["/api/annotations"] * 2, found.output
    assert {token for _, token, _ in grafana.got} == {"Bearer secret"}
    first, second = (body for _, _, body in grafana.got)
    assert (first["tags"][0], second["tags"]) == (TAG, [TAG, "load", "shown"])
    assert first["text"].startswith("steady: ")
    assert begun * 1000 - 1 <= first["time"] < first["timeEnd"] <= second["time"]
    assert first["timeEnd"] - first["time"] >= 1900
    assert TAG == GATE_TAG, "the dashboards look for it"


def test_each_attempt_becomes_a_region(tmp_path: Path) -> None:
    """A hundred requests are too few for a p95."""
    grafana = Grafana()
    text = PLAN.replace("seconds: 5", "seconds: 2")
    with Server(seconds=0.002) as server:
        gate("--target", server.url, "--plan", plan(tmp_path, text), "--grafana", grafana.url)
    first, again, _ = (body for _, _, body in grafana.got)
    assert (first["tags"], again["tags"][:2]) == ([TAG, "load", "invalid"], [TAG, "load"])
    assert first["timeEnd"] <= again["time"] < again["timeEnd"]


@pytest.mark.parametrize("away", [True, False])
def test_a_grafana_that_is_away_or_refuses_changes_nothing(tmp_path: Path, away: bool) -> None:
    grafana = Grafana(status=401)
    url = "http://127.0.0.1:9" if away else grafana.url
    with Server(seconds=0.002) as server:
        target = ("--target", server.url, "--plan", plan(tmp_path, PLAN))
        found = gate(*target, "--grafana", url)
    assert found.exit_code in (0, 2)
    assert len(grafana.got) == (0 if away else 2)
