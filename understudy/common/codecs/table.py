"""What a codec yields: a table of cells, or the reason why there is none."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar


class Reason(StrEnum):
    """Why a payload could not be read. A closed list: it is a label in metrics."""

    NOT_CAPTURED = "not_captured"
    EMPTY = "empty"
    NOT_JSON = "not_json"
    NOT_CSV = "not_csv"
    TRUNCATED = "truncated"
    WRONG_SHAPE = "wrong_shape"
    BINARY = "binary"
    TOO_LARGE = "too_large"
    UNSUPPORTED_ENCODING = "unsupported_encoding"
    UNKNOWN_PROTOCOL = "unknown_protocol"
    NOT_INFERENCE = "not_inference"
    ERROR_RESPONSE = "error_response"
    SHARED_MEMORY = "shared_memory"
    """The data of a tensor is in memory that client and model server share."""
    INTERNAL = "internal"
    NOT_READ = "not_read"
    """The configuration says so: no fault."""
    ROWS_DIFFER = "rows_differ"
    """An answer was read, but has another number of rows than its request; or a tensor was, which
    has another one than the tensors beside it."""


@dataclass(frozen=True, slots=True)
class Undecodable:
    """``detail`` is for people; it never holds payload bytes."""

    lost: ClassVar[tuple[Undecodable, ...]] = ()
    """As of a table: all is lost, for one reason."""
    version: ClassVar[str] = ""

    reason: Reason
    detail: str = ""


@dataclass(slots=True)  # not frozen: that would double the time to make one, of two per record
class Table:
    """``rows`` × ``len(names)`` cells, row after row in ``values``.

    A cell is a JSON value: a number, a text, a truth value, None, or (a vector, a nested
    structure) a list or a dict. The caller owns the list of values. ``lost`` are the reasons why
    columns could not be read; they are there, with cells of None. ``version`` is that of the
    model, if the payload says it; it is no part of the cells.
    """

    names: tuple[str, ...]
    rows: int
    values: list[object]
    lost: tuple[Undecodable, ...] = ()
    version: str = field(default="", compare=False)

    def row(self, index: int) -> dict[str, object]:
        """One row by name; ``index`` counts from 0. Raises IndexError for a row not there."""
        if not 0 <= index < self.rows:
            raise IndexError(index)
        width = len(self.names)
        return dict(zip(self.names, self.values[index * width : (index + 1) * width], strict=True))

    def column(self, name: str) -> list[object]:
        """One column. Raises KeyError for a name that is not there."""
        if name not in self.names:
            raise KeyError(name)
        return self.values[self.names.index(name) :: len(self.names)]
