"""Processes and load for the failure tests: model servers, the whole service, checking clients."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from array import array
from collections import Counter
from collections.abc import Mapping
from operator import ge
from pathlib import Path
from statistics import median
from typing import Any

import httpx

from tests.support.patience import eventually, patient
from tests.support.ports import free_port
from tests.support.service import REAL, ROOT, Service

PATH = "/v2/models/m/infer"


class Model:
    """A model server as a process with its own port; see ``model_server.py``."""

    def __init__(self, mode: str = "right", host: str = "127.0.0.1", port: int = 0) -> None:
        self.mode = mode
        self.host = host
        self.port = port or free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def start(self) -> None:
        arguments = (str(self.port), self.mode, self.host)
        command = [sys.executable, "-m", "tests.support.model_server", *arguments]
        self.process = subprocess.Popen(command, cwd=ROOT)
        eventually(self._answers)

    def _answers(self) -> bool:
        import socket

        socket.create_connection((self.host, self.port), 1).close()
        return True

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


LATE_SECONDS = patient(4.0)
SLOW_SECONDS = patient(0.5)
"""What a request may take, and what half of them may: far above what a busy machine needs, below
what a stalled worker made of it."""


class Load:
    """Clients in threads, each with its own connection, checking every answer and its latency: one
    that comes after :data:`LATE_SECONDS` counts as ``late``.

    They ``pause`` between two requests, in seconds: tests are about what happens meanwhile, not
    about the rate.
    """

    def __init__(self, url: str, clients: int = 6, pause: float = 0.01) -> None:
        self._address = url.removeprefix("http://")
        self._stop = threading.Event()
        self._pause = pause
        self._lock = threading.Lock()
        self.seen: Counter[str] = Counter()
        self._answers = [0] * clients
        """With 200, of each client."""
        self.wrong: list[str] = []
        self._seconds = array("d")
        self._threads = [
            threading.Thread(target=self._client, args=(i,), daemon=True) for i in range(clients)
        ]
        for thread in self._threads:
            thread.start()

    def _client(self, client: int) -> None:
        connection = http.client.HTTPConnection(self._address, timeout=patient(20))
        number = 0
        while not self._stop.is_set():
            number += 1
            began = time.monotonic()
            outcome = self._one(connection, f"c{client}-{number}")
            seconds = time.monotonic() - began
            if seconds > LATE_SECONDS:
                outcome = "late"
            if outcome in ("refused", "cut"):
                connection.close()
                connection = http.client.HTTPConnection(self._address, timeout=patient(20))
            with self._lock:
                self.seen[outcome] += 1
                self._answers[client] += outcome == "200"
                self._seconds.append(seconds)
            time.sleep(self._pause)
        connection.close()

    def _one(self, connection: http.client.HTTPConnection, number: str) -> str:
        tensor = {"name": "x", "shape": [1, 2], "datatype": "FP64", "data": [1.0, 2.0]}
        body = json.dumps({"id": number, "inputs": [tensor]})
        try:
            connection.request("POST", PATH, body, {"x-request-id": number})
            answer = connection.getresponse()
            content = json.loads(answer.read())
        except ConnectionRefusedError:
            return "refused"
        except (OSError, http.client.HTTPException):
            return "cut"
        except ValueError:
            self.wrong.append(f"{number}: no JSON")
            return "wrong"
        if answer.status == 200 and content.get("id") != number:
            self.wrong.append(f"{number}: {content}")
        if answer.getheader("x-request-id") != number:
            self.wrong.append(f"{number}: {answer.getheaders()}")
        return str(answer.status)

    def answered(self, more: int) -> None:
        """Wait until ``more`` requests have been answered with 200 from now on."""
        goal = self.seen["200"] + more
        eventually(lambda: self.seen["200"] >= goal)

    def all_answered(self) -> None:
        """Wait until each client has sent a request from now on that was answered with 200; what it
        had sent before is counted then."""
        # The first of two may have been under way.
        goals = [answers + 2 for answers in self._answers]
        eventually(lambda: all(map(ge, self._answers, goals)))

    def stop(self) -> Counter[str]:
        self._stop.set()
        for thread in self._threads:
            thread.join(patient(30))
            assert not thread.is_alive()
        assert self.wrong == []
        assert not self._seconds or median(self._seconds) < SLOW_SECONDS
        return self.seen


class World:
    """The service with its model servers; everything is stopped at the end.

    ``mirror`` changes how requests are mirrored: a challenger that hangs needs a ``timeout``. By
    default it is so long that no pause of the machine exceeds it. ``environment`` holds variables
    of the service.
    """

    def __init__(
        self,
        folder: Path,
        *challengers: Model,
        mirror: dict[str, Any] | None = None,
        environment: Mapping[str, str] | None = None,
        **config: Any,
    ) -> None:
        self.champion = Model()
        self._environment = environment or {}
        self.challengers = challengers
        mirror = {
            "timeout": "60s",
            "max_response": "100KiB",
            "breaker": {"failures": 5, "open": "300ms", "max_open": "600ms"},
            **(mirror or {}),
        }
        settings: dict[str, Any] = {
            "champion": {"url": self.champion.url},
            "challengers": [
                {"name": f"other{i}", "url": model.url, "mirror": mirror}
                for i, model in enumerate(challengers)
            ],
        }
        self.service = Service(folder, REAL, **{**settings, **config})

    def __enter__(self) -> World:
        self.service.start(**self._environment)
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if not self.service.process_ended():
                self.service.signal(signal.SIGTERM)
                assert self.service.wait() == 0, self.service.log
        finally:
            if not self.service.process_ended():
                self.service.signal(signal.SIGKILL)
            for model in (self.champion, *self.challengers):
                if model.process is not None:
                    model.signal(signal.SIGCONT)
                model.kill()

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = httpx.get(self.service.control + "/v1/status").json()
        return found

    def metrics(self) -> dict[str, float]:
        """All samples of /metrics by name and labels; empty while the service does not answer."""
        try:
            text = httpx.get(self.service.control + "/metrics").text
        except httpx.HTTPError:
            return {}
        lines = (line for line in text.splitlines() if not line.startswith("#"))
        return {key: float(value) for key, value in (line.rsplit(" ", 1) for line in lines)}

    def total(self, name: str, **labels: str) -> int:
        """Sum of a counter over all series with these labels. Waits while the service does not
        answer, as during a restart of the evaluation plane."""
        return total(eventually(self.metrics, "the service answers"), name, **labels)

    def children(self, kind: str) -> list[int]:
        """Process ids of the children whose command line holds ``kind``, as of now."""
        found = []
        for task in Path(f"/proc/{self.service.pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                with contextlib.suppress(FileNotFoundError):  # one that ended meanwhile
                    if kind in Path(f"/proc/{child}/cmdline").read_text():
                        found.append(int(child))
        return found

    def pid(self, kind: str) -> int:
        """Process id of the first child whose command line holds ``kind``, once there is one."""
        return int(eventually(lambda: self.children(kind), kind)[0])

    def kill(self, kind: str) -> None:
        os.kill(self.pid(kind), signal.SIGKILL)

    def settled(self) -> dict[str, Any]:
        """The status once nothing is under way: sent + dropped = eligible, and what was sent is
        evaluated."""

        def check() -> dict[str, Any] | None:
            found = self.status()
            records = found["records"]
            idle = all(arm["in_flight"] == 0 for arm in found["arms"])
            embedded = self.service.config.get("evaluation") != "kafka"
            left = records["sent"] - records["lost"] - records["evaluated"] if embedded else 0
            return found if idle and records["pending"] == left == 0 else None

        try:
            found: dict[str, Any] = eventually(check)
        except AssertionError as error:
            raise AssertionError(f"not settled: {self.status()}") from error
        records = found["records"]
        assert records["eligible"] == records["sent"] + sum(records["dropped"].values())
        return found


def total(metrics: dict[str, float], name: str, **labels: str) -> int:
    """Sum of a counter over all series with these labels."""
    return int(
        sum(
            value
            for key, value in metrics.items()
            if key.split("{")[0] == name
            and all(f'{label}="{wanted}"' in key for label, wanted in labels.items())
        )
    )


class Watch:
    """Samples /metrics all the time: no counter may ever go down."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._stop = threading.Event()
        self.samples = 0
        self.fallen: list[str] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        before: dict[str, float] = {}
        while not self._stop.is_set():
            now = self._world.metrics()
            for key, value in now.items():
                name = key.split("{")[0]
                counter = re.search(r"_(total|count|bucket|sum)$", name)
                # What is counted over a window goes both ways, and so do the process's own.
                grows = counter and "window=" not in key and "_process_" not in name
                if grows and "quantile" not in name and value < before.get(key, 0):
                    self.fallen.append(f"{key}: {before[key]} -> {value}")
            before |= now
            self.samples += bool(now)
            time.sleep(0.1)

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(patient(30))
        assert self.samples > 3
        assert not self.fallen, "\n".join(self.fallen[:5])
