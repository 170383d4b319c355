"""A closed loop: users that wait for their responses before they send again."""

from __future__ import annotations

import asyncio
import os
from array import array
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from understudy.loadtest.engine.answer import Check, Successful, connect_error, kept
from understudy.loadtest.engine.connection import Connection, Exchange
from understudy.loadtest.engine.recorder import FinishedRequests, Recorder
from understudy.loadtest.engine.sender import Endpoint
from understudy.loadtest.engine.timer import Timer, now_ns

_TICK_NS = 10_000_000
"""Between two looks at how late this process wakes up."""


class Closed:
    """Sends to ``endpoint`` in a closed loop.

    ``payloads`` are whole HTTP requests, sent in turns from index ``first`` in steps of ``stride``,
    so that several processes together send each of them in its turn. ``check`` returns what is
    wrong with a response, or an empty text. Queries of all users start at least ``pace`` seconds
    apart. Raises ValueError without payloads.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        payloads: Sequence[bytes],
        check: Check | None = None,
        pace: float = 0.0,
        first: int = 0,
        stride: int = 1,
    ) -> None:
        if not payloads:
            raise ValueError("there is nothing to send")
        self._check: Check = check or Successful()
        self.keep_bodies = self._check.body
        self._endpoint = endpoint
        self._payloads = payloads
        self._recorder = Recorder()
        self._number = 0
        self._first, self._stride = first, stride
        self._remaining: int | None = None
        self._stopped = False
        self._origin = 0
        self._pace_ns = int(pace * 1e9)
        self._next_start = 0
        self._waiting: dict[Connection, asyncio.Future[Exchange]] = {}
        self._wakes = array("d")
        self._next_tick = 0

    def stop(self) -> None:
        """Start no more queries."""
        self._stopped = True

    def drain(self) -> FinishedRequests:
        """The requests that ended since the last call."""
        wakes, self._wakes = self._wakes, array("d")
        return replace(self._recorder.drain(self._origin), wakes=np.array(wakes, np.float64))

    async def run(self, users: int, at_once: int, queries: int | None, origin_ns: int) -> None:
        """Run ``users`` concurrently from ``origin_ns``, each with ``at_once`` requests per query,
        until all users together have sent ``queries`` (None: no limit), or :meth:`stop`."""
        self._origin = self._next_start = origin_ns
        self._remaining = queries
        await asyncio.sleep(max(0.0, (origin_ns - now_ns()) / 1e9))
        timer, loop = Timer(), asyncio.get_running_loop()
        self._next_tick = now_ns() + _TICK_NS
        timer.set(self._next_tick)
        loop.add_reader(timer.fd, self._tick, timer)
        try:
            await asyncio.gather(*(self._user(at_once) for _ in range(users)))
        finally:
            loop.remove_reader(timer.fd)
            timer.close()

    def _tick(self, timer: Timer) -> None:
        """Record how late this process woke up: a response that arrived then was as late."""
        os.read(timer.fd, 8)
        now = now_ns()
        self._wakes.append((now - self._next_tick) / 1e9)
        self._next_tick = now + _TICK_NS
        timer.set(self._next_tick)

    async def _user(self, at_once: int) -> None:
        connections: list[Connection | None] = [None] * at_once
        try:
            while not self._stopped and (self._remaining is None or self._remaining > 0):
                if self._remaining is not None:
                    self._remaining -= 1
                due = now_ns()
                if self._pace_ns:
                    # Catch up by at most 20 ms, since the timers of an event loop are coarse.
                    self._next_start = max(self._next_start + self._pace_ns, due - 20_000_000)
                    if self._next_start > due:
                        await asyncio.sleep((self._next_start - due) / 1e9)
                        due = now_ns()
                exchanges = await asyncio.gather(
                    *(self._one(connections, index, due) for index in range(at_once))
                )
                if all(one.error for one in exchanges):
                    await asyncio.sleep(0.05)  # the target is down: do not spin
        finally:
            for connection in connections:
                if connection is not None:
                    connection.close()

    async def _one(self, connections: list[Connection | None], index: int, due: int) -> Exchange:
        payload = (self._first + self._number * self._stride) % len(self._payloads)
        exchange = Exchange(self._number, payload, due)
        exchange.picked = due
        self._number += 1
        try:
            async with asyncio.timeout(self._endpoint.timeout):
                used = await self._send(connections, index, exchange)
                if used and not exchange.first_byte and exchange.error in ("reset", "closed early"):
                    # The server had closed the kept connection: once more, as every client does.
                    self._recorder.retry()
                    connections[index] = None
                    exchange.error, exchange.ended = "", 0
                    await self._send(connections, index, exchange)
        except TimeoutError:
            hanging = connections[index]
            if hanging is not None:
                hanging.abort("timeout")
            exchange.error = exchange.error or "timeout"
        except OSError as error:
            exchange.error = connect_error(error)
        if exchange.error and connections[index] is not None:
            connection = connections[index]
            assert connection is not None
            self._waiting.pop(connection, None)
            connection.close()
            connections[index] = None
        exchange.ended = exchange.ended or now_ns()
        if not exchange.error:
            body = b"".join(exchange.body or ())
            headers = kept(exchange.headers)
            exchange.error = self._check(exchange.payload, exchange.status, headers, body)
        exchange.body = None
        self._recorder.record(
            exchange.due, exchange.picked, exchange.sent, exchange.first_byte, exchange.ended,
            exchange.status, exchange.payload, exchange.error,
        )  # fmt: skip
        return exchange

    async def _send(
        self, connections: list[Connection | None], index: int, exchange: Exchange
    ) -> bool:
        """Send the request and wait for its end; return whether its connection had served before.
        Raises OSError."""
        connection = connections[index]
        used = connection is not None and connection.transport is not None
        if connection is None or connection.transport is None:
            connection = connections[index] = await self._connect()
        future: asyncio.Future[Exchange] = asyncio.get_running_loop().create_future()
        self._waiting[connection] = future
        connection.send(self._payloads[exchange.payload], exchange)
        await future
        return used

    async def _connect(self) -> Connection:
        endpoint = self._endpoint
        _, connection = await asyncio.get_running_loop().create_connection(
            lambda: Connection(self),
            endpoint.host,
            endpoint.port,
            ssl=endpoint.tls,
            server_hostname=endpoint.server_name if endpoint.tls else None,
        )
        return connection

    # Responses ----------------------------------------------------------------------------

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
