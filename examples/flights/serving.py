"""The model servers: MLServer with its scikit-learn runtime, one process for each model."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

from examples.flights.environment import HERE, StepFailed

MODEL = "delays"


def free_port() -> int:
    """A TCP port on which no process listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Process:
    """A process of the demo, with its output in a file."""

    def __init__(
        self,
        name: str,
        command: list[str],
        log: Path,
        cwd: Path | None = None,
        environment: dict[str, str] | None = None,
    ) -> None:
        self.name = name
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a") as output:
            self._process = subprocess.Popen(
                command,
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                cwd=cwd,
                # One row at a time gains nothing from threads that wait for each other.
                env={**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})},
            )

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def send(self, number: signal.Signals) -> None:
        if self.alive:
            self._process.send_signal(number)

    def stop(self, patience: float = 30.0) -> int:
        """Ask it to end, and insist after ``patience`` seconds; return its exit code."""
        self.send(signal.SIGCONT)
        self.send(signal.SIGTERM)
        try:
            return self._process.wait(timeout=patience)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def kill(self) -> None:
        self.send(signal.SIGKILL)
        self._process.wait()

    def wait_until(self, port: int, path: str, seconds: float = 180.0) -> float:
        """Wait until GET ``path`` answers 200; return how long it took. Raises StepFailed."""
        started = time.monotonic()
        while time.monotonic() - started < seconds:
            if not self.alive:
                raise StepFailed(f"{self.name} ended while starting:\n{self.tail()}")
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
            try:
                connection.request("GET", path)
                if connection.getresponse().status == 200:
                    return time.monotonic() - started
            except OSError:
                pass
            finally:
                connection.close()
            time.sleep(0.1)
        raise StepFailed(f"{self.name} did not answer within {seconds:.0f} s:\n{self.tail()}")

    def tail(self, lines: int = 8) -> str:
        """The end of its output."""
        text = self.log.read_text(errors="replace").splitlines()[-lines:]
        return "\n".join(f"    {line}" for line in text)


def write_settings(folder: Path, host: str, http_port: int, grpc_port: int) -> None:
    """What MLServer reads in the folder of a model."""
    settings = {
        "debug": False,
        "host": host,
        "http_port": http_port,
        "grpc_port": grpc_port,
        "metrics_endpoint": None,
        # Its worker processes crash with newer uvloops, and one process is enough here.
        "parallel_workers": 0,
        "logging_settings": None,
    }
    model = {
        "name": MODEL,
        "implementation": "mlserver_sklearn.SKLearnModel",
        "parameters": {
            "uri": "./model.joblib",
            "version": "1",
            "extra": {"predict_fn": "predict_proba"},
        },
    }
    (folder / "settings.json").write_text(json.dumps(settings, indent=2))
    (folder / "model-settings.json").write_text(json.dumps(model, indent=2))


class ModelServer:
    """MLServer with one model in ``folder``; it can be killed and started again on its port."""

    def __init__(self, name: str, python: Path, folder: Path, logs: Path) -> None:
        self.name = name
        self.port = free_port()
        self._python = python
        self._folder = folder
        self._log = logs / f"{name}.log"
        self._log.unlink(missing_ok=True)
        self.process: Process | None = None
        write_settings(folder, "127.0.0.1", self.port, free_port())

    def start(self) -> None:
        """Start the process; :meth:`wait` waits until it serves."""
        command = [str(self._python.parent / "mlserver"), "start", "."]
        # The faulty model's pipeline has a custom step; see fault.py.
        own = {"PYTHONPATH": str(HERE)}
        self.process = Process(self.name, command, self._log, self._folder, own)

    def wait(self) -> float:
        """Seconds until the model is ready."""
        assert self.process is not None
        return self.process.wait_until(self.port, f"/v2/models/{MODEL}/ready")
