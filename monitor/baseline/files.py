"""Rows of a file as columns, in batches: Parquet, CSV, JSON lines or a JSON list.

Cells of a CSV file are texts; a column of which most cells in the whole file are numbers is one of
numbers, and an empty cell is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from understudy.common.cells import ColumnCells, parsed
from understudy.common.files import (
    CSV,
    ENDINGS,
    JSON,
    LINES,
    MISSING,
    PARQUET,
    FileError,
    ParquetFile,
    csv_rows,
    json_values,
    unreadable,
)
from understudy.monitor.errors import BaselineError

BATCH = 8192
_NANS = ("NaN", "nan")

Progress = Callable[[int], None]
"""Called with the bytes, or for Parquet the rows, that were read since the last call."""


@dataclass(slots=True)
class Table:
    """``columns`` by name, all of the same length."""

    columns: dict[str, list[Any]] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(next(iter(self.columns.values()))) if self.columns else 0


@dataclass(slots=True)
class Reader:
    """Reads one file any number of times. ``skip_broken`` counts lines that cannot be read instead
    of ending with a BaselineError that names them."""

    path: Path
    skip_broken: bool = False
    delimiter: str | None = None
    """Of a CSV file; by default detected."""
    skipped: int = 0
    progress: Progress | None = None
    _numeric: list[bool] | None = None
    """Which columns of a CSV file hold numbers."""

    @property
    def size(self) -> int:
        """What the progress adds up to. Raises BaselineError."""
        try:
            if self.path.suffix.lower() in PARQUET:
                return ParquetFile(self.path).rows
            return self.path.stat().st_size
        except OSError as error:
            raise BaselineError(str(unreadable(self.path, error))) from error
        except FileError as error:
            raise BaselineError(str(error)) from error

    def tables(self) -> Iterator[Table]:
        """The rows, in order. Raises BaselineError that names the line."""
        kind = self.path.suffix.lower()
        self.skipped = 0
        try:
            if kind in PARQUET:
                yield from self._from_parquet()
            elif kind in CSV:
                yield from self._from_csv()
            elif kind in (*LINES, *JSON):
                yield from self._from_json()
            else:
                raise BaselineError(f"{self.path}: must end in {ENDINGS}")
        except FileError as error:
            raise BaselineError(str(error)) from error

    def _broken(self, error: FileError) -> None:
        if not self.skip_broken:
            raise BaselineError(f"{error}; --skip-broken leaves such lines out")
        self.skipped += 1

    def _read(self, amount: int) -> None:
        if self.progress is not None:
            self.progress(amount)

    def _from_parquet(self) -> Iterator[Table]:
        for columns in ParquetFile(self.path).columns(BATCH):
            table = Table(columns)
            yield table
            self._read(table.rows)

    def _from_csv(self) -> Iterator[Table]:
        if self._numeric is None:
            self._numeric = _numeric(csv_rows(self.path, lambda _: None, self.delimiter))
        numeric = self._numeric
        rows = csv_rows(self.path, self._broken, self.delimiter)
        _, header = next(rows)
        held: list[list[str]] = []
        size = 0
        for _, row in rows:
            held.append(row)
            size += sum(map(len, row)) + len(row)
            if len(held) >= BATCH:
                yield _cells(header, held, numeric)
                self._read(size)
                held, size = [], 0
        if held:
            yield _cells(header, held, numeric)
            self._read(size)

    def _from_json(self) -> Iterator[Table]:
        held: list[dict[str, Any]] = []
        size = 0
        for number, length, row in json_values(self.path, self._broken):
            if not isinstance(row, dict):
                self._broken(FileError(self.path, "must be an object", number))
                continue
            held.append(row)
            size += length
            if len(held) >= BATCH:
                yield _objects(held)
                self._read(size)
                held, size = [], 0
        if held:
            yield _objects(held)
            self._read(size)


def _numeric(rows: Iterator[tuple[int, list[str]]]) -> list[bool]:
    """Which columns hold numbers, by all rows."""
    _, header = next(rows)
    columns = [ColumnCells() for _ in header]
    for _, row in rows:
        for column, cell in zip(columns, row, strict=True):
            if cell not in _NANS:
                column.add_text(cell)
    return [column.numeric_share > 0.5 for column in columns]


def _cells(header: list[str], rows: list[list[str]], numeric: list[bool]) -> Table:
    columns: dict[str, list[Any]] = {}
    for index, name in enumerate(header):
        cells: list[Any] = []
        for row in rows:
            cell = row[index]
            if cell in MISSING:
                cells.append(None)
            elif cell in _NANS:
                cells.append(float("nan"))
            elif numeric[index]:
                number = parsed(cell)
                cells.append(cell if number is None else float(number))
            else:
                cells.append(cell)
        columns[name] = cells
    return Table(columns)


def _objects(rows: list[dict[str, Any]]) -> Table:
    names = dict.fromkeys(name for row in rows for name in row)
    return Table({name: [row.get(name) for row in rows] for name in names})
