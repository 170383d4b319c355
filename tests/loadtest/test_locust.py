"""Locust over the engine: its own users run beside ours, and workers report to their master."""

from __future__ import annotations

import csv
import importlib.util
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.loadtest.world import Server, written
from tests.plane_process import free_port

# Found, not imported: it would replace the sockets and threads of these tests by gevent's.
pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("locust") is None,
    reason="NOT TESTED: Locust is not installed: pip install 'understudy[load]'",
)

FILE = """
from locust import HttpUser, constant, task
from loadtest.locust.user import OpenLoopUser

class Predictions(OpenLoopUser):
    path = "/open"
    rate = 60.0
    fixed_count = 2
    template = {"a": {"$uniform": [0, 1]}}

class Plain(HttpUser):
    wait_time = constant(0.2)
    @task
    def one(self):
        self.client.post("/plain", json={})
"""


def locust(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "locust", "-f", str(folder / "locustfile.py"), *arguments]
    return subprocess.Popen(
        command, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True,
    )  # fmt: skip


def figures(folder: Path) -> dict[str, dict[str, str]]:
    with open(folder / "r_stats.csv") as file:
        return {row["Name"]: row for row in csv.DictReader(file)}


def test_users_of_both_kinds_run_on_workers_and_are_counted(tmp_path: Path) -> None:
    written(tmp_path, "locustfile.py", FILE)
    port = str(free_port())
    with Server(seconds=0.01) as server:
        host = ("--host", server.url)
        master = locust(
            tmp_path, "--headless", "--master", "--master-bind-port", port, "--expect-workers",
            "2", "-u", "4", "-r", "4", "-t", "8s", "--csv", str(tmp_path / "r"), *host,
        )  # fmt: skip
        time.sleep(0.5)
        workers = [locust(tmp_path, "--worker", "--master-port", port) for _ in range(2)]
        said = master.communicate(timeout=90)[0]
        for worker in workers:
            worker.communicate(timeout=30)
    assert master.returncode == 0, said
    found = figures(tmp_path)
    assert int(found["/plain"]["Request Count"]) >= 5
    # Two dispatchers of 60 per second, for the eight seconds less what it takes to begin.
    assert 300 <= int(found["/open"]["Request Count"]) <= 1200
    assert found["/open"]["Failure Count"] == "0"
    assert 9.0 <= float(found["/open"]["50%"]) <= 100.0


def test_failures_are_locust_s_failures(tmp_path: Path) -> None:
    written(tmp_path, "locustfile.py", FILE.replace("/open", "/broken").split("class Plain")[0])
    with Server() as server:
        one = locust(
            tmp_path, "--headless", "-u", "2", "-r", "2", "-t", "4s", "--host", server.url, "--csv",
            str(tmp_path / "r"),
        )  # fmt: skip
        said = one.communicate(timeout=60)[0]
    assert one.returncode == 1, said
    found = figures(tmp_path)["/broken"]
    assert found["Failure Count"] == found["Request Count"] != "0"
    assert "HTTP 503" in (tmp_path / "r_failures.csv").read_text()
