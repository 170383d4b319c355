"""Messages from stage one to stage two: batches by slot, and how far the input is complete."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import orjson
import zstandard

from understudy.monitor.errors import EvidenceError
from understudy.monitor.evidence.batch import ColumnBatch, decode, encode

SLOT_SECONDS = 1.0
"""Length of a slot of event time; experiments and findings are evaluated once per slot."""
MOST_BYTES = 512 * 1024
"""Approximate maximum bytes of the rows of one message, before compression."""
_MAX_DECOMPRESSED = 256 * 1024 * 1024
_compressor = zstandard.ZstdCompressor(level=1)


@dataclass(frozen=True, slots=True)
class Message:
    """``input`` names the partition that the rows come from. ``complete`` is the unix time before
    which that partition has only late rows left; None while it is unknown. ``batches`` are pairs of
    slot number and rows."""

    input: str
    complete: float | None
    batches: tuple[tuple[int, ColumnBatch], ...]

    def encode(self) -> bytes:
        """Serialize."""
        head = orjson.dumps({"input": self.input, "complete": self.complete})
        body = _compressor.compress(encode(self.batches)) if self.batches else b""
        return len(head).to_bytes(4, "little") + head + body


def decode_message(data: bytes) -> Message:
    """Parse the bytes of :meth:`Message.encode`. Raises EvidenceError."""
    try:
        end = 4 + int.from_bytes(data[:4], "little")
        head = orjson.loads(data[4:end])
        complete = head["complete"]
        body = data[end:]
        batches: Sequence[tuple[int, ColumnBatch]] = ()
        if body:
            inflated = zstandard.ZstdDecompressor().decompress(body, _MAX_DECOMPRESSED)
            batches = decode(inflated)
        return Message(
            str(head["input"]), None if complete is None else float(complete), tuple(batches)
        )
    except (ValueError, KeyError, TypeError, zstandard.ZstdError) as error:
        raise EvidenceError(f"cannot be read: {error!r}") from error


def by_slot(batch: ColumnBatch) -> Iterator[tuple[int, ColumnBatch]]:
    """Split a batch by slot: pairs of slot number and rows."""
    slots = np.floor(batch.at / SLOT_SECONDS).astype(np.int64)
    first = int(slots[0])
    if (slots == first).all():
        yield first, batch
        return
    order = np.argsort(slots, kind="stable")
    sorted_ = slots[order]
    ends = [*(np.flatnonzero(np.diff(sorted_)) + 1).tolist(), len(order)]
    begin = 0
    for end in ends:
        yield int(sorted_[begin]), batch.rows(order[begin:end])
        begin = end


def messages_of(
    input_: str, complete: float | None, batches: Sequence[ColumnBatch]
) -> list[Message]:
    """Messages that hold ``batches``, each of about :data:`MOST_BYTES` at most. Only the last one
    carries ``complete``, after all rows that it covers."""
    messages: list[Message] = []
    waiting: list[tuple[int, ColumnBatch]] = []
    size = 0
    for batch in batches:
        if not len(batch):
            continue
        for slot, rows in by_slot(batch):
            row_size = _size(rows) / len(rows)
            step = max(1, int(MOST_BYTES / row_size))
            for begin in range(0, len(rows), step):
                whole = step >= len(rows)
                part = rows if whole else rows.rows(slice(begin, begin + step))
                if waiting and size + row_size * len(part) > MOST_BYTES:
                    messages.append(Message(input_, None, tuple(waiting)))
                    waiting, size = [], 0
                waiting.append((slot, part))
                size += int(row_size * len(part))
    messages.append(Message(input_, complete, tuple(waiting)))
    return messages


def _size(batch: ColumnBatch) -> int:
    size = 40 * len(batch)
    for column in batch.columns:
        if isinstance(column, np.ndarray):
            size += 8 * len(column)
        else:
            some = column[:: max(1, len(column) // 16)]
            size += len(orjson.dumps(some, default=str)) * len(column) // len(some)
    return size
