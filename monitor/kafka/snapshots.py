"""States in a compacted topic: split into chunks, with a checksum, located by a pointer.

The pointer is in the metadata of the offsets that are committed with the state, in the same
transaction. So a state is located without reading the topic, and a state whose transaction was
aborted is never used. The keys of the chunks stay the same from one state to the next: compaction
keeps the newest, which the pointer names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from zlib import crc32

import orjson
import zstandard

from understudy.monitor.errors import SnapshotError

CHUNK_BYTES = 512 * 1024
_MOST_BYTES = 1 << 30
_compressor = zstandard.ZstdCompressor(level=3)


@dataclass(frozen=True, slots=True)
class Pointer:
    """Where a state begins: partition and offset in the topic, number of chunks and checksum."""

    partition: int
    offset: int
    chunks: int
    checksum: int

    def __str__(self) -> str:
        return f"state:{self.partition}:{self.offset}:{self.chunks}:{self.checksum}"

    @classmethod
    def parse(cls, text: str) -> Pointer | None:
        """Parse the result of ``str``; None for any other text, such as that of unused offsets."""
        word, *parts = text.split(":")
        if word != "state" or len(parts) != 4:
            return None
        try:
            return cls(*map(int, parts))
        except ValueError:
            return None


def chunks_of(name: str, state: dict[str, Any]) -> tuple[list[tuple[bytes, bytes]], int]:
    """Keys and values of the messages of a state, and its checksum."""
    data = _compressor.compress(orjson.dumps(state, option=orjson.OPT_SERIALIZE_NUMPY))
    checksum = crc32(data)
    head = checksum.to_bytes(4, "little")
    return [
        (f"{name}/{number}".encode(), head + data[begin : begin + CHUNK_BYTES])
        for number, begin in enumerate(range(0, len(data), CHUNK_BYTES))
    ], checksum


def read_state(
    name: str, pointer: Pointer, messages: Callable[[int, int], Iterator[tuple[bytes, bytes]]]
) -> dict[str, Any]:
    """The state that a pointer names. ``messages(partition, offset)`` yields keys and values from
    that offset on. Raises SnapshotError when the state is missing or damaged."""
    head = pointer.checksum.to_bytes(4, "little")
    parts: list[bytes] = []
    wanted = f"{name}/0".encode()
    for key, value in messages(pointer.partition, pointer.offset):
        if key == wanted and value[:4] == head:
            parts.append(value[4:])
            wanted = f"{name}/{len(parts)}".encode()
            if len(parts) == pointer.chunks:
                break
    data = b"".join(parts)
    if len(parts) != pointer.chunks or crc32(data) != pointer.checksum:
        raise SnapshotError(f"the state of {name} at {pointer} is incomplete or damaged")
    try:
        state: dict[str, Any] = orjson.loads(
            zstandard.ZstdDecompressor().decompress(data, _MOST_BYTES)
        )
    except (ValueError, zstandard.ZstdError) as error:
        raise SnapshotError(f"the state of {name} at {pointer} cannot be read: {error}") from error
    return state
