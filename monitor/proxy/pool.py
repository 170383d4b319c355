"""The pool of keep-alive connections to one model server.

Requests are spread over the addresses of the server's name. Of the connections to an address the
most recently used one is taken first, so that the others become idle and are closed. When all are
busy, requests wait in a bounded first-in, first-out queue.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from ipaddress import ip_address
from random import Random
from time import monotonic
from typing import Any, ClassVar, Final, Protocol

from understudy.common.compiling import compiled_class
from understudy.monitor.proxy.descriptors import none_left
from understudy.monitor.proxy.endpoints import Endpoint, Endpoints
from understudy.monitor.proxy.memory import Memory
from understudy.monitor.proxy.resolver import Address, Addresses, Resolver
from understudy.monitor.proxy.tls import LOOK_SECONDS, client_tls
from understudy.monitor.proxy.turns import Turns
from understudy.monitor.proxy.upstream import Carrier, Sink, UpstreamConnection, discard
from understudy.monitor.routing.plan import Upstream

FAILURES = ("refused", "timeout", "reset", "unreachable", "tls", "resolve")
"""Why no connection could be made; ``resolve``: the name has no address."""
RETRIES = ("connect", "stale", "unanswered", "refused")
"""Why a request gets another attempt: no connection yet, or one that was lost before a byte of the
response, after other exchanges or as its first one, or a model server that says that it has not
processed it (HTTP/2)."""
REFUSALS: Final = 5
"""Most attempts for a request that model servers refuse without having processed it."""
STAGGER_SECONDS: Final = 0.25
"""When an address has not answered by then, the next one is tried beside it (RFC 8305, 5)."""
MOST_TRIED: Final = 8
"""Addresses that are tried for one connection."""
_RETRY_SECONDS: Final = 1.0
"""Shortest time between two look-ups of a name, after a failed one or a failed connection."""
_YOUNGEST: Final = 0.8
"""The maximum age of a connection is shortened at random, at most to this share of it, so that
connections made together do not end together."""
_REASONS: tuple[tuple[type[OSError], str], ...] = (
    (ssl.SSLError, "tls"),
    (TimeoutError, "timeout"),
    (ConnectionRefusedError, "refused"),
    (FileNotFoundError, "refused"),  # a Unix socket
    (ConnectionError, "reset"),
)


class _ExhaustedError(Exception):
    """There is no descriptor for a connection."""


class Events(Protocol):
    """What the owner of a pool is told."""

    def connected(self, failure: str) -> None:
        """An attempt to connect ended: "" or why it failed, one of :data:`FAILURES`."""

    def unreachable(self) -> None:
        """A request gets no connection, since no address could be connected to."""

    def exhausted(self) -> None:
        """There was no descriptor for a connection."""

    def retried(self, reason: str) -> None:
        """A request gets another attempt: one of :data:`RETRIES`."""

    def refused(self, reason: str) -> None:
        """A response broke a rule of HTTP or a limit."""

    def looked_up(self, found: bool) -> None:
        """The server's name was looked up."""

    def certificates_changed(self, error: str) -> None:
        """The TLS files have changed: "" or why the new ones cannot be used."""


class Opened(Protocol):
    """A connection, as all pools use it."""

    transport: asyncio.Transport | None
    endpoint: Endpoint
    retire_at: float

    def discard(self) -> None:
        """Close it without waiting for a peer that does not read."""


@compiled_class(allow_interpreted_subclasses=True)
class Pool:
    """A pool of connections to one model server.

    ``turns`` is the budget of work that its connections share, ``memory`` that of bytes. Raises
    OSError or ssl.SSLError when the server's TLS files cannot be used.
    """

    at_first: ClassVar[int] = 1
    """Requests that a connection carries at a time, as far as is known before there is one."""

    def __init__(
        self,
        upstream: Upstream,
        loop: asyncio.AbstractEventLoop,
        turns: Turns,
        memory: Memory,
        resolver: Resolver,
        events: Events,
    ) -> None:
        self.upstream = upstream
        self._per_connection = self.at_first
        self.turns = turns
        self.memory = memory
        self.refused: Callable[[str], None] = events.refused
        self.open: set[Any] = set()
        """The connections, see :class:`Opened`."""
        self.waiting: deque[Sink] = deque()
        self._repeats: deque[tuple[Sink, Endpoint]] = deque()
        """Requests whose connection was lost, and its address: they wait for a new one."""
        self._loop = loop
        self._events = events
        self._resolver = resolver
        self._random = Random()  # noqa: S311  # spreads load
        self._tasks: set[asyncio.Task[None]] = set()
        self._connecting = 0
        """Attempts for requests that wait."""
        self._probing = 0
        """Attempts for which no request waits."""
        self._closed = False
        self._tls = client_tls(upstream.tls, upstream.http2) if upstream.tls is not None else None
        self._looked_at = monotonic()
        self.endpoints = Endpoints(self._random.random)
        self._only: list[Any] | None = []
        """The idle connections if there is just one address to use, else None."""
        self._numeric = _numeric(upstream)
        self._lookup: asyncio.Future[Addresses] | None = None
        self._resolve_at = 0.0
        known = (self._numeric,) if self._numeric is not None else resolver.known(upstream.host)
        if known:
            self._use(known)
        elif self._numeric is None:
            self._look_up(self._looked_at)

    def take(self) -> Carrier | None:
        """A usable idle connection, or None."""
        idle = self._only
        return self._take_spread() if idle is None else self._usable(idle)

    def _take_spread(self) -> Carrier | None:
        """The same if there are several addresses.

        If the one whose turn it is has no idle connection, the request does not wait for one as
        long as another has one: the next request will find it.
        """
        endpoint = self.endpoints.next()
        connection = self._usable(endpoint.idle)
        if connection is not None:
            return connection
        for other in self.endpoints.others(endpoint):
            connection = self._usable(other.idle)
            if connection is not None:
                # One that is set aside is tried in time, and not once per request.
                if not endpoint.opening and not endpoint.failures:
                    self._probe(endpoint)
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
        if self._room() <= 0 and not self.waiting:
            # No more connections may be opened, and those to an address that is used no more would
            # only be closed in some seconds.
            for endpoint in self.endpoints.all.values():
                connection = self._usable(endpoint.idle)
                if connection is not None:
                    sink.on_ready(connection)
                    return False
        self.waiting.append(sink)
        self._grow()
        return len(self.waiting) > self._connecting * self._per_connection

    def repeat(self, sink: Sink, lost: Carrier, reason: str) -> None:
        """The same for a request whose connection was lost before a byte of its response, for one
        of :data:`RETRIES`: it gets a new one, to another address if there is one. Others that are
        open may be stale as well."""
        self._events.retried(reason)
        self._repeat_later(sink, lost)

    def _repeat_later(self, sink: Sink, lost: Carrier) -> None:
        """Send it over the next new connection."""
        self._repeats.append((sink, lost.endpoint))
        self._grow()

    def withdraw(self, sink: Sink) -> None:
        """``sink`` no longer waits."""
        try:
            self.waiting.remove(sink)
        except ValueError:
            for repeat in self._repeats:
                if repeat[0] is sink:
                    self._repeats.remove(repeat)
                    break

    def release(self, connection: Any, reusable: bool) -> None:
        """The exchange on ``connection`` is over."""
        transport = connection.transport
        if transport is None:
            return
        # Choked: it answered without reading the request, and may not read the next one.
        if not reusable or connection.choked or transport.is_closing():
            discard(transport)
            return
        now = monotonic()
        until = now + connection.idle_seconds
        if until > connection.retire_at:
            until = connection.retire_at
            if now >= until:
                discard(transport)
                return
        connection.resume()
        connection.reused = True
        if self.waiting:
            self.waiting.popleft().on_ready(connection)
            return
        if self._closed:
            discard(transport)
            return
        connection.usable_until = until
        connection.endpoint.idle.append(connection)

    def forget(self, connection: Opened) -> None:
        """``connection`` is closed."""
        if connection in self.open:
            self.open.discard(connection)
            endpoint = connection.endpoint
            endpoint.open -= 1
            try:
                endpoint.idle.remove(connection)
            except ValueError:
                pass
        if self.waiting or self._repeats:
            self._grow()

    def sweep(self, now: float) -> None:
        """Close connections that were idle for too long, look up the name, try addresses again that
        were set aside; ``now`` is monotonic time in seconds."""
        for endpoint in self.endpoints.all.values():
            self._close_idle(endpoint, now)
        if self._closed:
            return
        if self._numeric is None and now >= self._resolve_at:
            self._look_up(now)
        if self.open and len(self.endpoints.all) > 1:
            for endpoint in self.endpoints.due(now):
                self._probe(endpoint)
        if self._tls is not None and now - self._looked_at >= LOOK_SECONDS:
            self.look_at_certificates(now)

    def _close_idle(self, endpoint: Endpoint, now: float) -> None:
        """Close connections to an address that were idle for too long."""
        for connection in tuple(endpoint.idle):
            if now > connection.usable_until:
                endpoint.idle.remove(connection)
                connection.discard()

    def look_at_certificates(self, now: float) -> None:
        """Use the TLS files if they have changed, and close connections that were made with others
        once they are idle."""
        if self._tls is None:
            return
        self._looked_at = now
        try:
            if not self._tls.changed():
                return
        except (OSError, ssl.SSLError) as error:
            self._events.certificates_changed(str(error))
            return
        self._events.certificates_changed("")
        self._retire(self.open)

    @property
    def idle(self) -> int:
        """Number of connections without an exchange."""
        # Also those to addresses that are gone: the set is small.
        return sum(len(endpoint.idle) for endpoint in self.endpoints.all.values())

    @property
    def busy(self) -> int:
        """Number of connections with an exchange in flight."""
        return len(self.open) - self.idle

    def close(self) -> None:
        """Close idle connections; exchanges in flight or waiting continue."""
        self._closed = True
        for endpoint in self.endpoints.all.values():
            for connection in endpoint.idle:
                connection.discard()
            endpoint.idle.clear()

    # Addresses ----------------------------------------------------------------------------------

    def _use(self, addresses: Addresses) -> None:
        """The name has these addresses now."""
        gone = self.endpoints.update(addresses)
        if gone:
            self._retire({c for c in self.open if c.endpoint.gone})
        self._choose()

    def _choose(self) -> None:
        used = self.endpoints.used
        self._only = used[0].idle if len(used) == 1 else None if used else []

    def _retire(self, connections: Iterable[Any]) -> None:
        """Close these as soon as they are idle."""
        for connection in connections:
            connection.retire_at = 0.0
            idle = connection.endpoint.idle
            if connection in idle:
                idle.remove(connection)
                connection.discard()

    def _look_up(self, now: float) -> asyncio.Future[Addresses]:
        self._resolve_at = now + self.upstream.resolve_every
        future = self._resolver.resolve(self.upstream.host)
        if future is not self._lookup:
            self._lookup = future
            future.add_done_callback(self._looked_up)
        return future

    def _looked_up(self, future: asyncio.Future[Addresses]) -> None:
        found = not future.cancelled() and future.exception() is None
        self._events.looked_up(found)
        if found:
            self._use(future.result())
        elif not self.endpoints.all:
            self._resolve_at = monotonic() + _RETRY_SECONDS

    def _failed(self, endpoint: Endpoint, reason: str) -> None:
        """No connection could be made to an address."""
        self._events.connected(reason)
        now = monotonic()
        self.endpoints.failed(endpoint, now)
        self._choose()
        # Its pod may be gone, and the name have another address.
        self._resolve_at = min(self._resolve_at, now + _RETRY_SECONDS)

    # Connecting ---------------------------------------------------------------------------------

    def _room(self) -> int:
        return self.upstream.max_connections - len(self.open) - self._connecting - self._probing

    def _grow(self) -> None:
        waiting = len(self.waiting) + len(self._repeats)
        wanted = -(-waiting // self._per_connection) - self._connecting
        for _ in range(min(wanted, self._room())):
            self._connecting += 1
            self._start(self._connect())

    def _probe(self, endpoint: Endpoint) -> None:
        """Open a connection to ``endpoint`` for which no request waits."""
        if self._room() > 0 and not self._closed:
            self._probing += 1
            self._start(self._open_one(endpoint))

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self) -> None:
        connection: Opened | None = None
        reason = "connect"
        for attempt in (0, 1):
            try:
                connection = await self._race()
            except _ExhaustedError:
                # Not the server's fault, and trying again at once would not help.
                reason = "overload"
                break
            if connection is not None:
                break
            # No byte of a request was sent, so a retry is safe.
            if attempt == 1 or not (self.waiting or self._repeats):
                break
            self._events.retried("connect")
        self._connecting -= 1
        if connection is not None and self._has_come(connection):
            self._opened(connection)
            return
        if reason == "connect":
            self._events.unreachable()
        sink = self._first()
        if sink is not None:
            sink.on_unavailable(reason)
            self._grow()

    async def _open_one(self, endpoint: Endpoint) -> None:
        connection: Opened | None = None
        try:
            async with asyncio.timeout(self.upstream.connect_timeout):
                connection = await self._try(endpoint)
        except _ExhaustedError:
            pass
        except TimeoutError:
            self._failed(endpoint, "timeout")
        self._probing -= 1
        if connection is not None and self._has_come(connection):
            self._opened(connection)
        else:
            self._grow()

    def _opened(self, connection: Any) -> None:
        """Use a new connection."""
        self._take_in(connection)
        sink = self._first()
        if sink is not None:
            sink.on_ready(connection)
        else:
            self.release(connection, True)

    def _has_come(self, connection: Any) -> bool:
        """Whether a connection that was made can be used, or says why not."""
        return connection.transport is not None

    def _take_in(self, connection: Opened) -> None:
        """Count a new connection, and set its age."""
        self.open.add(connection)
        connection.endpoint.open += 1
        age = self.upstream.max_age
        if connection.endpoint.gone:
            age = 0.0
        connection.retire_at = monotonic() + age * self._random.uniform(_YOUNGEST, 1.0)

    def _first(self) -> Sink | None:
        """The request that gets the next new connection."""
        if self._repeats:
            return self._repeats.popleft()[0]
        return self.waiting.popleft() if self.waiting else None

    async def _race(self) -> Opened | None:
        """A connection to the first address that answers, or None.

        The next address is tried when one fails, or has not answered for a while; the earlier ones
        stay in the race. Raises _ExhaustedError when there is no descriptor.
        """
        running: dict[asyncio.Task[Opened | None], tuple[Endpoint, float]] = {}
        winner: Opened | None = None
        try:
            async with asyncio.timeout(self.upstream.connect_timeout):
                if not await self._resolved():
                    return None
                lost = [endpoint for _, endpoint in self._repeats]
                found = self.endpoints.candidates(MOST_TRIED)
                left = deque(sorted(found, key=lambda endpoint: endpoint in lost))
                while left or running:
                    if left:
                        endpoint = left.popleft()
                        task = self._loop.create_task(self._try(endpoint))
                        running[task] = endpoint, monotonic()
                    done, _ = await asyncio.wait(
                        running,
                        timeout=STAGGER_SECONDS if left else None,
                        return_when=asyncio.FIRST_COMPLETED,
                    )
                    for task in done:
                        connection = task.result()
                        del running[task]
                        if winner is None:
                            winner = connection
                        elif connection is not None:
                            _abort(connection)
                    if winner is not None:
                        return winner
        except TimeoutError:
            if not self.endpoints.all:
                self._events.connected("resolve")
            for endpoint, _ in running.values():
                self._failed(endpoint, "timeout")
        finally:
            now = monotonic()
            for task, (endpoint, began) in running.items():
                if winner is not None and now - began >= STAGGER_SECONDS:
                    # Another one that was tried later has answered.
                    self._failed(endpoint, "timeout")
                task.add_done_callback(_drop)
                task.cancel()
        return None

    async def _resolved(self) -> bool:
        """Wait until there is an address; whether there is one."""
        if self.endpoints.all:
            return True
        now = monotonic()
        look_up = self._lookup
        if look_up is None or (look_up.done() and now >= self._resolve_at):
            look_up = self._look_up(now)
        if not look_up.done():
            await asyncio.wait((look_up,))  # unlike a bare await, this never cancels it
        if not self.endpoints.all:
            self._events.connected("resolve")
            return False
        return True

    async def _try(self, endpoint: Endpoint) -> Opened | None:
        """One attempt to connect to one address. Raises _ExhaustedError."""
        endpoint.opening += 1
        try:
            connection = await self._attempt(endpoint)
        except (OSError, TimeoutError) as error:
            if none_left(error):
                self._events.exhausted()
                raise _ExhaustedError from error
            self._failed(endpoint, _reason(error))
            return None
        finally:
            endpoint.opening -= 1
        self._events.connected("")
        if endpoint.failures:
            self.endpoints.reached(endpoint)
            self._choose()
        return connection

    async def _attempt(self, endpoint: Endpoint) -> Opened:
        """Raises OSError."""
        upstream = self.upstream
        family, host = endpoint.address

        def connection() -> Any:
            return self._make(endpoint)

        if family == socket.AF_UNIX:
            _, protocol = await self._loop.create_unix_connection(connection, host)
        elif self._tls is None:
            _, protocol = await self._loop.create_connection(connection, host, upstream.port)
        else:
            transport, protocol = await self._loop.create_connection(
                connection,
                host,
                upstream.port,
                ssl=self._tls.context,
                server_hostname=(upstream.tls and upstream.tls.server_name) or upstream.host,
            )
            chosen = transport.get_extra_info("ssl_object").selected_alpn_protocol()
            if upstream.http2 and chosen != "h2":
                transport.abort()
                raise ssl.SSLError(f"{upstream.name} does not offer HTTP/2 over TLS (ALPN h2)")
        opened: Opened = protocol
        return opened

    def _make(self, endpoint: Endpoint) -> Opened:
        """The protocol of a new connection."""
        return UpstreamConnection(self, endpoint)

    def _usable(self, idle: list[Any]) -> Carrier | None:
        """The most recently used one of ``idle`` that can be used."""
        while idle:
            connection: UpstreamConnection = idle.pop()
            transport = connection.transport
            if transport is None or transport.is_closing():
                continue
            if monotonic() > connection.usable_until:
                discard(transport)
                continue
            return connection
        return None


def _numeric(upstream: Upstream) -> Address | None:
    """The address if there is nothing to look up."""
    if upstream.socket is not None:
        return socket.AF_UNIX, upstream.socket
    try:
        version = ip_address(upstream.host).version
    except ValueError:
        return None
    return (socket.AF_INET if version == 4 else socket.AF_INET6), upstream.host


def _reason(error: OSError) -> str:
    """Why an attempt to connect failed, as in :meth:`Events.connected`."""
    for kind, reason in _REASONS:
        if isinstance(error, kind):
            return reason
    return "unreachable"


def _drop(task: asyncio.Task[Opened | None]) -> None:
    """Close what an attempt that lost the race has still opened."""
    if not task.cancelled() and task.exception() is None:
        connection = task.result()
        if connection is not None:
            _abort(connection)


def _abort(connection: Opened) -> None:
    if connection.transport is not None:
        connection.transport.abort()
