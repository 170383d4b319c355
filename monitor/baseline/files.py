"""Rows of a file as columns, in batches: Parquet, CSV or JSON lines.

Cells of a CSV file are texts; a column of which the first cells are numbers is one of numbers, and
an empty cell is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from understudy.common.files import (
    CSV,
    LINES,
    PARQUET,
    FileError,
    ParquetFile,
    csv_rows,
    json_objects,
    unreadable,
)
from understudy.monitor.errors import BaselineError

BATCH = 8192
_PROBE = 2000
_NOTHING = ("", "NA", "N/A", "NaN", "nan", "null", "None")

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
    skipped: int = 0
    progress: Progress | None = None

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
            elif kind in LINES:
                yield from self._from_lines()
            else:
                raise BaselineError(f"{self.path}: must end in .parquet, .csv or .jsonl")
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
        file = ParquetFile(self.path)
        from pyarrow import ArrowException

        for batch in file.batches(BATCH):
            table = Table()
            for index, name in enumerate(file.names):
                try:
                    table.columns[name] = _as_sent(batch.column(index))
                except (ArrowException, ValueError, OverflowError) as error:
                    raise BaselineError(f"{self.path}: column {name!r}: {error}") from error
            yield table
            self._read(batch.num_rows)

    def _from_csv(self) -> Iterator[Table]:
        rows = csv_rows(self.path, self._broken)
        _, header = next(rows)
        numeric: list[bool] | None = None
        held: list[list[str]] = []
        size = 0
        for _, row in rows:
            held.append(row)
            size += sum(map(len, row)) + len(row)
            if len(held) >= BATCH:
                numeric = numeric or _numeric(held)
                yield _cells(header, held, numeric)
                self._read(size)
                held, size = [], 0
        if held:
            yield _cells(header, held, numeric or _numeric(held))
            self._read(size)

    def _from_lines(self) -> Iterator[Table]:
        held: list[dict[str, Any]] = []
        size = 0
        for _, length, row in json_objects(self.path, self._broken):
            held.append(row)
            size += length
            if len(held) >= BATCH:
                yield _objects(held)
                self._read(size)
                held, size = [], 0
        if held:
            yield _objects(held)
            self._read(size)


def _as_sent(column: Any) -> list[Any]:
    """A column's cells as a client sends them in JSON: times as ISO 8601, decimals as numbers."""
    from pyarrow import types

    kind = column.type.value_type if types.is_dictionary(column.type) else column.type
    if "[ns" in str(kind) and not types.is_dictionary(column.type):
        column = column.cast(_microseconds(kind), safe=False)
    cells: list[Any] = column.to_pylist()
    if types.is_timestamp(kind) or types.is_date(kind) or types.is_time(kind):
        return [None if cell is None else cell.isoformat() for cell in cells]
    if types.is_decimal(kind):
        return [None if cell is None else float(cell) for cell in cells]
    if types.is_duration(kind):
        return [None if cell is None else cell.total_seconds() for cell in cells]
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind):
        return [None if cell is None else cell.decode("utf-8", "replace") for cell in cells]
    return cells


def _microseconds(kind: Any) -> Any:
    """The type without nanoseconds, which Python's own times do not have."""
    import pyarrow

    if pyarrow.types.is_timestamp(kind):
        return pyarrow.timestamp("us", kind.tz)
    return pyarrow.time64("us") if pyarrow.types.is_time(kind) else pyarrow.duration("us")


def _numeric(rows: list[list[str]]) -> list[bool]:
    """Which columns hold numbers, by the first rows."""
    return [_is_numeric([row[index] for row in rows[:_PROBE]]) for index in range(len(rows[0]))]


def _is_numeric(cells: list[str]) -> bool:
    present = [cell for cell in cells if cell not in _NOTHING]
    if not present:
        return True
    numbers = sum(1 for cell in present if _number(cell) is not None)
    return numbers > 0.5 * len(present)


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None


def _cells(header: list[str], rows: list[list[str]], numeric: list[bool]) -> Table:
    columns: dict[str, list[Any]] = {}
    for index, name in enumerate(header):
        cells: list[Any] = []
        for row in rows:
            cell = row[index]
            if cell in _NOTHING:
                cells.append(float("nan") if cell in ("NaN", "nan") else None)
            elif numeric[index]:
                number = _number(cell)
                cells.append(cell if number is None else number)
            else:
                cells.append(cell)
        columns[name] = cells
    return Table(columns)


def _objects(rows: list[dict[str, Any]]) -> Table:
    names = dict.fromkeys(name for row in rows for name in row)
    return Table({name: [row.get(name) for row in rows] for name in names})
