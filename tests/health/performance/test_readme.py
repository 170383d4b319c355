"""The documented way to watch accuracy: the README's configuration, rows, labels, a finding."""

from __future__ import annotations

import http.server
import json
import random
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.support.patience import eventually, patient
from tests.support.service import REAL, ROOT, Service

ROWS = 50
"""Rows of a request."""


class Model(http.server.BaseHTTPRequestHandler):
    """Answers with the probability that the features imply."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        answer = {"predictions": [{"p_late": probability(r["delay"])} for r in body["instances"]]}
        data = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


def probability(delay: float) -> float:
    return min(0.99, max(0.01, round(delay / 60.0, 4)))


@pytest.fixture
def model() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Model)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def readme() -> dict[str, Any]:
    """The README's configuration, without its experiment, and how predictions are judged as the
    page on silent failure says."""
    texts = [(ROOT / name).read_text() for name in ("README.md", "docs/silent-failure.md")]
    first, page = (
        yaml.safe_load(re.findall(r"```yaml[^\n]*\n(.*?)\n```", one, re.DOTALL)[0]) for one in texts
    )
    config: dict[str, Any] = {
        key: value for key, value in first.items() if key not in ("challengers", "experiments")
    }
    judged = page["models"][0]["performance"]
    config["models"][0]["performance"] = {key: judged[key] for key in ("prediction", "threshold")}
    return config


class Traffic:
    """Requests through the sidecar, and the label of every row."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.client = httpx.Client(base_url=service.url, timeout=patient(30.0))
        self.chance = random.Random(11)
        self.requests = 0

    def send(self, rows: int, flipped: bool = False) -> None:
        labels = []
        for _ in range(rows // ROWS):
            self.requests += 1
            id_ = f"r-{self.requests}"
            delays = [round(self.chance.expovariate(1 / 25.0), 1) for _ in range(ROWS)]
            body = {
                "instances": [{"delay": d, "carrier": self.chance.choice("AB")} for d in delays]
            }
            path = "/v1/models/delays:predict"
            answer = self.client.post(path, json=body, headers={"x-request-id": id_})
            assert answer.status_code == 200
            for row, delay in enumerate(delays):
                late = self.chance.random() < probability(delay)
                labels.append({"request_id": id_, "row": row, "label": int(late != flipped)})
        self.seen()
        for begin in range(0, len(labels), 1000):
            part = labels[begin : begin + 1000]
            eventually(lambda part=part: self.post(part).status_code == 200)

    def post(self, labels: list[dict[str, Any]]) -> httpx.Response:
        url = f"{self.service.control}/v1/feedback"
        return httpx.post(url, json=labels, timeout=patient(30.0))

    def seen(self) -> None:
        """Wait until all records are evaluated, so that no label is an orphan."""
        wanted = self.requests
        eventually(lambda: self.get("/v1/status")["records"]["evaluated"] >= wanted)

    def performance(self, labels: int) -> Any:
        """The model, once so many labels are evaluated."""
        found = self.get("/v1/drift")["models"][0]
        return found if found["performance"]["labels"] == labels else None

    def get(self, path: str) -> Any:
        return httpx.get(self.service.control + path, timeout=patient(30.0)).json()


def command(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "understudy", *arguments],
        capture_output=True, text=True, cwd=ROOT, check=False,
    )  # fmt: skip
    assert done.returncode in (0, 1), done.stderr
    return done.stdout


def test_accuracy_that_collapses_opens_a_finding(tmp_path: Path, model: str) -> None:
    config = readme()
    assert config["monitoring"] == {"learn": 10000}
    # Only the addresses are other ones, since those may be taken here.
    config |= {"listen": "127.0.0.1:0", "champion": {"url": model}, "notify": []}
    service = Service(tmp_path, REAL, **config)
    service.config |= {"workers": 1, "state_dir": str(tmp_path / "state")}
    with service.start():
        traffic = Traffic(service)
        missing = {one["check"]: one for one in traffic.get("/v1/status")["not_tested"]}
        assert missing["performance"]["reason"] == "no_labels"
        assert missing["drift"]["words"].endswith("0 of 10,000 rows for the baseline")
        traffic.send(500)
        known = eventually(
            lambda: [
                one
                for one in traffic.get("/v1/status")["not_tested"]
                if one["words"] == "Error rate: 500 of 1,000 labels for the reference"
            ]
        )
        assert (known[0]["have"], known[0]["need"]) == (500, 1000)
        url = ("--url", service.control)
        assert "500 of 1,000 labels for the reference" in command("findings", "list", *url)
        assert "500 of 1,000 labels for the reference" in command("top", "--once", *url)
        metrics = httpx.get(service.control + "/metrics", timeout=patient(30.0)).text
        line = (
            'understudy_not_tested{check="error_rate",model="delays",reason="reference",version=""}'
        )
        assert f"{line} 1.0" in metrics
        traffic.send(10_500)
        before = eventually(lambda: traffic.performance(11_000))
        assert before["rows"] == 1000, "the baseline was learned from 10,000"
        assert traffic.get("/v1/status")["not_tested"] == []
        assert traffic.get("/v1/findings")["findings"] == []
        usual = before["performance"]["realised"]["accuracy"]
        traffic.send(1000, flipped=True)
        found = eventually(lambda: traffic.get("/v1/findings")["findings"])
        titles = [one["title"] for one in found]
        assert any(title.startswith("Accuracy fell to ") for title in titles), titles
        accuracy = next(one for one in found if one["title"].startswith("Accuracy fell"))
        assert accuracy["severity"] == "critical"
        assert accuracy["size"]["baseline"] == pytest.approx(usual, abs=0.05)
        assert accuracy["size"]["value"] < 0.5
        assert "Accuracy fell" in command("findings", "list", *url)
        assert "by 12,000 labels" in command("top", "--once", *url)
