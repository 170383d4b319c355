"""Columns of cells: the form in which features and predictions pass from stage to stage.

A cell is a number, a truth value, a text, something nested, or missing. As float columns, numbers
and truth values become float64, missing ones NaN; texts and nested ones become NaN too, with a mask
that distinguishes them from missing ones.
"""

from __future__ import annotations

import array as arrays
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from understudy.shadow.state import Converter, FieldError, Saved, Stateful

Matrix = NDArray[np.float64]
Mask = NDArray[np.bool_]

Floats = NDArray[np.float64]
Column = NDArray[np.float64] | NDArray[np.int64] | list[Any]
"""Numbers of one type, or cells of any kind that JSON holds."""
_FRACTIONS = frozenset((float, type(None)))
_PLAIN = frozenset((float, int, bool, type(None)))


def listed(column: Column) -> list[Any]:
    """The cells of a column as Python values."""
    return column.tolist() if isinstance(column, np.ndarray) else column


def cells_at(column: Column, rows: NDArray[np.intp]) -> Column:
    """The cells of a column at the indices ``rows``."""
    if isinstance(column, np.ndarray):
        return column[rows]
    return [column[row] for row in rows.tolist()]


def column_of(cells: Sequence[Any]) -> Column:
    """Cells as one array where all are floats (NaN: missing) or all are integers; else as they
    are."""
    kinds = set(map(type, cells))
    if float in kinds and kinds <= _FRACTIONS:
        return np.array(cells, np.float64)
    if kinds == {int}:
        try:
            return np.array(cells, np.int64)
        except OverflowError:
            pass
    return list(cells)


def matrix_of(columns: Sequence[Column], rows: int) -> tuple[Matrix, Mask | None]:
    """Columns of ``rows`` cells as numbers, an array of shape (rows, columns), and the mask of what
    is not a number; None when everything is a number or missing, which is the quick path."""
    matrix = np.empty((rows, len(columns)))
    others: Mask | None = None
    for index, column in enumerate(columns):
        if isinstance(column, np.ndarray):
            matrix[:, index] = column
            continue
        matrix[:, index], other = floats_of(column)
        if other is not None:
            if others is None:
                others = np.zeros(matrix.shape, np.bool_)
            others[:, index] = other
    return matrix, others


def floats_of(cells: Sequence[Any]) -> tuple[Floats, Mask | None]:
    """Cells as numbers, and the mask of what is not a number, as :func:`matrix_of` has them."""
    try:
        # The common case: numbers and truth values only.
        return np.frombuffer(arrays.array("d", cells), np.float64), None
    except (TypeError, OverflowError):
        pass
    if _PLAIN.issuperset(map(type, cells)):
        try:
            return np.array(cells, np.float64), None
        except OverflowError:
            pass  # an integer that float64 cannot hold
    numbers = np.fromiter(map(_number, cells), np.float64, len(cells))
    other = np.fromiter((type(cell) not in _PLAIN for cell in cells), np.bool_, len(cells))
    return numbers, other


def _number(value: object) -> float:
    if isinstance(value, (float, int)):
        try:
            return float(value)
        except OverflowError:
            return float("inf") if value > 0 else float("-inf")
    return float("nan")


def numbers(other: float) -> Converter:
    """Of an array of any length: None stands for what is not finite, which becomes ``other``."""

    def load(name: str, value: Any, _: Any) -> Matrix:
        if not isinstance(value, list):
            raise FieldError(name, f"must be a list, not {value!r}")
        return np.array([other if one is None else one for one in value], np.float64)

    return Converter(lambda array: [_finite(one) for one in array], load)


class Moments(Stateful):
    """Count, mean, sum of squared deviations, minimum and maximum of several columns at once.

    Merged by the pairwise formula of Chan, Golub & LeVeque (1979), so that neither the order of the
    batches nor their size matters beyond rounding. Values that are not finite are left out.
    """

    FIELDS = ("count", "mean", "squares", "minimum", "maximum")

    count: Saved[Annotated[Matrix, numbers(0.0)]]
    mean: Saved[Annotated[Matrix, numbers(0.0)]]
    squares: Saved[Annotated[Matrix, numbers(0.0)]]
    minimum: Saved[Annotated[Matrix, numbers(np.inf)]]
    maximum: Saved[Annotated[Matrix, numbers(-np.inf)]]

    def __init__(self, width: int) -> None:
        self.count = np.zeros(width)
        self.mean = np.zeros(width)
        self.squares = np.zeros(width)
        self.minimum = np.full(width, np.inf)
        self.maximum = np.full(width, -np.inf)

    def _restored(self) -> None:
        for name in self.FIELDS:
            if getattr(self, name).shape != self.count.shape:
                raise FieldError(name, f"must have {len(self.count)} columns")

    def resize(self, width: int) -> None:
        """Make room for more columns, or give it back."""
        fresh = Moments(width)
        have = min(len(self.count), width)
        for name in self.FIELDS:
            array = getattr(fresh, name)
            array[:have] = getattr(self, name)[:have]
            setattr(self, name, array)

    def add(self, matrix: Matrix, columns: NDArray[np.intp]) -> None:
        """Add rows; column ``j`` of ``matrix`` belongs to our column ``columns[j]``, each once."""
        finite = np.isfinite(matrix)
        with np.errstate(over="ignore", invalid="ignore"):
            if finite.all():
                count = np.full(matrix.shape[1], float(len(matrix)))
                mean = matrix.mean(0)
                squares = ((matrix - mean) ** 2).sum(0)
                lowest, highest = matrix.min(0), matrix.max(0)
            else:
                count = finite.sum(0).astype(np.float64)
                mean = np.where(finite, matrix, 0.0).sum(0) / np.maximum(count, 1.0)
                squares = (np.where(finite, matrix - mean, 0.0) ** 2).sum(0)
                lowest = np.where(finite, matrix, np.inf).min(0)
                highest = np.where(finite, matrix, -np.inf).max(0)
            before = self.count[columns]
            total = np.maximum(before + count, 1.0)
            step = mean - self.mean[columns]
            self.mean[columns] += step * (count / total)
            self.squares[columns] += squares + step**2 * (before * count / total)
        self.count[columns] = before + count
        self.minimum[columns] = np.minimum(self.minimum[columns], lowest)
        self.maximum[columns] = np.maximum(self.maximum[columns], highest)

    def of(self, column: int) -> dict[str, float | int | None]:
        """The statistics of one column; None where it has no finite value."""
        count = int(self.count[column])
        squares = float(self.squares[column])
        return {
            "count": count,
            "mean": _finite(self.mean[column]) if count else None,
            "std": _finite(np.sqrt(squares / (count - 1))) if count > 1 else None,
            "min": _finite(self.minimum[column]),
            "max": _finite(self.maximum[column]),
        }


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
