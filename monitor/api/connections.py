"""Connections to the control API: few, and not idle for long."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

MOST_CONNECTIONS = 256
"""From this number on, another connection is closed for each new one, or it gets 503."""
HEAD_SECONDS = 10.0
"""Time in which the head of a request has to arrive, from the connection or from its first byte."""
KEEPALIVE_SECONDS = 75
"""Time between two requests."""


class ControlConnection(H11Protocol):
    """A connection that is closed when no request arrives on it in time, or when another one needs
    its place.

    The place is that of the connection that has been idle the longest, or else of one whose client
    neither sends the rest of its request nor reads its response: they cannot keep a scraper out.
    """

    _timer: asyncio.TimerHandle | None = None
    _since = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start to wait for a request."""
        super().connection_made(transport)
        self._since = self.loop.time()
        self._wait_for_head()
        if self.limit_concurrency and len(self.connections) >= self.limit_concurrency:
            self._make_room()

    def data_received(self, data: bytes) -> None:
        """Pass it on; a head that is not complete yet does not extend its time."""
        super().data_received(data)
        if self.idle:
            self._wait_for_head()
        else:
            self._stop_waiting()

    def on_response_complete(self) -> None:
        """Idle from now on, unless the next request is there."""
        self._since = self.loop.time()
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timers."""
        super().connection_lost(exc)
        self._stop_waiting()
        self._unset_keepalive_if_required()

    @property
    def idle(self) -> bool:
        """Whether no request is being answered."""
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is None or cycle.response_complete

    @property
    def waits_for_client(self) -> bool:
        """Whether the rest of a request, or reading its response, is up to the client."""
        return self.idle or self.cycle.more_body or self.flow.write_paused

    def _wait_for_head(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(HEAD_SECONDS, self._close)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _make_room(self) -> None:
        others = [c for c in self.connections if isinstance(c, ControlConnection) and c is not self]
        idle = [other for other in others if other.idle]
        victims = idle or [other for other in others if other.waits_for_client]
        if victims:
            min(victims, key=lambda other: other._since)._close()

    def _close(self) -> None:
        self.connections.discard(self)
        self.transport.abort()
