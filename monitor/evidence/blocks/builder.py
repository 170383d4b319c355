"""Builds blocks by partition from records."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from understudy.common.codecs import Table, Undecodable
from understudy.monitor.evidence.blocks.block import (
    NUMBERS,
    TEXTS,
    Decoded,
    Head,
    Heartbeat,
    LabelBlock,
    RecordBlock,
    Texts,
    reason_of,
)
from understudy.monitor.evidence.blocks.cell_buffer import MAX_UNPACKED, CellBuffer
from understudy.monitor.evidence.blocks.cells import Grid
from understudy.monitor.labels.label import Label
from understudy.monitor.records.encode import FIXED
from understudy.monitor.records.handoff import Names
from understudy.monitor.records.record import FIXED_OFFSETS, Record, fixed_of

MOST_RECORDS = 256
"""Records in one block."""
MOST_CELLS = 250_000
"""Cells of features or predictions in one block: rows of a batch request count."""
MOST_BYTES = 4 * 1024 * 1024
"""Bytes of the bodies whose cells are in one block; well below a broker's message limit."""
MOST_WAITING = 16_384
"""Records in open blocks of all partitions; beyond it all blocks are closed."""
_MOST_GRIDS = 64
_MOST_REASONS = 256
_MODELS = 65_536
"""Upper limit (exclusive) of a record's model index."""

_PACKED = np.dtype(
    {
        "names": list(NUMBERS),
        "formats": [np.dtype(kind).newbyteorder("<") for kind in NUMBERS.values()],
        "offsets": [FIXED_OFFSETS[name] for name in NUMBERS],
        "itemsize": FIXED.size,
    }
)
"""NUMBERS at their offsets in the fixed part of a record."""
_FIELDS = 1 + len(TEXTS)


def partition_of(request_id: bytes | str, partitions: int) -> int:
    """The partition of a request, its mirrored requests and its labels: CRC-32 of the id, modulo
    ``partitions``.

    librdkafka's partitioner ``consistent`` gives the same partition for the id as a key.
    """
    if isinstance(request_id, str):
        # A record's id is bytes; labels are matched to it as Latin-1.
        request_id = request_id.encode("latin-1", "replace")
    return crc32(request_id) % partitions


class _Side:
    """Features or predictions of an open block.

    Most records have one row with the names of the first record. Only the others are stored with
    their index: ``others`` are (record, grid, rows); a negative grid is the number of a reason.
    """

    __slots__ = ("cells", "first", "grids", "names", "others", "rows")

    def __init__(self) -> None:
        self.names: tuple[str, ...] | None = None
        self.rows: list[list[Any]] = []
        """Of ``first``."""
        self.first: CellBuffer | None = None
        self.grids: dict[tuple[str, ...], CellBuffer] = {}
        self.others: list[tuple[int, int, int]] = []
        self.cells = 0

    def pack(self) -> None:
        """Pack the rows with the first names."""
        if self.first is not None:
            self.first.pack()

    def add(self, record: int, table: Table) -> None:
        """Add a table with any names and number of rows."""
        names = table.names
        grid = self.grids.get(names)
        if grid is None:
            grid = self.grids[names] = CellBuffer(names)
        if self.first is None:
            self.names, self.rows, self.first = names, grid.rows, grid
        if table.rows != 1 or grid is not self.first:
            self.others.append((record, list(self.grids).index(names), table.rows))
        if table.rows == 1:
            grid.rows.append(table.values)
            if len(grid.rows) >= MAX_UNPACKED:
                grid.pack()
        else:
            grid.add(table.values)
        self.cells += len(table.values)

    def finish(
        self, count: int
    ) -> tuple[tuple[Grid, ...], NDArray[np.int16] | None, NDArray[np.uint32] | None]:
        """The grids, and by record its grid index and its number of rows in that grid."""
        grids = tuple(gathered.finish() for gathered in self.grids.values())
        if not self.others:
            return grids, None, None
        grid_indices, rows = np.zeros(count, np.int16), np.ones(count, np.uint32)
        records, result, many = np.array(self.others).T
        grid_indices[records] = result
        rows[records] = many
        several = bool((many[result >= 0] != 1).any())
        return grids, grid_indices if result.any() else None, rows if several else None


class _Open:
    """A block that is being filled."""

    __slots__ = (
        *("began", "fields", "full", "last", "names"),
        *("reasons", "request", "response", "room"),
    )

    def __init__(self, names: Names, began: float, limit: int) -> None:
        self.names = names
        self.began = began
        self.full = limit * _FIELDS
        """Number of fields at which it is full."""
        self.room = MOST_BYTES
        """Bytes of bodies left until it is full."""
        self.fields: list[Any] = []
        """Fixed part and TEXTS of the records in one flat list: a tuple for each record would be
        one more object for the garbage collector to visit."""
        self.request = _Side()
        self.response = _Side()
        self.reasons: dict[tuple[str, str], int] = {}
        self.last: tuple[str | None, str, int] = (None, "", 0)
        """Reason, detail and number of the last undecodable payload."""

    def add(self, side: _Side, decoded: Decoded) -> None:
        """Add the decoded table of the last record, or the reason why there is none."""
        record = len(self.fields) // _FIELDS - 1
        if isinstance(decoded, Table):
            side.add(record, decoded)
            width = len(decoded.names)
            if side.cells > MOST_CELLS or len(side.grids) > _MOST_GRIDS:
                self.full = 0
            elif width * self.full > MOST_CELLS * _FIELDS:
                self.full = MOST_CELLS // width * _FIELDS
            return
        reason, detail, number = self.last
        if decoded.reason is not reason or decoded.detail != detail:
            number = self._reason(decoded)
        side.others.append((record, -1 - number, 1))

    def _reason(self, decoded: Undecodable) -> int:
        """The number of a reason; the last one is cached, since hashing costs more."""
        key = (decoded.reason, decoded.detail)
        number = self.reasons.get(key)
        if number is None:
            number = self.reasons[key] = len(self.reasons)
            if number > _MOST_REASONS:
                self.full = 0
        self.last = (*key, number)
        return number

    def finish(self, head: Head, model: int) -> RecordBlock:
        """The block."""
        fields = self.fields
        count = len(fields) // _FIELDS
        packed = np.frombuffer(b"".join(fields[::_FIELDS]), _PACKED)
        numbers = {name: np.ascontiguousarray(packed[name]) for name in NUMBERS}
        texts = {
            name: Texts.of(fields[index::_FIELDS]) for index, name in enumerate(TEXTS, start=1)
        }
        features, request, request_rows = self.request.finish(count)
        predictions, response, response_rows = self.response.finish(count)
        return RecordBlock(
            head,
            self.names,
            model,
            count,
            numbers,
            texts,
            features,
            predictions,
            tuple(reason_of(*key) for key in self.reasons),
            request,
            response,
            request_rows,
            response_rows,
        )


class Builder:
    """Fills a block for each partition, model and set of names, and returns it when it is full.

    ``last`` are the numbers of the last blocks by partition when a run is resumed. Blocks of one
    partition are numbered in the order in which they are returned, and must be sent in that order.
    """

    def __init__(
        self,
        source: str,
        run: str,
        partitions: int,
        most_records: int = MOST_RECORDS,
        linger: float = 1.0,
        last: Mapping[int, int] | None = None,
    ) -> None:
        self.source = source
        self.run = run
        self.partitions = partitions
        self.most_records = most_records
        self.linger = linger
        self.last = dict(last or {})
        """Number of the last block that was returned, by partition."""
        self._open: dict[int, _Open] = {}
        """Open blocks. The key packs names, model and partition into one integer, for speed."""
        self._names: dict[Names, int] = {}
        self._given: Names | None = None
        self._number = 0

    @property
    def waiting(self) -> int:
        """Records in blocks that are not full."""
        return sum(len(block.fields) for block in self._open.values()) // _FIELDS

    def add(
        self, names: Names, record: Record, of_request: Decoded, of_response: Decoded, now: float
    ) -> list[RecordBlock]:
        """Add one record; see :meth:`extend`, which costs less per record of a batch."""
        return self.extend(names, ((record, of_request, of_response),), now)

    def extend(
        self, names: Names, rows: Iterable[tuple[Record, Decoded, Decoded]], now: float
    ) -> list[RecordBlock]:
        """Add records with their decoded requests and responses; returns the blocks that are full.

        ``now`` is unix time in seconds.

        Lists of cells are kept until a batch of them is packed; callers must not change them.
        Headers and payloads are not kept.
        """
        if names is not self._given:
            self._given = names
            self._number = self._names.setdefault(names, len(self._names))
        partitions, opened = self.partitions, self._open
        first = self._number * _MODELS * partitions
        waiting = self.waiting
        closed: list[RecordBlock] = []
        for record, of_request, of_response in rows:
            # A record without an id joins with nothing, so any partition will do.
            request_id = record.request_id
            partition = crc32(request_id or record.trace_id) % partitions
            key = first + record.model * partitions + partition
            try:
                block = opened[key]
            except KeyError:
                block = opened[key] = _Open(names, now, self.most_records)
            fields = block.fields
            try:
                fixed = record.fixed
            except AttributeError:
                fixed = fixed_of(record)
            fields += (
                fixed,
                request_id,
                record.trace_id,
                record.span,
                record.unit,
                record.target,
            )
            side = block.request
            if (
                type(of_request) is Table
                and of_request.rows == 1
                and ((known := of_request.names) is side.names or known == side.names)
            ):
                loose = side.rows
                loose.append(of_request.values)
                if len(loose) >= MAX_UNPACKED:
                    side.pack()
            else:
                block.add(side, of_request)
            side = block.response
            if (
                type(of_response) is Table
                and of_response.rows == 1
                and ((known := of_response.names) is side.names or known == side.names)
            ):
                loose = side.rows
                loose.append(of_response.values)
                if len(loose) >= MAX_UNPACKED:
                    side.pack()
            else:
                block.add(side, of_response)
            waiting += 1
            block.room -= record.request_size + record.response_size
            if len(fields) >= block.full or block.room <= 0:
                closed.append(self._close(key, now))
                waiting = self.waiting
            elif waiting >= MOST_WAITING:
                closed += self._close_all(now)
                waiting = 0
        return closed

    def _close_all(self, now: float) -> list[RecordBlock]:
        return [self._close(key, now) for key in list(self._open)]

    def flush(self, now: float, everything: bool = False) -> list[RecordBlock]:
        """Close the blocks that have been open for ``linger`` seconds, or all (``everything``)."""
        due = [
            key
            for key, block in self._open.items()
            if everything or not 0.0 <= now - block.began < self.linger
        ]
        closed = [self._close(key, now) for key in due]
        if not self._open:  # numbers of names are not in use: restart them
            self._names.clear()
            self._given = None
        return closed

    def labels(self, labels: Sequence[tuple[float, Label]], now: float) -> list[LabelBlock]:
        """Labels, each with the unix time at which it was received, as one block per partition."""
        by: dict[int, list[tuple[float, Label]]] = {}
        for received, label in labels:
            partition = partition_of(label.request_id, self.partitions)
            by.setdefault(partition, []).append((received, label))
        return [LabelBlock(self._head(p, now), tuple(mine)) for p, mine in by.items()]

    def heartbeats(self, now: float, complete: float, dropped: int = 0) -> list[Heartbeat]:
        """A heartbeat for each partition; see :class:`Heartbeat`."""
        return [
            Heartbeat(
                Head(self.source, self.run, partition, self.last.get(partition, 0), now),
                now,
                complete,
                dropped,
            )
            for partition in range(self.partitions)
        ]

    def _close(self, key: int, now: float) -> RecordBlock:
        block = self._open.pop(key)
        model, partition = divmod(key, self.partitions)
        model %= _MODELS
        return block.finish(self._head(partition, now), model)

    def _head(self, partition: int, now: float) -> Head:
        seq = self.last[partition] = self.last.get(partition, 0) + 1
        return Head(self.source, self.run, partition, seq, now)
