"""Frames: entries that are written together, compressed together and checked together.

A segment begins with :data:`SEGMENT`; after it come frames, little-endian::

    magic "UNFR" · codec · flags · two zero bytes · stored length, raw length, entries, records
    (u32 each) · index of the first entry (u64) · oldest, newest (unix seconds, f64) ·
    CRC-32 of what is stored · CRC-32 of the header up to here

and then what is stored, compressed as a whole: the length of each entry (u32), how many records
each is counted as (u32), and the entries. A header has a checksum of its own, so that a reader that
has lost its way finds the next frame.
"""

from __future__ import annotations

import os
import zlib
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from struct import Struct

import zstandard

SEGMENT = b"UNSEG\x01\r\n"
MAGIC = b"UNFR"
HEADER = Struct("<4sBBHIIIIQddI")
_CRC = Struct("<I")
HEADER_SIZE = HEADER.size + _CRC.size
PLAIN, ZSTD = 0, 1
MARKED = 1
"""Flag: the first entry is the writer's mark, and not counted."""
MOST_STORED = 256 * 1024 * 1024
"""Bytes of one frame, raw or stored; a larger one is taken for damage."""
_WINDOW = 64 * 1024
_SMALL = 4096
"""Bytes of a part up to which it is quicker to copy it than to write it apart."""


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame as it stands in its file, from ``start`` to ``end``. ``records`` is what
    its entries are counted as; ``oldest`` and ``newest`` are unix times of these."""

    start: int
    end: int
    index: int
    entries: int
    records: int
    oldest: float
    newest: float
    codec: int
    marked: bool
    raw: int
    crc: int


@dataclass(slots=True)
class Damage:
    """What could not be read: whole frames (or stretches where no frame could be found), and the
    bytes of a torn tail."""

    frames: int = 0
    bytes: int = 0
    torn: int = 0
    places: list[str] = field(default_factory=list)
    """The first few, for people."""

    def add(self, where: str, size: int) -> None:
        """One more damaged place."""
        self.frames += 1
        self.bytes += size
        if len(self.places) < 20:
            self.places.append(where)


def pack(
    entries: Sequence[bytes],
    weights: Sequence[int] | None,
    index: int,
    oldest: float,
    newest: float,
    compress: bool,
    mark: bytes | None = None,
) -> list[bytes]:
    """The bytes of a frame, in parts: large entries that are not compressed are not copied.

    ``weights`` are the records of each entry, one each if None. Raises ValueError when they are too
    many.
    """
    weights = [1] * len(entries) if weights is None else weights
    marks = () if mark is None else (mark,)
    table = array("I", (0,) * len(marks))
    table.extend(weights)
    sizes = array("I", map(len, (*marks, *entries)))
    parts = [sizes.tobytes() + table.tobytes(), *marks, *entries]
    raw = sum(map(len, parts))
    if raw > MOST_STORED:
        raise ValueError(f"a frame of {raw:,} bytes is too large")
    codec = PLAIN
    if raw < _SMALL * len(parts):
        parts = [b"".join(parts)]
    if compress:
        parts, codec = [zstandard.ZstdCompressor(level=1).compress(b"".join(parts))], ZSTD
    crc = 0
    for part in parts:
        crc = zlib.crc32(part, crc)
    flags = 0 if mark is None else MARKED
    header = HEADER.pack(
        MAGIC,
        codec,
        flags,
        0,
        sum(map(len, parts)),
        raw,
        len(entries),
        sum(weights),
        index,
        oldest,
        newest,
        crc,
    )
    return [header + _CRC.pack(zlib.crc32(header)), *parts]


def _frame(data: bytes, start: int) -> Frame | None:
    """The frame whose header ``data`` is; None for anything else."""
    if len(data) < HEADER_SIZE or data[:4] != MAGIC:
        return None
    header = data[: HEADER.size]
    if zlib.crc32(header) != _CRC.unpack_from(data, HEADER.size)[0]:
        return None
    _, codec, flags, _, stored, raw, entries, records, index, oldest, newest, crc = HEADER.unpack(
        header
    )
    if stored > MOST_STORED or raw > MOST_STORED:
        return None
    end = start + HEADER_SIZE + stored
    marked = bool(flags & MARKED)
    return Frame(start, end, index, entries, records, oldest, newest, codec, marked, raw, crc)


def scan(
    file: int, size: int, name: str, damage: Damage, check: bool = True, start: int = 0
) -> Iterator[Frame]:
    """The good frames among the first ``size`` bytes of a file descriptor.

    From byte ``start`` on, if not 0. With ``check``, what is stored is held against its checksum,
    else only headers are. Damage between frames is added to ``damage``; what follows the last good
    frame is its torn tail.
    """
    at = start
    if (
        not at and os.pread(file, len(SEGMENT), 0) == SEGMENT
    ):  # else frames may be good all the same
        at = len(SEGMENT)
    lost = at
    """Up to where all is accounted for."""
    while at < size:
        frame = _frame(os.pread(file, HEADER_SIZE, at), at)
        whole = frame is not None and frame.end <= size
        if frame is None or not whole or (check and stored(file, frame) is None):
            # With a good header that lies within the file, the next frame stands behind it.
            at = frame.end if frame is not None and whole else _next(file, at + 1, size)
            continue
        if frame.start > lost:
            damage.add(f"{name}: byte {lost:,}", frame.start - lost)
        lost = at = frame.end
        yield frame
    damage.torn += max(0, size - lost)


def _next(file: int, at: int, size: int) -> int:
    """Where the next header may be, from ``at`` on; ``size`` where there is none."""
    while at < size:
        window = os.pread(file, _WINDOW, at)
        result = window.find(MAGIC)
        if result >= 0:
            return at + result
        if len(window) < len(MAGIC):
            return size
        at += len(window) - len(MAGIC) + 1
    return size


def stored(file: int, frame: Frame) -> bytes | None:
    """What is stored in a frame; None when its checksum does not fit."""
    start = frame.start + HEADER_SIZE
    parts: list[bytes] = []
    while start < frame.end:
        part = os.pread(file, frame.end - start, start)
        if not part:
            return None
        parts.append(part)
        start += len(part)
    data = parts[0] if len(parts) == 1 else b"".join(parts)
    return data if zlib.crc32(data) == frame.crc else None


@dataclass(frozen=True, slots=True)
class Content:
    """What is in a frame: the mark, if it has one, and entries with what they are counted as."""

    mark: bytes | None
    entries: list[bytes]
    weights: list[int]


def content(file: int, frame: Frame) -> Content | None:
    """What is in a frame; None when it is damaged."""
    data = stored(file, frame)
    if data is None:
        return None
    if frame.codec == ZSTD:
        try:
            data = zstandard.ZstdDecompressor().decompress(data, max_output_size=frame.raw)
        except zstandard.ZstdError:
            return None
    elif frame.codec != PLAIN:
        return None
    if len(data) != frame.raw:
        return None
    count = frame.entries + frame.marked
    sizes, weights = _numbers(data, 0, count), _numbers(data, 4 * count, count)
    if sizes is None or weights is None or 8 * count + sum(sizes) != len(data):
        return None
    entries: list[bytes] = []
    at = 8 * count
    for size in sizes:
        entries.append(data[at : at + size])
        at += size
    if frame.marked:
        return Content(entries[0], entries[1:], weights[1:])
    return Content(None, entries, weights)


def weights_of(file: int, frame: Frame) -> list[int] | None:
    """What the entries of a frame that is not compressed are counted as, without its checksum."""
    count = frame.entries + frame.marked
    data = os.pread(file, 8 * count, frame.start + HEADER_SIZE)
    result = _numbers(data, 4 * count, count) if frame.codec == PLAIN else None
    return result[1:] if result is not None and frame.marked else result


def _numbers(data: bytes, at: int, count: int) -> list[int] | None:
    if len(data) < at + 4 * count:
        return None
    return list(Struct(f"<{count}I").unpack_from(data, at))
