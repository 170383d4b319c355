"""Interfaces between modules of the data plane, which avoid circular imports.

The implementing classes do not derive from them, so they cost nothing per request.
"""

from __future__ import annotations

from typing import Protocol

from understudy.monitor.proxy.handoff import HandOff
from understudy.monitor.proxy.head import RequestHead, ResponseHead
from understudy.monitor.proxy.routes import Route
from understudy.monitor.proxy.tracing import RequestTrace
from understudy.monitor.proxy.wall import WallClock


class Timed(Protocol):
    """Something in flight with a time limit."""

    def check(self, now_ns: int) -> None:
        """``now_ns`` is the monotonic time in nanoseconds."""

    def stop(self) -> None:
        """End it: the worker stops."""


class Answered(Protocol):
    """The interface of a finished exchange that its client's connection uses."""

    head: RequestHead
    request_id: bytes

    @property
    def request_complete(self) -> bool:
        """Whether the last byte of the request has arrived."""


class ClientOwner(Protocol):
    """The interface of a client connection's owner that an exchange uses."""

    @property
    def draining(self) -> bool:
        """Whether the worker is about to stop."""

    def rejected(self, reason: str) -> None:
        """A malformed request was rejected."""


class Client(Protocol):
    """The interface of a client's connection that an exchange uses."""

    keep_alive: bool
    ended_ns: int

    @property
    def worker(self) -> ClientOwner:
        """The owner of the connection."""

    def respond(self, exchange: Answered, head: ResponseHead, body: bytes, done: bool) -> None:
        """Send the head of a response and the first part of its body; ``done``: it is complete."""

    def write(self, data: bytes) -> None:
        """Send bytes of a response."""

    def pause(self) -> None:
        """Stop reading for now."""

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
        """Send a response of the proxy itself, as JSON."""

    def abort(self, outcome: str = "") -> None:
        """Abort the response: the exchange ended with ``outcome``."""

    def undelivered(self) -> int:
        """Bytes of responses that the client has not acknowledged yet."""

    def tunnel(self) -> None:
        """Switch to a tunnel: forward bytes both ways."""

    def exchange_over(self, exchange: Answered) -> None:
        """The response was passed to the transport."""


class MirrorRuntime(Protocol):
    """The interface of a runtime that a mirrored request uses."""

    active: set[Timed]
    handoff: HandOff
    wall: WallClock
    capture_limit: int


class MirrorSource(Protocol):
    """The interface of a finished exchange that a mirror uses."""

    head: RequestHead
    extra: list[bytes]
    route: Route
    request_id: bytes
    proxy_id: int
    request_size: int
    request_complete: bool
    started_ns: int
    trace: RequestTrace | None

    @property
    def runtime(self) -> MirrorRuntime:
        """The runtime that the exchange started with."""
