"""What parts of the data plane expect of each other, where the other part imports them.

The classes that fit are not derived from these: they cost nothing when a request is served.
"""

from __future__ import annotations

from typing import Protocol

from understudy.monitor.proxy.handoff import HandOff
from understudy.monitor.proxy.head import RequestHead
from understudy.monitor.proxy.routes import Route


class Timed(Protocol):
    """Something under way that may run into a limit."""

    def check(self, now_ns: int) -> None:
        """``now_ns`` is the monotonic time in nanoseconds."""

    def cancel(self) -> None:
        """Give up: nobody waits for it any longer."""


class Answered(Protocol):
    """An exchange as its client's connection sees it at the end."""

    @property
    def request_complete(self) -> bool:
        """Whether the last byte of the request has come."""


class ClientOwner(Protocol):
    """Whom a client's connection belongs to, as an exchange sees it."""

    @property
    def draining(self) -> bool:
        """Whether the worker is about to stop."""

    def rejected(self, reason: str) -> None:
        """A request was refused for a fault of its own."""


class Client(Protocol):
    """A client's connection as an exchange sees it."""

    keep_alive: bool

    @property
    def worker(self) -> ClientOwner:
        """Whom the connection belongs to."""

    def write(self, data: bytes) -> None:
        """Send bytes of an answer."""

    def pause(self) -> None:
        """Read no more for now."""

    def resume(self) -> None:
        """Read again."""

    def answer(
        self,
        status: int,
        line: bytes,
        detail: str,
        outcome: str = "rejected",
        request_id: bytes = b"",
    ) -> None:
        """Send an answer of the proxy's own, as JSON."""

    def abort(self) -> None:
        """Cut the connection."""

    def tunnel(self) -> None:
        """From now on bytes flow both ways."""

    def exchange_over(self, exchange: Answered) -> None:
        """The answer is handed to the transport."""


class MirrorRuntime(Protocol):
    """A runtime as a mirrored request sees it."""

    active: set[Timed]
    handoff: HandOff
    capture_limit: int


class MirrorSource(Protocol):
    """A finished exchange as a mirror sees it."""

    head: RequestHead
    extra: list[bytes]
    route: Route
    request_id: bytes
    trace_id: bytes

    @property
    def runtime(self) -> MirrorRuntime:
        """The runtime that the exchange began with."""
