"""The compose stack in containers: all of it but Grafana, with real flights and real model servers.

The images of Prometheus and Alertmanager are made of Debian's packages, since there is no registry. The
engine of Debian 12 knows no conditions on health and runs no health checks without systemd, so the test
starts the services in the order in which they depend on each other, and runs the checks itself.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import yaml

from tests.support.patience import eventually
from tools.parts import containers
from tools.parts.containers import podman
from tools.parts.golang import Unavailable

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(2400)]

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
STACK = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
PACKAGED = {"prometheus": "prometheus", "alertmanager": "prometheus-alertmanager"}
"""Services whose image is made of a package of Debian."""
FROM_DEBIAN = """\
FROM {base}
RUN apt-get update -q && apt-get install -q -y --no-install-recommends {package} wget && \\
    install --directory --owner 65534 /{service}
USER 65534
ENTRYPOINT ["/usr/bin/{package}"]
"""
ORDER = (
    "champion", "challenger", "baseline", "understudy", "traffic", "prometheus", "alertmanager",
)  # fmt: skip


class Stack:
    """A project of compose files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = f"understudy-test-{os.getpid()}"
        self.over = folder / "over.yaml"
        images = {name: {"image": f"localhost/understudy-test-{name}"} for name in PACKAGED}
        self.over.write_text(yaml.safe_dump({"services": images}))

    def compose(self, *arguments: str) -> None:
        """Run ``podman-compose`` on the project."""
        subprocess.run(
            [
                sys.executable, "-m", "podman_compose", "-p", self.name,
                "-f", str(DEPLOY / "compose.yaml"), "-f", str(self.over), *arguments,
            ],
            env=containers.settings(), check=True, timeout=600,
        )  # fmt: skip

    def start(self, service: str) -> None:
        """Start a service, and wait until it has ended well or its health check passes."""
        self.compose("up", "--detach", "--no-deps", "--no-build", service)
        declared = STACK["services"][service]
        if declared.get("restart") == "no":
            eventually(lambda: self.state(service)["Status"] == "exited", what=f"{service} ended")
            assert self.state(service)["ExitCode"] == 0, self.log(service)
        elif not declared.get("healthcheck", {}).get("disable"):
            eventually(lambda: self.healthy(service), what=f"{service} is healthy", seconds=120)

    def container(self, service: str) -> str:
        """The identifier of a service's container."""
        labels = (
            f"label=com.docker.compose.project={self.name}",
            f"label=com.docker.compose.service={service}",
        )
        filters = [f"--filter={label}" for label in labels]
        return podman("ps", "--all", "--quiet", *filters).strip()

    def state(self, service: str) -> dict[str, Any]:
        """What the engine knows of a container."""
        found: list[dict[str, Any]] = json.loads(podman("inspect", self.container(service)))
        state: dict[str, Any] = found[0]["State"]
        return state

    def healthy(self, service: str) -> bool:
        """Whether the image's or the stack's own check passes now."""
        done = subprocess.run(
            ["podman", "healthcheck", "run", self.container(service)],
            env=containers.settings(),
            capture_output=True,
        )
        return done.returncode == 0

    def log(self, service: str) -> str:
        """What a container printed."""
        return subprocess.run(
            ["podman", "logs", "--tail=60", self.container(service)],
            env=containers.settings(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ).stdout


def build_images() -> None:
    """All images of the stack but Grafana's."""
    options = containers.build_arguments()
    subprocess.run(
        [str(DEPLOY / "image/build.sh"), *options], env=containers.settings(), check=True
    )
    flights = [f"--file={DEPLOY / 'flights.Dockerfile'}", "--tag=understudy-flights"]
    podman("build", "--format=docker", *options, *flights, str(ROOT), timeout=1800)
    for service, package in PACKAGED.items():
        text = FROM_DEBIAN.format(base=containers.BASE, service=service, package=package)
        subprocess.run(
            [
                "podman",
                "build",
                "--network=host",
                f"--tag=localhost/understudy-test-{service}",
                "-",
            ],
            input=text,
            text=True,
            env=containers.settings(),
            check=True,
        )


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    try:
        containers.need()
    except Unavailable as reason:
        pytest.skip(f"NOT TESTED: the compose stack: {reason}")
    build_images()
    made = Stack(tmp_path_factory.mktemp("stack"))
    try:
        yield made
    finally:
        made.compose("down", "--volumes")


def asked(url: str, token: str = "") -> Any:
    """The JSON that ``url`` answers with."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=20) as answer:
        return json.load(answer)


def value(query: str) -> float:
    """The sum of what Prometheus answers to a query."""
    url = f"http://127.0.0.1:9091/api/v1/query?query={quote(query)}"
    return sum(float(one["value"][1]) for one in asked(url)["data"]["result"])


def test_the_stack_serves_flights_and_prometheus_sees_them(stack: Stack) -> None:
    for service in ORDER:
        stack.start(service)
    token = "for-trying-things-out"
    eventually(
        lambda: value('understudy_requests_total{arm="champion",outcome="ok"}') > 100,
        what="Prometheus has 100 good requests",
        seconds=120,
    )
    eventually(
        lambda: value('understudy_requests_total{arm="challenger"}') > 0,
        what="the challenger gets mirrored requests",
        seconds=120,
    )
    status = asked("http://127.0.0.1:9090/v1/status", token)
    assert status, stack.log("understudy")
    rules = asked("http://127.0.0.1:9091/api/v1/rules")["data"]["groups"]
    broken = [rule["name"] for group in rules for rule in group["rules"] if rule.get("lastError")]
    assert rules
    assert not broken
    managers = asked("http://127.0.0.1:9091/api/v1/alertmanagers")["data"]
    assert len(managers["activeAlertmanagers"]) == 1
    assert not managers["droppedAlertmanagers"]
