"""What a client's connection expects of its worker, or of the side door for known cases."""

from __future__ import annotations

import asyncio
from typing import Protocol

from understudy.monitor.proxy.runtime import Runtime


class Connection(Protocol):
    """A client's connection as its host sees it."""

    lingering: bool

    def expire(self, now: float, runtime: Runtime) -> None:
        """Called now and then with the monotonic time: close what has waited too long."""

    def abort(self) -> None:
        """Cut the connection."""


class Host(Protocol):
    """Whom a connection belongs to."""

    clients: set[Connection]

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop that all run on."""

    @property
    def runtime(self) -> Runtime:
        """The present one."""

    @property
    def draining(self) -> bool:
        """Whether the worker is about to stop."""

    def admit(self, client: Connection) -> bool:
        """A client has connected; False when there are too many."""

    def dismiss(self, client: Connection) -> None:
        """A client is gone."""

    def linger(self) -> bool:
        """Whether one more client may stay to read its answer."""

    def rejected(self, reason: str) -> None:
        """A request was refused for a fault of its own."""
