"""One keep-alive connection of the open loop: bytes out, one answer in, and nothing in between.

A head that was seen before is known by its bytes: servers send the same one again and again, but
for a date that changes once a second. Others are parsed by llhttp, and so is every body that has
no length of its own.
"""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass

import httptools

MOST_HEADS = 4096
"""Heads that are remembered, of all connections of a process."""
_PIECE = 65_536


@dataclass(frozen=True, slots=True)
class Head:
    """What a head says: ``length`` None: the body is chunked, or ends with the connection."""

    status: int
    length: int | None
    keep_alive: bool


class Garbage(Exception):
    """Bytes that are no answer; its text names what llhttp says."""


class _Parsed:
    """Callbacks for one answer."""

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
        # A 1xx comes before the answer.
        self.complete = bool(self.parser.get_status_code() >= 200)

    def feed(self, data: bytes) -> None:
        """Raises Garbage."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError as error:
            raise Garbage(type(error).__name__) from None


def head_of(data: bytes) -> Head:
    """What a whole head says, its empty line included. Raises Garbage."""
    found = _Parsed()
    found.feed(data)
    status = found.parser.get_status_code()
    named = dict(found.headers)
    keep_alive = bool(found.parser.should_keep_alive())
    if status in (204, 304):
        return Head(status, 0, keep_alive)
    length = named.get(b"content-length")
    if status < 200 or length is None or b"transfer-encoding" in named:
        return Head(status, None, keep_alive)
    return Head(status, int(length), keep_alive)


class Wire:
    """A socket that does not block, and the one exchange that it is busy with.

    ``number`` counts the requests of the process, ``payload`` is which of the payloads it is. Times
    are nanoseconds of the monotonic clock, 0 for what has not been; ``picked`` is when the engine
    came to it: what lies between ``due`` and that is the engine's own lag. ``ready`` is a
    connection that is open, TLS included; ``reusable`` one that may be used again.
    """

    __slots__ = (
        "_data",
        "_left",
        "_parsed",
        "_until_close",
        "address",
        "bodiless",
        "body",
        "busy",
        "due",
        "fd",
        "first_byte",
        "keep",
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
    )

    def __init__(self, sock: socket.socket, address: int, opened: int, keep: bool) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self.address = address
        self.opened = opened
        self.ready = False
        self.reusable = True
        self.busy = False
        self.mask = 0
        self.out = b""
        self.keep = keep
        self.body: list[bytes] = []
        self.bodiless = False
        self.number = self.payload = self.due = self.picked = self.sent = self.first_byte = 0
        self.status = 0
        self._data = b""
        self._left = 0
        self._parsed: _Parsed | None = None
        self._until_close = False

    def write(self, data: bytes) -> None:
        """Send what can be sent, and keep the rest in ``out``. Raises OSError."""
        try:
            sent = self.sock.send(data)
        except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
            sent = 0
        self.out = data[sent:] if sent < len(data) else b""

    def read(self) -> bytes | None:
        """What has come; empty at the end, None when nothing has. Raises OSError."""
        try:
            return self.sock.recv(_PIECE)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return None

    def take(self, data: bytes, heads: dict[bytes, Head]) -> bool:
        """Take bytes of the answer; True when it is whole. Raises Garbage."""
        if self._parsed is not None:
            return self._slow(data)
        if self._left:
            self._left -= len(data)
            if self.keep:
                self.body.append(data)
            if self._left < 0:
                raise Garbage("more than the answer")
            return not self._left
        if self._data:
            data = self._data + data
        end = data.find(b"\r\n\r\n")
        if end < 0:
            self._data = data
            if len(data) > _PIECE:
                raise Garbage("head too large")
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
            self._parsed = _Parsed()
            return self._slow(data)
        self.status = head.status
        self.reusable = head.keep_alive
        have = len(data) - end
        if have > length:
            raise Garbage("more than the answer")
        if have and self.keep:
            self.body.append(data[end:])
        self._left = length - have
        return not self._left

    def _slow(self, data: bytes) -> bool:
        parsed = self._parsed
        assert parsed is not None
        parsed.feed(data)
        if self.keep:
            self.body += parsed.body
        parsed.body.clear()
        if parsed.complete:
            self.status = parsed.parser.get_status_code()
            self.reusable = bool(parsed.parser.should_keep_alive())
            self._parsed = None
            return True
        names = {name for name, _ in parsed.headers}
        self._until_close = not names & {b"content-length", b"transfer-encoding"}
        return False

    def ended(self) -> bool:
        """The connection is closed: whether that is how the answer ends."""
        parsed = self._parsed
        if parsed is None or not self._until_close:
            return False
        self.status = parsed.parser.get_status_code()
        self.reusable = False
        return bool(self.status >= 200)

    def begin(self) -> None:
        """Forget the exchange before."""
        self.status = self.first_byte = self._left = 0
        self._data = b""
        self._parsed = None
        self._until_close = False
        if self.body:
            self.body = []
