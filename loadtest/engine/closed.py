"""A closed loop: users that wait for their answers before they ask again."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from understudy.loadtest.engine.book import Book, Taken
from understudy.loadtest.engine.connection import Connection, Exchange
from understudy.loadtest.engine.sender import Check, Where
from understudy.loadtest.engine.timer import now_ns


class Closed:
    """``payloads`` are whole HTTP requests, taken in turns. Between the begins of two queries, of
    all users, lie at least ``pace`` seconds."""

    def __init__(
        self,
        where: Where,
        payloads: Sequence[bytes],
        check: Check | None = None,
        pace: float = 0.0,
    ) -> None:
        if not payloads:
            raise ValueError("there is nothing to send")
        self.keep_bodies = check is not None
        self._where = where
        self._payloads = payloads
        self._check = check
        self._book = Book()
        self._number = 0
        self._left: int | None = None
        self._stopped = False
        self._origin = 0
        self._pace_ns = int(pace * 1e9)
        self._soonest = 0
        self._waiting: dict[Connection, asyncio.Future[Exchange]] = {}

    def stop(self) -> None:
        """Begin no more queries."""
        self._stopped = True

    def take(self) -> Taken:
        """What has ended since the last call."""
        return self._book.take(self._origin)

    async def run(self, users: int, at_once: int, queries: int | None, origin_ns: int) -> None:
        """``users`` at the same time, each with ``at_once`` requests a query, until there were
        ``queries`` of all, or :meth:`stop`."""
        self._origin = self._soonest = origin_ns
        self._left = queries
        await asyncio.sleep(max(0.0, (origin_ns - now_ns()) / 1e9))
        await asyncio.gather(*(self._user(at_once) for _ in range(users)))

    async def _user(self, at_once: int) -> None:
        connections: list[Connection | None] = [None] * at_once
        try:
            while not self._stopped and (self._left is None or self._left > 0):
                if self._left is not None:
                    self._left -= 1
                due = now_ns()
                if self._pace_ns:
                    # A little may be made up for, since a loop's timers are coarse.
                    self._soonest = max(self._soonest + self._pace_ns, due - 20_000_000)
                    if self._soonest > due:
                        await asyncio.sleep((self._soonest - due) / 1e9)
                        due = now_ns()
                found = await asyncio.gather(
                    *(self._one(connections, place, due) for place in range(at_once))
                )
                if all(one.error for one in found):
                    await asyncio.sleep(0.05)  # nobody is there: do not spin
        finally:
            for connection in connections:
                if connection is not None:
                    connection.close()

    async def _one(self, connections: list[Connection | None], place: int, due: int) -> Exchange:
        exchange = Exchange(self._number, self._number % len(self._payloads), due)
        exchange.picked = due
        self._number += 1
        try:
            async with asyncio.timeout(self._where.timeout):
                connection = connections[place]
                if connection is None or connection.transport is None:
                    connection = connections[place] = await self._connect()
                future: asyncio.Future[Exchange] = asyncio.get_running_loop().create_future()
                self._waiting[connection] = future
                connection.send(self._payloads[exchange.payload], exchange)
                await future
        except TimeoutError:
            hanging = connections[place]
            if hanging is not None:
                hanging.give_up("timeout")
            exchange.error = exchange.error or "timeout"
        except OSError:
            exchange.error = "refused"
        if exchange.error and connections[place] is not None:
            connection = connections[place]
            assert connection is not None
            self._waiting.pop(connection, None)
            connection.close()
            connections[place] = None
        exchange.ended = exchange.ended or now_ns()
        if self._check is not None and not exchange.error and exchange.body is not None:
            exchange.error = self._check(exchange.payload, exchange.status, b"".join(exchange.body))
        exchange.body = None
        self._book.note(
            exchange.due, exchange.picked, exchange.sent, exchange.first_byte, exchange.ended,
            exchange.status, exchange.payload, exchange.error,
        )  # fmt: skip
        return exchange

    async def _connect(self) -> Connection:
        where = self._where
        _, connection = await asyncio.get_running_loop().create_connection(
            lambda: Connection(self),
            where.host,
            where.port,
            ssl=where.tls,
            server_hostname=where.server_name if where.tls else None,
        )
        return connection

    # What comes back ----------------------------------------------------------------------------

    def finished(self, connection: Connection, exchange: Exchange, reusable: bool) -> None:
        """An exchange has ended, well or not."""
        if not reusable:
            connection.close()
            connection.transport = None
        future = self._waiting.pop(connection, None)
        if future is not None and not future.done():
            future.set_result(exchange)

    def lost(self, connection: Connection) -> None:
        """An idle connection has gone."""
        connection.transport = None
