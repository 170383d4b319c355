"""A cluster of one node for the tests in this folder, with the images that they need."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.support.node import Release, build_images, kubectl
from tools.cluster.__main__ import FOLDER
from tools.parts import containers
from tools.parts.golang import Unavailable


@pytest.fixture(scope="session")
def cluster() -> Iterator[None]:
    """A running cluster with the images of Understudy and of a model server."""
    if not os.environ.get("UNDERSTUDY_CLUSTER"):
        pytest.skip("NOT TESTED: a cluster of one node; `make cluster-test` starts one")
    try:
        containers.need()
    except Unavailable as reason:
        pytest.skip(f"NOT TESTED: a cluster of one node: {reason}")
    started = not (FOLDER / "pids.json").exists()
    if started:
        subprocess.run([sys.executable, "-m", "tools.cluster", "up"], check=True)
    build_images()
    yield
    if started:
        subprocess.run([sys.executable, "-m", "tools.cluster", "down"], check=True)


@pytest.fixture
def release(cluster: None, request: pytest.FixtureRequest) -> Iterator[Release]:
    """A namespace of the restricted standard in which the chart is installed."""
    name = request.node.name.removeprefix("test_").replace("_", "-")[:40].strip("-")
    made = Release(name)
    try:
        yield made
    finally:
        kubectl("delete", "namespace", name, "--wait=false", check=False)
