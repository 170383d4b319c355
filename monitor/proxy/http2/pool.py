"""The pool of connections over HTTP/2 to one model server.

A connection carries many requests at a time, so there are few of them: one is opened when there is
none to an address, or when those that are open have as many requests as the server allows.
"""

from __future__ import annotations

from collections.abc import Iterable
from time import monotonic
from typing import Any, ClassVar

from understudy.common import http2
from understudy.monitor.proxy.endpoints import Endpoint
from understudy.monitor.proxy.http2.upstream import Session, UpstreamStream
from understudy.monitor.proxy.pool import Pool
from understudy.monitor.proxy.upstream import Sink


class Http2Pool(Pool):
    """A pool of sessions; ``idle`` of an endpoint are those that can take a request."""

    open: set[Session]
    at_first: ClassVar[int] = http2.STREAMS

    def _make(self, endpoint: Endpoint) -> Session:
        return Session(self, endpoint, self._loop)

    def _usable(self, idle: list[Session]) -> UpstreamStream | None:
        now = monotonic()
        while idle:
            session = idle[-1]
            if not session.usable(now):
                idle.pop()
                session.leave()
                continue
            stream = session.open_stream()
            if session.active >= session.limit:
                idle.pop()
            return stream
        return None

    def repeat(self, sink: Sink, lost: Any, reason: str) -> None:
        """Send a request once more, over a connection that is open to another address or the same,
        or over a new one."""
        self._events.retried(reason)
        every = self.endpoints.all.values()
        for endpoint in sorted(every, key=lambda one: one is lost.endpoint):
            stream = self._usable(endpoint.idle)
            if stream is not None:
                sink.on_ready(stream)
                return
        self._repeat_later(sink, lost)

    def release(self, connection: UpstreamStream, reusable: bool) -> None:
        """The exchange on a stream is over."""
        connection.release()

    def _has_come(self, connection: Session) -> bool:
        return connection.transport is not None or connection.garbled

    def _opened(self, connection: Session) -> None:
        self._take_in(connection)
        if connection.goes or connection.garbled:
            # It ended before it was used: a request ends with it, or another connection would be
            # opened in its place, and so on.
            sink = self._first()
            if sink is not None:
                sink.on_ready(connection.open_stream())
            if connection.transport is None:
                self.forget(connection)
        else:
            self.freed(connection)

    def freed(self, session: Session) -> None:
        """A stream of a session has ended, or it may have more of them."""
        if session not in self.open:
            return
        now = monotonic()
        if self._closed or not session.usable(now):
            self.leave(session)
            return
        while session.active < session.limit and (sink := self._first()) is not None:
            sink.on_ready(session.open_stream())
        if not session.active:
            session.usable_until = now + session.idle_seconds
        idle = session.endpoint.idle
        if session.active < session.limit:
            if session not in idle:
                idle.append(session)
        elif session in idle:
            idle.remove(session)

    def allows(self, session: Session) -> None:
        """The server has said how many streams a session may have."""
        self._per_connection = session.limit
        self.freed(session)

    def leave(self, session: Session) -> None:
        """The session takes no more requests."""
        if session in session.endpoint.idle:
            session.endpoint.idle.remove(session)
        session.leave()

    def sweep(self, now: float) -> None:
        super().sweep(now)
        if self.upstream.keepalive:
            for session in tuple(self.open):
                session.keep_alive(now)

    def _close_idle(self, endpoint: Endpoint, now: float) -> None:
        for session in tuple(endpoint.idle):
            if now > session.retire_at or (not session.active and now > session.usable_until):
                self.leave(session)

    def _retire(self, connections: Iterable[Any]) -> None:
        for session in tuple(connections):
            session.retire_at = 0.0
            self.leave(session)

    @property
    def idle(self) -> int:
        """Number of connections without an exchange."""
        return sum(not session.active for session in self.open)

    def close(self) -> None:
        """Close idle connections; exchanges in flight or waiting continue."""
        self._closed = True
        self._retire(self.open)
