"""What a user does with the chart, in a cluster with a kubelet, under load: no request is lost."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from tests.support.node import Clients, Release, kubectl
from tests.support.patience import eventually

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(1800)]


def states(pod: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Status of each container of a pod by name, sidecars included."""
    status = pod["status"]
    both = (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ()))
    return {one["name"]: one for one in both}


def began(state: dict[str, Any]) -> datetime.datetime:
    """When a container started."""
    return datetime.datetime.fromisoformat(state["state"]["running"]["startedAt"])


def restarts(release: Release, name: str) -> dict[str, int]:
    """How often each container of a pod was started again."""
    (pod,) = [one for one in release.pods() if one["metadata"]["name"] == name]
    return {name: int(state["restartCount"]) for name, state in states(pod).items()}


def installed(release: Release, **values: Any) -> None:
    done = release.install(**values)
    assert done.returncode == 0, f"{done.stderr}\n{release.report()}"


def test_the_sidecar_starts_before_the_model_and_serves(release: Release) -> None:
    installed(release)
    pod = release.pods()[0]
    found = states(pod)
    assert set(found) == {"understudy-evaluation", "understudy", "model"}
    assert all(one["ready"] and one["restartCount"] == 0 for one in found.values()), found
    assert began(found["understudy"]) <= began(found["model"])
    with Clients(release.address()) as clients:
        clients.more()
    assert set(clients.ledger) == {"200"}


def test_a_rolling_update_loses_no_request(release: Release) -> None:
    installed(release)
    with Clients(release.address()) as clients:
        before = {pod["metadata"]["name"] for pod in release.pods()}
        installed(release, model={"podAnnotations": {"example.com/again": "1"}})
        eventually(
            lambda: not before & {pod["metadata"]["name"] for pod in release.get("pods")["items"]},
            what="the old pods have ended",
            seconds=120,
        )
        clients.more()
    assert set(clients.ledger) == {"200"}, clients.ledger


def test_a_dead_evaluation_container_does_not_stop_traffic(release: Release) -> None:
    installed(release)
    pod = release.pods()[0]
    name = pod["metadata"]["name"]
    with Clients(release.address()) as clients:
        kubectl(
            "exec", f"--namespace={release.namespace}", name, "--container=understudy-evaluation",
            "--", "python", "-c", "import os, signal; os.kill(1, signal.SIGTERM)",
        )  # fmt: skip
        eventually(
            lambda: restarts(release, name)["understudy-evaluation"] >= 1,
            what="the container starts again",
            seconds=60,
        )
        eventually(
            lambda: all(one["ready"] for pod in release.pods() for one in states(pod).values()),
            what="the pod is ready again",
            seconds=120,
        )
        clients.more()
    assert restarts(release, name)["understudy"] == 0
    assert set(clients.ledger) == {"200"}, clients.ledger


def test_a_changed_configuration_is_taken_over_without_a_restart(release: Release) -> None:
    installed(release)
    pod = release.pods()[0]
    name = pod["metadata"]["name"]

    def versions() -> str:
        return kubectl(
            "exec", f"--namespace={release.namespace}", name, "--container=understudy-evaluation",
            "--", "cat", "/etc/understudy/understudy.yaml",
        )  # fmt: skip

    with Clients(release.address()) as clients:
        installed(release, config={"models": [{"name": "model", "version": "of-the-upgrade"}]})
        eventually(lambda: "of-the-upgrade" in versions(), what="the file has changed", seconds=120)
        clients.more()
    assert set(clients.ledger) == {"200"}, clients.ledger
