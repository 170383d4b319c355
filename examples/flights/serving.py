"""The model servers: MLServer with its scikit-learn runtime, one process for each model."""

from __future__ import annotations

import http.client
import json
from pathlib import Path

from examples.flights.environment import HERE, StepFailed
from understudy.common import processes
from understudy.common.processes import free_port

MODEL = "delays"


class Process(processes.Process):
    """A process of the demo, with its output in a file."""

    def __init__(
        self,
        name: str,
        command: list[str],
        log: Path,
        cwd: Path | None = None,
        environment: dict[str, str] | None = None,
    ) -> None:
        # One row at a time gains nothing from threads that wait for each other.
        super().__init__(name, command, log, cwd, {"OMP_NUM_THREADS": "1", **(environment or {})})

    def wait_until(self, port: int, path: str, seconds: float = 180.0) -> float:
        """Wait until GET ``path`` answers 200; return how long it took. Raises StepFailed."""
        try:
            return super().wait_until(lambda: answers(port, path), seconds)
        except processes.ProcessFailed as error:
            raise StepFailed(str(error)) from error


def answers(port: int, path: str) -> bool:
    """Whether GET ``path`` gets 200 there. Raises OSError without an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except http.client.HTTPException as error:
        raise OSError(str(error)) from error
    finally:
        connection.close()


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
