"""The columns of a block: its records as arrays, with their decoded features and predictions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from understudy.common.arrays import distinct
from understudy.common.codecs import Reason, Table
from understudy.monitor.evidence.batch import ColumnBatch
from understudy.monitor.evidence.blocks import Grid, RecordBlock
from understudy.monitor.evidence.columns import Column, Floats, cells_at, column_of, listed
from understudy.monitor.records import record as outcomes
from understudy.monitor.records.record import Record

Indices = NDArray[np.intp]
Mask = NDArray[np.bool_]
ERRORS = outcomes.CHARGED | {outcomes.CANCELLED}
"""Outcomes that are the arm's failure, as the experiment counts them: a client that leaves before
the answer got none."""


READ = 0
REASONS = tuple(Reason)
_CODES = {reason: float(code) for code, reason in enumerate(REASONS, READ + 1)}
ERROR_RESPONSE = _CODES[Reason.ERROR_RESPONSE]
ROWS_DIFFER = _CODES[Reason.ROWS_DIFFER]
_CODES |= dict.fromkeys((Reason.NOT_READ, Reason.NOT_INFERENCE), np.nan)


class Part:
    """Features or predictions of a block.

    Arrays by record: ``grid`` is the index of its grid (below 0: the reason why it was not
    decoded), ``first`` its first row in that grid, ``many`` its number of rows; ``many`` is None
    when each record has one row.
    """

    def __init__(
        self,
        count: int,
        grid: NDArray[np.int16] | None,
        many: NDArray[np.uint32] | None,
        grids: Sequence[Grid],
    ) -> None:
        self.grids = grids
        self.grid = np.zeros(count, np.int64) if grid is None else grid.astype(np.int64)
        self.many = None if many is None else many.astype(np.int64)
        self.first = np.zeros(count, np.intp)
        for number in range(len(grids)):
            here = np.flatnonzero(self.grid == number)
            if self.many is None:
                self.first[here] = np.arange(len(here))
            else:
                self.first[here] = np.cumsum(self.many[here]) - self.many[here]
        self._cells: dict[int, list[Column]] = {}
        self._columns: dict[int, list[Column]] = {}

    def columns(self, grid: int) -> list[Column]:
        """All columns of a grid."""
        columns = self._columns.get(grid)
        if columns is None:
            columns = self._columns[grid] = [
                cells if isinstance(cells, np.ndarray) else column_of(cells)
                for cells in self._exact(grid)
            ]
        return columns

    def _exact(self, grid: int) -> list[Column]:
        """All columns of a grid, where missing cells are None and not NaN."""
        columns = self._cells.get(grid)
        if columns is None:
            columns = self._cells[grid] = list(_cells_of(self.grids[grid]))
        return columns

    def rows(self, records: Indices) -> tuple[Indices, Indices]:
        """The rows of ``records``: for each row its record, and its index in the grid."""
        if self.many is None:
            return records, self.first[records]
        many = self.many[records]
        of = np.repeat(records, many)
        within = np.arange(len(of)) - np.repeat(np.cumsum(many) - many, many)
        return of, self.first[of] + within

    def of(self, grid: int, records: Indices) -> list[Column]:
        """The columns of a grid, restricted to the rows of ``records``."""
        _, rows = self.rows(records)
        return [cells_at(column, rows) for column in self.columns(grid)]

    def decoded(self, records: Indices) -> list[Table | None]:
        """The decoded table of each of ``records``; None where decoding failed."""
        tables: list[Table | None] = [None] * len(records)
        grids = self.grid[records]
        for number in distinct(grids).tolist():
            if number < 0:
                continue
            indices = np.flatnonzero(grids == number)
            names = self.grids[number].names
            _, grid_rows = self.rows(records[indices])
            columns = [listed(cells_at(cells, grid_rows)) for cells in self._exact(number)]
            rows = [list(row) for row in zip(*columns, strict=True)]
            if self.many is None:
                for index, row in zip(indices.tolist(), rows, strict=True):
                    tables[index] = Table(names, 1, row)
                continue
            begin = 0
            many = self.many[records[indices]].tolist()
            for index, count in zip(indices.tolist(), many, strict=True):
                end = begin + count
                tables[index] = Table(names, count, list(chain.from_iterable(rows[begin:end])))
                begin = end
        return tables


def _cells_of(grid: Grid) -> Iterator[Column]:
    if grid.matrix is not None:
        yield from grid.matrix
        return
    for column in grid.columns:
        numbers: Any = column.numbers
        if column.kinds is None and numbers is not None and numbers.dtype != np.uint8:
            yield numbers
        else:
            yield column.values()


class BlockColumns:
    """The columns of one block.

    ``champion`` is the name of the arm whose answers are evaluated. ``offset`` is the position of
    the block in its input, from which it can be read again.
    """

    def __init__(self, block: RecordBlock, offset: int, champion: str) -> None:
        numbers = block.numbers
        names = block.names
        self.block = block
        self.offset = offset
        self.count = block.count
        self.key = names.model(block.model)[:2]
        """(model, version)"""
        self.names = names
        self.arms = names.arms
        self.champion = self.arm_index(champion)
        self.arm = numbers["arm"]
        self.role = numbers["role"]
        self.outcome = numbers["outcome"]
        self.status = numbers["status"]
        self.assigned = numbers["assigned"]
        self.started: Floats = numbers["started"]
        self.seconds: Floats = numbers["duration_ns"] * 1e-9
        self.at: Floats = self.started + self.seconds
        queued = numbers["queue_ns"] * 1e-9
        self.server_seconds: Floats = np.maximum(self.seconds - queued, 0.0)
        """Without the wait for one of our own connections."""
        self.server_first_byte: Floats = numbers["first_byte_ns"] * 1e-9 - queued
        self.response_size = numbers["response_size"]
        self.ids = block.texts["request_id"].values()
        self._keys: list[bytes] | None = None
        self._records: list[Record] | None = None
        self.request = Part(block.count, block.request, block.request_rows, block.features)
        self.response = Part(block.count, block.response, block.response_rows, block.predictions)
        self.finished: Mask = self.outcome != outcomes.OPEN

    @property
    def keys(self) -> list[bytes]:
        """By record, what identifies a request and its mirrored requests: the id of the proxy,
        which clients cannot choose, or the request id in records from elsewhere."""
        if self._keys is None:
            numbers = self.block.numbers["proxy_id"]
            packed = numbers.astype("<u8").tobytes()
            keys = [packed[at : at + 8] for at in range(0, len(packed), 8)]
            for record in np.flatnonzero(numbers == 0).tolist():
                keys[record] = self.ids[record]
            self._keys = keys
        return self._keys

    @property
    def records(self) -> list[Record]:
        """The records, without headers and payloads."""
        if self._records is None:
            self._records = list(self.block.records())
        return self._records

    def codes(self, part: Part, records: Indices) -> Floats:
        """By record, whether ``part`` of it was decoded: 0 if it was, 1 + the index in ``REASONS``
        why not, and NaN where nothing was to be read."""
        grid = part.grid[records]
        codes = np.zeros(len(records))
        gone = grid < 0
        if gone.any():
            reasons = np.array([_CODES[why.reason] for why in self.block.undecodable])
            codes[gone] = reasons[-1 - grid[gone]]
        return codes

    def details(self, part: Part, records: Indices) -> Column:
        """By record, what was found where ``part`` of it was not decoded: None, or NaN, where it
        was."""
        grid = part.grid[records]
        if not (grid < 0).any():
            return np.full(len(records), np.nan)
        why = self.block.undecodable
        return [None if number >= 0 else why[-1 - number].detail for number in grid.tolist()]

    def batch(
        self,
        kind: tuple[str, ...],
        names: tuple[str, ...],
        records: Indices,
        columns: list[Column],
        side: NDArray[Any] | None = None,
        ids: Sequence[bytes] | None = None,
    ) -> ColumnBatch:
        """A batch with one row for each of ``records``, which may contain duplicates; ``ids`` are
        of all records, by default their request ids."""
        ids = self.ids if ids is None else ids
        return ColumnBatch(
            kind,
            names,
            self.at[records],
            [ids[record] for record in records.tolist()],
            (self.role[records] if side is None else side).astype(np.int16),
            columns,
        )

    def arm_index(self, name: str) -> int:
        """The index of an arm; -1 when no record of this block has it."""
        return self.arms.index(name) if name in self.arms else -1


def distinct_pairs(first: NDArray[Any], second: NDArray[Any]) -> list[tuple[int, int]]:
    """The distinct pairs of two arrays of equal length, sorted."""
    if not len(first):
        return []
    if (first == first[0]).all() and (second == second[0]).all():
        return [(int(first[0]), int(second[0]))]
    return sorted(set(zip(first.tolist(), second.tolist(), strict=True)))
