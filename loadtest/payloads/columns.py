"""Features of a file in one datatype for each column."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from understudy.common.cells import ColumnCells, Kind, value_of
from understudy.common.text import did_you_mean
from understudy.loadtest.errors import PlanError

Datatype = Literal[
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16",
    "BF16", "FP32", "FP64", "BYTES",
]  # fmt: skip
"""Names of the Open Inference Protocol V2."""
_FLOATS = ("FP16", "BF16", "FP32", "FP64")
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}
_OF_KINDS = {
    Kind.EMPTY: "FP64", Kind.BOOLEAN: "BOOL", Kind.INTEGER: "INT64", Kind.NUMBER: "FP64",
    Kind.TEXT: "BYTES",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Columns:
    """``datatypes`` by column, without those that hold values of several kinds; ``declared`` are
    those that the plan names. ``texts``: cells are texts of a CSV file, of these ``kinds``."""

    datatypes: Mapping[str, str]
    declared: Mapping[str, str]
    kinds: Mapping[str, Kind]
    texts: bool

    @classmethod
    def of(
        cls, cells: Mapping[str, ColumnCells], texts: bool, declared: Mapping[str, str]
    ) -> Columns:
        """From the cells of the whole file. Raises PlanError for a datatype of no column."""
        for name in declared:
            if name not in cells:
                close = did_you_mean(name, cells) or f"; columns: {', '.join(cells)}"
                raise PlanError(f"payloads.datatypes: unknown column {name!r}{close}")
        kinds = {name: one.kind(texts) for name, one in cells.items()}
        datatypes = {
            # An integer has no value that stands for a missing one.
            name: "FP64" if kind is Kind.INTEGER and cells[name].missing else _OF_KINDS[kind]
            for name, kind in kinds.items()
            if kind in _OF_KINDS
        }
        return cls({**datatypes, **declared}, declared, kinds, texts)

    def row(self, number: int, row: object) -> dict[str, Any]:
        """A row with values of the datatypes. Raises PlanError."""
        if not isinstance(row, dict):
            raise PlanError(f"line {number}: a row must be an object of features by name")
        return {name: self._value(number, name, cell) for name, cell in row.items()}

    def _value(self, number: int, name: str, cell: Any) -> Any:
        datatype = self.declared.get(name)
        if datatype is None:
            return value_of(cell, self.kinds[name]) if self.texts else cell
        if self.texts:
            cell = value_of(cell, Kind.TEXT)
        if cell is None:
            return None
        try:
            return _cast(cell, datatype)
        except (KeyError, TypeError, ValueError, OverflowError):
            raise PlanError(
                f"line {number}: {name}: {cell!r} is not a value of {datatype} (payloads.datatypes)"
            ) from None


def _cast(cell: Any, datatype: str) -> Any:
    if datatype == "BYTES":
        if not isinstance(cell, (str, int, float)):
            raise TypeError
        return str(cell)
    if datatype == "BOOL":
        return _BOOLEANS[str(cell).lower()]
    if datatype in _FLOATS:
        return float(cell)
    whole = float(cell)
    if whole != int(whole):
        raise ValueError
    exact = str(cell).lstrip("+-").isdigit()
    return int(cell) if exact else int(whole)
