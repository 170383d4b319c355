"""From records, one by one, to blocks by partition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import attrgetter
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from monitor.codecs import Table, Undecodable
from monitor.feedback.labels import Label
from monitor.record import Record
from monitor.transport.blocks.block import (
    NUMBERS,
    PACKED,
    TEXTS,
    Decoded,
    Head,
    Heartbeat,
    LabelBlock,
    RecordBlock,
    Texts,
    reason_of,
)
from monitor.transport.blocks.cells import Grid, grid_of
from monitor.transport.server import Names

MOST_RECORDS = 256
"""In one block."""
MOST_CELLS = 250_000
"""Cells of features or predictions in one block: rows of a batch request count."""
MOST_WAITING = 16_384
"""Records in open blocks of all partitions; beyond it all are closed."""
_MOST_GRIDS = 64
_MOST_REASONS = 256

_numbers = attrgetter(*NUMBERS)
_pack = PACKED.pack
_DTYPE = np.dtype([(name, np.dtype(kind).newbyteorder("<")) for name, kind in NUMBERS.items()])


def partition_of(request_id: bytes | str, partitions: int) -> int:
    """Where a request, its copies and its labels go: CRC-32 of the id, modulo the partitions.

    That is what librdkafka's partitioner ``consistent`` makes of the same id as a key.
    """
    if isinstance(request_id, str):
        # A record's id is bytes, which labels are compared with as Latin-1.
        request_id = request_id.encode("latin-1", "replace")
    return crc32(request_id) % partitions


class _Side:
    """Features or predictions of an open block."""

    __slots__ = ("cells", "grids", "index", "last", "places", "rows", "several")

    def __init__(self) -> None:
        self.index: dict[tuple[str, ...], int] = {}
        self.grids: list[list[object]] = []
        self.places: list[int] = []
        self.rows: list[int] = []
        self.several = False
        self.cells = 0
        self.last: tuple[str, ...] | None = None

    def add(self, table: Table) -> None:
        names, values = table.names, table.values
        # Tables of one model share their names, mostly even the tuple.
        place = 0 if names is self.last else self.index.get(names, -1)
        if place < 0:
            place = self.index[names] = len(self.grids)
            self.grids.append([])
            if place == 0:
                self.last = names
        self.grids[place] += values
        self.places.append(place)
        rows = table.rows
        self.rows.append(rows)
        if rows != 1:
            self.several = True
        self.cells += len(values)

    def finish(
        self,
    ) -> tuple[tuple[Grid, ...], NDArray[np.int16] | None, NDArray[np.uint32] | None]:
        """Grids, and per record the number of its grid and of its rows there."""
        grids = tuple(grid_of(n, c) for n, c in zip(self.index, self.grids, strict=True))
        places = rows = None
        if len(grids) != 1 or min(self.places) < 0:
            places = np.array(self.places, np.int16)
        if self.several:
            rows = np.array(self.rows, np.uint32)
        return grids, places, rows


class _Open:
    """A block that is being filled."""

    __slots__ = (
        *("began", "ids", "names", "numbers", "reasons", "request", "response"),
        *("targets", "traces", "units"),
    )

    def __init__(self, names: Names, began: float) -> None:
        self.names = names
        self.began = began
        self.numbers: list[bytes] = []
        self.ids: list[bytes] = []
        self.traces: list[bytes] = []
        self.units: list[bytes] = []
        self.targets: list[bytes] = []
        self.request = _Side()
        self.response = _Side()
        self.reasons: dict[tuple[str, str], int] = {}

    def unread(self, side: _Side, why: Undecodable) -> None:
        """Take note that a payload could not be read."""
        key = (why.reason, why.detail)
        number = self.reasons.get(key)
        if number is None:
            number = self.reasons[key] = len(self.reasons)
        side.places.append(-1 - number)
        side.rows.append(0)

    @property
    def crowded(self) -> bool:
        """Whether a bound other than the number of records is reached."""
        asked, said = self.request, self.response
        return (
            asked.cells + said.cells > MOST_CELLS
            or len(asked.grids) > _MOST_GRIDS
            or len(said.grids) > _MOST_GRIDS
            or len(self.reasons) > _MOST_REASONS
        )

    def finish(self, head: Head, model: int) -> RecordBlock:
        """The block."""
        packed = np.frombuffer(b"".join(self.numbers), _DTYPE)
        features, request, request_rows = self.request.finish()
        predictions, response, response_rows = self.response.finish()
        gathered = (self.ids, self.traces, self.units, self.targets)
        return RecordBlock(
            head,
            self.names,
            model,
            len(packed),
            {name: np.ascontiguousarray(packed[name]) for name in NUMBERS},
            {name: Texts.of(texts) for name, texts in zip(TEXTS, gathered, strict=True)},
            features,
            predictions,
            tuple(reason_of(*key) for key in self.reasons),
            request,
            response,
            request_rows,
            response_rows,
        )


class Builder:
    """Fills a block for each partition, model and set of names, and gives it out when it is full.

    ``last`` are the numbers of the last blocks by partition where a run goes on. Blocks of one
    partition are numbered in the order in which they are given out, and have to be sent in it.
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
        """Number of the last block that was given out, by partition."""
        self.waiting = 0
        """Records in blocks that are not full."""
        self._open: dict[tuple[int, int, int], _Open] = {}
        self._names: dict[Names, int] = {}
        self._given: Names | None = None
        self._number = 0

    def add(
        self, names: Names, record: Record, of_request: Decoded, of_response: Decoded, now: float
    ) -> Sequence[RecordBlock]:
        """Take in a record; the blocks that are full with it. ``now`` is unix seconds.

        The cells are copied; headers and payloads are not kept. Raises TypeError for a cell that
        is nothing of JSON.
        """
        if names is not self._given:
            self._given = names
            self._number = self._names.setdefault(names, len(self._names))
        request_id = record.request_id
        # Nothing needs to meet a record without an id.
        partition = crc32(request_id or record.trace_id) % self.partitions
        key = (self._number, record.model, partition)
        block = self._open.get(key)
        if block is None:
            block = self._open[key] = _Open(names, now)
        block.numbers.append(_pack(*_numbers(record)))
        block.ids.append(request_id)
        block.traces.append(record.trace_id)
        block.units.append(record.unit)
        block.targets.append(record.target)
        if isinstance(of_request, Table):
            block.request.add(of_request)
        else:
            block.unread(block.request, of_request)
        if isinstance(of_response, Table):
            block.response.add(of_response)
        else:
            block.unread(block.response, of_response)
        self.waiting += 1
        if len(block.ids) >= self.most_records or block.crowded:
            return (self._close(key, now),)
        if self.waiting >= MOST_WAITING:
            return self.flush(now, everything=True)
        return ()

    def flush(self, now: float, everything: bool = False) -> list[RecordBlock]:
        """The blocks that have been open for ``linger`` seconds, or all."""
        due = [
            key
            for key, block in self._open.items()
            if everything or not 0.0 <= now - block.began < self.linger
        ]
        closed = [self._close(key, now) for key in due]
        if not self._open:  # numbers of names that are no more may begin anew
            self._names.clear()
            self._given = None
        return closed

    def labels(self, labels: Sequence[tuple[float, Label]], now: float) -> list[LabelBlock]:
        """Feedback, with the unix time at which it was received, as a block for each partition."""
        by: dict[int, list[tuple[float, Label]]] = {}
        for received, label in labels:
            partition = partition_of(label.request_id, self.partitions)
            by.setdefault(partition, []).append((received, label))
        return [LabelBlock(self._head(p, now), tuple(mine)) for p, mine in by.items()]

    def heartbeats(self, now: float, complete: float, dropped: int = 0) -> list[Heartbeat]:
        """A sign of life for each partition; see :class:`Heartbeat`."""
        return [
            Heartbeat(
                Head(self.source, self.run, partition, self.last.get(partition, 0), now),
                now,
                complete,
                dropped,
            )
            for partition in range(self.partitions)
        ]

    def _close(self, key: tuple[int, int, int], now: float) -> RecordBlock:
        block = self._open.pop(key)
        _, model, partition = key
        self.waiting -= len(block.ids)
        return block.finish(self._head(partition, now), model)

    def _head(self, partition: int, now: float) -> Head:
        seq = self.last[partition] = self.last.get(partition, 0) + 1
        return Head(self.source, self.run, partition, seq, now)
