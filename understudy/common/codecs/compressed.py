"""Decompresses payloads, to a bounded size."""

from __future__ import annotations

import zlib

import brotli
import zstandard

from understudy.common.codecs.table import Reason, Undecodable

MAX_DECOMPRESSED = 4 * 1024 * 1024
"""Largest decompressed size in bytes: protects memory from a decompression bomb."""
MAX_GROWTH = 4
"""A large payload may grow to this many times its compressed size, if that is more."""

_MAX_WINDOW = 8 * 1024 * 1024
"""Memory that decompressing zstd may need; RFC 9659 allows no more over HTTP."""
_LARGE = Undecodable(Reason.TOO_LARGE, "the payload grows too large when decompressed")
_CUT = Undecodable(Reason.TRUNCATED, "the compressed payload ends too early")


def decompressed(header: bytes, body: bytes, most: int | None = None) -> bytes | Undecodable:
    """The plain bytes of a payload with the content coding ``header``, in lower case.

    ``most`` is the largest size; by default it depends on that of the body.
    """
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
    limit = max(MAX_DECOMPRESSED, MAX_GROWTH * len(body)) if most is None else max(0, most)
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
