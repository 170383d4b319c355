"""The real process of the evaluation plane, and a worker's side of the conversation with it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.support.patience import eventually, patient
from tests.support.ports import free_port
from understudy.monitor.records import frames, record
from understudy.monitor.records.encode import encode as encode_record
from understudy.monitor.stats.shared import SharedStats

PATIENCE = patient(30.0)
ARMS = ["champion", "candidate"]
MODEL = {"name": "delays", "version": "1", "protocol": "open-inference-v2"}
LABELS = {
    "model": "delays",
    "version": "1",
    "arm": "champion",
    "role": "primary",
    "protocol": "open-inference-v2",
    "outcome": "ok",
}


class PlaneProcess:
    """``python -m understudy.monitor.service`` with this test as its supervisor."""

    def __init__(self, folder: Path, run: str = "run-1", **config: Any) -> None:
        self.folder = folder
        self.run = run
        self.run_dir = folder / "run"
        self.run_dir.mkdir(exist_ok=True)
        self.state_dir = folder / "state"
        self.port = free_port()
        self.config: dict[str, Any] = {
            "version": 1,
            "listen": {"address": "127.0.0.1:0"},
            "control": {"listen": f"127.0.0.1:{self.port}", "token_env": "UNDERSTUDY_TEST_TOKEN"},
            "state_dir": str(self.state_dir),
            "models": [{**MODEL, "paths": None, "features": [], "predictions": [], "json": None}],
            "champion": {"name": ARMS[0], "url": "http://127.0.0.1:1"},
            "challengers": [{"name": ARMS[1], "url": "http://127.0.0.1:2"}],
            "records": {"keep": 50, "redact": []},
            **config,
        }
        self.config_path = self.run_dir / "config.json"
        self.url = f"http://127.0.0.1:{self.port}"
        self.heard: list[dict[str, Any]] = []
        self.process: subprocess.Popen[bytes] | None = None
        self.token = ""
        self._line: socket.socket | None = None
        self._buffer = b""

    def start(self, wait: bool = True, **environment: str) -> PlaneProcess:
        self.config_path.write_text(json.dumps(self.config))
        self.token = environment.get("UNDERSTUDY_TEST_TOKEN", "")
        ours, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "understudy.monitor.service"),
                    *("--config-json", str(self.config_path), "--run-dir", str(self.run_dir)),
                    *("--run-id", self.run, "--control-fd", str(theirs.fileno())),
                ],
                pass_fds=(theirs.fileno(),),
                env={**os.environ, **environment},
            )
        ours.settimeout(PATIENCE)
        self._line, self._buffer = ours, b""
        if wait:
            assert self.listen() == {"event": "ready"}
            eventually(lambda: self.get("/healthz").status_code == 200)
        return self

    def __enter__(self) -> PlaneProcess:
        return self if self.process is not None else self.start()

    def __exit__(self, *_: object) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill()
        if self._line is not None:
            self._line.close()

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def tell(self, message: dict[str, Any]) -> None:
        assert self._line is not None
        self._line.sendall(json.dumps(message).encode() + b"\n")

    def listen(self) -> dict[str, Any]:
        """The next message of the process."""
        assert self._line is not None
        while b"\n" not in self._buffer:
            data = self._line.recv(65536)
            assert data, "the process closed the line"
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        return message

    def hang_up(self) -> None:
        """Die as a supervisor."""
        assert self._line is not None
        self._line.close()

    def drain(self) -> int:
        self.tell({"do": "drain"})
        return self.wait()

    def wait(self) -> int:
        assert self.process is not None
        return self.process.wait(PATIENCE)

    def get(self, path: str, **options: Any) -> httpx.Response:
        return httpx.get(self.url + path, timeout=PATIENCE, **options)

    def post_labels(self, labels: list[dict[str, Any]]) -> httpx.Response:
        headers = {"authorization": f"Bearer {self.token}"} if self.token else {}
        return httpx.post(self.url + "/v1/feedback", json=labels, headers=headers, timeout=PATIENCE)

    def status(self) -> dict[str, Any]:
        document: dict[str, Any] = self.get("/v1/status").raise_for_status().json()
        return document

    def metric(self, name: str, **labels: str) -> float | None:
        """Value of the first sample of that name with at least these labels."""
        for family in text_string_to_metric_families(self.get("/metrics").text):
            for sample in family.samples:
                if sample.name == name and labels.items() <= sample.labels.items():
                    return float(sample.value)
        return None

    def report(self, *slots: int, **more: Any) -> None:
        """Say as supervisor which workers run; they are this test's process."""
        workers = [
            {"slot": slot, "pid": os.getpid(), "restarts": 0, "ready": True} for slot in slots
        ]
        told = {"do": "status", "workers": workers, "generation": 1, "config_error": None}
        self.tell(told | more)

    def stats(self, slot: int = 0) -> SharedStats:
        """Shared statistics as a worker writes them."""
        return SharedStats(self.run_dir / f"worker-{slot}.stats", 1 << 22)


class WorkerEnd:
    """A worker's end of the hand-off: numbered batches that can be sent again."""

    def __init__(self, plane: PlaneProcess, slot: int = 0, incarnation: int = 1) -> None:
        self._reader = frames.FrameReader()
        self._inbox: list[tuple[int, bytes]] = []
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE)
        path = str(plane.run_dir / "records.sock")
        eventually(lambda: self.sock.connect_ex(path) == 0)
        hello = {"run": plane.run, "slot": slot, "incarnation": incarnation, "pid": os.getpid()}
        self._send(frames.HELLO, json.dumps(hello).encode())
        kind, payload = self.receive()
        assert kind == frames.WELCOME
        self.welcome: dict[str, int] = json.loads(payload)
        names = {"generation": 1, "models": [MODEL], "arms": ARMS}
        self._send(frames.NAMES, json.dumps(names).encode())

    def _send(self, kind: int, payload: bytes) -> None:
        self.sock.sendall(frames.frame(kind, payload))

    def batch(self, seq: int, records: Sequence[bytes]) -> None:
        self._send(frames.BATCH, frames.BATCH_HEAD.pack(seq, len(records)) + b"".join(records))

    def receive(self) -> tuple[int, bytes]:
        while not self._inbox:
            data = self.sock.recv(65536)
            if not data:
                raise ConnectionResetError
            self._inbox.extend(self._reader.feed(data))
        return self._inbox.pop(0)

    def wait_for(self, kind: int, seq: int) -> None:
        """Read until a frame of ``kind`` covers batch ``seq``."""
        while True:
            found, payload = self.receive()
            if found == kind and frames.SEQ.unpack(payload)[0] >= seq:
                return

    def close(self) -> None:
        self.sock.close()


def v2(key: str, values: dict[str, list[Any]]) -> bytes:
    """A body of the Open Inference Protocol; ``key`` is inputs or outputs."""
    tensors = [
        {"name": name, "shape": [len(data), 1], "datatype": "FP64", "data": data}
        for name, data in values.items()
    ]
    return json.dumps({"model_name": "delays", key: tensors}).encode()


def encoded(
    features: dict[str, list[Any]] | bytes | None = None,
    predictions: dict[str, list[Any]] | bytes | None = None,
    *,
    arm: int = 0,
    role: int = record.ROLE_PRIMARY,
    outcome: int = record.OK,
    duration: float = 0.02,
    trace_id: str = "",
    sampled: bool = True,
    request_id: str = "r-1",
    target: str = "/v2/models/delays/infer",
    headers: str = "content-type: application/json",
    answer_headers: str = "content-type: application/json",
) -> bytes:
    """One encoded record of the model ``delays``; payloads as tensors or as bytes."""
    request = v2("inputs", features) if isinstance(features, dict) else features
    response = v2("outputs", predictions) if isinstance(predictions, dict) else predictions
    _, parts = encode_record(
        0,
        arm,
        200 if outcome == record.OK else 0,
        role,
        outcome,
        time.time() - duration,
        int(duration * 1e9),
        int(duration * 5e8),
        0,
        len(request or b""),
        len(response or b""),
        request_id.encode(),
        trace_id.encode(),
        b"",
        target.encode(),
        headers.encode(),
        answer_headers.encode(),
        request,
        response,
        sampled=bool(trace_id) and sampled,
    )
    return b"".join(parts)
