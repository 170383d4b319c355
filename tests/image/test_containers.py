"""The image as a container: built by a real engine, run as it is in production, under load.

Its base is made of Debian's packages, since there is no registry (``tools/parts/containers.py``).
"""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.patience import eventually, patient
from tests.support.ports import free_port
from tools.parts import containers
from tools.parts.containers import podman
from tools.parts.golang import Unavailable

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(1200)]

ROOT = Path(__file__).resolve().parents[2]
NAME = "localhost/understudy-under-test"
HARDENED = ("--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--tmpfs=/tmp")
ROW = {"id": "1", "inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [1.0]}]}
TOKEN = "of-these-tests"
CONFIG = """\
version: 1
listen: 0.0.0.0:8080
workers: 1
state_dir: /var/lib/understudy
control: {listen: "0.0.0.0:9090", token_env: TOKEN}
models: [{name: m}]
champion: {url: "http://host.containers.internal:%d"}
"""


@pytest.fixture(scope="module")
def image() -> Iterator[str]:
    try:
        containers.need()
    except Unavailable as reason:
        pytest.skip(f"NOT TESTED: the image in a container: {reason}")
    subprocess.run(
        [str(ROOT / "deploy/image/build.sh"), *containers.build_arguments()],
        env={**containers.settings(), "REPOSITORY": NAME},
        check=True,
    )
    yield f"{NAME}:latest"
    podman("rmi", "--force", f"{NAME}:latest", check=False)


@pytest.fixture
def model() -> Iterator[int]:
    """The port of a model server, on every address of this machine."""
    port = free_port()
    server = ROOT / "tests/support/model_server.py"
    process = subprocess.Popen(
        [sys.executable, str(server), str(port), "right", "0.0.0.0"], cwd=ROOT
    )
    yield port
    process.terminate()
    process.wait()


class Running:
    """A container of the service."""

    def __init__(self, image: str, folder: Path, model: int, *options: str) -> None:
        config = folder / "understudy.yaml"
        config.write_text(CONFIG % model)
        config.chmod(0o644)
        self.port, self.control = free_port(), free_port()
        self.name = f"understudy-under-test-{os.getpid()}-{self.port}"
        podman(
            "run", "--detach", f"--name={self.name}", *HARDENED, *options,
            f"--publish=127.0.0.1:{self.port}:8080",
            f"--publish=127.0.0.1:{self.control}:9090",
            f"--volume={config}:/etc/understudy/understudy.yaml:ro",
            f"--volume={self.name}:/var/lib/understudy",
            f"--env=TOKEN={TOKEN}",
            image,
        )  # fmt: skip

    def __enter__(self) -> Running:
        try:
            eventually(self.ready, what="the container is ready")
        except BaseException:
            print(self.log())
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        podman("rm", "--force", "--volumes", self.name, check=False)
        podman("volume", "rm", "--force", self.name, check=False)

    def log(self) -> str:
        """What the container printed."""
        return subprocess.run(
            ["podman", "logs", self.name],
            env=containers.settings(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ).stdout

    def get(self, path: str) -> bytes:
        """An answer of the control port."""
        url = f"http://127.0.0.1:{self.control}{path}"
        asked = urllib.request.Request(url, headers={"Authorization": f"Bearer {TOKEN}"})
        with urllib.request.urlopen(asked, timeout=patient(5)) as answer:
            return bytes(answer.read())

    def ready(self) -> bool:
        """Whether it takes requests."""
        return bool(self.get("/readyz"))

    def inside(self, *command: str) -> str:
        """What a command prints in the container."""
        return podman("exec", self.name, *command, check=False).strip()

    def counted(self) -> int:
        """Requests to the champion, as /metrics counts them."""
        return sum(
            int(float(line.rpartition(" ")[2]))
            for line in self.get("/metrics").decode().splitlines()
            if line.startswith("understudy_requests_total{") and 'arm="champion"' in line
        )


def infer(port: int) -> int:
    """The status of one request on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=patient(20))
    try:
        headers = {"Content-Type": "application/json"}
        connection.request("POST", "/v2/models/m/infer", json.dumps(ROW), headers)
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()


def test_it_serves_without_rights_and_writes_to_its_state_only(
    image: str, model: int, tmp_path: Path
) -> None:
    with Running(image, tmp_path, model) as service:
        assert Counter(infer(service.port) for _ in range(50)) == {200: 50}
        eventually(lambda: service.counted() == 50, what="50 requests are counted")
        podman("healthcheck", "run", service.name)
        assert service.inside("id", "-u") == "65532"
        assert service.inside("sh", "-c", "grep CapEff /proc/1/status").split()[1] == "0" * 16
        assert service.inside("sh", "-c", "ls /opt/understudy/bin | grep -c ^pip") == "0"
        assert service.inside("sh", "-c", "touch /opt/understudy/x 2>&1").endswith(
            "Read-only file system"
        )
        assert "Traceback" not in service.log()


def test_a_stop_under_load_answers_every_request_that_it_took(
    image: str, model: int, tmp_path: Path
) -> None:
    with Running(image, tmp_path, model) as service:
        outcomes: Counter[str] = Counter()
        ended = threading.Event()

        def client() -> None:
            while not ended.is_set():
                try:
                    outcomes[str(infer(service.port))] += 1
                except ConnectionError as error:
                    outcomes[type(error).__name__] += 1
                    time.sleep(0.01)

        clients = [threading.Thread(target=client) for _ in range(4)]
        for one in clients:
            one.start()
        eventually(lambda: outcomes["200"] > 200, what="traffic flows")
        podman("stop", "--time=30", service.name)
        ended.set()
        for one in clients:
            one.join()
        code = podman("inspect", "--format={{.State.ExitCode}}", service.name).strip()
        assert code == "0", service.log()
        # A client that comes after the end is refused; no request that was taken fails.
        assert set(outcomes) <= {"200", "ConnectionRefusedError"}, outcomes


def test_counters_survive_a_restart_and_a_kill(image: str, model: int, tmp_path: Path) -> None:
    with Running(image, tmp_path, model) as service:
        for _ in range(30):
            infer(service.port)
        eventually(lambda: service.counted() == 30, what="30 requests are counted")
        podman("stop", service.name)
        podman("start", service.name)
        eventually(service.ready, what="it is ready again")
        assert infer(service.port) == 200
        eventually(lambda: service.counted() == 31, what="the count goes on")
        podman("kill", "--signal=KILL", service.name)
        podman("start", service.name)
        eventually(service.ready, what="it is ready after a kill")
        assert infer(service.port) == 200
        assert service.counted() >= 31
