"""One keep-alive connection to the target, and one exchange at a time on it."""

from __future__ import annotations

import asyncio
from typing import Protocol

import httptools

from understudy.loadtest.engine.answer import KEPT
from understudy.loadtest.engine.timer import now_ns


class Exchange:
    """A request in flight. Times are monotonic nanoseconds, 0 for what has not happened.

    ``number`` counts the requests of the process, ``payload`` is the index of its payload.
    ``picked`` is when the engine was ready to send it: the time from ``due`` to ``picked`` is the
    engine's lag, the rest is the target's. ``status`` is HTTP's, or 0; ``error`` is the reason for
    which the exchange failed, or empty.
    """

    __slots__ = (
        "body",
        "due",
        "ended",
        "error",
        "first_byte",
        "headers",
        "number",
        "payload",
        "picked",
        "sent",
        "status",
    )

    def __init__(self, number: int, payload: int, due: int) -> None:
        self.number = number
        self.payload = payload
        self.due = due
        self.picked = 0
        self.sent = 0
        self.first_byte = 0
        self.ended = 0
        self.status = 0
        self.error = ""
        self.body: list[bytes] | None = None
        self.headers: list[tuple[bytes, bytes]] = []


class Owner(Protocol):
    """What a connection reports to."""

    keep_bodies: bool

    def finished(self, connection: Connection, exchange: Exchange, reusable: bool) -> None:
        """An exchange has ended, with or without an error."""

    def lost(self, connection: Connection) -> None:
        """An idle connection was closed."""


class Connection(asyncio.Protocol):
    """Sends requests as bytes; llhttp parses the responses."""

    __slots__ = ("_exchange", "_owner", "_parser", "_reusable", "transport")

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._exchange: Exchange | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._reusable = True
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        self._parser = httptools.HttpResponseParser(self)

    def send(self, request: bytes, exchange: Exchange) -> None:
        """Send a whole request; the connection must be idle."""
        assert self.transport is not None
        self._exchange = exchange
        exchange.sent = now_ns()
        if self._owner.keep_bodies:
            exchange.body = []
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        exchange, parser = self._exchange, self._parser
        if exchange is None or parser is None:
            self._reusable = False  # a response without a request
            self.close()
            return
        if not exchange.first_byte:
            exchange.first_byte = now_ns()
        try:
            parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._end(f"garbage: {type(error).__name__}")
            self.close()

    # Called by the parser.

    def on_header(self, name: bytes, value: bytes) -> None:
        exchange, lowered = self._exchange, name.lower()
        if exchange is not None and lowered in KEPT:
            exchange.headers.append((lowered, value))

    def on_body(self, body: bytes) -> None:
        exchange = self._exchange
        if exchange is not None and exchange.body is not None:
            exchange.body.append(body)

    def on_message_complete(self) -> None:
        parser, exchange = self._parser, self._exchange
        if parser is None or exchange is None:
            return
        status = parser.get_status_code()
        if status < 200:
            return  # a 1xx precedes the response
        exchange.status = status
        self._reusable = parser.should_keep_alive()
        self._end("")

    def _end(self, error: str) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is None:
            return
        exchange.ended = now_ns()
        exchange.error = error
        reusable = self._reusable and not error
        if reusable:
            # A new parser for each response is cheaper than resetting one in an unknown state.
            self._parser = httptools.HttpResponseParser(self)
        self._owner.finished(self, exchange, reusable)

    def connection_lost(self, exc: Exception | None) -> None:
        self._reusable = False
        if self._exchange is None:
            self._owner.lost(self)
            return
        self._end("reset" if exc is not None else "closed early")

    def abort(self, why: str) -> None:
        """End the exchange and the connection."""
        self._reusable = False
        self._end(why)
        self.close()

    def close(self) -> None:
        """Close at once."""
        if self.transport is not None:
            self.transport.abort()
