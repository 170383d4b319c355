"""Decodes the bytes of a body to JSON: content coding, then JSON."""

from __future__ import annotations

import json
import zlib
from typing import Any

import orjson

from understudy.common.codecs.table import Reason, Undecodable

MAX_DECOMPRESSED = 4 * 1024 * 1024
"""Largest decompressed size in bytes: protects memory from a decompression bomb."""
MAX_GROWTH = 4
"""A large payload may grow to this many times its compressed size, if that is more."""

_OPAQUE = (b"octet-stream", b"protobuf", b"grpc", b"msgpack", b"image/", b"audio/", b"video/")


def parsed(headers: bytes, body: bytes | memoryview) -> Any:
    """The JSON value of a body, or an :class:`Undecodable`.

    ``headers`` are lines joined by CRLF, of which content-type, content-encoding and
    inference-header-content-length matter.
    """
    if not isinstance(body, bytes):
        body = bytes(body)
    fields: dict[bytes, bytes] = {}
    lowered = headers.lower()
    if b"content-encoding" in lowered or b"inference-header" in lowered:
        fields = _fields(lowered)
        if b"inference-header-content-length" in fields:
            return Undecodable(Reason.BINARY, "tensors are in binary form")
        plain = _decompressed(fields.get(b"content-encoding", b""), body)
        if isinstance(plain, Undecodable):
            return plain
        body = plain
    if not body:
        return Undecodable(Reason.EMPTY)
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        end = bool(error.doc) and error.pos >= len(error.doc)
    # TensorFlow Serving reads and writes bare NaN and Infinity, which are not valid JSON.
    if b"NaN" in body or b"Infinity" in body:
        try:
            return _lenient(body)
        except json.JSONDecodeError as error:
            end = error.pos >= len(error.doc)
        except (ValueError, RecursionError):
            pass
    kind = (fields or _fields(lowered)).get(b"content-type", b"")
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


def _fields(lowered: bytes) -> dict[bytes, bytes]:
    """Header values by name; those of lines with the same name are joined."""
    fields: dict[bytes, bytes] = {}
    for line in lowered.split(b"\r\n"):
        name, _, value = line.partition(b":")
        name = name.strip()
        fields[name] = fields[name] + b"," + value if name in fields else value
    return fields


def _decompressed(header: bytes, body: bytes) -> bytes | Undecodable:
    codings = {coding.strip() for coding in header.split(b",")} - {b"", b"identity"}
    if not codings:
        return body
    if codings <= {b"gzip", b"x-gzip"} and header.count(b"gzip") == 1:
        windows: tuple[int, ...] = (31,)
    elif codings == {b"deflate"} and header.count(b"deflate") == 1:
        windows = (15, -15)  # some clients omit zlib's header
    else:
        return Undecodable(Reason.UNSUPPORTED_ENCODING)
    if not body:
        return Undecodable(Reason.EMPTY)
    limit = max(MAX_DECOMPRESSED, MAX_GROWTH * len(body))
    for window in windows:
        try:
            return _inflated(window, body, limit)
        except zlib.error:
            continue
    return Undecodable(Reason.UNSUPPORTED_ENCODING, "the compressed payload is damaged")


def _inflated(window: int, body: bytes, limit: int) -> bytes | Undecodable:
    """Raises zlib.error."""
    parts: list[bytes] = []
    room = limit + 1
    while True:
        inflater = zlib.decompressobj(window)
        parts.append(inflater.decompress(body, room))
        room -= len(parts[-1])
        if room <= 0:
            return Undecodable(Reason.TOO_LARGE, "the payload grows too large when decompressed")
        if not inflater.eof:
            return Undecodable(Reason.TRUNCATED, "the compressed payload ends too early")
        body = inflater.unused_data
        # A gzip stream may have several members; what follows without its mark is padding.
        if window != 31 or not body.startswith(b"\x1f\x8b"):
            return parts[0] if len(parts) == 1 else b"".join(parts)
