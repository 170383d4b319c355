"""The line to the supervisor: JSON objects, one per line, over a socket pair."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from understudy.monitor.errors import UnderstudyError
from understudy.monitor.supervisor.process_use import ProcessUse

log = logging.getLogger(__name__)

REPLY_SECONDS = 30.0


_SILENT_SECONDS = 5.0
"""Silence of the supervisor that is worth a warning."""
_HANGS_SECONDS = 30.0
"""Silence after which the service is not alive."""


@dataclass(slots=True)
class Supervisor:
    """The last status of the supervisor. ``workers`` are ``{"slot", "pid", "restarts", "ready",
    "responsive", "killed"}``."""

    status_received: bool = False
    separate: bool = False
    """Whether the workers run in another container, where their process ids are those of others."""
    workers: list[dict[str, Any]] = field(default_factory=list)
    evaluation_restarts: int = 0
    evaluation_killed: dict[str, int] = field(default_factory=dict)
    """How often the evaluation plane was killed, by reason: hung, memory."""
    kills: list[dict[str, Any]] = field(default_factory=list)
    """The last one of each process: ``{"at", "text"}``."""
    generation: int = 0
    config_error: str | None = None
    state_problem: str | None = None
    """Why the state folder cannot be used."""
    processes: dict[str, ProcessUse] = field(default_factory=dict)
    """By name, what the processes of another container use; see ``separate``."""
    silent_seconds: float = 0.0
    """For how long it has not watched its processes, although it could have."""

    @property
    def hangs(self) -> bool:
        """Whether only a restart of the service helps."""
        return self.silent_seconds > _HANGS_SECONDS

    @property
    def silence(self) -> str | None:
        """What to know of a supervisor that does not respond."""
        if self.silent_seconds < _SILENT_SECONDS:
            return None
        return (
            f"the supervisor has not responded for {self.silent_seconds:.0f} s: clients are "
            "served, but a process that ends is not replaced, and no configuration is taken over; "
            "restart the service if that lasts"
        )

    def update(self, message: dict[str, Any]) -> None:
        """Apply a status message."""
        self.status_received = True
        self.separate = bool(message.get("separate"))
        self.workers = [worker for worker in message.get("workers") or [] if "slot" in worker]
        self.evaluation_restarts = int(message.get("evaluation_restarts") or 0)
        self.evaluation_killed = dict(message.get("evaluation_killed") or {})
        self.kills = list(message.get("kills") or [])
        self.generation = int(message.get("generation") or 0)
        self.config_error = message.get("config_error")
        self.state_problem = message.get("state_problem")


@dataclass(frozen=True, slots=True)
class Reloaded:
    """Result of a reload; ``error`` is why it was rejected."""

    ok: bool
    generation: int | None
    error: str | None


class ControlLine:
    """The evaluation plane's end: executes commands of the supervisor and sends it requests."""

    def __init__(
        self, sock: socket.socket, supervisor: Supervisor, reconfigure: Callable[[Path], int]
    ) -> None:
        self._sock = sock
        self._supervisor = supervisor
        self._reconfigure = reconfigure
        self._writer: asyncio.StreamWriter | None = None
        self._connected = asyncio.Event()
        self._requests: dict[int, asyncio.Future[Reloaded]] = {}
        self._last_id = 0

    async def serve(self) -> bool:
        """Execute commands until drained (True) or until the supervisor has died (False)."""
        reader, self._writer = await asyncio.open_connection(sock=self._sock, limit=1 << 20)
        self._connected.set()
        self._send({"event": "ready"})
        drain = False
        while not drain:
            try:
                line = await reader.readline()
            except (ConnectionError, ValueError) as error:
                log.error("line to the supervisor: %s", error)
                break
            if not line:
                break
            drain = self._handle(line)
        for future in self._requests.values():
            if not future.done():
                future.set_result(Reloaded(False, None, "the service is shutting down"))
        return drain

    async def reload(self) -> Reloaded:
        """Ask the supervisor to read its configuration file again."""
        return await self._request("reload")

    async def routes(self) -> Reloaded:
        """Ask the supervisor to send the routes in the state folder to the workers."""
        return await self._request("routes")

    async def _request(self, kind: str) -> Reloaded:
        self._last_id += 1
        number = self._last_id
        future: asyncio.Future[Reloaded] = asyncio.get_running_loop().create_future()
        self._requests[number] = future
        try:
            async with asyncio.timeout(REPLY_SECONDS):
                await self._connected.wait()
                self._send({"ask": kind, "id": number})
                return await future
        except TimeoutError:
            return Reloaded(
                False, None, f"the supervisor did not respond within {REPLY_SECONDS:g} s"
            )
        finally:
            del self._requests[number]

    def _handle(self, line: bytes) -> bool:
        try:
            message = json.loads(line)
            if "reply" in message:
                self._resolve(message)
                return False
            command = message.get("do")
            if command == "drain":
                return True
            if command == "status":
                self._supervisor.update(message)
            elif command == "use":
                found = message["processes"].items()
                self._supervisor.processes = {name: ProcessUse(*use) for name, use in found}
            elif command == "reload":
                self._send(self._reload(message))
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            log.error("line to the supervisor: %r in %r", error, line[:200])
        return False

    def _resolve(self, message: dict[str, Any]) -> None:
        future = self._requests.get(int(message["reply"]))
        if future is not None and not future.done():
            future.set_result(
                Reloaded(bool(message.get("ok")), message.get("generation"), message.get("error"))
            )

    def _reload(self, message: dict[str, Any]) -> dict[str, Any]:
        try:
            generation = self._reconfigure(Path(message.get("config") or message["plan"]))
        except (UnderstudyError, KeyError) as error:
            return {"event": "reload_failed", "error": str(error)}
        return {"event": "reloaded", "generation": message.get("generation", generation)}

    def _send(self, message: dict[str, Any]) -> None:
        if self._writer is not None:
            self._writer.write(json.dumps(message).encode() + b"\n")
