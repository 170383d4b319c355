"""Everything that runs in a demo, in one temporary folder, so that all of it can be removed."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import secrets
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from understudy.common.processes import Process, ProcessFailed, free_port, port_or_free
from understudy.common.units import spoken
from understudy.demo.story import Story, duration, share
from understudy.demo.traffic import Message
from understudy.monitor.cli.client import Client
from understudy.monitor.errors import ApiError, UnderstudyError

LISTEN, CONTROL = 8080, 9090
"""The ports of the documentation, where they are free."""
START_SECONDS = 120.0
"""For the start of a process on a slow machine."""
PATIENCE_SECONDS = 240.0
"""For something that Understudy will say: a slow machine has fewer requests, so it takes longer."""
_POLL_SECONDS = 0.25
_STOP_SECONDS = 60.0
_RECENT = 2_000
"""Latest latencies that the figures of clients are computed from."""
_T = TypeVar("_T")


class DemoFailed(UnderstudyError):
    """Something in the demo is wrong; the message says what."""


class Clients:
    """The process that sends requests, and what clients have seen."""

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        file = folder / "clients.json"
        file.write_text(json.dumps(settings))
        with (folder / "logs" / "clients.log").open("a") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "understudy.demo.traffic", str(file)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                process_group=0,
            )
        self._log = folder / "logs" / "clients.log"
        self._rest = b""
        self.answered = self.failed = self.labels = self.lowered = 0
        self.errors: dict[str, int] = {}
        self.rate = self.wanted = self.lowest = float(settings["rate"])
        self.latencies: list[float] = []
        self.labels_error = ""

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process.poll() is None

    def tell(self, **command: Any) -> None:
        """Send a command; see :mod:`understudy.demo.traffic`."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(command).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise self._failure() from error

    def read(self) -> None:
        """Read its reports. Raises DemoFailed when it has ended by itself."""
        assert self._process.stdout is not None
        if self._process.stdout.closed:
            return  # it was stopped
        number = self._process.stdout.fileno()
        while select.select([number], [], [], 0.0)[0]:
            data = os.read(number, 1 << 20)
            if not data:
                raise self._failure()
            self._rest += data
            *lines, self._rest = self._rest.split(b"\n")
            for line in lines:
                self._add(json.loads(line))

    def _failure(self) -> DemoFailed:
        tail = self._log.read_text(errors="replace").strip().splitlines()[-3:]
        return DemoFailed("the process that sends requests has ended: " + " ".join(tail))

    def _add(self, report: dict[str, Any]) -> None:
        self.answered += len(report["latencies"])
        self.failed += len(report["latencies"]) - report["ok"]
        for name, count in report["errors"].items():
            self.errors[name] = self.errors.get(name, 0) + count
        self.latencies = (self.latencies + report["latencies"])[-_RECENT:]
        self.rate, self.lowered = report["rate"], report["lowered"]
        self.lowest = min(self.lowest, self.rate)
        self.labels, self.labels_error = report["labels"], report["labels_error"]

    def stop(self, seconds: float = _STOP_SECONDS) -> None:
        """Send no more, and wait for the last answers."""
        with contextlib.suppress(DemoFailed):
            self.tell(stop=True)
        until = time.monotonic() + seconds
        with contextlib.suppress(DemoFailed):
            while self.alive and time.monotonic() < until:
                self.read()
                time.sleep(0.05)
            self.read()
        self.end()

    def end(self) -> None:
        """Stop it at once."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        try:
            self._process.wait(2.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def quantile(self, p: float) -> float | None:
        """Latency in seconds of the recent requests."""
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(p * len(ordered)))] if ordered else None


class World:
    """Model servers, the sidecar, and clients. Use it as a context manager."""

    def __init__(self, story: Story) -> None:
        self.story = story
        self.folder = Path(tempfile.mkdtemp(prefix="understudy-demo-"))
        self.config = self.folder / "understudy.yaml"
        self.listen, self.control = port_or_free(LISTEN), port_or_free(CONTROL)
        self.page = f"http://127.0.0.1:{self.control}/"
        usual = self.control == CONTROL
        self.top = "understudy top" + ("" if usual else f" --url {self.page.rstrip('/')}")
        """The command that shows the same in a terminal."""
        self.client = Client(self.page)
        self.servers: dict[str, Process] = {}
        self.ports: dict[str, int] = {}
        self._commands: dict[str, list[str]] = {}
        self.sidecar: Process | None = None
        self.clients: Clients | None = None
        self.status: dict[str, Any] = {}
        self.expected: list[tuple[str, bool]] = []
        """What Understudy should have said or done, and whether it has."""
        self.undecided: list[str] = []
        """What it has not said for want of requests."""
        self.experiments: dict[str, dict[str, Any]] = {}
        """By name, the last document of each experiment's challenger."""
        self.ready_seconds: float | None = None
        """From the start to the first answer that a client got."""

    def __enter__(self) -> World:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop every process and remove the folder; it can be called twice."""
        if self.clients is not None:
            self.clients.end()
        if self.sidecar is not None:
            self.sidecar.stop()
        for server in self.servers.values():
            server.stop(5.0)
        shutil.rmtree(self.folder, ignore_errors=True)

    # Processes ------------------------------------------------------------------------------------

    def serve_model(self, name: str, module: str, *arguments: str) -> None:
        """Start a model server of the demo under ``name``; :meth:`ready` waits for it."""
        self.ports[name] = free_port()
        self._commands[name] = [
            *(sys.executable, "-P", "-m", f"understudy.demo.{module}"),
            *(str(self.ports[name]), *arguments),
        ]
        self.restart_model(name)

    def restart_model(self, name: str) -> None:
        """Start a model server, again, on its port."""
        log = self.folder / "logs" / f"{name}.log"
        # One row at a time gains nothing from threads.
        threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        self.servers[name] = Process(name, self._commands[name], log, environment=threads)

    def serve(self, config: str, ready: str = "/v2/health/ready") -> None:
        """Write the configuration, run ``understudy serve`` with it, and wait until all are ready;
        ``ready`` is the path at which model servers say so."""
        self.config.write_text(config, encoding="utf-8")
        command = [sys.executable, "-P", "-m", "understudy", "serve", "--config", str(self.config)]
        log = self.folder / "logs" / "understudy.log"
        self.sidecar = Process("understudy serve", command, log, cwd=self.folder)
        for name, server in self.servers.items():
            self._until(server, self.ports[name], ready)
        self._until(self.sidecar, self.control, "/readyz")
        self.look()

    def _until(self, process: Process, port: int, path: str) -> float:
        def answers() -> bool:
            self.story.draw()
            return _status(port, path) == 200

        try:
            return process.wait_until(answers, START_SECONDS)
        except ProcessFailed as error:
            raise DemoFailed(str(error)) from error

    def reload(self, config: str) -> None:
        """Write another configuration, and have the sidecar read it."""
        self.config.write_text(config, encoding="utf-8")
        self.client.post("/v1/config/reload", {})

    def send(
        self,
        messages: Sequence[Message],
        rate: float,
        *,
        label_delay: float = 2.0,
        late: float = 0.25,
    ) -> None:
        """Start clients that send ``messages`` at random, ``rate`` per second at most."""
        self.clients = Clients(
            self.folder,
            {
                "host": "127.0.0.1",
                "port": self.listen,
                "control": self.page.rstrip("/"),
                "run": secrets.token_hex(3),
                "seed": 2013,
                "rate": rate,
                "late": late,
                "label_delay": label_delay,
                "messages": _plain(messages),
            },
        )

    def send_other(self, messages: Sequence[Message]) -> None:
        """From now on clients send these messages."""
        assert self.clients is not None
        self.clients.tell(messages=_plain(messages))

    # What is going on -----------------------------------------------------------------------------

    def look(self) -> None:
        """Read what clients saw and what the sidecar says, and refresh the screen.

        Raises DemoFailed when a process of the demo has ended by itself.
        """
        if self.sidecar is not None and not self.sidecar.alive:
            raise DemoFailed(f"understudy serve has ended:\n{self.sidecar.tail()}")
        if self.clients is not None:
            self.clients.read()
            if self.ready_seconds is None and self.clients.answered:
                self.ready_seconds = round(self.story.seconds, 2)
        try:
            self.status = self.client.get("/v1/status", 5.0)
        except ApiError:
            pass  # a machine that is busy answers later; a sidecar that has ended is noticed above
        self.story.figures = self._figures()
        self.story.draw()

    def wait(
        self, check: Callable[[], _T | None], what: str, seconds: float = PATIENCE_SECONDS
    ) -> _T | None:
        """The first true result of ``check``; None, which is told, when it takes too long."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.look()
            try:
                found = check()
            except ApiError:
                found = None
            if found:
                return found
            time.sleep(_POLL_SECONDS)
        self.undecided.append(what)
        rate = f"{self.clients.rate:.0f} requests/s" if self.clients is not None else "no requests"
        self.story.note(f"Not yet, after {spoken(seconds)} with {rate}: {what}")
        return None

    def pause(self, seconds: float) -> None:
        """Let it run for some time."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.look()
            time.sleep(_POLL_SECONDS)

    def answered(self, count: int) -> None:
        """Let it run until clients have got ``count`` more answers: fewer of them take longer."""
        clients = self.clients
        assert clients is not None
        goal = clients.answered + count
        self.wait(lambda: clients.answered >= goal, f"{count:,} answers")

    def unix_time(self, at: float) -> float:
        """The Unix time of ``at`` seconds from the start."""
        return time.time() - (self.story.seconds - at)

    def expect(self, what: str, met: bool) -> None:
        """Note something that should be so."""
        self.expected.append((what, met))

    def arm(self, name: str) -> dict[str, Any]:
        """An arm in the status document."""
        return next(one for one in self.status["arms"] if one["arm"] == name)

    def challenger(self, experiment: str) -> dict[str, Any]:
        """The document of the only challenger of an experiment."""
        found = self.client.get(f"/v1/experiments/{experiment}")["challengers"][0]
        self.experiments[experiment] = found
        return dict(found)

    def findings(self) -> list[dict[str, Any]]:
        """All findings, open and closed, in the order in which they opened."""
        found = self.client.get("/v1/findings?state=all&limit=100")["findings"]
        return sorted(found, key=lambda one: float(one["opened"]))

    def _figures(self) -> list[dict[str, str]]:
        rows = []
        clients = self.clients
        if clients is not None:
            recent = share(clients.failed, clients.answered)
            rows.append(
                {
                    "": "clients",
                    "does": f"got {clients.answered:,} answers",
                    "per s": f"{clients.rate:.0f}",
                    "p50": duration(clients.quantile(0.5)),
                    "p99": duration(clients.quantile(0.99)),
                    "errors": f"{clients.failed:,} ({recent})" if clients.failed else "0",
                }
            )
        for arm in self.status.get("arms", ()):
            window = arm["windows"]["10s"]
            rows.append(
                {
                    "": arm["arm"],
                    "does": _does(arm),
                    "per s": f"{window['rate'] or 0:.0f}",
                    "p50": duration(window["p50"]),
                    "p99": duration(window["p99"]),
                    "errors": "–"
                    if window["error_rate"] is None
                    else share(window["errors"], window["count"]),
                }
            )
        return rows


def _does(arm: dict[str, Any]) -> str:
    breaker = [state for state in (arm["mirror"] or {}).get("breaker", {}) if state != "closed"]
    does = str(arm["description"]).replace("should serve", "serves")
    return f"{does}, breaker {breaker[0].replace('_', ' ')}" if breaker else does


def _plain(messages: Sequence[Message]) -> list[tuple[Any, ...]]:
    return [(one.head, one.body, one.label) for one in messages]


def _status(port: int, path: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except http.client.HTTPException as error:
        raise OSError(str(error)) from error
    finally:
        connection.close()
