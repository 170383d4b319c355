"""A side door for known cases: the worker's own way to the model servers, and no traffic.

Cases of the continuous validation take the same pools, headers, TLS and limits as requests of
clients do, so that they find what these would find. They come over a Unix socket in the directory
of the run, which nobody but this service can open; no header and no path of a client leads here.
What comes through it is not counted, recorded, mirrored, or part of an experiment, and opens no
breaker. The plain path pays nothing for it: the door has connections of a class of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

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
"""Which arm a case is for; it does not reach the model server."""


def socket_path(run_dir: Path, slot: int) -> Path:
    """Of the door of a worker."""
    return run_dir / f"case{slot}.sock"


def sockets(run_dir: Path) -> list[Path]:
    """The doors that there are."""
    return sorted(run_dir.glob("case*.sock"))


class ProbeExchange(Exchange):
    """A case on its way; see the module."""

    __slots__ = ()

    def begin(self, data: bytes) -> bytes:
        """As the one of clients, with the arm that the case names and nothing that counts."""
        head, runtime = self.head, self.runtime
        name = b""
        for line in head.lines:
            if line[: len(ARM) + 1].lower() == ARM + b":":
                name = line.partition(b":")[2].strip()
        head.lines = [line for line in head.lines if line[: len(ARM)].lower() != ARM]
        self.route = runtime.routes.other
        self._captured = None
        self.arm = _arm(runtime, name.decode("latin-1"))
        rest = self._take(data) if data or head.length in (NO_BODY, 0) else b""
        runtime.active.add(self)
        self._start(data[: len(data) - len(rest)] if rest else data)
        return rest

    def _finish(self, outcome: int, status: int) -> None:
        if self.finished:
            return
        self.finished = True
        self.runtime.active.discard(self)
        connection, self._connection = self._connection, None
        if connection is not None:
            answered = self._answered
            if outcome <= record.SERVER_ERROR and answered is not None and not self.tunnel:
                again = answered.keep_alive and self.request_complete and self.head.upgrade is None
                self.arm.pool.release(connection, again)
            else:
                connection.abort()
        elif self._unsent is not None:
            self.arm.pool.withdraw(self)
        self.client.exchange_over(self)


class ProbeConnection(ClientConnection):
    """A connection of who sends cases."""

    __slots__ = ()
    kind = ProbeExchange


class ProbeListener:
    """What the connections know of their worker, without its counts."""

    def __init__(self, worker: Host, path: Path) -> None:
        self._worker = worker
        self._path = path
        self._server: asyncio.AbstractServer | None = None
        self.loop = worker.loop
        self.clients = worker.clients

    @property
    def runtime(self) -> Runtime:
        """The present one."""
        return self._worker.runtime

    @property
    def draining(self) -> bool:
        """Whether the worker is about to stop."""
        return self._worker.draining

    async def open(self) -> None:
        """Listen; without a place for the socket there is no door, and cases go another way."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)
            self._server = await self.loop.create_unix_server(
                lambda: ProbeConnection(self),
                str(self._path),
            )
            self._path.chmod(0o600)

    def close(self) -> None:
        """Let nobody in any more."""
        if self._server is not None:
            self._server.close()
            with contextlib.suppress(OSError):
                self._path.unlink(missing_ok=True)

    def admit(self, client: Connection) -> bool:
        """It expires and is drained as those of clients are."""
        self.clients.add(client)
        return True

    def dismiss(self, client: Connection) -> None:
        """It is gone."""
        self.clients.discard(client)

    def linger(self) -> bool:
        """Who sends cases reads what it is told."""
        return False

    def rejected(self, reason: str) -> None:
        """Nothing counts here."""


def _arm(runtime: Runtime, name: str) -> Arm:
    """The one that answers clients, where there are two ways to a challenger."""
    arms = runtime.plan.arms
    index = arms.index(name) if name in arms else -1
    if index == 0:
        return runtime.champion
    if index in runtime.serving:
        return runtime.serving[index].arm
    for mirror in runtime.mirrors:
        if mirror.arm.index == index:
            return mirror.arm
    raise HttpError(400, "arm", f"there is no arm {name!r}")
