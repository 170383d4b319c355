"""The evaluation plane in a container of its own: two supervisors that share two folders."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.support.patience import eventually, patient
from tests.support.ports import free_port
from tests.support.service import REAL, Service
from tests.support.world import PATH, Load, Model, World

EVALUATION = "understudy.monitor.service"


class Divided(World):
    """A service in two parts, each with a supervisor."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        control = {"listen": f"127.0.0.1:{self.port}"}
        super().__init__(folder, Model(), workers=2, control=control)
        self.service.command = (*REAL[:-1], "--part", "data-plane", "--config")
        # The same file.
        command = (*REAL[:-1], "--part", "evaluation-plane", "--config")
        self.other = Service(folder, command, **self.service.config)

    def start_evaluation(self) -> None:
        self.other.start(wait=False)

    def evaluation(self) -> int:
        (pid,) = self.other.children()
        return pid

    def evaluated(self) -> int:
        return int(self.status()["records"]["evaluated"])


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Divided]:
    with divided(tmp_path) as running:
        yield running


@contextmanager
def divided(folder: Path) -> Iterator[Divided]:
    divided = Divided(folder)
    with divided:
        try:
            yield divided
        finally:
            if divided.other.process is not None and not divided.other.process_ended():
                # The workers end first: without them it has nothing to wait for.
                if not divided.service.process_ended():
                    assert divided.service.stop() == 0, divided.service.log
                assert divided.other.stop() == 0, divided.other.log


def test_the_workers_need_no_evaluation_plane_and_it_finds_them(world: Divided) -> None:
    answer = httpx.post(world.service.url + PATH, json={}, timeout=patient(20))
    assert answer.status_code == 200
    assert world.pid("understudy.monitor.proxy.worker")
    assert not world.children(EVALUATION)
    world.start_evaluation()
    eventually(lambda: httpx.get(world.service.control + "/readyz").status_code == 200)
    load = Load(world.service.url)
    load.answered(50)
    assert httpx.post(world.service.control + "/v1/config/reload", timeout=60).json()["ok"]
    load.answered(50)
    assert set(load.stop()) == {"200"}
    records = world.settled()["records"]
    assert records["evaluated"] == records["sent"] >= 100
    # Process ids of the other container are those of other processes here: its supervisor reports.
    for name in ("evaluation", "companion", "worker-0", "worker-1", "supervisor"):
        eventually(lambda name=name: world.total("understudy_process_open_fds", process=name) > 0)
        assert world.total("understudy_process_resident_memory_bytes", process=name) > 1 << 20
    assert all(worker["memory_bytes"] > 1 << 20 for worker in world.status()["workers"])


@pytest.mark.parametrize("way", ["killed", "hangs", "container"])
def test_what_ends_the_evaluation_plane_is_not_noticed_by_clients(tmp_path: Path, way: str) -> None:
    with divided(tmp_path) as world:
        world.other.write(watchdog={"evaluation": "2s"})
        world.start_evaluation()
        eventually(lambda: world.status()["ready"])
        load = Load(world.service.url)
        load.answered(50)
        before = world.evaluation()
        if way == "container":
            world.other.signal(signal.SIGKILL)
            os.kill(before, signal.SIGKILL)
            load.answered(50)
            world.other.wait()
            world.start_evaluation()
        else:
            os.kill(before, signal.SIGKILL if way == "killed" else signal.SIGSTOP)
            load.answered(50)
        eventually(lambda: world.status()["evaluation"]["pid"] != before)
        load.answered(50)
        assert set(load.stop()) == {"200"}
        found = world.settled()
        assert found["evaluation"]["restarts"] == 1
        assert found["evaluation"]["killed"]["hung"] == (way == "hangs")
        assert [worker["restarts"] for worker in found["workers"]] == [0, 0]
        records = found["records"]
        assert records["evaluated"] == records["sent"] - records["lost"]


def test_the_workers_end_first_and_start_again(world: Divided) -> None:
    world.start_evaluation()
    eventually(lambda: world.status()["ready"])
    load = Load(world.service.url)
    load.answered(100)
    load.stop()
    assert world.service.stop() == 0
    # The evaluation plane has the last records, and waits for the next run.
    eventually(lambda: not world.other.children())
    assert not world.other.process_ended()
    assert world.other.log.count("starting the evaluation plane") == 1
    world.service.start()
    eventually(lambda: world.status()["ready"])
    records = world.settled()["records"]
    assert records["evaluated"] == records["sent"] - records["lost"]
    assert records["evaluated"] >= 200, "with mirrored requests"
    assert records["lost"] == 0
