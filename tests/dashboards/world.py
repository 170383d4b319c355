"""A service in which everything happens that a dashboard shows, and a Prometheus that scrapes it.

A champion and a candidate with copies and an experiment, a baseline that is learned, labels that
come later, known cases, a refused request, and after a while an input that has drifted.
"""

from __future__ import annotations

import http.client
import json
import random
import subprocess
import sys
import threading
import time
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx

from tests.parts import environment, need
from tests.supervisor.service import REAL, ROOT, Service, eventually, free_port

MODEL = "delays"
PATH = f"/v2/models/{MODEL}/infer"
LEARN = 600
CONFIG: dict[str, Any] = {
    "workers": 1,
    "models": [
        {
            "name": MODEL,
            "version": "1",
            "features": ["distance", "delay", "carrier"],
            "predictions": ["p_late", "label"],
            "performance": {"prediction": "p_late", "threshold": 0.5, "window": 200},
        }
    ],
    "monitoring": {
        "learn": LEARN,
        "segments": ["carrier"],
        "run_length": 100_000,
        "window": 200,
        "hold": "30s",
        "kernel": True,
    },
    "experiments": [
        {
            "name": "candidate-canary",
            "challengers": ["candidate"],
            "mode": "canary",
            "metrics": [
                {"metric": "error_rate", "margin": "10 pp"},
                {"metric": "latency_p95", "margin": "50 %"},
                {"metric": "accuracy", "role": "success", "effect": "20 pp", "base_rate": 0.7},
            ],
            "label": {"prediction": "p_late", "threshold": 0.5},
            "cost": {"champion": {"per_request": 0.0002}, "candidate": {"per_request": 0.0001}},
            "stages": [
                {"weight": 0.0, "requests": 100},
                {"weight": 0.3, "requests": 10_000_000},
                {"weight": 1.0},
            ],
        }
    ],
    "objectives": {
        "error_rate": "<= 5 %",
        "latency_p99": "<= 500ms",
        "cost_per_prediction": "<= 0.001",
    },
}
CASES = [
    {
        "name": "a usual flight",
        "kind": "malformed",
        "request": "{",
    }
]


class Clients:
    """Open connections that send flights, and report some hundred flights later how they went."""

    def __init__(self, url: str, control: str, rate: float) -> None:
        self._address = url.removeprefix("http://")
        self._control = control
        self._pause = 1.0 / rate
        self._random = random.Random(7)
        self._late: deque[tuple[str, int]] = deque()
        self.sent = 0
        self.drifted = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _flight(self) -> tuple[dict[str, Any], int]:
        draw = self._random
        distance = draw.uniform(100, 2500) / (10 if self.drifted else 1)
        delay = None if draw.random() < 0.03 else draw.gauss(10, 30)
        carrier = draw.choice(("AA", "UA", "B6"))
        late = int(draw.random() < 1 / (1 + 2.7 ** -(0.04 * (delay or 0) - 0.0004 * distance)))
        values = {"distance": distance, "delay": delay, "carrier": carrier}
        tensors = [
            {
                "name": name,
                "shape": [1],
                "datatype": "BYTES" if isinstance(value, str) else "FP64",
                "data": [value],
            }
            for name, value in values.items()
        ]
        return {"inputs": tensors}, late

    def _run(self) -> None:
        connection = http.client.HTTPConnection(self._address, timeout=30)
        labels = httpx.Client()
        while not self._stop.is_set():
            self.sent += 1
            number = f"flight-{self.sent}"
            body, late = self._flight()
            connection.request("POST", PATH, json.dumps({"id": number, **body}),
                               {"x-request-id": number})  # fmt: skip
            connection.getresponse().read()
            self._late.append((number, late))
            if len(self._late) >= 200:
                known = [self._late.popleft() for _ in range(100)]
                labels.post(
                    self._control + "/v1/feedback",
                    json=[{"request_id": key, "label": value} for key, value in known],
                )
            if self.sent % 50 == 0:
                self._be_refused()
            self._stop.wait(self._pause)
        connection.close()

    def _be_refused(self) -> None:
        refused = http.client.HTTPConnection(self._address, timeout=10)
        refused.putrequest("POST", PATH)
        refused.putheader("Transfer-Encoding", "chunked")
        refused.putheader("Content-Length", "5")
        refused.endheaders()
        assert refused.getresponse().status == 400
        refused.close()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(30)


class Prometheus:
    """Scrapes as the compose stack does, only more often."""

    interval = 0.5

    def __init__(self, folder: Path, control: str, rules: list[Path]) -> None:
        folder.mkdir()
        self.url = f"http://127.0.0.1:{free_port()}"
        config = {
            "global": {"scrape_interval": "500ms", "evaluation_interval": "500ms"},
            "rule_files": [str(path) for path in rules],
            "scrape_configs": [
                {
                    "job_name": "understudy",
                    "static_configs": [{"targets": [control.removeprefix("http://")]}],
                }
            ],
        }
        (folder / "prometheus.yml").write_text(json.dumps(config))
        self.process = subprocess.Popen(
            [
                need("prometheus"),
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'tsdb'}",
                f"--web.listen-address={self.url.removeprefix('http://')}",
                "--log.level=error",
            ],
            env=environment(),
        )

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


class World:
    """All of it; ``world.prometheus.url`` has the series once :meth:`drift` has returned."""

    def __init__(self, folder: Path, rules: list[Path], rate: float = 250.0) -> None:
        need("prometheus")
        self.folder = folder
        self.rules = rules
        self.rate = rate
        self.models: list[subprocess.Popen[bytes]] = []

    def _model(self, bias: float) -> str:
        port = free_port()
        script = str(Path(__file__).with_name("scoring_server.py"))
        self.models.append(
            subprocess.Popen([sys.executable, script, str(port), str(bias)], cwd=ROOT)
        )
        return f"http://127.0.0.1:{port}"

    def __enter__(self) -> World:
        cases = self.folder / "cases.jsonl"
        cases.write_text("".join(json.dumps(case) + "\n" for case in CASES))
        champion, candidate = self._model(0.0), self._model(0.3)
        self.service = Service(
            self.folder,
            REAL,
            **CONFIG,
            validation={"cases": str(cases), "every": "2s"},
            champion={"url": champion},
            challengers=[{"name": "candidate", "url": candidate, "mirror": {"rate": 1.0}}],
        ).start()
        self.prometheus = Prometheus(self.folder / "prometheus", self.service.control, self.rules)
        self.clients = Clients(self.service.url, self.service.control, self.rate)
        return self

    def drift(self) -> None:
        """Go on until the baseline is learned, then let an input drift until that is found."""
        eventually(lambda: self.clients.sent > LEARN + 500)
        self.clients.drifted = True
        eventually(lambda: self.findings())
        time.sleep(0)

    def findings(self) -> list[dict[str, Any]]:
        answer = httpx.get(self.service.control + "/v1/findings", timeout=10)
        found: list[dict[str, Any]] = answer.json()["findings"]
        return found

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if hasattr(self, "clients"):
            self.clients.stop()
            self.prometheus.stop()
            self.service.__exit__(kind, error, trace)
        for model in self.models:
            model.kill()
            model.wait()
