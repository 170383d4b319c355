"""One keep-alive connection of the open loop: one request out, one response in.

Parsed heads are cached by their bytes: servers repeat the same head, except for a date that changes
once a second. llhttp parses the others, and every body without a Content-Length.
"""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass

import httptools

from understudy.loadtest.engine.answer import kept

MOST_HEADS = 4096
"""Cached heads of all connections of a process."""
READ_BYTES = 65_536
"""Bytes that are received at a time, at most."""


@dataclass(frozen=True, slots=True)
class Head:
    """A parsed head; ``length`` None: the body is chunked, or ends with the connection;
    ``headers`` are the lines that checks need."""

    status: int
    length: int | None
    keep_alive: bool
    headers: bytes = b""


class InvalidResponse(Exception):
    """The bytes are not a valid response; the text is the reason by llhttp."""


class _ResponseParser:
    """Parses one response with llhttp."""

    def __init__(self) -> None:
        self.headers: list[tuple[bytes, bytes]] = []
        self.body: list[bytes] = []
        self.complete = False
        self.parser = httptools.HttpResponseParser(self)

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_body(self, body: bytes) -> None:
        self.body.append(body)

    def on_message_complete(self) -> None:
        # A 1xx precedes the response.
        self.complete = bool(self.parser.get_status_code() >= 200)

    def feed(self, data: bytes) -> None:
        """Raises InvalidResponse."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError as error:
            raise InvalidResponse(type(error).__name__) from None


def head_of(data: bytes) -> Head:
    """Parse a whole head, its empty line included. Raises InvalidResponse."""
    response = _ResponseParser()
    response.feed(data)
    status = response.parser.get_status_code()
    fields = dict(response.headers)
    keep_alive = bool(response.parser.should_keep_alive())
    lines = kept(response.headers)
    if status in (204, 304):
        return Head(status, 0, keep_alive, lines)
    length = fields.get(b"content-length")
    if status < 200 or length is None or b"transfer-encoding" in fields:
        return Head(status, None, keep_alive, lines)
    return Head(status, int(length), keep_alive, lines)


class Wire:
    """A non-blocking socket, and its current exchange.

    ``number`` counts the requests of the process, ``payload`` is the index of the payload. Times
    are monotonic nanoseconds, 0 for what has not happened; ``picked`` is when the engine was ready
    to send the request: the time from ``due`` to ``picked`` is the engine's own lag. ``ready``: the
    connection is open, TLS included; ``reusable``: it can serve another request; ``used``: it has
    served one; ``again``: its request is sent for the second time. ``leaves`` is when
    its client leaves, 0: never. ``times`` are those at which the
    pieces of the ``body`` came, where that is asked for.
    """

    __slots__ = (
        "_data",
        "_left",
        "_parser",
        "_until_close",
        "address",
        "again",
        "bodiless",
        "body",
        "busy",
        "due",
        "fd",
        "first_byte",
        "headers",
        "keep",
        "leaves",
        "mask",
        "number",
        "opened",
        "out",
        "payload",
        "picked",
        "ready",
        "reusable",
        "sent",
        "sock",
        "status",
        "times",
        "used",
    )

    def __init__(self, sock: socket.socket, address: int, opened: int, keep: bool) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self.address = address
        self.opened = opened
        self.ready = False
        self.reusable = True
        self.busy = self.used = self.again = False
        self.mask = 0
        self.out = b""
        self.keep = keep
        self.headers = b""
        self.body: list[bytes] = []
        self.times: list[int] = []
        self.bodiless = False
        self.number = self.payload = self.due = self.picked = self.sent = self.first_byte = 0
        self.status = self.leaves = 0
        self._data = b""
        self._left = 0
        self._parser: _ResponseParser | None = None
        self._until_close = False

    def write(self, data: bytes) -> None:
        """Send as much as the socket accepts; the rest stays in ``out``. Raises OSError."""
        try:
            sent = self.sock.send(data)
        except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
            sent = 0
        self.out = data[sent:] if sent < len(data) else b""

    def read(self) -> bytes | None:
        """Received bytes; empty at the end of the stream, None without any. Raises OSError."""
        try:
            return self.sock.recv(READ_BYTES)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return None

    def feed(self, data: bytes, heads: dict[bytes, Head]) -> bool:
        """Process bytes of the response; True when it is complete. Raises InvalidResponse."""
        if self._parser is not None:
            return self._feed_parser(data)
        if self._left:
            self._left -= len(data)
            if self.keep:
                self.body.append(data)
            if self._left < 0:
                raise InvalidResponse("more bytes than Content-Length")
            return not self._left
        if self._data:
            data = self._data + data
        end = data.find(b"\r\n\r\n")
        if end < 0:
            self._data = data
            if len(data) > READ_BYTES:
                raise InvalidResponse("head too large")
            return False
        self._data = b""
        end += 4
        raw = data[:end]
        head = heads.get(raw)
        if head is None:
            head = head_of(raw)
            if len(heads) >= MOST_HEADS:
                heads.clear()
            heads[raw] = head
        length = 0 if self.bodiless else head.length
        if length is None:
            self._parser = _ResponseParser()
            return self._feed_parser(data)
        self.status, self.headers = head.status, head.headers
        self.reusable = head.keep_alive
        have = len(data) - end
        if have > length:
            raise InvalidResponse("more bytes than Content-Length")
        if have and self.keep:
            self.body.append(data[end:])
        self._left = length - have
        return not self._left

    def _feed_parser(self, data: bytes) -> bool:
        parsed = self._parser
        assert parsed is not None
        parsed.feed(data)
        if self.keep:
            self.body += parsed.body
        parsed.body.clear()
        if parsed.complete:
            self.status, self.headers = parsed.parser.get_status_code(), kept(parsed.headers)
            self.reusable = bool(parsed.parser.should_keep_alive())
            self._parser = None
            return True
        names = {name for name, _ in parsed.headers}
        self._until_close = not names & {b"content-length", b"transfer-encoding"}
        return False

    def ended(self) -> bool:
        """Whether the close of the connection completes the response."""
        parsed = self._parser
        if parsed is None or not self._until_close:
            return False
        self.status, self.headers = parsed.parser.get_status_code(), kept(parsed.headers)
        self.reusable = False
        return bool(self.status >= 200)

    def begin(self) -> None:
        """Reset the state of the previous exchange."""
        self.status = self.first_byte = self._left = 0
        self._data = b""
        self._parser = None
        self._until_close = False
        if self.body:
            self.body, self.times = [], []
