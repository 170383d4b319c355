"""The wire format of protocol buffers, written: fields of a message, without its description."""

from __future__ import annotations

from collections.abc import Iterable
from struct import pack

_VARINT, _FIXED64, _LENGTH = 0, 1, 2
_RANGE = 1 << 64


def varint(value: int) -> bytes:
    """Base-128 encoding of a number of 64 bits; one below zero is written as int64 is.

    >>> varint(300).hex()
    'ac02'
    """
    value %= _RANGE
    result = bytearray()
    while value > 0x7F:
        result.append(value & 0x7F | 0x80)
        value >>= 7
    result.append(value)
    return bytes(result)


def _field(number: int, wire: int, payload: bytes) -> bytes:
    return varint(number << 3 | wire) + payload


def message(number: int, payload: bytes) -> bytes:
    """A field that is a message, or bytes."""
    return _field(number, _LENGTH, varint(len(payload)) + payload)


def text(number: int, value: str) -> bytes:
    """A field that is a string."""
    return message(number, value.encode())


def double(number: int, value: float) -> bytes:
    """A field that is a number of 64 bits with a fraction."""
    return _field(number, _FIXED64, pack("<d", value))


def integer(number: int, value: int) -> bytes:
    """A field that is a whole number."""
    return _field(number, _VARINT, varint(value))


def packed(number: int, values: Iterable[int]) -> bytes:
    """A repeated field of whole numbers."""
    return message(number, b"".join(map(varint, values)))
