"""Probe listener: sends validation cases to the model servers through the worker.

Cases of the continuous validation use the same pools, headers, TLS and limits as requests of
clients, so they get the same results. They arrive over a Unix socket in the run directory, which
only this service can open; no header and no path of a client leads here.

Probes are not counted, recorded, mirrored, or part of an experiment, and open no breaker. Client
requests pay nothing for it: probes use separate connection and exchange classes.
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from understudy.monitor.errors import HttpError
from understudy.monitor.proxy.client import ClientConnection
from understudy.monitor.proxy.exchange import Exchange
from understudy.monitor.proxy.head import NO_BODY
from understudy.monitor.proxy.host import Connection, Host
from understudy.monitor.records import record

if TYPE_CHECKING:
    from understudy.monitor.proxy.arm import Arm
    from understudy.monitor.proxy.runtime import Runtime

ARM = b"x-understudy-arm"
"""Header that names the arm of a case; it is not forwarded to the model server."""


def socket_path(run_dir: Path, slot: int) -> Path:
    """The path of a worker's probe socket."""
    return run_dir / f"case{slot}.sock"


def sockets(run_dir: Path) -> list[Path]:
    """The probe sockets of a run."""
    return sorted(run_dir.glob("case*.sock"))


class ProbeExchange(Exchange):
    """The exchange of a validation case; see the module."""

    __slots__ = ()

    def begin(self, data: bytes) -> bytes:
        """As for clients, with the arm that the case names and without statistics."""
        head, runtime = self.head, self.runtime
        name = b""
        for line in head.lines:
            if line[: len(ARM) + 1].lower() == ARM + b":":
                name = line.partition(b":")[2].strip()
        head.lines = [line for line in head.lines if line[: len(ARM)].lower() != ARM]
        self.route = runtime.routes.other
        if self.trace is not None:
            # A case is not recorded, so it has no spans.
            self.extra = [line for line in self.extra if line not in self.trace.lines]
            self.trace = None
        self._captured = None
        self.arm = _arm(runtime, name.decode("latin-1"))
        rest = self._take(data) if data or head.length in (NO_BODY, 0) else b""
        runtime.active.add(self)
        self._start(data[: len(data) - len(rest)] if rest else data)
        return rest

    def _finish(self, outcome: int, status: int, waited_ns: int = 0) -> None:
        if self.finished:
            return
        self.finished = True
        self.runtime.active.discard(self)
        self._give_back()
        connection, self._connection = self._connection, None
        if connection is not None:
            answered = self._answered
            if outcome in record.ANSWERED and answered is not None and not self.tunnel:
                again = answered.keep_alive and self.request_complete and self.head.upgrade is None
                self.arm.pool.release(connection, again)
            else:
                connection.abort()
        elif self._unsent is not None:
            self.arm.pool.withdraw(self)
        self.client.exchange_over(self)


class ProbeConnection(ClientConnection):
    """A connection that sends validation cases."""

    __slots__ = ()
    kind: ClassVar[type[Exchange]] = ProbeExchange

    def idle(self, now: float) -> float:
        """0: it makes no room for clients, since it takes none of theirs."""
        return 0.0


class ProbeListener:
    """The host of probe connections: its worker, without statistics."""

    def __init__(self, worker: Host, path: Path) -> None:
        self._worker = worker
        self._path = path
        self._server: asyncio.AbstractServer | None = None
        self.loop = worker.loop
        self.clients = worker.clients

    @property
    def runtime(self) -> Runtime:
        """The current runtime."""
        return self._worker.runtime

    @property
    def draining(self) -> bool:
        """Whether the worker is about to stop."""
        return self._worker.draining

    async def open(self) -> None:
        """Listen. If the socket cannot be created, validation connects to model servers itself."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)
            self._server = await self.loop.create_unix_server(
                lambda: ProbeConnection(self),
                str(self._path),
            )
            self._path.chmod(0o600)

    def close(self) -> None:
        """Stop accepting connections."""
        if self._server is not None:
            self._server.close()
            with contextlib.suppress(OSError):
                self._path.unlink(missing_ok=True)

    def admit(self, client: Connection) -> bool:
        """Register a connection: it expires and is drained like those of clients."""
        self.clients.add(client)
        return True

    def dismiss(self, client: Connection) -> None:
        """A connection was closed."""
        self.clients.discard(client)

    def succeed(self, before: Connection, client: Connection) -> None:
        """Cases are sent over HTTP/1.1."""

    def linger(self) -> bool:
        """False: senders of cases read their responses."""
        return False

    def rejected(self, reason: str) -> None:
        """Probes are not counted."""


def _arm(runtime: Runtime, name: str) -> Arm:
    """The arm by name; of a challenger that serves and mirrors, the one that serves clients."""
    arms = runtime.plan.arms
    index = arms.index(name) if name in arms else -1
    if index == 0:
        return runtime.champion
    if index in runtime.serving:
        return runtime.serving[index].arm
    for mirror in runtime.mirrors:
        if mirror.arm.index == index:
            return mirror.arm
    raise HttpError(400, "arm", f"unknown arm {name!r}")
