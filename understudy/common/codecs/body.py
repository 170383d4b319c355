"""Decodes the bytes of a body to JSON: content coding, then JSON, with binary tensors in it."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

import orjson

from understudy.common.codecs.binary import place
from understudy.common.codecs.compressed import MAX_DECOMPRESSED, decompressed
from understudy.common.codecs.headers import fields_of
from understudy.common.codecs.lines import is_lines, rows_of
from understudy.common.codecs.table import Reason, Undecodable
from understudy.common.events import kind_of

MAX_STREAM_GROWTH = 100
"""A stream of events may grow to this many times its compressed size; the data plane limits it."""
_SHORT = 256
"""Bytes of headers that are remembered, so that odd ones do not fill the memory."""
_OPAQUE = (b"octet-stream", b"protobuf", b"grpc", b"msgpack", b"image/", b"audio/", b"video/")


def parsed(headers: bytes, body: bytes | memoryview) -> Any:
    """The JSON value of a body, or an :class:`Undecodable`.

    ``headers`` are lines joined by CRLF, of which content-type, content-encoding and
    inference-header-content-length matter.
    """
    if not isinstance(body, bytes):
        body = bytes(body)
    coding, length, kind, are_lines = (_known if len(headers) <= _SHORT else _about)(headers)
    if coding:
        plain = decompressed(coding, body)
        if isinstance(plain, Undecodable):
            return plain
        body = plain
    if length is not None:
        return _with_tensors(length, body)
    if are_lines and body:
        return rows_of(kind, body)
    return _json(kind, body)


def stream_kind(headers: bytes) -> int:
    """The grammar of a body that is a stream of events, see :mod:`understudy.common.events`; else
    0."""
    kinds = (kind_of(line) for line in headers.split(b"\r\n"))
    return next((kind for kind in kinds if kind), 0)


def plain_stream(headers: bytes, body: bytes | memoryview) -> bytes | Undecodable:
    """The bytes of a stream, whose copies are compressed: its events repeat each other, so that it
    may grow by more than other payloads."""
    body = bytes(body)
    coding = (_known if len(headers) <= _SHORT else _about)(headers)[0]
    if not coding:
        return body
    return decompressed(coding, body, max(MAX_DECOMPRESSED, MAX_STREAM_GROWTH * len(body)))


def _with_tensors(length: bytes, body: bytes) -> Any:
    """The JSON that begins a body, with the elements of the tensors behind it."""
    length = length.strip()
    size = int(length) if length.isdigit() and len(length) < 19 else -1
    if size == 0:
        return Undecodable(Reason.BINARY, "a raw tensor, without the JSON that describes it")
    if not 0 < size <= len(body):
        return Undecodable(Reason.TRUNCATED, "the payload is shorter than its header says")
    payload = _json(b"", body[:size])
    place(payload, memoryview(body)[size:])
    return payload


def _json(kind: bytes, body: bytes) -> Any:
    """The value of a body of the content type ``kind``, in lower case."""
    if not body:
        return Undecodable(Reason.EMPTY)
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        end = bool(error.doc) and error.pos >= len(error.doc)
    # TensorFlow Serving reads and writes bare NaN and Infinity, which are not valid JSON, and
    # numbers like 1e400 are infinite to most others.
    try:
        return _lenient(body)
    except json.JSONDecodeError as error:
        end = end or error.pos >= len(error.doc)
    except (ValueError, RecursionError):
        pass
    if any(opaque in kind for opaque in _OPAQUE):
        return Undecodable(Reason.BINARY, "the content type is a binary one")
    if body.isspace():
        return Undecodable(Reason.EMPTY)
    return Undecodable(Reason.NOT_JSON, "the JSON ends too early" if end else "")


def _lenient(body: bytes) -> Any:
    """Raises ValueError or RecursionError."""
    value = json.loads(body.decode("utf-8"))
    if b"\\u" in body:
        # A lone surrogate cannot be encoded again.
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    return value


def _about(headers: bytes) -> tuple[bytes, bytes | None, bytes, bool]:
    """Content coding, the length before tensors, content type, and whether that is one of lines; in
    lower case."""
    fields = fields_of(headers)
    kind = fields.get(b"content-type", b"")
    return (
        fields.get(b"content-encoding", b""),
        fields.get(b"inference-header-content-length"),
        kind,
        is_lines(kind),
    )


_known = lru_cache(maxsize=1024)(_about)
