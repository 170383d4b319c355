"""The faults of a soak: each begins, lasts for a while, and is undone."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import httpx

from tests.support.disks import Disk
from tests.support.hostile import REQUESTS
from tests.support.patience import eventually, patient
from tests.support.service import ROOT
from tests.support.world import PATH, Model, World

WORKER, PLANE = "understudy.monitor.proxy.worker", "understudy.monitor.service"
LABELS = 20_000
NOTHING: frozenset[str] = frozenset()


def nothing() -> None:
    """A fault that ends by itself."""


@dataclass(frozen=True)
class Fault:
    """``begin`` returns what undoes it. ``costs`` are the outcomes that it must cause for clients,
    at most ``each`` times for every client; None is as often as requests are sent meanwhile."""

    name: str
    begin: Callable[[], Callable[[], None]]
    costs: frozenset[str] = NOTHING
    each: int | None = 0


class Faults:
    """All faults of a running service. ``disk`` is that of its state, where one is mounted."""

    def __init__(self, world: World, disk: Disk | None, seed: int) -> None:
        self.world = world
        self._disk = disk
        self._chance = random.Random(seed)
        self._hostile = Model("one_byte_chunks")
        self._generation = 0
        self._kinds = list(REQUESTS)
        cut = frozenset(("cut",))
        self.all = [
            Fault("kill a worker", self._kill_worker, cut, 1),
            Fault("kill the evaluation plane", self._kill_plane),
            Fault("kill the challenger", self._kill_challenger),
            Fault("kill the champion", self._kill_champion, frozenset(("502", "cut")), None),
            # A watchdog may replace one that does not respond.
            Fault("stop a worker", lambda: self._stop(self.world.pid(WORKER)), cut, 1),
            Fault("stop the evaluation plane", lambda: self._stop(self.world.pid(PLANE))),
            Fault("stop the challenger", self._stop_challenger),
            Fault("hostile client", self._hostile_client),
            Fault("hostile challenger", self._hostile_challenger),
            Fault("reload with new names", self._reload),
            Fault("reload an invalid file", self._invalid),
            Fault("label storm", self._labels),
        ]
        if disk is not None:
            self.all.append(Fault("disk full", self._fill))

    def close(self) -> None:
        self._hostile.kill()

    # Processes ----------------------------------------------------------------------------------

    def _kill_worker(self) -> Callable[[], None]:
        before = self.world.pid(WORKER)
        self.world.kill(WORKER)

        def replaced() -> None:
            eventually(lambda: before not in (w["pid"] for w in self.world.status()["workers"]))

        return replaced

    def _kill_plane(self) -> Callable[[], None]:
        self.world.kill(PLANE)
        return lambda: eventually(self.world.metrics)

    def _kill_challenger(self) -> Callable[[], None]:
        (challenger,) = self.world.challengers
        challenger.kill()
        return challenger.start

    def _kill_champion(self) -> Callable[[], None]:
        self.world.champion.kill()
        return self.world.champion.start

    def _stop(self, pid: int) -> Callable[[], None]:
        os.kill(pid, signal.SIGSTOP)

        def go_on() -> None:
            with suppress(ProcessLookupError):  # a watchdog has replaced it
                os.kill(pid, signal.SIGCONT)

        return go_on

    def _stop_challenger(self) -> Callable[[], None]:
        (challenger,) = self.world.challengers
        challenger.signal(signal.SIGSTOP)
        return lambda: challenger.signal(signal.SIGCONT)

    # Peers --------------------------------------------------------------------------------------

    def _hostile_client(self) -> Callable[[], None]:
        kind = self._chance.choice(self._kinds)
        port = self.world.service.url.rpartition(":")[2]
        command = [sys.executable, "-m", "tests.support.hostile", port, kind, PATH, "2", "--idle"]
        process = subprocess.Popen(command, cwd=ROOT)

        def end() -> None:
            process.kill()
            process.wait()

        return end

    def _hostile_challenger(self) -> Callable[[], None]:
        self._challengers(f"hostile-{self._generation}", self._hostile.url)

        def end() -> None:
            self._reload()

        return end

    # Configuration, labels, disk ----------------------------------------------------------------

    def _challengers(self, name: str, url: str) -> None:
        """Reload with one challenger beside the first one."""
        self._generation += 1
        world = self.world
        first = world.service.config["challengers"][0]
        mirror = {**first["mirror"], "timeout": "5s", "connections": 4}
        world.service.write(challengers=[first, {"name": name, "url": url, "mirror": mirror}])
        answer = httpx.post(world.service.control + "/v1/config/reload", timeout=patient(30))
        assert answer.json()["ok"] is True, answer.text

    def _reload(self) -> Callable[[], None]:
        (challenger,) = self.world.challengers
        self._challengers(f"build-{self._generation}", challenger.url)
        return nothing

    def _invalid(self) -> Callable[[], None]:
        service = self.world.service
        champion = service.config["champion"]
        service.write(champion={"url": "nonsense"})
        answer = httpx.post(service.control + "/v1/config/reload", timeout=patient(30))
        assert answer.is_error, answer.text
        service.write(champion=champion)
        return nothing

    def _labels(self) -> Callable[[], None]:
        """Labels of requests that were, of the same ones again, and of none."""
        with httpx.Client(base_url=self.world.service.control, timeout=patient(30)) as client:
            for first in range(0, LABELS, 500):
                labels = [
                    {"request_id": f"c{n % 8}-{self._chance.randrange(LABELS)}", "label": n % 2}
                    for n in range(first, first + 500)
                ]
                answer = client.post("/v1/feedback", json=labels)
                assert answer.status_code in (200, 202, 429, 503), answer.text
        return nothing

    def _fill(self) -> Callable[[], None]:
        assert self._disk is not None
        self._disk.fill()
        return self._disk.free
