"""What is killed and what it works on: a configuration, and processes, each with its ports."""

from __future__ import annotations

import json
import signal
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any

from benchmarks.kafka import traffic
from tests.support.source import saved
from understudy.monitor.kafka.partitions import EVIDENCE_PARTITIONS


def document(
    folder: Path, bootstrap: str, prefix: str, partitions: int, labels: bool
) -> dict[str, Any]:
    """With ``labels`` records are evaluated one by one, without by columns."""
    experiments: list[dict[str, Any]] = [dict(one) for one in traffic.EXPERIMENTS]
    if not labels:
        experiments[0].pop("label")
        experiments[0]["metrics"] = experiments[0]["metrics"][:3]
    return {
        "version": 1,
        "listen": "127.0.0.1:0",
        "state_dir": str(folder / "state"),
        "models": [
            {
                "name": "delays",
                "version": "1",
                "baseline": saved(folder, 4000),
                "performance": {"prediction": "p", "threshold": 0.5} if labels else None,
            }
        ],
        "champion": {"url": "http://127.0.0.1:1"},
        "challengers": [
            {"name": "candidate", "url": "http://127.0.0.1:2", "mirror": {"rate": 1.0}},
            {"name": "other", "url": "http://127.0.0.1:3", "mirror": {"rate": 0.0}},
        ],
        "experiments": experiments,
        "feedback": {"horizon": "1h"},
        "kafka": {
            "bootstrap": bootstrap.split(","),
            "prefix": prefix,
            "partitions": partitions,
            "timeout": "4s",
        },
    }


class Process:
    """One of those that are killed."""

    def __init__(self, name: str, command: list[str], log: Path) -> None:
        self.name = name
        self._command = command
        self._log = log
        self._killed = False
        self.process: subprocess.Popen[bytes] | None = None
        self.fell: list[str] = []
        """Unexpected ends: exit code, and the last lines of output."""
        self.start()

    def start(self) -> None:
        if self.process is not None and not self._killed:
            said = self._log.read_text(errors="replace").strip().splitlines()
            self.fell.append(f"{self.process.wait()}: {said[-1] if said else ''}")
        self._killed = False
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                self._command, stdout=log, stderr=log, cwd=Path(__file__).parents[2]
            )

    def send(self, number: signal.Signals) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)

    def kill(self) -> None:
        self._killed = self._killed or self.alive
        self.send(signal.SIGKILL)
        if self.process is not None:
            self.process.wait()

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def fallen(self) -> bool:
        """Whether it has ended by itself."""
        return not self.alive and not self._killed

    def stop(self, patience: float = 60.0) -> int:
        """SIGTERM; the exit code, or -9 when it had to be killed."""
        self.send(signal.SIGCONT)
        self.send(signal.SIGTERM)
        assert self.process is not None
        try:
            return self.process.wait(patience)
        except subprocess.TimeoutExpired:
            self.kill()
            return -9


SETTLED_SECONDS = 10.0
"""How long nothing has to move until everything is taken for judged."""


def judged(ports: list[int], until: float, deadline: float) -> bool:
    """Until everything is judged up to that unix time, nothing waits, and nothing more comes:
    labels may be on their way when the records of their time have been judged."""
    before, since = None, time.monotonic()
    while (now := time.monotonic()) < deadline:
        result = _states(ports)
        judges = [judge for one in result for judge in one.get("judges", ())]
        done = {j["place"] for j in judges if (j["judged"] or 0.0) >= until and not j["waiting"]}
        moving = [
            *(one["records"] for one in result),
            *([part["labels"], part["records"]] for one in result for part in one["partitions"]),
            *([judge["place"], judge["rows"]] for judge in judges),
        ]
        if moving != before or len(done) < EVIDENCE_PARTITIONS or len(result) < len(ports):
            before, since = moving, now
        elif now - since >= SETTLED_SECONDS:
            return True
        time.sleep(0.5)
    return False


def _states(ports: list[int]) -> list[dict[str, Any]]:
    """What the evaluators that answer say of themselves."""
    results = []
    for port in ports:
        try:
            with urllib.request.urlopen(
                f"http://127.0.0.1:{port}/v1/evaluator", timeout=5
            ) as reply:
                results.append(json.load(reply))
        except (OSError, ValueError):
            continue
    return results
