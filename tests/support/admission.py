"""A pod that asks for the sidecar, the file that the chart renders, and the webhook as a process."""

from __future__ import annotations

import json
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from tests.support.certificates import tls_secret
from tests.support.chart import CASES, named, render
from tests.support.patience import patient
from tests.support.ports import free_port

COMMAND = [sys.executable, "-m", "understudy", "inject"]


def sidecar_file(folder: Path, values: str = "") -> Path:
    """``sidecar.yaml`` as the chart renders it, or a skip without Helm."""
    config = named(
        render(CASES["injector"] + "\n" + values), "ConfigMap", "demo-understudy-injector"
    )
    file = folder / "sidecar.yaml"
    file.write_text(config["data"]["sidecar.yaml"])
    return file


def pod(**annotations: str) -> dict[str, Any]:
    """A pod of the restricted standard; annotations without their prefix."""
    security = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }
    asked = {f"understudy/{key.replace('_', '-')}": value for key, value in annotations.items()}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "delays", "labels": {"app": "delays"}, "annotations": asked},
        "spec": {
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 1000,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": "model",
                    "image": "registry.example/delays:7",
                    "ports": [{"name": "http", "containerPort": 8081}],
                    "securityContext": security,
                }
            ],
        },
    }


def review(one: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {"uid": "7d1c", "operation": "CREATE", "object": one},
    }


class Webhook:
    """``understudy inject serve`` with a certificate for localhost."""

    def __init__(self, folder: Path) -> None:
        self.tls = folder / "tls"
        self.tls.mkdir()
        tls_secret(self.tls, "localhost")
        self.port = free_port()
        self.process = subprocess.Popen(
            [*COMMAND, "serve", "--listen", f"127.0.0.1:{self.port}",
             "--sidecar", str(sidecar_file(folder)), "--certificate", str(self.tls / "tls.crt"),
             "--key", str(self.tls / "tls.key")],
        )  # fmt: skip
        deadline = time.monotonic() + patient(30)
        while time.monotonic() < deadline:
            try:
                assert self.call("/healthz") == (200, {"status": "ok"})
                return
            except OSError:
                assert self.process.poll() is None, "the webhook does not start"
                time.sleep(0.1)
        raise AssertionError("the webhook does not answer")

    def call(self, path: str, body: Any = None) -> tuple[int, Any]:
        context = ssl.create_default_context(cafile=str(self.tls / "ca.crt"))
        data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()  # fmt: skip
        request = urllib.request.Request(f"https://localhost:{self.port}{path}", data=data)
        try:
            with urllib.request.urlopen(request, timeout=patient(20), context=context) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(patient(20))
