"""From the flat values of a decoded table to float columns.

A value is a number, a truth value, a text, something nested, or missing. Numbers and truth values
become float64, missing ones NaN; texts and nested ones become NaN too and are counted apart.
"""

from __future__ import annotations

import array as arrays
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
Mask = NDArray[np.bool_]

Column = NDArray[np.float64] | NDArray[np.int64] | list[Any]
_PLAIN = frozenset((float, int, bool, type(None)))


class Cells:
    """Cells of a table by column, where others have them row after row in one list."""

    __slots__ = ("columns", "rows")

    def __init__(self, columns: Sequence[Column], rows: int) -> None:
        self.columns = columns
        self.rows = rows

    def __len__(self) -> int:
        return self.rows * len(self.columns)

    def matrix(self) -> tuple[Matrix, Mask | None]:
        """As :func:`to_matrix`."""
        found = np.empty((self.rows, len(self.columns)))
        others: Mask | None = None
        for place, column in enumerate(self.columns):
            if isinstance(column, np.ndarray):
                found[:, place] = column
                continue
            numbers, other = to_matrix(column, 1)
            found[:, place] = numbers[:, 0]
            if other is not None:
                if others is None:
                    others = np.zeros(found.shape, np.bool_)
                others[:, place] = other[:, 0]
        return found, others

    def column(self, place: int) -> Column:
        """One column."""
        return self.columns[place]

    def row(self, number: int) -> list[Any]:
        """One row of plain cells."""
        return [
            column.item(number) if isinstance(column, np.ndarray) else column[number]
            for column in self.columns
        ]


def cells_of(values: Sequence[Any] | Cells, place: int, width: int) -> list[Any]:
    """One column of cells, ``width`` to the row."""
    if isinstance(values, Cells):
        column = values.columns[place]
        return column.tolist() if isinstance(column, np.ndarray) else column
    return list(values[place::width])


def to_matrix(values: Sequence[Any] | Cells, width: int) -> tuple[Matrix, Mask | None]:
    """Array of shape ``(len(values) // width, width)`` and the mask of what is no number.

    The mask is None when everything is a number or missing, which is the quick path.
    """
    if isinstance(values, Cells):
        return values.matrix()
    try:
        # Numbers and truth values only, which is most of what there is.
        return np.frombuffer(arrays.array("d", values), np.float64).reshape(-1, width), None
    except (TypeError, OverflowError):
        pass
    if _PLAIN.issuperset(map(type, values)):
        try:
            return np.array(values, np.float64).reshape(-1, width), None
        except OverflowError:
            pass  # an integer that float64 cannot hold
    numbers = np.empty(len(values))
    other = np.zeros(len(values), np.bool_)
    for position, value in enumerate(values):
        numbers[position] = _number(value)
        other[position] = type(value) not in _PLAIN
    return numbers.reshape(-1, width), other.reshape(-1, width)


def _number(value: object) -> float:
    if isinstance(value, (float, int)):
        try:
            return float(value)
        except OverflowError:
            return float("inf") if value > 0 else float("-inf")
    return float("nan")


class Moments:
    """Count, mean, sum of squared deviations, minimum and maximum of several columns at once.

    Merged by the pairwise formula of Chan, Golub & LeVeque (1979), so that neither the order of the
    batches nor their size matters beyond rounding. Values that are not finite are left out.
    """

    FIELDS = ("count", "mean", "squares", "minimum", "maximum")

    def __init__(self, width: int) -> None:
        self.count: Matrix = np.zeros(width)
        self.mean: Matrix = np.zeros(width)
        self.squares: Matrix = np.zeros(width)
        self.minimum: Matrix = np.full(width, np.inf)
        self.maximum: Matrix = np.full(width, -np.inf)

    def grow(self, width: int) -> None:
        """Make room for more columns."""
        fresh = Moments(width)
        have = len(self.count)
        for name in self.FIELDS:
            array = getattr(fresh, name)
            array[:have] = getattr(self, name)
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
        """What is known of one column; None for what has no (finite) value."""
        count = int(self.count[column])
        squares = float(self.squares[column])
        return {
            "count": count,
            "mean": _finite(self.mean[column]) if count else None,
            "std": _finite(np.sqrt(squares / (count - 1))) if count > 1 else None,
            "min": _finite(self.minimum[column]),
            "max": _finite(self.maximum[column]),
        }

    def to_dict(self, width: int) -> dict[str, list[float | None]]:
        """Plain data of the first ``width`` columns; None stands for what is not finite."""
        return {
            name: [_finite(value) for value in getattr(self, name)[:width]] for name in self.FIELDS
        }

    @classmethod
    def from_dict(cls, data: dict[str, list[float | None]]) -> Moments:
        """The reverse of :meth:`to_dict`. Raises KeyError, TypeError or ValueError."""
        moments = cls(len(data["count"]))
        for name in cls.FIELDS:
            array = getattr(moments, name)
            given = data[name]
            if len(given) != len(array):
                raise ValueError(f"{name} has {len(given)} columns instead of {len(array)}")
            for position, value in enumerate(given):
                if value is not None:
                    array[position] = value
        return moments


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
