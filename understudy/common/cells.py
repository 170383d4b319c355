"""One type for each column of a file, by all its rows.

A type by a part of the rows changes from request to request: a column of ``1``, an empty cell and
``2.5`` would be integers, then nothing, then numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from understudy.common.files import MISSING

_INT64 = 2**63


class Kind(Enum):
    """What the values of a column are."""

    EMPTY = "empty"
    BOOLEAN = "boolean"
    INTEGER = "integer"
    NUMBER = "number"
    TEXT = "text"
    MIXED = "mixed"
    """Values of JSON of several kinds."""


@dataclass(slots=True)
class ColumnCells:
    """How many cells of a column there are of each kind."""

    missing: int = 0
    booleans: int = 0
    integers: int = 0
    numbers: int = 0
    """Those with a fraction or an exponent, and NaN."""
    texts: int = 0
    others: int = 0

    @property
    def present(self) -> int:
        """Cells with a value."""
        return self.booleans + self.integers + self.numbers + self.texts + self.others

    @property
    def numeric_share(self) -> float:
        """Share of the cells with a value that are numbers; 1 without any."""
        return (self.integers + self.numbers) / self.present if self.present else 1.0

    def kind(self, texts: bool) -> Kind:
        """The one kind of all cells. ``texts``: they are of a CSV file, in which whatever is not
        all of one kind is text."""
        present = self.present
        if not present:
            return Kind.EMPTY
        if self.booleans == present:
            return Kind.BOOLEAN
        if self.integers == present:
            return Kind.INTEGER
        if self.integers + self.numbers == present:
            return Kind.NUMBER
        return Kind.TEXT if texts or self.texts == present else Kind.MIXED

    def add_text(self, cell: str) -> None:
        """Count a cell of a CSV file."""
        if cell in MISSING:
            self.missing += 1
        elif (number := parsed(cell)) is None:
            if cell.lower() in ("true", "false"):
                self.booleans += 1
            else:
                self.texts += 1
        elif isinstance(number, int):
            self.integers += 1
        else:
            self.numbers += 1

    def add(self, value: object) -> None:
        """Count a value of JSON."""
        if value is None:
            self.missing += 1
        elif isinstance(value, bool):
            self.booleans += 1
        elif isinstance(value, int):
            self.integers += 1
        elif isinstance(value, float):
            self.numbers += 1
        elif isinstance(value, str):
            self.texts += 1
        else:
            self.others += 1


def count_cells(rows: Iterable[Mapping[str, Any]], texts: bool) -> dict[str, ColumnCells]:
    """The cells of each column; ``texts``: of a CSV file. A column that a row lacks is missing
    there."""
    found: dict[str, ColumnCells] = {}
    count = 0
    for row in rows:
        for name, value in row.items():
            column = found.get(name)
            if column is None:
                column = found[name] = ColumnCells(missing=count)
            if texts:
                column.add_text(value)
            else:
                column.add(value)
        count += 1
    for column in found.values():
        column.missing = max(column.missing, count - column.present)
    return found


def parsed(text: str) -> int | float | None:
    """The number that a cell of a CSV file is; None for others. Integers fit into 64 bits."""
    if "_" in text:  # Python allows it between digits, files do not
        return None
    try:
        number = int(text)
    except ValueError:
        try:
            return float(text)
        except ValueError:
            return None
    return number if -_INT64 <= number < _INT64 else float(text)


def value_of(text: str, kind: Kind) -> Any:
    """The value of a cell of a CSV file whose column is of a kind; None where it is missing."""
    if text in MISSING:
        return None
    if kind is Kind.BOOLEAN:
        return text.lower() == "true"
    if kind is Kind.INTEGER:
        return parsed(text)
    if kind is Kind.NUMBER:
        number = parsed(text)
        return None if number is None or math.isnan(number) else number
    return text
