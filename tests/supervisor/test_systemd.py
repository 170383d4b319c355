"""What systemd hears of the service: ready, reload, stop, and that it still runs."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.control_api import settings_of
from tests.support.evaluation import config_of
from tests.support.patience import eventually, patient
from tests.support.world import Model, World
from understudy.monitor.api.app import build
from understudy.monitor.service.evaluation import make_plane
from understudy.monitor.supervisor.systemd import Systemd


class Manager:
    """The socket of systemd, which reads all the time."""

    def __init__(self, address: str) -> None:
        self._line = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._line.bind(address)
        self.heard: list[str] = []
        self._at = 0
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        while text := self._line.recv(4096).decode():
            self.heard.append(text)

    def next(self, wanted: str) -> str:
        """The next message that begins so."""

        def found() -> str | None:
            while self._at < len(self.heard):
                self._at += 1
                if self.heard[self._at - 1].startswith(wanted):
                    return self.heard[self._at - 1]
            return None

        return str(eventually(found, wanted))

    def close(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
            line.sendto(b"", self._line.getsockname())
        self._thread.join()
        self._line.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    made = Manager(str(tmp_path / "notify"))
    yield made
    made.close()


def test_without_systemd_nothing_is_sent() -> None:
    environment: dict[str, str] = {}
    systemd = Systemd(environment)
    systemd.ready("x")
    systemd.reloading()
    systemd.stopping()
    assert systemd.watchdog_seconds is None
    asyncio.run(systemd.watch())  # it ends at once


@pytest.mark.parametrize(
    ("period", "pid", "seconds"),
    [("30000000", None, 30.0), ("500000", "own", 0.5), ("30000000", "1", None),
     ("0", None, None), ("x", None, None), ("", None, None)],
)  # fmt: skip
def test_whom_systemd_watches(period: str, pid: str | None, seconds: float | None) -> None:
    environment = {"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": period, "OTHER": "x"}
    if pid is not None:
        environment["WATCHDOG_PID"] = str(os.getpid()) if pid == "own" else pid
    assert Systemd(environment).watchdog_seconds == seconds
    assert environment == {"OTHER": "x"}, "child processes must not take it for theirs"


def test_an_abstract_socket() -> None:
    name = f"understudy-test-{os.getpid()}"
    manager = Manager(f"\0{name}")
    Systemd({"NOTIFY_SOCKET": f"@{name}"}).ready("serving")
    assert manager.next("READY=1") == "READY=1\nSTATUS=serving"
    manager.close()


def test_the_service_from_its_start_to_its_end(
    tmp_path: Path, manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setenv("WATCHDOG_USEC", "400000")
    with World(tmp_path, Model(), workers=1) as world:
        assert "STATUS=serving on 127.0.0.1:" in manager.next("READY=1")
        manager.next("WATCHDOG=1")
        manager.next("WATCHDOG=1")
        reloaded = httpx.post(world.service.control + "/v1/config/reload", timeout=patient(60))
        assert reloaded.json()["ok"] is True
        manager.next("RELOADING=1\nMONOTONIC_USEC=")
        manager.next("READY=1")
        world.settled()
    manager.next("STOPPING=1")


@pytest.mark.parametrize(
    ("seconds", "status", "said"),
    [(4.0, 200, False), (6.0, 200, True), (29.0, 200, True), (31.0, 503, True)],
)
def test_when_only_a_restart_helps_the_service_is_not_alive(
    tmp_path: Path, seconds: float, status: int, said: bool
) -> None:
    (tmp_path / "run").mkdir()
    plane = make_plane(settings_of(config_of(tmp_path / "state")), tmp_path / "run", "run-1")
    plane.supervisor.silent_seconds = seconds
    line: Any = None
    transport = httpx.ASGITransport(build(plane, line))

    async def asked() -> httpx.Response:
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:9") as client:
            return await client.get("/healthz")

    answer = asyncio.run(asked())
    assert answer.status_code == status
    assert ("restart the service" in answer.text) == (status == 503)
    assert (plane.supervisor.silence is not None) == said


def test_a_supervisor_that_hangs_is_a_warning(tmp_path: Path) -> None:
    with World(tmp_path, Model(), workers=1) as world:
        control = world.service.control
        process = world.service.process
        assert process is not None
        os.kill(process.pid, signal.SIGSTOP)
        try:
            warnings = eventually(
                lambda: [
                    text
                    for text in httpx.get(control + "/readyz").json()["warnings"]
                    if text.startswith("the supervisor has not responded for")
                ]
            )
            assert "restart the service" in warnings[0]
            assert httpx.get(control + "/readyz").status_code == 200, "clients are served"
            assert httpx.get(control + "/healthz").json() == {"status": "ok"}
        finally:
            os.kill(process.pid, signal.SIGCONT)
        eventually(lambda: not httpx.get(control + "/readyz").json()["warnings"])
        world.settled()
