"""The wire format of protocol buffers: fields of a message, read without its description.

Only the standard library is used, so that workers may import it. Messages are read in place: a
field with a length is the pair of indices of its content. What is damaged raises
:class:`ProtobufError`; nothing is built whose size the message does not have.
"""

from __future__ import annotations

from collections.abc import Iterator

VARINT, FIXED64, LENGTH, GROUP, END_GROUP, FIXED32 = range(6)
"""Wire types: the lowest three bits of a tag."""
MAX_DEPTH = 64
"""Nesting of groups, which are skipped: old messages have some."""
MAX_FIELDS = 262_144
"""Fields of one message: reading one costs time whether it is known or not."""
_SIGN = 1 << 63
_RANGE = 1 << 64

Field = tuple[int, int, int]
"""Tag (number × 8 + wire type), then begin and end of the content; of a varint, its value and 0."""


class ProtobufError(ValueError):
    """Bytes that are not a message."""


class TooManyFieldsError(ProtobufError):
    """A message of more than :data:`MAX_FIELDS` fields."""


def varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    """An unsigned number and the index after it. Raises ProtobufError.

    >>> varint(b"\\xac\\x02", 0, 2)
    (300, 2)
    """
    value = shift = 0
    while at < end and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value % _RANGE, at
        shift += 7
    raise ProtobufError("a number is cut off or too long")


def signed(value: int) -> int:
    """The int64 that an unsigned number of 64 bits stands for."""
    return value - _RANGE if value >= _SIGN else value


def fields(data: bytes, begin: int, end: int, cut: bool = False) -> Iterator[Field]:
    """The fields of the message in ``data[begin:end]``, in order. Raises ProtobufError.

    With ``cut``, only the beginning of the message is there: of a field that is not there as a
    whole, the indices say where it would end, and it is the last one.

    >>> list(fields(b"\\x0a\\x01m\\x10\\x07", 0, 5))
    [(10, 2, 3), (16, 7, 0)]
    """
    at, left = begin, MAX_FIELDS
    while at < end:
        left -= 1
        if left < 0:
            raise TooManyFieldsError("a message has too many fields")
        tag = data[at]
        if tag < 128:
            at += 1
        else:
            tag, at = varint(data, at, end)
        kind = tag & 7
        if tag < 8:
            raise ProtobufError("a field has the number 0")
        if kind == LENGTH:
            if at < end and data[at] < 128:
                size, at = data[at], at + 1
            else:
                size, at = varint(data, at, end)
            start, at = at, at + size
            if at > end and not cut:
                raise ProtobufError("a field is cut off")
            yield tag, start, at
        elif kind == VARINT:
            value, at = varint(data, at, end)
            yield tag, value, 0
        elif kind in (FIXED32, FIXED64):
            start, at = at, at + (4 if kind == FIXED32 else 8)
            if at > end:
                raise ProtobufError("a field is cut off")
            yield tag, start, at
        else:
            at = _after_group(data, tag, at, end)


def _after_group(data: bytes, tag: int, at: int, end: int) -> int:
    """The index after a group that begins with ``tag``. Raises ProtobufError."""
    opened: list[int] = []
    left = MAX_FIELDS
    while True:
        kind = tag & 7
        left -= 1
        if tag < 8 or kind > FIXED32 or left < 0:
            raise ProtobufError("a field has an invalid tag")
        if kind == GROUP:
            opened.append(tag)
            if len(opened) > MAX_DEPTH:
                raise ProtobufError("groups are nested too deeply")
        elif kind == END_GROUP:
            if not opened or opened.pop() != tag - 1:
                raise ProtobufError("a group does not begin")
        elif kind == VARINT:
            _, at = varint(data, at, end)
        elif kind == LENGTH:
            size, at = varint(data, at, end)
            at += size
        else:
            at += 4 if kind == FIXED32 else 8
        if at > end:
            raise ProtobufError("a group is cut off")
        if not opened:
            return at
        tag, at = varint(data, at, end)


def text(data: bytes, begin: int, end: int) -> str:
    """A string; bytes that are not UTF-8 are written as ``\\xff``."""
    return data[begin:end].decode("utf-8", "backslashreplace")


def packed(data: bytes, begin: int, end: int) -> list[int]:
    """The unsigned numbers of a packed field. Raises ProtobufError."""
    content = data[begin:end]
    if content.isascii():  # all are below 128
        return list(content)
    found: list[int] = []
    add = found.append
    value = shift = 0
    for byte in content:
        value |= (byte & 127) << shift
        if byte < 128:
            add(value % _RANGE)
            value = shift = 0
        else:
            shift += 7
            if shift >= 70:
                raise ProtobufError("a number is too long")
    if shift:
        raise ProtobufError("a number is cut off")
    return found
