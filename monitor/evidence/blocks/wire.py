"""The bytes of a block: a head that names and places columns, then the columns, compressed as one.

Little-endian throughout::

    magic "UNBL" · codec (1 byte) · three zero bytes · length of the header (u32) · of all (u32)
    and then, compressed by the codec: header (JSON, padded with spaces to 8 bytes) · columns

A column is an array at an offset, from the end of the header, that is a multiple of 8. All columns
are compressed together, since those of a block of 256 records are too short to be compressed one by
one: that costs several times the CPU and half as many bytes again.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Mapping
from struct import Struct, error
from typing import Any

import numpy as np
import orjson
import zstandard
from numpy.typing import NDArray

from understudy.monitor.errors import BlockError

MAGIC = b"UNBL"
_HEAD = Struct("<4sB3xII")
PLAIN, ZSTD, ZLIB = 0, 1, 2
"""Codecs. This writer uses zstd; readers know all three."""
MOST_BYTES = 256 * 1024 * 1024
"""Bytes of a decompressed block: protects memory from a decompression bomb."""
LEVEL = 1

_PAD = (b"", b"\0" * 7, b"\0" * 6, b"\0" * 5, b"\0" * 4, b"\0" * 3, b"\0" * 2, b"\0")
_local = threading.local()  # neither compressor may be used by two threads at once


class Writer:
    """Collects columns and returns their offsets."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._at = 0

    def put(self, data: bytes) -> int:
        """Append ``data`` at a multiple of 8; returns its offset."""
        at = self._at
        size = len(data)
        pad = size % 8
        self._parts.append(data)
        if pad:
            self._parts.append(_PAD[pad])
            size += 8 - pad
        self._at = at + size
        return at

    def finish(self, header: Mapping[str, Any]) -> bytes:
        """The complete message. Raises BlockError (``too_large``)."""
        text = orjson.dumps(header)
        text += b" " * (-len(text) % 8)
        body = b"".join([text, *self._parts])
        if len(body) > MOST_BYTES:
            raise BlockError("too_large", f"{len(body):,} bytes: put fewer records into a block")
        return _HEAD.pack(MAGIC, ZSTD, len(text), len(body)) + _compressor().compress(body)


def _compressor() -> zstandard.ZstdCompressor:
    zstd_compressor: zstandard.ZstdCompressor | None = getattr(_local, "compressor", None)
    if zstd_compressor is None:
        # The checksum costs a tenth of the compression, and detects damage.
        zstd_compressor = _local.compressor = zstandard.ZstdCompressor(
            level=LEVEL, write_checksum=True
        )
    return zstd_compressor


def _decompressor() -> zstandard.ZstdDecompressor:
    zstd_decompressor: zstandard.ZstdDecompressor | None = getattr(_local, "decompressor", None)
    if zstd_decompressor is None:
        zstd_decompressor = _local.decompressor = zstandard.ZstdDecompressor()
    return zstd_decompressor


class Reader:
    """Reads the header, and columns by offset. Raises BlockError for an inconsistent message."""

    def __init__(self, data: bytes) -> None:
        if len(data) < _HEAD.size or data[:4] != MAGIC:
            raise BlockError("not_a_block", f"{len(data):,} bytes that do not start with UNBL")
        try:
            _, codec, header, size = _HEAD.unpack_from(data)
        except error as fault:  # pragma: no cover - the length was checked
            raise BlockError("not_a_block", str(fault)) from fault
        if size > MOST_BYTES or header > size:
            raise BlockError("too_large", f"announces {size:,} bytes with a header of {header:,}")
        body = _decompressed(codec, data, size)
        if len(body) != size:
            raise BlockError("damaged", f"holds {len(body):,} bytes instead of {size:,}")
        try:
            result = orjson.loads(body[:header])
        except orjson.JSONDecodeError as fault:
            raise BlockError("damaged", f"its header is not JSON: {fault}") from fault
        if not isinstance(result, dict):
            raise BlockError("wrong_shape", "its header is not a JSON object")
        self.header: dict[str, Any] = result
        self._body = body
        self._start = int(header)

    @property
    def size(self) -> int:
        """Bytes of all columns."""
        return len(self._body) - self._start

    def array(self, at: int, count: int, kind: type[np.generic] | np.dtype[Any]) -> NDArray[Any]:
        """``count`` numbers at offset ``at``, read-only."""
        dtype = np.dtype(kind)
        self._check(at, count * dtype.itemsize)
        return np.frombuffer(self._body, dtype, count, self._start + at)

    def data(self, at: int, size: int) -> bytes:
        """``size`` bytes at offset ``at``."""
        self._check(at, size)
        start = self._start + at
        return self._body[start : start + size]

    def _check(self, at: int, size: int) -> None:
        if at < 0 or size < 0 or self._start + at + size > len(self._body):
            raise BlockError("wrong_shape", f"a column of {size:,} bytes at {at:,} is out of range")


def _decompressed(codec: int, data: bytes, size: int) -> bytes:
    view = memoryview(data)[_HEAD.size :]
    try:
        if codec == ZSTD:
            if zstandard.frame_content_size(view) not in (size, -1):
                raise BlockError("damaged", "the compressed part has a different length")
            return _decompressor().decompress(view, max_output_size=size)
        if codec == ZLIB:
            return zlib.decompressobj().decompress(view, size + 1)
    except (zstandard.ZstdError, zlib.error) as fault:
        raise BlockError("damaged", f"cannot be decompressed: {fault}") from fault
    if codec == PLAIN:
        return bytes(view)
    raise BlockError("unknown_codec", f"unknown compression codec {codec}")
