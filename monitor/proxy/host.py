"""The interface that a client's connection needs of its worker, or of the probe listener."""

from __future__ import annotations

import asyncio
from typing import Protocol

from understudy.monitor.proxy.runtime import Runtime


class Connection(Protocol):
    """The interface of a client's connection that its host uses."""

    lingering: bool

    def idle(self, now: float) -> float:
        """For how many seconds it has been waiting for a request; 0 when it does not, or not for
        long."""

    def close(self) -> None:
        """Close the connection."""

    def expire(self, now: float, runtime: Runtime) -> None:
        """Called periodically with the monotonic time: close it if it has waited too long."""

    def abort(self) -> None:
        """Abort the connection."""


class Host(Protocol):
    """The owner of connections."""

    clients: set[Connection]

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop."""

    @property
    def runtime(self) -> Runtime:
        """The current runtime."""

    @property
    def draining(self) -> bool:
        """Whether the worker is about to stop."""

    def admit(self, client: Connection) -> bool:
        """A client has connected; False when there are too many."""

    def dismiss(self, client: Connection) -> None:
        """A client has disconnected."""

    def succeed(self, before: Connection, client: Connection) -> None:
        """The connection of a client goes on as ``client``."""

    def linger(self) -> bool:
        """Whether one more client may linger to read its response."""

    def rejected(self, reason: str) -> None:
        """A malformed request was rejected."""
