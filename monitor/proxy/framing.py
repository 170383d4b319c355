"""Finds the end of a chunked body without re-encoding it.

The bytes are forwarded unchanged, so accepted framing must be unambiguous to every parser:
sizes are plain hexadecimal, lines end in CRLF, extensions and trailers are bounded and free of
control characters (RFC 9112, section 7.1).
"""

from __future__ import annotations

import re

from understudy.monitor.errors import HttpError

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_QUOTED = rb'"(?:[\t \x21\x23-\x5b\x5d-\x7e]|\\[\t \x21-\x7e])*"'
_SIZE_LINE = re.compile(
    rb"([0-9A-Fa-f]{1,15})(?:;" + _TOKEN + rb"(?:=(?:" + _TOKEN + rb"|" + _QUOTED + rb"))?)*"
)
_TRAILER = re.compile(_TOKEN + rb":[^\x00-\x08\x0a-\x1f\x7f]*")
_FORBIDDEN_TRAILER = re.compile(
    rb"(?:content-length|transfer-encoding|host|connection|authorization|content-encoding|"
    rb"content-type|content-range|trailer|te)[:]",
    re.IGNORECASE,
)
_LINE_LIMIT = 1024
_TRAILERS_LIMIT = 16 * 1024

_SIZE = 0
_DATA = 1
_DATA_END = 2
_TRAILERS = 3
_DONE = 4


class Chunked:
    """Follows one chunked body through any split of its bytes.

    ``size`` is the number of payload bytes seen so far, without the framing.
    """

    __slots__ = ("_line", "_remaining", "_state", "_trailer_bytes", "size")

    def __init__(self) -> None:
        self._state = _SIZE
        self._remaining = 0
        self._line = b""
        self._trailer_bytes = 0
        self.size = 0

    @property
    def done(self) -> bool:
        """The last byte of the body has been seen."""
        return self._state == _DONE

    def feed(self, data: bytes, pieces: list[bytes] | None) -> int:
        """Take ``data``; return how many of its bytes belong to the body.

        That is all of them unless the body ends inside. Payload is appended to ``pieces`` when it
        is a list. Raises HttpError (400, ``bad_chunk``) at the first invalid byte.
        """
        position = 0
        end = len(data)
        while position < end:
            state = self._state
            if state == _DATA:
                take = min(self._remaining, end - position)
                if pieces is not None:
                    pieces.append(data[position : position + take])
                position += take
                self.size += take
                self._remaining -= take
                if self._remaining == 0:
                    self._state = _DATA_END
                continue
            if state == _DONE:
                break
            if state == _DATA_END and not b"\r\n".startswith(
                self._line + data[position : position + 2 - len(self._line)]
            ):
                raise HttpError(400, "bad_chunk", "a chunk is longer than it said")
            newline = data.find(b"\n", position)
            if newline < 0:
                self._line += data[position:]
                if len(self._line) > _LINE_LIMIT:
                    raise HttpError(400, "bad_chunk", "a line of the chunked framing is too long")
                return end
            line = data[position : newline + 1]
            if self._line:
                line = self._line + line
                self._line = b""
            position = newline + 1
            self._take_line(line)
        return position

    def _take_line(self, line: bytes) -> None:
        if len(line) > _LINE_LIMIT or line[-2:] != b"\r\n":
            raise HttpError(400, "bad_chunk", "a line of the chunked framing does not end in CRLF")
        text = line[:-2]
        if self._state == _SIZE:
            match = _SIZE_LINE.fullmatch(text)
            if match is None:
                raise HttpError(400, "bad_chunk", "a chunk's size is malformed")
            self._remaining = int(match[1], 16)
            self._state = _DATA if self._remaining else _TRAILERS
        elif self._state == _DATA_END:
            self._state = _SIZE
        elif not text:
            self._state = _DONE
        else:
            self._trailer_bytes += len(line)
            if self._trailer_bytes > _TRAILERS_LIMIT or _TRAILER.fullmatch(text) is None:
                raise HttpError(400, "bad_trailer", "a trailer is malformed or too long")
            if _FORBIDDEN_TRAILER.match(text) is not None:
                raise HttpError(400, "bad_trailer", "a trailer names a field that must come first")
