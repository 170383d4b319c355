"""Messages of gRPC calls to model servers, without protobuf: framing, names, and calls of a stream.

Only the standard library is used, so that workers may import it. The service is that of the Open
Inference Protocol, ``inference.GRPCInferenceService``.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from struct import Struct
from typing import NamedTuple

from understudy.common.protobuf import ProtobufError, fields, text

SERVICE = "/inference.GRPCInferenceService/"
INFER, STREAM_INFER = SERVICE + "ModelInfer", SERVICE + "ModelStreamInfer"
HEAD = Struct(">BI")
"""In front of each message: whether it is compressed, and its length in bytes."""
MAX_PEEKED = 64 * 1024
"""Bytes of a message that are looked at for its model: its name comes first."""
MAX_ID = 256
MAX_ERROR = 1024
"""Characters of an id and of an error that are kept."""
_MODEL, _VERSION, _ID, _PARAMETERS, _TENSORS = 0x0A, 0x12, 0x1A, 0x22, 0x2A
_ERROR, _RESPONSE = 0x0A, 0x12
_WINDOWS = {b"gzip": (31,), b"x-gzip": (31,), b"deflate": (15, -15)}


class FramingError(ValueError):
    """A body that is not a run of messages, or that is cut off."""


def frames(body: bytes) -> Iterator[tuple[bool, int, int]]:
    """The messages of a body: whether it is compressed, and where it begins and ends.

    Raises FramingError.

    >>> list(frames(b"\\0\\0\\0\\0\\2ab"))
    [(False, 5, 7)]
    """
    at, whole = 0, len(body)
    while at < whole:
        if whole - at < HEAD.size:
            raise FramingError("the head of a message is cut off")
        flag, size = HEAD.unpack_from(body, at)
        if flag > 1:
            raise FramingError("the body is not a run of gRPC messages")
        at += HEAD.size
        if size > whole - at:
            raise FramingError("a message is cut off")
        yield bool(flag), at, at + size
        at += size


class Message(NamedTuple):
    """``content`` is the beginning of a message that is longer than the limit; ``size`` is what it
    takes on the wire, with its head."""

    compressed: bool
    content: bytes
    size: int

    @property
    def whole(self) -> bool:
        """Whether the content is complete."""
        return len(self.content) + HEAD.size == self.size


class FrameReader:
    """Splits a body that arrives in pieces. Of a message of more than ``limit`` bytes,
    :data:`MAX_PEEKED` bytes are kept at most.

    After something that is not a run of messages, ``broken`` is true and nothing more is found.
    """

    def __init__(self, limit: int) -> None:
        self.broken = False
        self._limit = limit
        self._buffer = bytearray()
        self._left = 0
        """Bytes of the current message that are still to come."""
        self._head: tuple[bool, int] | None = None

    @property
    def kept(self) -> int:
        """Bytes of the message that is not complete."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[Message]:
        """The messages that the next piece completes."""
        found: list[Message] = []
        at, end = 0, len(data)
        while not self.broken:
            if self._head is None:
                missing = HEAD.size - len(self._buffer)
                self._buffer += data[at : at + missing]
                at = min(end, at + missing)
                if len(self._buffer) < HEAD.size:
                    break
                flag, self._left = HEAD.unpack(self._buffer)
                self._buffer.clear()
                self.broken = flag > 1
                self._head = bool(flag), self._left
                continue
            compressed, size = self._head
            piece = min(self._left, end - at)
            most = size if size <= self._limit else MAX_PEEKED
            self._buffer += data[at : at + min(piece, most - len(self._buffer))]
            at, self._left = at + piece, self._left - piece
            if self._left:
                break
            found.append(Message(compressed, bytes(self._buffer), HEAD.size + size))
            self._buffer.clear()
            self._head = None
        if self.broken:
            self._buffer.clear()
        return found


def framed(message: bytes, compressed: bool = False) -> bytes:
    """A message with its head."""
    return HEAD.pack(compressed, len(message)) + message


def model_of(body: bytes, encoding: bytes = b"") -> tuple[str, str] | None:
    """Model and version that the first message of a body names, a request or an answer.

    ``body`` may be the beginning of a body; None if it is too short to tell. ``encoding`` is the
    value of ``grpc-encoding``. Empty where the message does not say or cannot be read.

    >>> model_of(framed(b"\\x0a\\x01m\\x12\\x012"))
    ('m', '2')
    >>> model_of(b"\\0\\0\\0\\0\\7\\x0a\\x01m") is None
    True
    """
    if len(body) < HEAD.size:
        return None
    flag, size = HEAD.unpack_from(body)
    if flag > 1:
        return "", ""
    looked_at = min(size, MAX_PEEKED)
    message = body[HEAD.size : HEAD.size + looked_at]
    whole = len(message) == looked_at
    if flag:
        message, enough = _beginning(message, encoding)
        whole = whole or enough
    model = version = ""
    try:
        for tag, begin, end in fields(message, 0, len(message), cut=True):
            if tag not in (_MODEL, _VERSION):
                if model:
                    return model, version  # fields are written in order
            elif end > len(message):
                break
            elif tag == _MODEL:
                model = text(message, begin, end)
            else:
                version = text(message, begin, end)
    except ProtobufError:
        pass  # cut off, or damaged
    return (model, version) if whole else None


def _beginning(message: bytes, encoding: bytes) -> tuple[bytes, bool]:
    """The first bytes of a compressed message, and whether no more are needed; none of one that
    cannot be read."""
    for window in _WINDOWS.get(encoding.strip().lower(), ()):
        inflater = zlib.decompressobj(window)
        try:
            plain = inflater.decompress(message, MAX_PEEKED)
        except zlib.error:
            continue
        return plain, inflater.eof or len(plain) >= MAX_PEEKED
    return b"", True


class Peeked:
    """What the beginning of a message of a stream says.

    ``final`` is None unless the server says whether more answers to the request follow.
    """

    __slots__ = ("error", "final", "id")

    def __init__(self) -> None:
        self.id = ""
        self.error = ""
        self.final: bool | None = None


def peek(framed_message: Message, encoding: bytes, answer: bool) -> Peeked:
    """Id, error and end of an answer of ``ModelStreamInfer``, or of a request. Never raises; what
    cannot be read is missing."""
    found = Peeked()
    message = framed_message.content
    if framed_message.compressed:
        message, _ = _beginning(message[:MAX_PEEKED], encoding)
    try:
        if not answer:
            _inner(message, 0, len(message), found)
            return found
        for tag, begin, end in fields(message, 0, len(message), cut=True):
            end = min(end, len(message))
            if tag == _ERROR:
                found.error = text(message, begin, min(end, begin + MAX_ERROR))
            elif tag == _RESPONSE:
                _inner(message, begin, end, found)
    except ProtobufError:
        pass
    return found


def _inner(message: bytes, begin: int, end: int, found: Peeked) -> None:
    """Raises ProtobufError."""
    for tag, start, stop in fields(message, begin, end, cut=True):
        if tag >= _TENSORS or stop > end:
            return  # id and parameters come before
        if tag == _ID:
            found.id = text(message, start, min(stop, start + MAX_ID))
        elif tag == _PARAMETERS:
            key, value = "", (0, 0)
            for inner, first, last in fields(message, start, stop):
                if inner == 0x0A:
                    key = text(message, first, min(last, first + MAX_ID))
                elif inner == 0x12:
                    value = first, last
            if key == "triton_final_response":
                numbers = [number for tag, number, _ in fields(message, *value) if tag == 0x08]
                found.final = bool(numbers and numbers[-1])
