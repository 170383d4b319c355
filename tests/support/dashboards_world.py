"""A service in which everything happens that a dashboard shows, and a Prometheus that scrapes it.

A champion and a candidate with copies and an experiment, a baseline that is learned, labels that
come later, known cases, a refused request, and after a while an input that has drifted.
"""

from __future__ import annotations

import http.client
import json
import math
import random
import subprocess
import sys
import threading
import time
from collections import deque
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx

from tests.support.patience import eventually, patient
from tests.support.ports import free_port
from tests.support.scoring_server import answer
from tests.support.service import REAL, ROOT, Service
from tools.parts.debian import environment, need

MODEL = "delays"
PATH = f"/v2/models/{MODEL}/infer"
QUIET = 900
"""Flights before something drifts."""
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
            "unit": {"by": "header", "name": "x-user-id"},
            "metrics": [
                {"metric": "error_rate", "margin": "10 pp"},
                {"metric": "latency_p95", "margin": "50 %"},
            ],
            "cost": {"champion": {"per_request": 0.0002}, "candidate": {"per_request": 0.0001}},
            "stages": [
                {"weight": 0.0, "requests": 500},
                {"weight": 0.4, "requests": 10_000_000},
                {"weight": 1.0},
            ],
        }
    ],
    "feedback": {"horizon": "5s"},
    "objectives": {
        "error_rate": "<= 5 %",
        "latency_p99": "<= 500ms",
        "cost_per_prediction": "<= 0.001",
    },
}
TENSORS = [
    {"name": "distance", "shape": [1], "datatype": "FP64", "data": [700.0]},
    {"name": "delay", "shape": [1], "datatype": "FP64", "data": [120.0]},
    {"name": "carrier", "shape": [1], "datatype": "BYTES", "data": ["AA"]},
]
CASES = [
    {
        "name": "two hours are late",
        "kind": "labelled",
        "request": {"inputs": TENSORS},
        "label": 1,
        "prediction": "p_late",
        "threshold": 0.5,
    }
]


def flight(draw: random.Random, scale: float = 1.0) -> tuple[dict[str, Any], int]:
    """What is known of a flight before, and whether it was late."""
    distance = draw.uniform(100, 2500) * scale
    delay = None if draw.random() < 0.03 else draw.gauss(10, 30)
    odds = math.exp(0.04 * (delay or 0.0) - 0.0004 * distance)
    values = {"distance": distance, "delay": delay, "carrier": draw.choice(("AA", "UA", "B6"))}
    return values, int(draw.random() < odds / (1 + odds))


def build_baseline(folder: Path) -> Path:
    """`understudy baseline build` on flights that have landed."""
    draw = random.Random(3)
    lines = ["distance,delay,carrier,p_late,label,late"]
    for _ in range(3000):
        values, late = flight(draw)
        tensors = [{"name": name, "data": [value]} for name, value in values.items()]
        outputs = answer(json.dumps({"inputs": tensors}).encode(), 0.0)["outputs"]
        said = [output["data"][0] for output in outputs]
        row = [*("" if value is None else value for value in values.values()), *said, late]
        lines.append(",".join(str(value) for value in row))
    (folder / "flights.csv").write_text("\n".join(lines) + "\n")
    path = folder / "baseline.json"
    command = [
        sys.executable,
        "-m",
        "understudy",
        "baseline",
        "build",
        str(folder / "flights.csv"),
    ]
    command += ["--target", "late", "--prediction", "p_late", "--prediction", "label"]
    command += ["--model", MODEL, "--model-version", "1", "-o", str(path)]
    subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
    return path


class Clients:
    """A client that sends flights, and reports some hundred flights later how they went."""

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
        values, late = flight(self._random, 0.1 if self.drifted else 1.0)
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
        connection = http.client.HTTPConnection(self._address, timeout=patient(20))
        labels = httpx.Client(timeout=patient(20))
        while not self._stop.is_set():
            self.sent += 1
            number = f"flight-{self.sent}"
            body, late = self._flight()
            headers = {"x-request-id": number}
            if self.sent % 20:
                headers["x-user-id"] = number
            connection.request("POST", PATH, json.dumps({"id": number, **body}), headers)
            connection.getresponse().read()
            self._late.append((number, late))
            if len(self._late) >= 200:
                known = [self._late.popleft() for _ in range(100)]
                labels.post(
                    self._control + "/v1/feedback",
                    json=[{"request_id": key, "label": value} for key, value in known],
                )
            if self.sent % 50 == 0:
                labels.post(self._control + "/v1/records", json=[{}])  # refused
                self._be_refused()
                self._wait_in_line()
                connection.request("POST", PATH, json.dumps({"inputs": "none"}))
                connection.getresponse().read()
            self._stop.wait(self._pause)
        connection.close()

    def _wait_in_line(self) -> None:
        """Two requests at once, for a champion with one connection."""
        both = [http.client.HTTPConnection(self._address, timeout=patient(20)) for _ in range(2)]
        for one in both:
            one.connect()
        for number, one in enumerate(both):
            body = json.dumps({"id": f"pair-{self.sent}-{number}", **self._flight()[0]})
            one.request("POST", PATH, body)
        for one in both:
            one.getresponse().read()
            one.close()

    def _be_refused(self) -> None:
        refused = http.client.HTTPConnection(self._address, timeout=patient(20))
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

    def __init__(self, folder: Path, control: str, rules: list[Path], *options: str) -> None:
        folder.mkdir()
        self.url = f"http://127.0.0.1:{free_port()}"
        config = {
            "global": {"scrape_interval": "500ms", "evaluation_interval": "500ms"},
            "rule_files": [str(path) for path in rules],
            "scrape_configs": [
                {
                    "job_name": "understudy",
                    "static_configs": [
                        {
                            "targets": [control.removeprefix("http://")],
                            "labels": {"cluster": "eu", "namespace": "prod"},
                        }
                    ],
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
                *options,
            ],
            env=environment(),
        )

    def asked(self, expr: str) -> list[Any]:
        try:
            answer = httpx.get(
                self.url + "/api/v1/query", params={"query": expr}, timeout=patient(20)
            )
        except httpx.TransportError:
            return []
        if answer.status_code == 503:  # still starting
            return []
        found: list[Any] = answer.raise_for_status().json()["data"]["result"]
        return found

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


class World:
    """All of it; ``world.prometheus.url`` has the series once :meth:`drift` has returned."""

    scrape = 0.5
    """Seconds between two scrapes."""

    def __init__(self, folder: Path, rules: list[Path], rate: float = 250.0) -> None:
        need("prometheus")
        self.folder = folder
        self.rules = rules
        self.rate = rate
        self.models: list[subprocess.Popen[bytes]] = []
        self._running = ExitStack()

    def _model(self, bias: float) -> str:
        port = free_port()
        script = str(Path(__file__).with_name("scoring_server.py"))
        self.models.append(
            subprocess.Popen([sys.executable, script, str(port), str(bias)], cwd=ROOT)
        )
        self._running.callback(self.models[-1].wait)
        self._running.callback(self.models[-1].kill)
        return f"http://127.0.0.1:{port}"

    def __enter__(self) -> World:
        try:
            self._start()
        except BaseException:
            self._running.close()
            raise
        return self

    def _start(self) -> None:
        self.began = time.time()
        cases = self.folder / "cases.jsonl"
        cases.write_text("".join(json.dumps(case) + "\n" for case in CASES))
        models = [{**CONFIG["models"][0], "baseline": str(build_baseline(self.folder))}]
        champion, candidate = self._model(0.0), self._model(0.1)
        service = Service(
            self.folder,
            REAL,
            **(CONFIG | {"models": models}),
            validation={"cases": str(cases), "every": "2s"},
            notify=[{"kind": "webhook", "url": "http://127.0.0.1:9/nobody", "severity": "info"}],
            champion={"url": champion, "max_connections": 1},
            challengers=[{"name": "candidate", "url": candidate, "mirror": {"rate": 1.0}}],
        )
        self.service = service.start(wait=False)
        self._running.push(service)
        eventually(lambda: service.output or service.process_ended())
        assert service.output, service.log
        self.prometheus = Prometheus(self.folder / "prometheus", self.service.control, self.rules)
        self._running.callback(self.prometheus.stop)
        # Prometheus takes some seconds before it looks for the first time.
        eventually(lambda: self.prometheus.asked('up{job="understudy"} == 1'))
        self.clients = Clients(self.service.url, self.service.control, self.rate)
        self._running.callback(self.clients.stop)

    def drift(self) -> None:
        """A quiet stretch; then an input drifts until that is found, and the candidate dies."""
        eventually(lambda: 'bound="lower"' in self.effects() and 'bound="upper"' in self.effects())
        eventually(lambda: self.clients.sent > QUIET)
        self.clients.drifted = True
        eventually(lambda: self.findings())
        self.models[1].kill()

    def effects(self) -> str:
        text = httpx.get(self.service.control + "/metrics", timeout=patient(20)).text
        return "".join(line for line in text.splitlines() if "_experiment_effect{" in line)

    def findings(self) -> list[dict[str, Any]]:
        answer = httpx.get(self.service.control + "/v1/findings", timeout=patient(20))
        found: list[dict[str, Any]] = answer.json()["findings"]
        return found

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._running.close()
