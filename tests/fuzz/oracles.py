"""Second opinions for the fuzzer: llhttp for what is forwarded, a reader for what comes back."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import httptools

_KNOWN = frozenset(
    b"DELETE GET HEAD POST PUT OPTIONS TRACE PATCH COPY LOCK MKCOL MOVE PROPFIND PURGE".split()
)
_STATUS = re.compile(rb"HTTP/1\.1 ([1-5]\d\d)(?: [^\x00-\x08\x0a-\x1f\x7f]*)?")
_FIELD = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*)")


class Failure(AssertionError):
    """An invariant does not hold."""


class Wire:
    """A transport in memory, with flow control."""

    def __init__(self, loop: asyncio.AbstractEventLoop, protocol: Any) -> None:
        self._loop = loop
        self.protocol = protocol
        self.closing = False
        self.reading = True
        self.choked = False
        self.out = bytearray()
        protocol.connection_made(self)

    def write(self, data: bytes) -> None:
        if not self.closing:
            self.out += data

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        if not self.closing:
            self.closing = True
            self._loop.call_soon(self.protocol.connection_lost, None)

    abort = close

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        pass

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def get_write_buffer_size(self) -> int:
        return 5000 * self.choked

    def set_write_buffer_limits(self, high: int) -> None:
        pass

    def flow(self, choked: bool) -> None:
        """Let the peer read, or not."""
        if choked != self.choked and not self.closing:
            self.choked = choked
            (self.protocol.pause_writing if choked else self.protocol.resume_writing)()


class RequestOracle:
    """llhttp, reading what is forwarded on one upstream connection."""

    def __init__(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        self.open = False
        """A request has begun whose end has not come."""
        self.head = False
        """The head of the request has been read."""
        self.upgraded = False
        self.complete: list[tuple[bytes, bytes, dict[bytes, bytes], int]] = []
        """Method, target, fields and length of the body of each request since :meth:`feed`."""

    def feed(self, data: bytes, method: bytes) -> None:
        """Raises HttpParserError. ``method`` is that of the request under way."""
        if self.upgraded:
            return
        self.complete = []
        if not self.open:
            if not data.startswith(method + b" "):
                raise Failure(f"another method than {method!r} was forwarded: {data[:80]!r}")
            # llhttp has a list of methods; HTTP has none.
            self._stands_for = method
            if method not in _KNOWN:
                data = b"POST" + data[len(method) :]
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.upgraded = True

    def on_message_begin(self) -> None:
        self.open = True
        self.head = False
        self._url = b""
        self._fields: dict[bytes, bytes] = {}
        self._size = 0

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name in (b"host", b"content-length", b"transfer-encoding") and name in self._fields:
            raise Failure(f"{name!r} twice")
        self._fields[name] = value.strip(b" \t")

    def on_headers_complete(self) -> None:
        self.head = True

    def on_body(self, body: bytes) -> None:
        self._size += len(body)

    def on_message_complete(self) -> None:
        self.open = False
        self.complete.append((self._stands_for, self._url, self._fields, self._size))


class AnswerOracle:
    """llhttp, reading one answer of an upstream as the upstream sent it."""

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._final = False
        self.whole = False
        self.body = b""

    def feed(self, data: bytes) -> None:
        """Raises HttpParserError, but not for what follows the answer."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.whole = True
        except httptools.HttpParserError:
            if not self.whole:
                raise

    def on_headers_complete(self) -> None:
        self._final = self._parser.get_status_code() >= 200

    def on_body(self, body: bytes) -> None:
        if not self.whole:
            self.body += body

    def on_message_complete(self) -> None:
        self.whole = self.whole or self._final


class Answer:
    """One final answer as the client got it, in ``raw`` with its interim ones; ``end`` is where the
    next one begins."""

    def __init__(self, data: bytes, begin: int, to_head: bool) -> None:
        start = begin
        self.interim = 0
        while True:
            end = data.find(b"\r\n\r\n", begin)
            if end < 0:
                raise Failure(f"no whole head: {data[begin : begin + 200]!r}")
            first, *lines = data[begin:end].split(b"\r\n")
            status = _STATUS.fullmatch(first)
            if status is None:
                raise Failure(f"no status line: {first!r}")
            self.status = int(status[1])
            begin = end + 4
            if self.status >= 200 or self.status == 101:
                break
            self.interim += 1
        self.fields: dict[bytes, bytes] = {}
        for line in lines:
            field = _FIELD.fullmatch(line)
            if field is None:
                raise Failure(f"no field: {line!r}")
            name = field[1].lower()
            if name in (b"content-length", b"transfer-encoding") and name in self.fields:
                raise Failure(f"{name!r} twice in an answer")
            self.fields[name] = field[2].rstrip(b" \t")
        self.body = b""
        self.whole = True
        self.until_close = False
        length = self.fields.get(b"content-length")
        coding = self.fields.get(b"transfer-encoding")
        if length is not None and coding is not None:
            raise Failure("an answer with two lengths")
        if to_head or self.status in (101, 204, 304):
            self.end = begin
        elif coding is not None:
            self._chunks(data, begin)
        elif length is not None:
            self.body = data[begin : begin + int(length)]
            self.end = begin + len(self.body)
            self.whole = len(self.body) == int(length)
        else:
            self.body = data[begin:]
            self.end = len(data)
            self.until_close = True
        self.raw = data[start : self.end]

    def _chunks(self, data: bytes, at: int) -> None:
        self.whole = False
        self.end = len(data)
        while (newline := data.find(b"\r\n", at)) >= 0:
            size = int(data[at:newline].partition(b";")[0], 16)
            at = newline + 2
            if size == 0:
                break
            self.body += data[at : at + size]
            at += size + 2
            if len(data) < at:
                return
            if data[at - 2 : at] != b"\r\n":
                raise Failure("a chunk of an answer has another length than it said")
        else:
            return
        while (newline := data.find(b"\r\n", at)) > at:
            if _FIELD.fullmatch(data[at:newline]) is None:
                raise Failure(f"a bad trailer was passed on: {data[at:newline]!r}")
            at = newline + 2
        if newline == at:
            self.whole = True
            self.end = at + 2
