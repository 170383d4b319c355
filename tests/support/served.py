"""Model servers that people use, with the model of ``examples/gate``."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.support.patience import eventually, patient
from tests.support.ports import free_port
from tools.parts.servers import need_server

EXAMPLES = Path(__file__).parents[2] / "examples" / "gate"


@contextmanager
def running(command: list[str], url: str, ready: str, cwd: Path, **more: str) -> Iterator[None]:
    """A model server that is ready."""
    # MLServer's and MLflow's children end with the group.
    with open(cwd / "server.log", "w") as log:
        process = subprocess.Popen(command, cwd=cwd, stdout=log, stderr=log, start_new_session=True,
                                   env={**os.environ, **more})  # fmt: skip
    try:

        def answers() -> bool:
            assert process.poll() is None, (cwd / "server.log").read_text()[-2000:]
            return httpx.get(url + ready, timeout=patient(5)).status_code == 200

        for _ in range(4):  # a first start compiles everything
            try:
                eventually(answers)
                break
            except (AssertionError, httpx.HTTPError):
                if process.poll() is not None:
                    raise
        yield
    finally:
        os.killpg(process.pid, 15)
        try:
            process.wait(patient(20))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.wait()


@contextmanager
def mlserver(folder: Path, tracing: str = "") -> Iterator[str]:
    """The example's, on free ports; ``tracing`` is where it sends its spans, by OTLP over gRPC."""
    programs = need_server("mlserver")
    folder.mkdir()
    for name in ("delays.py", "model-settings.json", "settings.json"):
        (folder / name).write_text((EXAMPLES / "mlserver" / name).read_text())
    port = free_port()
    settings = json.loads((folder / "settings.json").read_text())
    settings |= {"http_port": port, "grpc_port": free_port()}
    if tracing:
        settings["tracing_server"] = tracing
    (folder / "settings.json").write_text(json.dumps(settings))
    url = f"http://127.0.0.1:{port}"
    command = [str(programs / "mlserver"), "start", "."]
    with running(command, url, "/v2/models/delays/ready", folder):
        yield url


@contextmanager
def kserve(folder: Path) -> Iterator[str]:
    """KServe's Python server, in both of its protocols."""
    programs = need_server("kserve")
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [str(programs / "python"), str(EXAMPLES / "kserve" / "serve.py"), "--http_port",
               str(port), "--enable_grpc", "false"]  # fmt: skip
    with running(command, url, "/v2/models/delays/ready", folder):
        yield url


@contextmanager
def mlflow(folder: Path) -> Iterator[str]:
    """MLflow's scoring server."""
    programs = need_server("mlflow")
    model, port = folder / "model", free_port()
    script = str(EXAMPLES / "mlflow" / "model.py")
    subprocess.run([str(programs / "python"), script, str(model)], check=True, cwd=folder,
                   capture_output=True)  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    command = [str(programs / "mlflow"), "models", "serve", "-m", str(model), "-p", str(port),
               "--env-manager", "local"]  # fmt: skip
    path = {"PATH": f"{programs}:{os.environ.get('PATH', '')}"}
    with running(command, url, "/ping", folder, **path):
        yield url
