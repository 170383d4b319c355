"""Evidence between the two stages of the evaluation: rows in columns, in a fixed order.

The first stage (decode, join by id) produces batches of rows; the second stage (statistics,
findings, rollouts) consumes them. Every row has a time, an id of the request and a side. The second
stage sees rows sorted by these three, never in order of arrival, so its result does not depend on
how many processes the first stage was spread over.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from understudy.monitor.errors import EvidenceError
from understudy.monitor.evidence.columns import Column, cells_at

Floats = NDArray[np.float64]
Key = tuple[tuple[str, ...], tuple[str, ...]]
"""Kind and names."""


@dataclass(slots=True)
class ColumnBatch:
    """Rows of one ``kind``; its first word is the type of row, the rest names the consumer.

    ``at`` is the unix time at which the event of each row ended, shape (rows,). ``side``
    distinguishes rows of one request, shape (rows,). Each of ``columns`` has as many cells.
    """

    kind: tuple[str, ...]
    names: tuple[str, ...]
    at: Floats
    ids: list[bytes]
    side: NDArray[np.int16]
    columns: list[Column] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def key(self) -> Key:
        """Batches with one key can be merged."""
        return self.kind, self.names

    def column(self, name: str) -> Column:
        """One column. Raises ValueError for a name that is not there."""
        return self.columns[self.names.index(name)]

    def floats(self, name: str) -> Floats:
        """One column as float64, shape (rows,); cells that are not numbers become NaN."""
        column = self.column(name)
        if isinstance(column, np.ndarray):
            return column.astype(np.float64, copy=False)
        return np.array(
            [cell if isinstance(cell, (int, float)) else np.nan for cell in column], np.float64
        )

    def rows(self, which: NDArray[np.intp] | slice) -> ColumnBatch:
        """The rows at the indices, or in the slice, ``which``."""
        if isinstance(which, slice):
            ids = self.ids[which]
            columns: list[Column] = [column[which] for column in self.columns]
        else:
            ids = [self.ids[index] for index in which.tolist()]
            columns = [cells_at(column, which) for column in self.columns]
        return ColumnBatch(self.kind, self.names, self.at[which], ids, self.side[which], columns)

    def in_order(self) -> ColumnBatch:
        """The rows sorted by time, request id and side; the sort is stable."""
        at = self.at
        if len(at) < 2:
            return self
        steps = np.diff(at)
        if (steps > 0.0).all():
            return self
        order = np.lexsort((self.side, np.array(self.ids, np.bytes_), at))
        return self.rows(order)


def batch_of(
    kind: tuple[str, ...],
    names: tuple[str, ...],
    at: Any,
    ids: Iterable[bytes],
    side: Any,
    columns: list[Column],
) -> ColumnBatch:
    """Build a batch from times, ids and sides in any kind of sequence."""
    return ColumnBatch(
        kind, names, np.array(at, np.float64), list(ids), np.array(side, np.int16), columns
    )


def merge(batches: Sequence[ColumnBatch]) -> list[ColumnBatch]:
    """Merge the batches of each key into one sorted batch; results are ordered by key."""
    grouped: dict[Key, list[ColumnBatch]] = {}
    for batch in batches:
        if len(batch):
            grouped.setdefault(batch.key, []).append(batch)
    return [concatenate(grouped[key]).in_order() for key in sorted(grouped)]


def concatenate(batches: Sequence[ColumnBatch]) -> ColumnBatch:
    """Join batches of one key, without sorting the rows."""
    first = batches[0]
    if len(batches) == 1:
        return first
    return ColumnBatch(
        first.kind,
        first.names,
        np.concatenate([batch.at for batch in batches]),
        [one for batch in batches for one in batch.ids],
        np.concatenate([batch.side for batch in batches]),
        [
            _column([batch.columns[index] for batch in batches])
            for index in range(len(first.columns))
        ],
    )


def _column(parts: list[Column]) -> Column:
    arrays: list[Any] = [part for part in parts if isinstance(part, np.ndarray)]
    if len(arrays) == len(parts) and len({part.dtype for part in arrays}) == 1:
        joined: Column = np.concatenate(arrays)
        return joined
    return [
        cell for part in parts for cell in (part.tolist() if isinstance(part, np.ndarray) else part)
    ]


# Bytes --------------------------------------------------------------------------------------------

_MAGIC = b"USE1"


def encode(batches: Iterable[tuple[int, ColumnBatch]]) -> bytes:
    """Pack batches, each with a number (its slot)."""
    heads: list[Any] = []
    parts: list[bytes] = []
    for slot, batch in batches:
        kinds = []
        lengths = np.fromiter(map(len, batch.ids), np.uint16, len(batch))
        parts += [batch.at.tobytes(), batch.side.tobytes(), lengths.tobytes(), *batch.ids]
        sizes = [int(lengths.sum())]
        for column in batch.columns:
            if isinstance(column, np.ndarray):
                kinds.append("d" if column.dtype == np.float64 else "q")
                data = np.ascontiguousarray(column).tobytes()
            else:
                kinds.append("j")
                data = orjson.dumps(column, default=str)
            sizes.append(len(data))
            parts.append(data)
        heads.append([slot, batch.kind, batch.names, len(batch), kinds, sizes])
    head = orjson.dumps(heads)
    return b"".join((_MAGIC, len(head).to_bytes(4, "little"), head, *parts))


def decode(data: bytes) -> list[tuple[int, ColumnBatch]]:
    """Undo :func:`encode`. Raises EvidenceError."""
    try:
        if data[:4] != _MAGIC:
            raise EvidenceError(f"not an evidence message: starts with {data[:4]!r}")
        end = 8 + int.from_bytes(data[4:8], "little")
        batches = []
        position = end
        for slot, kind, names, rows, kinds, sizes in orjson.loads(data[8:end]):
            at = np.frombuffer(data, np.float64, rows, position)
            position += 8 * rows
            side = np.frombuffer(data, np.int16, rows, position)
            position += 2 * rows
            ends = np.cumsum(np.frombuffer(data, np.uint16, rows, position), dtype=np.int64)
            position += 2 * rows
            begin = position
            stops = (ends + begin).tolist()
            ids = [data[a:b] for a, b in zip([begin, *stops], stops, strict=False)]
            position += sizes[0]
            columns: list[Column] = []
            for which, size in zip(kinds, sizes[1:], strict=True):
                if which == "j":
                    columns.append(orjson.loads(data[position : position + size]))
                else:
                    dtype: Any = np.float64 if which == "d" else np.int64
                    columns.append(np.frombuffer(data, dtype, rows, position))
                position += size
            if any(len(column) != rows for column in columns):
                raise EvidenceError(f"columns of kind {kind!r} have different lengths")
            batches.append(
                (int(slot), ColumnBatch(tuple(kind), tuple(names), at, ids, side, columns))
            )
        if position != len(data):
            raise EvidenceError(f"header describes {position:,} bytes, message has {len(data):,}")
    except (ValueError, TypeError, IndexError) as error:
        raise EvidenceError(f"cannot be read: {error!r}") from error
    return batches
