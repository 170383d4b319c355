"""The chart in a cluster of one node (tools/cluster): images, releases, clients with a ledger."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from tests.support.chart import helm
from tests.support.patience import eventually, patient
from tools.chart_reference import CHART
from tools.cluster.__main__ import FOLDER
from tools.parts import containers, kubernetes

ROOT = CHART.parent.parent
SERVER, LOADED = "localhost/understudy-model", "localhost/understudy"
_SERVER = f"""\
FROM {containers.BASE}
COPY tests/__init__.py /srv/tests/
COPY tests/support/__init__.py tests/support/hostile.py tests/support/model_server.py /srv/tests/support/
WORKDIR /srv
USER 65532:65532
ENTRYPOINT ["python", "-m", "tests.support.model_server", "8081"]
"""
ROW = {"id": "1", "inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [1.0]}]}


def kubectl(*arguments: str, check: bool = True, stdin: str | None = None) -> str:
    """What kubectl prints, as the cluster's administrator."""
    done = subprocess.run(
        [
            str(kubernetes.place("kubectl")),
            f"--kubeconfig={FOLDER / 'admin.kubeconfig'}",
            *arguments,
        ],
        capture_output=True,
        text=True,
        input=stdin,
    )
    assert not check or done.returncode == 0, done.stderr
    return done.stdout


def build_images() -> None:
    """Build the image of this checkout and a model server's, and load them into the node."""
    subprocess.run(
        [str(ROOT / "deploy/image/build.sh"), *containers.build_arguments()],
        env={**containers.settings(), "REPOSITORY": LOADED},
        check=True,
    )
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "Dockerfile"
        file.write_text(_SERVER)
        ignored = Path(folder) / "ignore"
        ignored.write_text("*\n!tests\n")
        containers.podman(
            "build", f"--file={file}", f"--ignorefile={ignored}", f"--tag={SERVER}:1", str(ROOT)
        )
    images = (f"{LOADED}:latest", f"{SERVER}:1")
    subprocess.run([sys.executable, "-m", "tools.cluster", "load", *images], cwd=ROOT, check=True)


class Release:
    """The chart, installed in a namespace of its own.

    Args:
        name: Of the namespace and of the release's model.
    """

    def __init__(self, name: str) -> None:
        self.namespace = name
        marks = {"pod-security.kubernetes.io/enforce": "restricted"}
        space = {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": name, "labels": marks},
        }
        kubectl("apply", "--filename=-", stdin=yaml.safe_dump(space))

    def install(self, wait: bool = True, **values: Any) -> subprocess.CompletedProcess[str]:
        """Install or upgrade the release with ``values`` over those of these tests."""
        model = {
            "image": {"repository": SERVER, "tag": "1", "pullPolicy": "Never"},
            "args": ["right", "0.0.0.0"],
            "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}},
        }
        chosen = {
            "image": {"repository": LOADED, "tag": "latest", "pullPolicy": "Never"},
            "model": {**model, **values.pop("model", {})},
            "sidecar": {"resources": {"requests": {"cpu": "10m", "memory": "64Mi"}}},
            **values,
        }
        options = ("--wait", f"--timeout={int(patient(120))}s") if wait else ()
        return helm(
            "upgrade", "--install", "m", str(CHART), f"--namespace={self.namespace}",
            f"--kubeconfig={FOLDER / 'admin.kubeconfig'}", "--values=-", *options,
            input=yaml.safe_dump(chosen),
        )  # fmt: skip

    def get(self, *what: str) -> Any:
        """Objects of the namespace."""
        return json.loads(kubectl("get", f"--namespace={self.namespace}", *what, "--output=json"))

    def pods(self) -> list[dict[str, Any]]:
        """The release's pods that are not ending."""
        found: list[dict[str, Any]] = self.get("pods")["items"]
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    def address(self) -> str:
        """The cluster's address of the service for clients."""
        found = self.get("services")["items"]
        (service,) = [
            one for one in found if any(port["port"] == 80 for port in one["spec"]["ports"])
        ]
        return str(service["spec"]["clusterIP"])

    def report(self) -> str:
        """What a person would look at when something does not work."""
        space = f"--namespace={self.namespace}"
        return "\n".join(
            (
                kubectl("describe", "pods", space, check=False)[-6000:],
                kubectl("get", "events", space, "--sort-by=.lastTimestamp", check=False)[-3000:],
            )
        )


class Clients:
    """Four clients that ask without pause, each request on a connection of its own; :attr:`ledger`
    counts every one by its status or error."""

    def __init__(self, address: str, port: int = 80) -> None:
        self.address, self.port = address, port
        self.ledger: Counter[str] = Counter()
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(4)]

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        self.more()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        while not self._ended.is_set():
            self.ledger[self.once()] += 1
            time.sleep(0.005)

    def once(self) -> str:
        """Status of one request, or the name of its error."""
        connection = http.client.HTTPConnection(self.address, self.port, timeout=patient(20))
        try:
            headers = {"Content-Type": "application/json"}
            connection.request("POST", "/v2/models/model/infer", json.dumps(ROW), headers)
            answer = connection.getresponse()
            answer.read()
            return str(answer.status)
        except OSError as error:
            return type(error).__name__
        finally:
            connection.close()

    def more(self, count: int = 100) -> None:
        """Wait until ``count`` more requests are answered with 200."""
        before = self.ledger["200"]
        eventually(
            lambda: self.ledger["200"] >= before + count, what=f"{count} more of {self.ledger}"
        )
