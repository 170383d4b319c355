"""Finds the end of a chunked body without re-encoding it.

The bytes are forwarded unchanged, so accepted framing must be unambiguous to every parser:
sizes are plain hexadecimal, lines end in CRLF, extensions and trailers are bounded and free of
control characters (RFC 9112, section 7.1).
"""

from __future__ import annotations

import re
from sys import maxsize
from typing import Final

from understudy.monitor.errors import HttpError
from understudy.monitor.records.credentials import CREDENTIAL_HEADERS, matcher

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
_is_credential = matcher(CREDENTIAL_HEADERS)
_LINE_LIMIT: Final = 1024
_TRAILERS_LIMIT: Final = 16 * 1024
OVERHEAD_LIMIT: Final = 16 * 1024
"""Bytes that the long size lines of a body (those with extensions) may take beyond its payload."""
_SHORT_LINE: Final = 18
"""A size line up to this length is not overhead: 16 digits and CRLF."""
_CACHED: Final = 4096
_sizes: dict[bytes, int] = {}
"""Short size lines that were parsed before."""

_SIZE: Final = 0
_DATA: Final = 1
_DATA_END: Final = 2
_TRAILERS: Final = 3
_DONE: Final = 4


class Chunked:
    """Follows one chunked body through any split of its bytes.

    ``size`` is the number of payload bytes seen so far, ``framed`` that of all bytes of the body,
    and ``lines`` the number of lines (chunks and trailers) that the last call of :meth:`feed` took.
    Those of a ``request`` must not have credentials in their trailers.
    """

    __slots__ = (
        "_line",
        "_overhead",
        "_remaining",
        "_request",
        "_state",
        "_trailer_bytes",
        "framed",
        "lines",
        "size",
    )

    def __init__(self, request: bool = False) -> None:
        self._request = request
        self._state = _SIZE
        self._remaining = 0
        self._line = b""
        self._trailer_bytes = 0
        self._overhead = 0
        self.size = 0
        self.framed = 0
        self.lines = 0

    @property
    def done(self) -> bool:
        """The last byte of the body has been seen."""
        return self._state == _DONE

    def feed(self, data: bytes, pieces: list[bytes] | None, limit: int = maxsize) -> int:
        """Take ``data``; return how many of its bytes belong to the body and were parsed.

        That is all of them unless the body ends inside, or has more lines than ``limit``: the rest
        is for another call. Payload is appended to ``pieces`` when it is a list. Raises HttpError
        (400) at the first invalid byte: ``bad_chunk``, ``bad_trailer``, or ``chunk_overhead`` for
        extensions that are larger than payload and allowance.
        """
        position = 0
        end = len(data)
        left = limit
        while position < end and left > 0:
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
            newline = data.find(b"\n", position, position + _LINE_LIMIT)
            if newline < 0:
                self._line += data[position : position + _LINE_LIMIT]
                if len(self._line) >= _LINE_LIMIT:
                    raise HttpError(400, "bad_chunk", "a line of the chunked framing is too long")
                position = end
                break
            line = data[position : newline + 1]
            if self._line:
                line = self._line + line
                self._line = b""
            position = newline + 1
            if state == _SIZE:
                left -= 1
                size = _sizes.get(line)
                if size is None:
                    size = self._parse_size(line)
                close = position + size
                if size and data[close : close + 2] == b"\r\n":
                    # The whole chunk is here, as are nearly all of those that are small.
                    if pieces is not None:
                        pieces.append(data[position:close])
                    self.size += size
                    position = close + 2
                else:
                    self._remaining = size
                    self._state = _DATA if size else _TRAILERS
            elif state == _DATA_END:
                self._state = _SIZE
            else:
                left -= 1
                self._take_trailer(line)
        self.lines = limit - left
        self.framed += position
        return position

    def _parse_size(self, line: bytes) -> int:
        match = _SIZE_LINE.fullmatch(_without_end(line))
        if match is None:
            raise HttpError(400, "bad_chunk", "a chunk's size is malformed")
        size = int(match[1], 16)
        if len(line) <= _SHORT_LINE:
            if len(_sizes) >= _CACHED:
                _sizes.clear()
            _sizes[line] = size
            return size
        self._overhead += len(line)
        if self._overhead > OVERHEAD_LIMIT + self.size:
            raise HttpError(
                400, "chunk_overhead", "the extensions of the chunks exceed payload and 16 KiB"
            )
        return size

    def _take_trailer(self, line: bytes) -> None:
        text = _without_end(line)
        if not text:
            self._state = _DONE
            return
        self._trailer_bytes += len(line)
        if self._trailer_bytes > _TRAILERS_LIMIT or _TRAILER.fullmatch(text) is None:
            raise HttpError(400, "bad_trailer", "a trailer is malformed or too long")
        if _FORBIDDEN_TRAILER.match(text) is not None:
            raise HttpError(400, "bad_trailer", "a trailer names a field that must come first")
        # Bodies are forwarded as they are, so these would reach model servers that must not get
        # them.
        if self._request and _is_credential(text.partition(b":")[0]):
            raise HttpError(400, "bad_trailer", "a trailer carries credentials")


def _without_end(line: bytes) -> bytes:
    if len(line) > _LINE_LIMIT or line[-2:] != b"\r\n":
        raise HttpError(400, "bad_chunk", "a line of the chunked framing does not end in CRLF")
    return line[:-2]
