"""A block by columns: its records as arrays, and what was decoded of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from understudy.monitor.codecs import Table
from understudy.monitor.evidence.batch import Column, ColumnBatch, Floats, column_of
from understudy.monitor.evidence.blocks import Grid, RecordBlock
from understudy.monitor.evidence.observe import NO_COPY, NOT_COUNTED
from understudy.monitor.records.record import OUTCOMES, Record

Places = NDArray[np.intp]
Mask = NDArray[np.bool_]
_OUTCOMES = range(len(OUTCOMES))
_COUNTS = np.array(
    [
        [outcome not in NOT_COUNTED for outcome in _OUTCOMES],
        [outcome not in NO_COPY for outcome in _OUTCOMES],
    ]
)
"""By role and outcome: whether a record says anything about its arm."""


class Part:
    """Features or predictions of a block: ``grid`` by record (below 0: the reason why there is
    none), ``row`` in that grid."""

    def __init__(self, count: int, places: NDArray[np.int16] | None, grids: Sequence[Grid]) -> None:
        self.grids = grids
        self.grid = np.zeros(count, np.int64) if places is None else places.astype(np.int64)
        self.row = np.zeros(count, np.intp)
        for number in range(len(grids)):
            here = np.flatnonzero(self.grid == number)
            self.row[here] = np.arange(len(here))
        self._columns: dict[int, list[Column]] = {}

    def columns(self, grid: int) -> list[Column]:
        """All columns of a grid."""
        found = self._columns.get(grid)
        if found is None:
            found = self._columns[grid] = list(_columns(self.grids[grid]))
        return found

    def of(self, grid: int, records: Places) -> list[Column]:
        """The columns of a grid, of some records."""
        rows = self.row[records]
        return [cells_at(column, rows) for column in self.columns(grid)]

    def table(self, record: int) -> Table | None:
        """What was decoded of one record."""
        grid = int(self.grid[record])
        if grid < 0:
            return None
        row = int(self.row[record])
        cells = [
            column[row].item() if isinstance(column, np.ndarray) else column[row]
            for column in self.columns(grid)
        ]
        return Table(self.grids[grid].names, 1, cells)


def _columns(grid: Grid) -> Iterator[Column]:
    if grid.matrix is not None:
        yield from grid.matrix
        return
    for column in grid.columns:
        numbers: Any = column.numbers
        if column.kinds is None and numbers is not None and numbers.dtype != np.uint8:
            yield numbers
        else:
            yield column_of(column.values())


def cells_at(column: Column, rows: Places) -> Column:
    """Some cells of a column."""
    if isinstance(column, np.ndarray):
        return column[rows]
    return [column[row] for row in rows.tolist()]


class BlockColumns:
    """One block by columns."""

    def __init__(self, block: RecordBlock, offset: int, champion: str) -> None:
        numbers = block.numbers
        self.block = block
        self.offset = offset
        self.count = block.count
        self.arms = block.names.arms
        self.champion = self.arms.index(champion) if champion in self.arms else -1
        self.arm = numbers["arm"]
        self.role = numbers["role"]
        self.outcome = numbers["outcome"]
        self.assigned = numbers["assigned"]
        self.started: Floats = numbers["started"]
        self.seconds: Floats = numbers["duration_ns"] * 1e-9
        self.at: Floats = self.started + self.seconds
        self.ids = block.texts["request_id"].values()
        self.request = Part(block.count, block.request, block.features)
        self.response = Part(block.count, block.response, block.predictions)
        self.counts: Mask = _COUNTS[self.role, self.outcome]
        self._records: list[Any] | None = None

    def sheet(
        self,
        kind: tuple[str, ...],
        names: tuple[str, ...],
        records: Places,
        columns: list[Column],
        side: Any = None,
    ) -> ColumnBatch:
        """A row for each of some records."""
        ids = self.ids
        return ColumnBatch(
            kind,
            names,
            self.at[records],
            [ids[place] for place in records.tolist()],
            (self.role[records] if side is None else side).astype(np.int16),
            columns,
        )

    def record(self, place: int) -> Record:
        """One record as such."""
        if self._records is None:
            self._records = [None] * self.count
        one = Record()
        numbers = self.block.numbers
        one.model = self.block.model
        for name in ("arm", "status", "role", "outcome", "assigned", "duration_ns"):
            setattr(one, name, int(numbers[name][place]))
        one.started = float(self.started[place])
        one.request_id = self.ids[place]
        return one


def pairs_of(first: NDArray[Any], second: NDArray[Any]) -> list[tuple[int, int]]:
    """The pairs that occur."""
    if not len(first):
        return []
    if (first == first[0]).all() and (second == second[0]).all():
        return [(int(first[0]), int(second[0]))]
    return sorted(set(zip(first.tolist(), second.tolist(), strict=True)))


def arm_of(taken: BlockColumns, arm: int) -> str:
    """The name of an arm."""
    return taken.arms[arm] if arm < len(taken.arms) else "other"
