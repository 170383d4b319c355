"""Buffers the cells of an open block, and turns them into a grid."""

from __future__ import annotations

import marshal
from collections.abc import Sequence
from typing import Any

import numpy as np

from understudy.monitor.evidence.blocks.cells import MARSHAL_HEAD, Grid, dumped, grid_of

MAX_UNPACKED = 16
"""Rows that are packed in one step."""


class CellBuffer:
    """Rows with one set of names, in order of arrival: lists of cells, which must not be changed.

    While all cells are floats they are packed every few rows, when they are likely to be in the CPU
    cache still: floats as objects take three times the memory, and visiting and freeing them later
    costs more. As in :func:`understudy.monitor.evidence.blocks.cells.column_of`, the marshal
    encoding shows whether all are floats; it restores every JSON value exactly.
    """

    __slots__ = ("_cells", "_packed", "names", "rows")

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names
        self.rows: list[list[Any]] = []
        """Rows not yet packed. Callers append here, and call :meth:`pack` at :data:`MAX_UNPACKED`.
        """
        self._packed: list[bytes] | None = []
        self._cells: list[Any] = []

    def pack(self) -> None:
        """Pack the rows appended so far."""
        rows = self.rows
        if self._packed is not None:
            data = dumped(rows)
            if data is not None and len(data) == MARSHAL_HEAD + len(rows) * self._row_bytes:
                self._packed.append(data[MARSHAL_HEAD:])
                rows.clear()
                return
            self._unpack()
        cells = self._cells
        for row in rows:
            cells += row
        rows.clear()

    @property
    def _row_bytes(self) -> int:
        return MARSHAL_HEAD + 9 * len(self.names)

    def _unpack(self) -> None:
        for data in self._packed or ():
            many = len(data) // self._row_bytes
            # Bytes that this process made of numbers and keeps in its memory.
            for row in marshal.loads(b"[" + many.to_bytes(4, "little") + data):  # noqa: S302
                self._cells += row
        self._packed = None

    def add(self, cells: Sequence[Any]) -> None:
        """Add the cells of any number of rows, row after row."""
        if self.rows:
            self.pack()
        if self._packed is not None:
            self._unpack()
        self._cells += cells

    def finish(self) -> Grid:
        """The grid of all rows."""
        if self.rows:
            self.pack()
        if self._packed is not None:
            width, size = len(self.names), self._row_bytes
            data = b"".join(self._packed)
            count = len(data) // size
            marks = np.ndarray((count, width), np.uint8, data, MARSHAL_HEAD, (size, 9))
            if count and (marks == ord("g")).all():
                cells = np.ndarray((count, width), "<f8", data, MARSHAL_HEAD + 1, (size, 9))
                return Grid(self.names, count, np.ascontiguousarray(cells.T, np.float64))
            self._unpack()
        return grid_of(self.names, self._cells)
