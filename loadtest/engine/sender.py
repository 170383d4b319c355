"""One process of the engine: sends requests when they are due, and notes what became of them."""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loadtest.engine.connection import Connection, Exchange
from loadtest.engine.timer import Timer, now_ns

EARLY_NS = 20_000
"""A request may leave that much before its time rather than wait for another wake-up."""


@dataclass(frozen=True, slots=True)
class Where:
    """The target. ``timeout`` is of a whole exchange from its due time, in seconds."""

    host: str
    port: int
    tls: ssl.SSLContext | None = None
    server_name: str | None = None
    connections: int = 512
    timeout: float = 30.0


@dataclass(slots=True)
class Taken:
    """What became of some requests, in the order of their ends. Times in seconds from the start of
    the run; ``status`` 0 and an error where there was no answer, or a wrong one. ``picked`` is when
    the engine came to it."""

    due: NDArray[np.float64]
    picked: NDArray[np.float64]
    sent: NDArray[np.float64]
    first_byte: NDArray[np.float64]
    ended: NDArray[np.float64]
    status: NDArray[np.int64]
    payload: NDArray[np.int64]
    errors: dict[str, int]


def taken_of(done: Sequence[Exchange], origin_ns: int) -> Taken:
    """Exchanges that have ended, as columns."""
    count = len(done)
    times = np.array(
        [(e.due, e.picked, e.sent or e.ended, e.first_byte, e.ended) for e in done], np.float64
    ).reshape(count, 5)
    seconds = (times - origin_ns) / 1e9
    seconds[:, 3][times[:, 3] == 0] = np.nan
    errors: dict[str, int] = {}
    for exchange in done:
        if exchange.error:
            errors[exchange.error] = errors.get(exchange.error, 0) + 1
    return Taken(
        seconds[:, 0],
        seconds[:, 1],
        seconds[:, 2],
        seconds[:, 3],
        seconds[:, 4],
        np.array([0 if e.error else e.status for e in done], np.int64),
        np.array([e.payload for e in done], np.int64),
        errors,
    )


Check = Callable[[int, int, bytes], str]
"""Payload, status and body of an answer → what is wrong with it, or an empty text."""


class Sender:
    """``payloads`` are whole HTTP requests, taken in turns. ``check`` is asked of each
    ``check_every``-th answer; bodies are kept only for these."""

    def __init__(
        self,
        where: Where,
        payloads: Sequence[bytes],
        check: Check | None = None,
        check_every: int = 1,
    ) -> None:
        if not payloads:
            raise ValueError("there is nothing to send")
        self.keep_bodies = check is not None
        self._where = where
        self._payloads = payloads
        self._check = check
        self._check_every = check_every
        self._idle: deque[Connection] = deque()
        self._waiting: deque[Exchange] = deque()
        self._busy: dict[Connection, Exchange] = {}
        self._opening = 0
        self._done: list[Exchange] = []
        self._due: Iterator[float] = iter(())
        self._next = 0.0
        self._number = 0
        self._origin = 0
        self._timer: Timer | None = None
        self._over = asyncio.Event()
        self._exhausted = False
        self._loop = asyncio.get_running_loop()
        self._opens: set[asyncio.Task[None]] = set()

    @property
    def in_flight(self) -> int:
        """Requests that are due and have no answer yet."""
        return len(self._busy) + len(self._waiting)

    @property
    def earliest(self) -> float | None:
        """When the oldest request without an answer was due, in seconds from the start; None while
        there is none."""
        oldest = [e.due for e in self._busy.values()]
        if self._waiting:
            oldest.append(self._waiting[0].due)
        return (min(oldest) - self._origin) / 1e9 if oldest else None

    async def run(self, chunks: Iterator[NDArray[np.float64]], origin_ns: int) -> None:
        """Send at the moments of ``chunks``, seconds from ``origin_ns``; return when all is over.

        An exchange that takes longer than the timeout is given up, so this ends.
        """
        self._origin = origin_ns
        self._due = (float(at) for chunk in chunks for at in chunk)
        self._timer = Timer(self._loop, self._fire)
        sweep = self._loop.create_task(self._sweep())
        try:
            self._advance()
            if not self._exhausted:
                self._timer.set(self._at(self._next))
            while not self._exhausted or self.in_flight or self._opening:
                self._over.clear()
                await self._over.wait()
        finally:
            sweep.cancel()
            self._timer.close()
            for connection in [*self._idle, *self._busy]:
                connection.close()

    def stop(self) -> None:
        """Send no more; what is on its way is waited for."""
        self._due = iter(())
        self._exhausted = True
        self._over.set()

    def take(self) -> Taken:
        """What has ended since the last call."""
        done, self._done = self._done, []
        return taken_of(done, self._origin)

    # Sending ------------------------------------------------------------------------------------

    def _at(self, seconds: float) -> int:
        return self._origin + int(seconds * 1e9)

    def _advance(self) -> None:
        try:
            self._next = next(self._due)
        except StopIteration:
            self._exhausted = True
            self._over.set()

    def _fire(self) -> None:
        now = now_ns()
        limit = now + EARLY_NS
        count = len(self._payloads)
        while not self._exhausted:
            due = self._at(self._next)
            if due > limit:
                break
            exchange = Exchange(self._number, self._number % count, due)
            exchange.picked = max(now, due)
            self._number += 1
            if self._idle:
                self._begin(self._idle.pop(), exchange)
            else:
                self._waiting.append(exchange)
                self._open()
            self._advance()
        if not self._exhausted and self._timer is not None:
            self._timer.set(self._at(self._next))

    def _begin(self, connection: Connection, exchange: Exchange) -> None:
        self._busy[connection] = exchange
        connection.send(self._payloads[exchange.payload], exchange)

    def _open(self) -> None:
        have = len(self._busy) + len(self._idle) + self._opening
        if self._opening >= len(self._waiting) or have >= self._where.connections:
            return
        self._opening += 1
        task = self._loop.create_task(self._connect())
        self._opens.add(task)
        task.add_done_callback(self._opens.discard)

    async def _connect(self) -> None:
        where = self._where
        try:
            _, connection = await asyncio.wait_for(
                self._loop.create_connection(
                    lambda: Connection(self),
                    where.host,
                    where.port,
                    ssl=where.tls,
                    server_hostname=where.server_name if where.tls else None,
                ),
                where.timeout,
            )
        except (OSError, TimeoutError) as error:
            self._opening -= 1
            if self._waiting:
                exchange = self._waiting.popleft()
                exchange.ended = now_ns()
                timed_out = isinstance(error, TimeoutError)
                exchange.error = "connect timeout" if timed_out else "refused"
                self._finish(exchange)
            return
        self._opening -= 1
        self._use(connection)

    def _use(self, connection: Connection) -> None:
        if self._waiting:
            self._begin(connection, self._waiting.popleft())
        else:
            self._idle.append(connection)
            self._over.set()

    # What comes back ----------------------------------------------------------------------------

    def finished(self, connection: Connection, exchange: Exchange, reusable: bool) -> None:
        self._busy.pop(connection, None)
        check = self._check
        if check is not None and not exchange.error and exchange.body is not None:
            if exchange.number % self._check_every == 0:
                exchange.error = check(exchange.payload, exchange.status, b"".join(exchange.body))
            exchange.body = None
        self._finish(exchange)
        if reusable:
            self._use(connection)
        else:
            connection.close()
            if self._waiting:
                self._open()

    def _finish(self, exchange: Exchange) -> None:
        self._done.append(exchange)
        if self._exhausted and not self.in_flight:
            self._over.set()

    def lost(self, connection: Connection) -> None:
        try:
            self._idle.remove(connection)
        except ValueError:
            pass

    async def _sweep(self) -> None:
        """Give up what has taken too long."""
        limit = int(self._where.timeout * 1e9)
        while True:
            await asyncio.sleep(min(0.05, self._where.timeout / 4.0))
            oldest = now_ns() - limit
            while self._waiting and self._waiting[0].due < oldest:
                exchange = self._waiting.popleft()
                exchange.ended = now_ns()
                exchange.error = "no connection"
                self._finish(exchange)
            for connection, exchange in [*self._busy.items()]:
                if exchange.due < oldest:
                    connection.give_up("timeout")
            self._over.set()
