"""Open Inference Protocol V2 over gRPC: messages as the JSON that says the same.

A body is a run of messages, each with a head of five bytes. Tensors have their elements in the
message (``contents``) or behind all tensors (``raw_*_contents``), which are read as the binary
tensors of HTTP are. A tensor that cannot be read costs only itself.

Of a stream, the tables of several requests are put together. Several answers to one request become
one: texts of one element are joined, as language models send them in pieces, and of everything else
the last answer counts.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import chain
from struct import iter_unpack
from typing import Any

from understudy.common.codecs.binary import MANY, MAX_ELEMENTS, elements
from understudy.common.codecs.compressed import MAX_DECOMPRESSED, MAX_GROWTH, decompressed
from understudy.common.codecs.headers import fields_of
from understudy.common.codecs.table import Reason, Undecodable
from understudy.common.grpc_messages import FramingError, frames
from understudy.common.protobuf import (
    ProtobufError,
    TooManyFieldsError,
    fields,
    packed,
    signed,
    text,
)

MAX_TENSORS = 4096
MAX_DIMENSIONS = 32
MAX_MESSAGES = 10_000
"""Messages of one body that are read."""

_LONGEST = 4096
"""Bytes of headers that are looked at."""
_ERROR = Undecodable(Reason.ERROR_RESPONSE)
_UNFIT = Undecodable(Reason.WRONG_SHAPE, "the contents of a tensor do not fit its datatype")

# Tags: number × 8 + wire type.
_NAME, _DATATYPE, _SHAPE, _ONE_DIMENSION = 0x0A, 0x12, 0x1A, 0x18
_PARAMETERS, _CONTENTS = 0x22, 0x2A
_VERSION, _ID, _FIFTH, _SIXTH, _SEVENTH = 0x12, 0x1A, 0x2A, 0x32, 0x3A
_STREAM_ERROR, _STREAM_ANSWER = 0x0A, 0x12
_BOOL, _INT, _INT64, _UINT, _UINT64, _FP32, _FP64, _BYTES = range(1, 9)
_CONTENT_OF = {
    "BOOL": _BOOL,
    **dict.fromkeys(("INT8", "INT16", "INT32"), _INT),
    "INT64": _INT64,
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), _UINT),
    "UINT64": _UINT64,
    "FP32": _FP32,
    "FP64": _FP64,
    "BYTES": _BYTES,
}
"""The field of the contents that holds the elements of a datatype; FP16 and BF16 have none."""

Payload = dict[str, Any] | Undecodable


def request_of(headers: bytes, body: bytes | memoryview) -> Payload:
    """The payload of a ``ModelInfer`` or ``ModelStreamInfer`` request."""
    messages = _messages(headers, body)
    if isinstance(messages, Undecodable):
        return messages
    return _together([_message(one, 0, len(one), "inputs", _FIFTH, _SEVENTH) for one in messages])


def response_of(headers: bytes, body: bytes | memoryview) -> Payload:
    """The payload of an answer of ``ModelInfer``."""
    messages = _answers(headers, body)
    if isinstance(messages, Undecodable):
        return messages
    last = messages[-1]
    return _message(last, 0, len(last), "outputs", _FIFTH, _SIXTH)


def stream_response_of(headers: bytes, body: bytes | memoryview) -> Payload:
    """The payload of the answers of ``ModelStreamInfer``."""
    messages = _answers(headers, body)
    if isinstance(messages, Undecodable):
        return messages
    payloads: list[Payload] = []
    for message in messages:
        try:
            for tag, begin, end in fields(message, 0, len(message)):
                if tag == _STREAM_ERROR and end > begin:
                    return _ERROR
                if tag == _STREAM_ANSWER:
                    payloads.append(_message(message, begin, end, "outputs", _FIFTH, _SIXTH))
        except ProtobufError as error:
            return _unread(error)
    # The last answer of a decoupled model may be empty.
    payloads = [one for one in payloads if isinstance(one, Undecodable) or one["outputs"]]
    ids = {one["id"] for one in payloads if isinstance(one, dict)}
    return _one_answer(payloads) if len(ids) == 1 else _together(payloads)


def _unread(error: ProtobufError) -> Undecodable:
    large = isinstance(error, TooManyFieldsError)
    return Undecodable(Reason.TOO_LARGE if large else Reason.WRONG_SHAPE, str(error))


# Framing ------------------------------------------------------------------------------------------


@lru_cache(maxsize=256)
def _about(headers: bytes) -> tuple[bytes, bool]:
    """``grpc-encoding``, and whether ``grpc-status`` is there and not 0."""
    found = fields_of(headers)
    status = found.get(b"grpc-status", b"").strip()
    return found.get(b"grpc-encoding", b"").strip(), status not in (b"", b"0")


def _answers(headers: bytes, body: bytes | memoryview) -> list[bytes] | Undecodable:
    # A call that fails has a status and usually no message.
    if not body or _about(headers[:_LONGEST])[1]:
        return _ERROR
    return _messages(headers, body)


def _messages(headers: bytes, body: bytes | memoryview) -> list[bytes] | Undecodable:
    """The messages of a body, at least one, decompressed."""
    body = bytes(body)
    encoding, _ = _about(headers[:_LONGEST])
    room = max(MAX_DECOMPRESSED, MAX_GROWTH * len(body))
    found: list[bytes] = []
    try:
        for compressed, begin, end in frames(body):
            message = body[begin:end]
            if compressed:
                if encoding in (b"", b"identity"):
                    return Undecodable(Reason.UNSUPPORTED_ENCODING, "grpc-encoding is missing")
                plain = decompressed(encoding, message, room)
                if isinstance(plain, Undecodable):
                    return plain
                room -= len(plain)
                message = plain
            found.append(message)
            if len(found) > MAX_MESSAGES:
                return Undecodable(Reason.TOO_LARGE, "the stream has too many messages")
    except FramingError as error:
        cut = "cut off" in str(error)
        return Undecodable(Reason.TRUNCATED if cut else Reason.WRONG_SHAPE, str(error))
    return found or Undecodable(Reason.EMPTY)


# Messages -----------------------------------------------------------------------------------------


def _message(data: bytes, begin: int, end: int, key: str, tensor: int, raw: int) -> Payload:
    """The payload of ``ModelInferRequest`` or ``ModelInferResponse``; ``tensor`` and ``raw`` are
    the tags of its tensors and of their raw contents."""
    tensors: list[_Tensor] = []
    raws: list[tuple[int, int]] = []
    id_ = version = ""
    try:
        for tag, first, last in fields(data, begin, end):
            if tag == tensor:
                tensors.append(_Tensor(data, first, last))
            elif tag == raw:
                raws.append((first, last))
            elif tag == _ID:
                id_ = text(data, first, last)
            elif tag == _VERSION:
                version = text(data, first, last)
            if len(tensors) > MAX_TENSORS or len(raws) > MAX_TENSORS:
                return Undecodable(Reason.TOO_LARGE, "a message has too many tensors")
    except ProtobufError as error:
        return _unread(error)
    if raws:
        # Triton's answers have an entry for every tensor; requests have none for shared memory.
        bare = tensors if len(raws) == len(tensors) else [t for t in tensors if t.data is None]
        view = memoryview(data)
        for one, (first, last) in zip(bare, raws, strict=False):
            if one.data is None:
                one.data = elements(view[first:last], one.datatype)
        for one in bare[len(raws) :]:
            one.data = Undecodable(Reason.TRUNCATED, "the raw contents of a tensor are missing")
    return {"id": id_, "model_version": version, key: [one.payload() for one in tensors]}


class _Tensor:
    """A tensor as in the message; ``data`` is None where its elements are raw contents."""

    __slots__ = ("data", "datatype", "name", "shape")

    def __init__(self, message: bytes, begin: int, end: int) -> None:
        self.name = self.datatype = ""
        self.shape: list[int] = []
        self.data: list[Any] | Undecodable | None = None
        contents: list[tuple[int, int]] = []
        shared = False
        try:
            for tag, first, last in fields(message, begin, end):
                if tag == _NAME:
                    self.name = text(message, first, last)
                elif tag == _DATATYPE:
                    self.datatype = text(message, first, last)
                elif tag == _SHAPE:
                    self.shape += packed(message, first, min(last, first + 10 * MAX_DIMENSIONS))
                elif tag == _ONE_DIMENSION:
                    self.shape.append(first)
                elif tag == _CONTENTS:
                    contents.append((first, last))
                elif tag == _PARAMETERS:
                    shared = shared or _key(message, first, last) == "shared_memory_region"
                if len(self.shape) > MAX_DIMENSIONS:
                    raise ProtobufError("a tensor has too many dimensions")
        except ProtobufError as error:
            self.data = _unread(error)
            return
        self.shape = list(map(signed, self.shape))
        if contents:
            self.data = _elements(message, contents, self.datatype)
        if not self.data and shared:
            self.data = Undecodable(
                Reason.SHARED_MEMORY, "the data of a tensor is in shared memory"
            )

    def payload(self) -> dict[str, Any]:
        data: Any = [] if self.data is None else self.data
        return {"name": self.name, "shape": self.shape, "datatype": self.datatype, "data": data}


def _key(message: bytes, begin: int, end: int) -> str:
    """The key of an entry of a map. Raises ProtobufError."""
    for tag, first, last in fields(message, begin, end):
        if tag == 0x0A:
            return text(message, first, min(last, first + 64))
    return ""


def _elements(
    message: bytes, contents: list[tuple[int, int]], datatype: str
) -> list[Any] | Undecodable | None:
    """The elements in a tensor's contents; None where there are none at all."""
    wanted = _CONTENT_OF.get(datatype)
    found: list[Any] = []
    others = False
    try:
        for begin, end in contents:
            for tag, first, last in fields(message, begin, end):
                if tag >> 3 != wanted:
                    others = True
                elif tag & 7 == 2 and wanted != _BYTES:
                    found += _packed(message, first, last, wanted)
                else:
                    found.append(_single(message, tag, first, last))
                if len(found) > MAX_ELEMENTS:
                    return MANY
    except ProtobufError as error:
        return _unread(error)
    if others and not found:
        return _UNFIT
    return found or None


def _packed(message: bytes, begin: int, end: int, wanted: int) -> list[Any]:
    """Raises ProtobufError."""
    if wanted in (_FP32, _FP64):
        numbers = elements(memoryview(message)[begin:end], "FP32" if wanted == _FP32 else "FP64")
        if isinstance(numbers, Undecodable):
            raise ProtobufError(numbers.detail)
        return numbers
    return [_number(number, wanted) for number in packed(message, begin, end)]


def _single(message: bytes, tag: int, first: int, last: int) -> Any:
    """One element that is a field of its own. Raises ProtobufError."""
    number, kind = tag >> 3, tag & 7
    if number == _BYTES and kind == 2:
        return text(message, first, last)
    if kind == 0 and number not in (_BYTES, _FP32, _FP64):
        return _number(first, number)
    if (number, kind) in ((_FP32, 5), (_FP64, 1)):
        (value,) = next(iter_unpack("<f" if kind == 5 else "<d", message[first:last]))
        return value
    raise ProtobufError("an element has the wrong type")


def _number(value: int, wanted: int) -> Any:
    if wanted == _BOOL:
        return value != 0
    if wanted == _INT:
        value &= 0xFFFFFFFF
        return value - (1 << 32) if value >> 31 else value
    if wanted == _INT64:
        return signed(value)
    return value & 0xFFFFFFFF if wanted == _UINT else value


# Streams ------------------------------------------------------------------------------------------


def _together(payloads: list[Payload]) -> Payload:
    """Payloads of one message each, as one whose tensors have the rows of all."""
    if len(payloads) == 1:
        return payloads[0]
    read: list[dict[str, Any]] = []
    for one in payloads:
        if isinstance(one, Undecodable):
            return one
        read.append(one)
    if not read:
        return Undecodable(Reason.EMPTY)
    key = "inputs" if "inputs" in read[0] else "outputs"
    tensors = [_stacked(column) for column in zip(*(one[key] for one in read), strict=False)]
    if len({len(one[key]) for one in read}) != 1 or None in tensors:
        return Undecodable(Reason.WRONG_SHAPE, "the messages of a stream differ in their tensors")
    return {**read[0], key: tensors}


def _stacked(tensors: tuple[dict[str, Any], ...]) -> dict[str, Any] | None:
    """Tensors of one name, one below the other; None if they do not fit together."""
    first = tensors[0]
    for one in tensors:
        if isinstance(one["data"], Undecodable):
            return {**first, "data": one["data"]}
        if (one["name"], one["shape"][1:]) != (first["name"], first["shape"][1:]):
            return None
        if not one["shape"] and len(one["data"]) != 1:
            return None
    rows = sum(one["shape"][0] if one["shape"] else 1 for one in tensors)
    data = list(chain.from_iterable(one["data"] for one in tensors))
    return {**first, "shape": [rows, *first["shape"][1:]], "data": data}


def _one_answer(payloads: list[Payload]) -> Payload:
    """The answers to one request, as one."""
    last = payloads[-1]
    if len(payloads) == 1 or isinstance(last, Undecodable):
        return last
    pieces: dict[str, list[str]] = {}
    for one in payloads:
        for tensor in one["outputs"] if isinstance(one, dict) else ():
            data = tensor["data"]
            if tensor["datatype"] == "BYTES" and isinstance(data, list) and len(data) == 1:
                pieces.setdefault(tensor["name"], []).append(data[0])
    for tensor in last["outputs"]:
        data = tensor["data"]
        if tensor["name"] in pieces and isinstance(data, list) and len(data) == 1:
            tensor["data"] = ["".join(pieces[tensor["name"]])]
    return last
