"""The pool of keep-alive connections to one model server.

The most recently used connection is taken first, so that the others become idle and are closed.
When all are busy, requests wait in a bounded first-in, first-out queue.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable
from time import monotonic

from understudy.monitor.proxy.descriptors import none_left
from understudy.monitor.proxy.turns import Turns
from understudy.monitor.proxy.upstream import Sink, UpstreamConnection
from understudy.monitor.routing.plan import Upstream


class Pool:
    """A pool of connections to one model server.

    ``turns`` is the budget of work that its connections share. ``on_connect(ok)`` is called after
    each attempt to connect, ``on_retry()`` for each retry, ``on_exhausted()`` when there was no
    descriptor for a connection, ``refused(reason)`` for each response that breaks a rule of HTTP or
    a limit.
    """

    def __init__(
        self,
        upstream: Upstream,
        loop: asyncio.AbstractEventLoop,
        turns: Turns,
        on_connect: Callable[[bool], None],
        on_retry: Callable[[], None],
        on_exhausted: Callable[[], None],
        refused: Callable[[str], None],
    ) -> None:
        self.upstream = upstream
        self.turns = turns
        self.refused = refused
        self.idle: list[UpstreamConnection] = []
        self.open: set[UpstreamConnection] = set()
        self.waiting: deque[Sink] = deque()
        self._loop = loop
        self._on_connect = on_connect
        self._on_retry = on_retry
        self._on_exhausted = on_exhausted
        self._connecting = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False
        self._tls = _client_context(upstream)

    def take(self) -> UpstreamConnection | None:
        """A usable idle connection, or None."""
        idle = self.idle
        while idle:
            connection = idle.pop()
            transport = connection.transport
            if transport is None or transport.is_closing():
                continue
            if monotonic() - connection.idle_since > connection.idle_seconds:
                _discard(transport)
                continue
            return connection
        return None

    def enqueue(self, sink: Sink) -> bool:
        """Call ``sink`` with a connection as soon as one is free, or with the reason for failure.

        Returns whether it waits for our own limit on connections. Otherwise a connection is being
        opened for it, and the server is to blame for the delay.
        """
        if len(self.waiting) >= self.upstream.max_waiting:
            sink.on_unavailable("overload")
            return False
        self.waiting.append(sink)
        self._grow()
        return len(self.waiting) > self._connecting

    def withdraw(self, sink: Sink) -> None:
        """``sink`` no longer waits."""
        try:
            self.waiting.remove(sink)
        except ValueError:
            pass

    def release(self, connection: UpstreamConnection, reusable: bool) -> None:
        """The exchange on ``connection`` is over."""
        transport = connection.transport
        if transport is None:
            return
        # Choked: it answered without reading the request, and may not read the next one.
        if not reusable or connection.choked or transport.is_closing():
            _discard(transport)
            return
        connection.resume()
        if self.waiting:
            self.waiting.popleft().on_ready(connection)
            return
        if self._closed:
            _discard(transport)
            return
        connection.idle_since = monotonic()
        self.idle.append(connection)

    def forget(self, connection: UpstreamConnection) -> None:
        """``connection`` is closed."""
        self.open.discard(connection)
        try:
            self.idle.remove(connection)
        except ValueError:
            pass
        if self.waiting:
            self._grow()

    def sweep(self, now: float) -> None:
        """Close connections that were idle for too long; ``now`` is monotonic time in seconds."""
        for connection in list(self.idle):
            if now - connection.idle_since > connection.idle_seconds:
                self.idle.remove(connection)
                if connection.transport is not None:
                    _discard(connection.transport)

    @property
    def busy(self) -> int:
        """Number of connections with an exchange in flight."""
        return len(self.open) - len(self.idle)

    def close(self) -> None:
        """Close idle connections; exchanges in flight or waiting continue."""
        self._closed = True
        for connection in self.idle:
            if connection.transport is not None:
                _discard(connection.transport)
        self.idle.clear()

    def _grow(self) -> None:
        wanted = min(
            len(self.waiting) - self._connecting,
            self.upstream.max_connections - len(self.open) - self._connecting,
        )
        for _ in range(wanted):
            self._connecting += 1
            task = self._loop.create_task(self._connect())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _connect(self) -> None:
        connection: UpstreamConnection | None = None
        reason = "connect"
        for attempt in (0, 1):
            try:
                connection = await self._attempt()
                break
            except (OSError, TimeoutError, UnicodeError) as error:  # the last: invalid host name
                if isinstance(error, OSError) and none_left(error):
                    # Not the server's fault, and trying again at once would not help.
                    self._on_exhausted()
                    reason = "overload"
                    break
                self._on_connect(False)
                # No byte of a request was sent, so a retry is safe.
                if attempt == 0 and self.waiting:
                    self._on_retry()
                else:
                    break
        self._connecting -= 1
        if connection is None or connection.transport is None:
            if self.waiting:
                self.waiting.popleft().on_unavailable(reason)
                self._grow()
            return
        self._on_connect(True)
        self.open.add(connection)
        if self.waiting:
            self.waiting.popleft().on_ready(connection)
        else:
            self.release(connection, True)

    async def _attempt(self) -> UpstreamConnection:
        upstream = self.upstream
        async with asyncio.timeout(upstream.connect_timeout):
            _, connection = await self._loop.create_connection(
                lambda: UpstreamConnection(self),
                upstream.host,
                upstream.port,
                ssl=self._tls,
                server_hostname=(
                    (upstream.tls.server_name or upstream.host)
                    if upstream.tls is not None
                    else None
                ),
            )
        return connection


def _discard(transport: asyncio.Transport) -> None:
    """Close without waiting for a peer that does not read."""
    if transport.get_write_buffer_size():
        transport.abort()
    else:
        transport.close()


def _client_context(upstream: Upstream) -> ssl.SSLContext | None:
    if upstream.tls is None:
        return None
    context = ssl.create_default_context(cafile=upstream.tls.ca)
    context.set_alpn_protocols(["http/1.1"])
    if not upstream.tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
