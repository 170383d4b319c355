"""Decodes the bytes of a body to JSON: content coding, then JSON, with binary tensors in it."""

from __future__ import annotations

import json
import zlib
from functools import lru_cache
from typing import Any

import brotli
import orjson
import zstandard

from understudy.common.codecs.binary import place
from understudy.common.codecs.lines import is_lines, rows_of
from understudy.common.codecs.table import Reason, Undecodable

MAX_DECOMPRESSED = 4 * 1024 * 1024
"""Largest decompressed size in bytes: protects memory from a decompression bomb."""
MAX_GROWTH = 4
"""A large payload may grow to this many times its compressed size, if that is more."""

_SHORT = 256
"""Bytes of headers that are remembered, so that odd ones do not fill the memory."""
_MAX_WINDOW = 8 * 1024 * 1024
"""Memory that decompressing zstd may need; RFC 9659 allows no more over HTTP."""
_LARGE = Undecodable(Reason.TOO_LARGE, "the payload grows too large when decompressed")
_CUT = Undecodable(Reason.TRUNCATED, "the compressed payload ends too early")
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
        plain = _decompressed(coding, body)
        if isinstance(plain, Undecodable):
            return plain
        body = plain
    if length is not None:
        return _with_tensors(length, body)
    if are_lines and body:
        return rows_of(kind, body)
    return _json(kind, body)


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
    lower case. Values of lines with the same name are joined."""
    fields: dict[bytes, bytes] = {}
    for line in headers.lower().split(b"\r\n"):
        name, _, value = line.partition(b":")
        name = name.strip()
        fields[name] = fields[name] + b"," + value if name in fields else value
    kind = fields.get(b"content-type", b"")
    return (
        fields.get(b"content-encoding", b""),
        fields.get(b"inference-header-content-length"),
        kind,
        is_lines(kind),
    )


_known = lru_cache(maxsize=1024)(_about)


def _decompressed(header: bytes, body: bytes) -> bytes | Undecodable:
    codings = {coding.strip() for coding in header.split(b",")} - {b"", b"identity"}
    if not codings:
        return body
    windows: tuple[int, ...] = ()
    if codings <= {b"gzip", b"x-gzip"} and header.count(b"gzip") == 1:
        windows = (31,)
    elif codings == {b"deflate"} and header.count(b"deflate") == 1:
        windows = (15, -15)  # some clients omit zlib's header
    elif len(codings) > 1 or header.count(b",") or not codings <= {b"br", b"zstd"}:
        return Undecodable(Reason.UNSUPPORTED_ENCODING)
    if not body:
        return Undecodable(Reason.EMPTY)
    limit = max(MAX_DECOMPRESSED, MAX_GROWTH * len(body))
    try:
        if codings == {b"br"}:
            return _brotli(body, limit)
        if codings == {b"zstd"}:
            return _zstd(body, limit)
    except (brotli.error, zstandard.ZstdError):
        return Undecodable(Reason.UNSUPPORTED_ENCODING, "the compressed payload is damaged")
    for window in windows:
        try:
            return _inflated(window, body, limit)
        except zlib.error:
            continue
    return Undecodable(Reason.UNSUPPORTED_ENCODING, "the compressed payload is damaged")


def _inflated(window: int, body: bytes, limit: int) -> bytes | Undecodable:
    """Of gzip or deflate. Raises zlib.error."""
    parts: list[bytes] = []
    room = limit + 1
    while True:
        inflater = zlib.decompressobj(window)
        parts.append(inflater.decompress(body, room))
        room -= len(parts[-1])
        if room <= 0:
            return _LARGE
        if not inflater.eof:
            return _CUT
        body = inflater.unused_data
        # A gzip stream may have several members; what follows without its mark is padding.
        if window != 31 or not body.startswith(b"\x1f\x8b"):
            return parts[0] if len(parts) == 1 else b"".join(parts)


def _brotli(body: bytes, limit: int) -> bytes | Undecodable:
    """Raises brotli.error."""
    inflater = brotli.Decompressor()
    parts = [inflater.process(body, output_buffer_limit=limit + 1)]
    room = limit - len(parts[0])
    while room >= 0 and not inflater.is_finished() and not inflater.can_accept_more_data():
        parts.append(inflater.process(b"", output_buffer_limit=room + 1))
        room -= len(parts[-1])
    if room < 0:
        return _LARGE
    return b"".join(parts) if inflater.is_finished() else _CUT


def _zstd(body: bytes, limit: int) -> bytes | Undecodable:
    """Raises zstandard.ZstdError."""
    inflater = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW)
    with inflater.stream_reader(body, read_across_frames=True) as reader:
        plain = reader.read(limit + 1)
    if len(plain) > limit:
        return _LARGE
    return plain
