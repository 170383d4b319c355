"""Our own processes hang, or take too much memory: they are replaced, and clients are served."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.patience import eventually, patient
from tests.support.world import PATH, Load, Model, World

WORKER = "understudy.monitor.proxy.worker"
EVALUATION = "understudy.monitor.service"


def readiness(world: World) -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(world.service.control + "/readyz").json()
    return found


def asked(world: World) -> int:
    """The status of a request on a connection of its own."""
    return httpx.post(world.service.url + PATH, json={}, timeout=patient(20)).status_code


def kills(world: World, process: str, reason: str) -> int:
    return world.total("understudy_process_kills_total", process=process, reason=reason)


def test_the_others_accept_for_a_worker_that_hangs(tmp_path: Path) -> None:
    with World(tmp_path, workers=2, watchdog={"workers": "10m"}) as world:
        assert [asked(world) for _ in range(10)] == [200] * 10
        stopped = world.pid(WORKER)
        os.kill(stopped, signal.SIGSTOP)
        try:
            # The kernel gives every second one to the worker that is stopped.
            assert [asked(world) for _ in range(40)] == [200] * 40
            problems = eventually(lambda: readiness(world)["problems"])
            assert problems[0].endswith("does not respond; it is replaced if that lasts")
        finally:
            os.kill(stopped, signal.SIGCONT)
        eventually(lambda: readiness(world)["ready"])
        assert [asked(world) for _ in range(10)] == [200] * 10
        assert [worker["restarts"] for worker in world.status()["workers"]] == [0, 0]
        world.settled()


def test_a_worker_that_hangs_is_replaced(tmp_path: Path) -> None:
    with World(tmp_path, Model(), workers=2, watchdog={"workers": "2s"}) as world:
        # So many that some have their connection from either worker.
        load = Load(world.service.url, clients=24, pause=0.05)
        load.all_answered()
        stopped = world.pid(WORKER)
        os.kill(stopped, signal.SIGSTOP)
        load.answered(100)
        eventually(lambda: kills(world, "worker-0", "hung") + kills(world, "worker-1", "hung") == 1)
        load.answered(100)
        seen = load.stop()
        # A client of the worker that hung loses its connection once.
        assert set(seen) <= {"200", "cut"}
        assert 0 < seen["cut"] <= 24
        found = world.settled()
        assert stopped not in [worker["pid"] for worker in found["workers"]]
        assert sum(worker["restarts"] for worker in found["workers"]) == 1
        (text,) = readiness(world)["warnings"]
        assert "was replaced, since it did not respond for 2." in text
        assert "(it is stopped)" in text
        assert f"(pid {stopped}) did not respond for 2." in world.service.log


def test_an_evaluation_plane_that_hangs_is_replaced(tmp_path: Path) -> None:
    with World(tmp_path, Model(), watchdog={"evaluation": "2s"}) as world:
        load = Load(world.service.url)
        load.answered(100)
        time.sleep(5.0)  # longer than one that does not beat is left alone
        assert kills(world, "evaluation", "hung") == 0
        stopped = world.pid(EVALUATION)
        os.kill(stopped, signal.SIGSTOP)
        load.answered(100)
        eventually(lambda: kills(world, "evaluation", "hung") == 1)
        load.answered(100)
        assert set(load.stop()) == {"200"}, "no client notices"
        found = world.settled()
        assert found["evaluation"]["pid"] != stopped
        assert found["evaluation"]["restarts"] == 1
        assert found["evaluation"]["killed"] == {"hung": 1, "memory": 0}
        assert any("did not respond" in text for text in readiness(world)["warnings"])
        records = found["records"]
        assert records["evaluated"] == records["sent"] - records["lost"]


def test_an_evaluation_plane_that_takes_too_much_memory_is_replaced(tmp_path: Path) -> None:
    with World(tmp_path, Model(), workers=1) as world:
        load = Load(world.service.url)
        load.answered(100)
        world.service.write(evaluation={"memory_limit": "16MiB"})
        world.service.signal(signal.SIGHUP)
        eventually(lambda: world.service.log.count("MiB of memory, 16 MiB are allowed") >= 2)
        load.answered(100)
        world.service.write(evaluation={"memory_limit": "4GiB"})
        world.service.signal(signal.SIGHUP)
        eventually(lambda: kills(world, "evaluation", "memory") >= 2)
        load.answered(100)
        assert set(load.stop()) == {"200"}, "no client notices"
        found = world.settled()
        assert found["workers"][0]["restarts"] == 0
        assert found["workers"][0]["killed"] == {"hung": 0, "memory": 0}
        assert any("16 MiB are allowed" in text for text in readiness(world)["warnings"])


@pytest.mark.parametrize(("evaluation", "nice"), [({}, 5), ({"nice": 12}, 12), ({"nice": 0}, 0)])
def test_the_evaluation_plane_has_a_lower_priority(
    tmp_path: Path, evaluation: dict[str, int], nice: int
) -> None:
    with World(tmp_path, workers=1, evaluation=evaluation) as world:
        mine = os.getpriority(os.PRIO_PROCESS, 0)
        assert os.getpriority(os.PRIO_PROCESS, world.pid(WORKER)) == mine
        pid = world.pid(EVALUATION)
        threads = [int(thread) for thread in os.listdir(f"/proc/{pid}/task")]
        priorities = {os.getpriority(os.PRIO_PROCESS, thread) for thread in threads}
        assert priorities == {min(mine + nice, 19)}
        # Where memory runs out, it goes first.
        assert oom_score(pid) > oom_score(world.pid(WORKER))


def oom_score(pid: int) -> int:
    return int(Path(f"/proc/{pid}/oom_score_adj").read_text())


def test_idle_connections_do_not_blind_the_control_port(tmp_path: Path) -> None:
    with World(tmp_path, workers=1) as world:
        host, port = world.service.control.removeprefix("http://").split(":")
        idle = [socket.create_connection((host, int(port))) for _ in range(300)]
        for path in ("/metrics", "/healthz", "/readyz", "/v1/status"):
            answer = httpx.get(world.service.control + path, timeout=patient(20))
            assert answer.status_code == 200, path
        for connection in idle:
            connection.close()


def test_liveness_does_not_wait_for_metrics(tmp_path: Path) -> None:
    """``/metrics`` reads a file that does not let go: a pipe to which nothing is written."""
    with World(tmp_path, workers=1) as world:
        pipe = world.service.state / "run" / "worker-7.stats"
        os.mkfifo(pipe)
        answers: list[int] = []

        def scrape() -> None:
            url = world.service.control + "/metrics"
            answers.append(httpx.get(url, timeout=patient(60)).status_code)

        scraping = threading.Thread(target=scrape)
        scraping.start()
        try:
            until = time.monotonic() + 3.0  # in which the statistics are due thrice
            while time.monotonic() < until:
                answer = httpx.get(world.service.control + "/healthz", timeout=patient(20))
                assert answer.status_code == 200
                time.sleep(0.1)
            assert not answers
        finally:
            # Who reads, reads the end, and does not find the file again.
            end = eventually(lambda: os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
            pipe.unlink()
            os.close(end)
        scraping.join(patient(60))
        assert answers == [200]
