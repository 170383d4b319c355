"""Splits a JSON body that arrives in pieces into its items, so that it is never parsed as a whole.

A list of many small values takes tens of times the memory of its text. Splitting costs a step for
each string and bracket, and holds one item at a time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Protocol

NDJSON = ("application/x-ndjson", "application/jsonl", "application/ndjson")
MAX_TOKENS = 500_000
"""Strings and brackets of one item. A value in memory takes 50 to 100 bytes."""
_BOM = b"\xef\xbb\xbf"
_SPACE = b" \t\r\n"
# Possessive: they never try again what they have passed.
_TO_STRUCTURE = re.compile(rb'[^"\[\]{},]*+')
_TO_BRACKET = re.compile(rb'[^"\[\]{}]*+')
_TO_QUOTE = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)


class ItemsError(ValueError):
    """The body is not valid JSON."""


class Splitter(Protocol):
    """``feed`` takes the next piece, ``finish`` the end. Both yield (number from 1, bytes) of each
    item that is complete; None instead of the bytes of a line that is too long. They are used up
    before the next call, and raise ItemsError."""

    def feed(self, piece: bytes) -> Iterator[tuple[int, bytes | None]]:
        """The items that ``piece`` completes."""
        ...

    def finish(self) -> Iterator[tuple[int, bytes | None]]:
        """The last item."""
        ...


def splitter(content_type: str, longest_line: int | None = None) -> Splitter:
    """The splitter for a content type: lines of JSON, or one JSON document. ``longest_line`` is in
    bytes."""
    kind = content_type.partition(";")[0].strip().lower()
    return Lines(longest_line) if kind in NDJSON else Document()


class Lines:
    """Non-empty lines; the numbers are those of all lines."""

    def __init__(self, longest: int | None = None) -> None:
        self._longest = longest
        self._line = bytearray()
        self._number = 1
        self._too_long = False

    def feed(self, piece: bytes) -> Iterator[tuple[int, bytes | None]]:
        """The lines that ``piece`` completes."""
        start = 0
        while (end := piece.find(b"\n", start)) >= 0:
            self._add(piece[start:end])
            yield from self._complete()
            start = end + 1
        self._add(piece[start:])

    def finish(self) -> Iterator[tuple[int, bytes | None]]:
        """The last line, which may lack its line break."""
        yield from self._complete()

    def _add(self, part: bytes) -> None:
        if not self._too_long:
            self._line += part
            longest = self._longest
            if longest is not None and len(self._line) > longest:
                # Spaces at the ends are not counted.
                self._too_long = len(self._line.strip()) > longest
                if self._too_long:
                    self._line.clear()

    def _complete(self) -> Iterator[tuple[int, bytes | None]]:
        number, line, too_long = self._number, bytes(self._line), self._too_long
        self._line.clear()
        self._number += 1
        self._too_long = False
        if number == 1:
            line = line.removeprefix(_BOM)
        if too_long:
            yield number, None
        elif line.strip():
            yield number, line


class Document:
    """The items of a JSON list; of any other document, the document.

    An item is not checked here: a list is valid JSON when each item is. Raises ItemsError when
    there is no document, no item where one is expected, text after the document, or an item with
    more than :data:`MAX_TOKENS` strings and brackets.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._start = 0
        """Start of the current item."""
        self._at = 0
        """Where scanning resumes."""
        self._depth = 0
        self._base: int | None = None
        """Depth of the items; None before the document."""
        self._in_string = False
        self._done = False
        self._tokens = 0
        self._number = 0

    def feed(self, piece: bytes) -> Iterator[tuple[int, bytes | None]]:
        """The items that ``piece`` completes."""
        self._buffer += piece
        if self._base is None and not self._begin():
            return
        while not self._done and (found := self._next()) is not None:
            if found == b"," or self._depth < 1:
                yield from self._complete(found)
        if self._done and bytes(self._buffer[self._at :]).strip(_SPACE):
            raise ItemsError("unexpected text after the end of the JSON document")
        drop = self._at if self._done else self._start
        del self._buffer[:drop]
        self._at -= drop
        self._start = 0

    def finish(self) -> Iterator[tuple[int, bytes | None]]:
        """The document, unless it is a list."""
        if self._base is None:
            raise ItemsError("the body is empty")
        if self._base == 1:
            if not self._done:
                raise ItemsError("the JSON document ends early")
            return
        yield 1, bytes(self._buffer)

    def _begin(self) -> bool:
        """Whether the document has begun: find out what it is."""
        text = self._buffer.lstrip(_SPACE)
        if not text:
            self._buffer.clear()
            return False
        self._buffer = text
        self._base = 1 if text.startswith(b"[") else 0
        if self._base:
            self._depth = self._start = self._at = 1
        return True

    def _next(self) -> bytes | None:
        """Scan to the next separator of items or bracket that closes; None at the end of what has
        arrived."""
        buffer = self._buffer
        size = len(buffer)
        while self._at < size:
            if self._in_string:
                at = _scan(_TO_QUOTE, buffer, self._at)
                if at >= size or buffer[at] != 0x22:  # at the end, or at a single backslash there
                    self._at = at
                    return None
                self._at = at + 1
                self._in_string = False
                continue
            between = self._base == 1 and self._depth == 1
            at = _scan(_TO_STRUCTURE if between else _TO_BRACKET, buffer, self._at)
            if at >= size:
                self._at = at
                return None
            found = bytes(buffer[at : at + 1])
            self._at = at + 1
            if found == b",":
                return found
            self._tokens += 1
            if self._tokens > MAX_TOKENS:
                raise ItemsError(f"an item has more than {MAX_TOKENS:,} strings and brackets")
            if found == b'"':
                self._in_string = True
            elif found in b"[{":
                self._depth += 1
            else:
                self._depth -= 1
                if self._base == 1 and self._depth < 1:
                    return found
        return None

    def _complete(self, found: bytes) -> Iterator[tuple[int, bytes | None]]:
        end = self._at - 1
        item = bytes(self._buffer[self._start : end])
        self._start = self._at
        self._tokens = 0
        if found != b",":
            if found != b"]":
                raise ItemsError("the JSON list is closed by another bracket")
            self._done = True
            if not self._number and not item.strip(_SPACE):
                return
        self._number += 1
        if not item.strip(_SPACE):
            raise ItemsError(f"item {self._number}: a value is missing")
        yield self._number, item


def _scan(pattern: re.Pattern[bytes], buffer: bytearray, at: int) -> int:
    found = pattern.match(buffer, at)
    assert found is not None, "the patterns match also nothing"
    return found.end()
