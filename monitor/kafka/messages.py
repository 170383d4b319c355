"""What the first stage sends to the second: batches by slot, and how far the input has come."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import orjson
import zstandard

from understudy.monitor.errors import EvidenceError
from understudy.monitor.evidence.batch import ColumnBatch, decode, encode

SLOT_SECONDS = 1.0
"""Length of a slot of event time, which is also how often experiments and findings are judged."""
MOST_BYTES = 512 * 1024
"""About how long the rows of one message may be, before compression."""
_MOST_INFLATED = 256 * 1024 * 1024
_compressor = zstandard.ZstdCompressor(level=1)


@dataclass(frozen=True, slots=True)
class Message:
    """``input`` names the partition that the rows come from. No row before ``complete`` (unix
    time) is to come from it any more, but late ones; it is None as long as nobody knows."""

    input: str
    complete: float | None
    batches: tuple[tuple[int, ColumnBatch], ...]

    def encode(self) -> bytes:
        """As bytes."""
        head = orjson.dumps({"input": self.input, "complete": self.complete})
        body = _compressor.compress(encode(self.batches)) if self.batches else b""
        return len(head).to_bytes(4, "little") + head + body


def decode_message(data: bytes) -> Message:
    """Undo :meth:`Message.encode`. Raises EvidenceError."""
    try:
        end = 4 + int.from_bytes(data[:4], "little")
        head = orjson.loads(data[4:end])
        complete = head["complete"]
        body = data[end:]
        batches: Sequence[tuple[int, ColumnBatch]] = ()
        if body:
            inflated = zstandard.ZstdDecompressor().decompress(body, _MOST_INFLATED)
            batches = decode(inflated)
        return Message(
            str(head["input"]), None if complete is None else float(complete), tuple(batches)
        )
    except (ValueError, KeyError, TypeError, zstandard.ZstdError) as error:
        raise EvidenceError(f"cannot be read: {error!r}") from error


def by_slot(batch: ColumnBatch) -> Iterator[tuple[int, ColumnBatch]]:
    """The rows of each slot."""
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
    """Messages that hold the batches, none of them much too long; the last one alone says how far
    the input has come, so that who has read it has read the rows before it."""
    found: list[Message] = []
    waiting: list[tuple[int, ColumnBatch]] = []
    size = 0
    for batch in batches:
        if not len(batch):
            continue
        for slot, of_slot in by_slot(batch):
            each = _size(of_slot) / len(of_slot)
            step = max(1, int(MOST_BYTES / each))
            for begin in range(0, len(of_slot), step):
                whole = step >= len(of_slot)
                part = of_slot if whole else of_slot.rows(slice(begin, begin + step))
                if waiting and size + each * len(part) > MOST_BYTES:
                    found.append(Message(input_, None, tuple(waiting)))
                    waiting, size = [], 0
                waiting.append((slot, part))
                size += int(each * len(part))
    found.append(Message(input_, complete, tuple(waiting)))
    return found


def _size(batch: ColumnBatch) -> int:
    size = 40 * len(batch)
    for column in batch.columns:
        if isinstance(column, np.ndarray):
            size += 8 * len(column)
        else:
            some = column[:: max(1, len(column) // 16)]
            size += len(orjson.dumps(some, default=str)) * len(column) // len(some)
    return size
