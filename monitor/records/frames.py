"""Frames between a worker and the evaluation plane: ``[u32 length][u8 type][payload]``.

The worker sends HELLO and NAMES; the evaluation plane replies with WELCOME and the last batch that
it has of that worker. Then batches flow one way, and ACK (in memory) and COMMIT (in the saved
state) the other. Batches are numbered; a duplicate is acknowledged and not counted again.

Only the standard library is used here: workers import this module.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct
from typing import Final

from understudy.monitor.errors import ProtocolError

HELLO: Final = 1
"""JSON ``{"run", "slot", "incarnation", "pid"}``."""
NAMES: Final = 2
"""JSON ``{"generation", "models": [{"name", "version", "protocol"}], "arms": [name]}``; the names
that the following batches index."""
BATCH: Final = 3
"""BATCH_HEAD, then encoded records."""
WELCOME: Final = 16
"""JSON ``{"last_seq", "received"}``."""
ACK: Final = 17
"""SEQ: every batch up to this number is in the evaluation plane's memory."""
COMMIT: Final = 18
"""SEQ: every batch up to this number is in the evaluation plane's saved state."""

HEAD = Struct("<IB")
SEQ = Struct("<Q")
BATCH_HEAD = Struct("<QI")
"""Number of the batch, count of its records."""
MAX_FRAME: Final = 64 * 1024 * 1024


def frame(kind: int, payload: bytes) -> bytes:
    """Serialize a frame."""
    return HEAD.pack(len(payload) + 1, kind) + payload


class FrameReader:
    """Splits a byte stream into frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Add bytes and yield each ``(type, payload)`` that is complete.

        Raises ProtocolError on a length of zero or over MAX_FRAME.
        """
        buffer = self._buffer
        buffer += data
        position = 0
        try:
            while len(buffer) - position >= HEAD.size:
                length, kind = HEAD.unpack_from(buffer, position)
                if not 0 < length <= MAX_FRAME:
                    raise ProtocolError(f"frame of {length} bytes")
                end = position + HEAD.size - 1 + length
                if end > len(buffer):
                    break
                payload = bytes(buffer[position + HEAD.size : end])
                position = end
                yield kind, payload
        finally:
            if position:
                del buffer[:position]
