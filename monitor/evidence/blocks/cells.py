"""Cells of decoded payloads as typed columns, and back again without loss.

A cell is a JSON value. A column whose cells are all of one kind, the common case, is one array.
In other columns each cell has its kind. Distinct texts, nested values and large integers are stored
once, with an index per cell.
"""

from __future__ import annotations

import array as arrays
import json
import marshal
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from understudy.common.arrays import distinct

NULL, FLOAT, INT, BOOL, TEXT, JSON, BIG = range(7)
"""Kinds of a cell. JSON is a list or an object as JSON text, BIG an integer as decimal text."""
KINDS = ("null", "float", "int", "bool", "text", "json", "big")
_KIND = {type(None): NULL, float: FLOAT, int: INT, bool: BOOL, str: TEXT, list: JSON, dict: JSON}
_NUMERIC = {float, int, bool, type(None)}
_FLOATS = {float, type(None)}
_TEXTS = {str, type(None)}
_LAYOUTS: dict[type, tuple[int, bytes, int, np.dtype[Any]]] = {
    float: (FLOAT, b"g", 9, np.dtype("<f8")),
    int: (INT, b"i", 5, np.dtype("<i4")),
    bool: (BOOL, b"TF", 1, np.dtype("u1")),
}
"""How marshal encodes cells: type letters, bytes per cell, and the type after the letter."""
_STORED = {FLOAT: np.float64, INT: np.int64, BOOL: np.uint8}
MARSHAL_HEAD = 5
"""Bytes before the cells: the type letter of a list and its length."""
_SCALES = (0, 2, 4, 6)
_PROBE = 8
_EXACT = 2**53
"""Integers up to this magnitude are exact as float64."""

Numbers = NDArray[np.float64] | NDArray[np.int64] | NDArray[np.uint8]
Codes = NDArray[np.uint8] | NDArray[np.uint16] | NDArray[np.uint32]
Kinds = NDArray[np.uint8]
Matrix = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(slots=True)
class Column:
    """``rows`` cells. ``kinds`` is None where all are of the kind ``kind``.

    ``numbers`` are int64 where all cells are INT, uint8 where all are BOOL, else float64; ``codes``
    are indices into ``texts`` of the cells that are TEXT, JSON or BIG. Either is None where no cell
    needs it, and holds zeros for the cells that do not.
    """

    rows: int
    kind: int
    numbers: Numbers | None = None
    codes: Codes | None = None
    texts: tuple[str, ...] = ()
    kinds: Kinds | None = None

    def values(self) -> list[Any]:
        """The cells as Python values, exactly as they were given."""
        if self.kinds is not None:
            return self._mixed(self.kinds)
        if self.kind == NULL:
            return [None] * self.rows
        if self.numbers is not None:
            numbers: list[Any] = self.numbers.tolist()
            return list(map(bool, numbers)) if self.kind == BOOL else numbers
        return self._texts(self.kind)

    def _texts(self, kind: int) -> list[Any]:
        assert self.codes is not None
        texts = list(map(self.texts.__getitem__, self.codes.tolist()))
        if kind == TEXT:
            return texts
        # A separate list or object for each cell: callers may change it.
        return list(map(json.loads if kind == JSON else int, texts))

    def _mixed(self, kinds: Kinds) -> list[Any]:
        cells: list[Any] = [None] * self.rows if self.numbers is None else self.numbers.tolist()
        texts = self.texts
        for kind in distinct(kinds).tolist():
            if kind == FLOAT:
                continue
            indices = np.flatnonzero(kinds == kind).tolist()
            if kind in (TEXT, JSON, BIG) and self.codes is not None:
                codes = self.codes.tolist()
                for index in indices:
                    text = texts[codes[index]]
                    cells[index] = (
                        text if kind == TEXT else json.loads(text) if kind == JSON else int(text)
                    )
            else:
                for index in indices:
                    cell = cells[index]
                    cells[index] = (
                        int(cell) if kind == INT else bool(cell) if kind == BOOL else None
                    )
        return cells

    def floats(self) -> tuple[Matrix, Mask | None]:
        """Cells as float64, other than numbers and truth values NaN; and the mask of cells that are
        neither a number nor missing, or None."""
        if self.kinds is None and self.numbers is not None:
            return self.numbers.astype(np.float64, copy=False), None
        if self.kinds is None and self.kind == NULL:
            return np.full(self.rows, np.nan), None
        kinds = np.full(self.rows, self.kind, np.uint8) if self.kinds is None else self.kinds
        if self.numbers is None:
            numbers = np.full(self.rows, np.nan)
        else:
            numbers = np.where((kinds >= FLOAT) & (kinds <= BOOL), self.numbers, np.nan)
        if self.codes is not None:
            for index in np.flatnonzero(kinds == BIG).tolist():
                numbers[index] = _float(self.texts[int(self.codes[index])])
        other = (kinds == TEXT) | (kinds == JSON)
        return numbers, other if other.any() else None


def _float(digits: str) -> float:
    try:
        return float(int(digits))
    except OverflowError:
        return float("-inf") if digits.startswith("-") else float("inf")


def column_of(cells: Sequence[Any]) -> Column:
    """The column of ``cells`` of any kind."""
    rows = len(cells)
    result = _scalars(cells)
    if result is not None:
        return Column(rows, result[0], result[1].astype(_STORED[result[0]]))
    if rows and type(cells[0]) is str:
        coded = _all_texts(cells)
        if coded is not None:
            return Column(rows, TEXT, None, *coded)
    types = set(map(type, cells))
    if len(types) == 1:
        kind = _KIND.get(next(iter(types)), JSON)
        if kind == INT:
            try:
                return Column(rows, INT, np.frombuffer(arrays.array("q", cells), np.int64))
            except OverflowError:
                return _mixed_of(cells)
        if kind == NULL:
            return Column(rows, NULL)
        if kind == JSON:
            return Column(rows, JSON, None, *_coded([_json(cell) for cell in cells]))
    elif types <= _NUMERIC:
        mixture = _mixed_numbers(cells, types)
        if mixture is not None:
            return mixture
    elif types == _TEXTS:
        present = np.frombuffer(bytes([cell is not None for cell in cells]), np.uint8)
        codes, texts = _coded(["" if cell is None else cell for cell in cells])
        return Column(rows, NULL, None, codes, texts, present * np.uint8(TEXT))
    return _mixed_of(cells)


def _scalars(cells: Sequence[Any]) -> tuple[int, NDArray[Any]] | None:
    """Kind and numbers if all cells are floats, 32-bit integers or truth values; else None.

    The module marshal encodes a float as "g" and eight bytes, such an integer as "i" and four
    bytes, a truth value as "T" or "F". So one pass over the cells finds their types and copies
    them, in a third of the time of two passes. Other cells change the length, or a type letter.
    """
    if not cells or (layout := _LAYOUTS.get(type(cells[0]))) is None:
        return None
    kind, letters, size, numbers = layout
    data = dumped(cells if type(cells) is list else list(cells))
    if data is None or len(data) != MARSHAL_HEAD + size * len(cells):
        return None
    marks = np.frombuffer(data, np.uint8, offset=MARSHAL_HEAD)[::size]
    if kind == BOOL:
        true = marks == letters[0]
        return (kind, true.view(np.uint8)) if (true | (marks == letters[1])).all() else None
    if not (marks == letters[0]).all():
        return None
    return kind, np.ndarray(len(cells), numbers, data, MARSHAL_HEAD + 1, size)


def dumped(cells: list[Any]) -> bytes | None:
    """The marshal encoding of cells, or of rows of cells; None when it does not support one."""
    try:
        return marshal.dumps(cells, 2)
    except ValueError:  # a type that no codec produces
        return None


def _mixed_numbers(cells: Sequence[Any], types: set[type]) -> Column | None:
    """The column of numbers of several kinds or missing, such as 1.0, 1 and null in JSON; None when
    an integer has too many digits."""
    missing = type(None) in types
    filled = [0.0 if cell is None else cell for cell in cells] if missing else cells
    if types == _FLOATS:  # the most frequent case
        kinds = np.frombuffer(bytes([cell is not None for cell in cells]), np.uint8)
    else:
        kinds = np.frombuffer(bytes(map(_KIND.__getitem__, map(type, cells))), np.uint8)
    try:
        numbers = np.frombuffer(arrays.array("d", filled), np.float64)
    except OverflowError:
        return None
    if int in types and not (np.abs(numbers[kinds == INT]) < _EXACT).all():
        return None
    return Column(len(cells), NULL, numbers, None, (), kinds)


def _mixed_of(cells: Sequence[Any]) -> Column:
    rows = len(cells)
    kinds = np.zeros(rows, np.uint8)
    numbers = np.zeros(rows)
    texts = [""] * rows
    numeric = textual = False
    for index, cell in enumerate(cells):
        kind = _KIND.get(type(cell), JSON)
        if kind == INT and not -_EXACT <= cell <= _EXACT:
            kind = BIG
        kinds[index] = kind
        if kind in (FLOAT, INT, BOOL):
            numbers[index] = cell
            numeric = True
        elif kind != NULL:
            texts[index] = cell if kind == TEXT else _json(cell) if kind == JSON else str(cell)
            textual = True
    codes, known = _coded(texts) if textual else (None, ())
    return Column(rows, NULL, numbers if numeric else None, codes, known, kinds)


def _json(cell: object) -> str:
    # A value outside JSON, which no codec produces, becomes its text, so no record is lost.
    return json.dumps(cell, separators=(",", ":"), default=str)


def _all_texts(cells: Sequence[Any]) -> tuple[Codes, tuple[str, ...]] | None:
    """Codes and texts where all cells are texts, else None."""
    try:
        known = dict.fromkeys(cells)
    except TypeError:  # a list or an object
        return None
    # Only a text equals a text, so it is enough to check each distinct one.
    return _coded(cells, known) if {str}.issuperset(map(type, known)) else None


def _coded(
    texts: Sequence[str], known: dict[str, None] | None = None
) -> tuple[Codes, tuple[str, ...]]:
    """Indices into the distinct texts, and these; ``known`` are their first occurrences."""
    result = tuple(dict.fromkeys(texts) if known is None else known)
    indices = map(dict(zip(result, range(len(result)), strict=True)).__getitem__, texts)
    if len(result) <= 256:
        return np.frombuffer(bytes(indices), np.uint8), result
    if len(result) <= 65536:
        return np.fromiter(indices, np.uint16, len(texts)), result
    return np.fromiter(indices, np.uint32, len(texts)), result


@dataclass(slots=True)
class Grid:
    """Rows with one set of names: the cells of the tables of many records, one after another.

    ``matrix`` has shape (names, rows) where every cell is a float; else there are ``columns``.
    """

    names: tuple[str, ...]
    rows: int
    matrix: Matrix | None = None
    columns: tuple[Column, ...] = ()

    def values(self) -> list[Any]:
        """All cells, row after row."""
        if self.matrix is not None:
            cells: list[Any] = self.matrix.T.ravel().tolist()
            return cells
        if len(self.columns) == 1:
            return self.columns[0].values()
        return list(chain.from_iterable(zip(*(c.values() for c in self.columns), strict=True)))

    def floats(self) -> tuple[Matrix, Mask | None]:
        """As :func:`understudy.monitor.evidence.columns.matrix_of`: float64 of shape (rows, names),
        with NaN for other cells, and the mask of cells that are neither number nor missing."""
        if self.matrix is not None:
            return self.matrix.T, None
        result = np.empty((self.rows, len(self.names)))
        others: Mask | None = None
        for index, column in enumerate(self.columns):
            result[:, index], other = column.floats()
            if other is not None:
                if others is None:
                    others = np.zeros(result.shape, np.bool_)
                others[:, index] = other
        return result, others

    def column(self, name: str) -> Column:
        """One column. Raises KeyError."""
        if name not in self.names:
            raise KeyError(name)
        index = self.names.index(name)
        if self.matrix is not None:
            return Column(self.rows, FLOAT, self.matrix[index])
        return self.columns[index]


def grid_of(names: tuple[str, ...], values: Sequence[Any]) -> Grid:
    """The grid of a flat sequence of cells, ``len(names)`` per row."""
    width = len(names)
    rows = len(values) // width
    if {float}.issuperset(map(type, values[:width])):
        floats = _scalars(values)
        if floats is not None:
            return Grid(names, rows, np.ascontiguousarray(floats[1].reshape(rows, width).T))
    return Grid(names, rows, None, tuple(column_of(values[k::width]) for k in range(width)))


def decimals(matrix: Matrix, hint: int | None = None) -> tuple[int, NDArray[np.int32], Mask] | None:
    """Scale k, integers n, and the mask of the matrix rows in which every cell is exactly n / 10^k.

    Uses the scale ``hint`` if it fits half of the rows; else the smallest one that fits all rows,
    or the most, judged by their first cells. None when that is less than half of them.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        if hint is not None:
            whole, fits = _over(matrix, hint)
            if 2 * int(np.count_nonzero(fits)) >= len(matrix):
                return hint, whole, fits
        probe = matrix[:, :_PROBE]
        best, most = 0, 0
        for scale in _SCALES:
            fitting = int(np.count_nonzero(_over(probe, scale)[1]))
            if fitting > most:
                best, most = scale, fitting
            if most == len(matrix):
                break
        if 2 * most < len(matrix) or not most:
            return None
        whole, fits = _over(matrix, best)
    return (best, whole, fits) if fits.any() else None


def _over(matrix: Matrix, scale: int) -> tuple[NDArray[np.int32], Mask]:
    power = 10.0**scale
    whole = np.rint(matrix * power).astype(np.int32)
    # Compare bits: a negative zero, a NaN and a number that is too large do not fit.
    same = (whole / power).view(np.int64) == matrix.view(np.int64)
    return whole, np.logical_and.reduce(same, axis=1)
