"""Statistics of the features of one model version: counts, missing values, range, mean, spread."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from understudy.monitor.evidence.columns import Column, Moments, matrix_of
from understudy.shadow.state import (
    Converter,
    Count,
    Derived,
    FieldError,
    Saved,
    Stateful,
    Transient,
)

MAX_FEATURES = 1000
"""Features per model version; values of further names are counted as ``overflow``."""
_MAX_LAYOUTS = 256
_COUNTS = ("present", "missing", "text", "infinite")


def _load_counts(name: str, value: Any, _: Any) -> dict[str, NDArray[np.int64]]:
    if not isinstance(value, dict) or value.keys() != set(_COUNTS):
        raise FieldError(name, f"must be an object of {', '.join(_COUNTS)}")
    return {counted: np.array(value[counted], np.int64) for counted in _COUNTS}


_Counts = Annotated[
    dict[str, NDArray[np.int64]],
    Converter(lambda counts: {n: array.tolist() for n, array in counts.items()}, _load_counts),
]


class FeatureStats(Stateful):
    """Feature statistics of one model version.

    A feature is *missing* in a row when its value is null or NaN, or when it is absent although it
    is expected: named in the configuration, or present in most rows so far.
    """

    names: Saved[list[str]]
    rows: Saved[Count]
    overflow: Saved[Count]
    _moments: Saved[Moments]
    _counts: Saved[_Counts]
    _index: Derived[dict[str, int]]
    _layouts: Transient[dict[tuple[str, ...], tuple[NDArray[np.intp], NDArray[np.intp]]]]
    _expected: Transient[set[int]]
    """Said again by :meth:`expect`."""

    def __init__(self, expected: Iterable[str] = ()) -> None:
        self.names = []
        self.rows = 0
        self.overflow = 0
        self._moments = Moments(0)
        self._counts = {name: np.zeros(0, np.int64) for name in _COUNTS}
        self._index = {}
        self._layouts = {}
        self._expected = set()
        self.expect(expected)

    def expect(self, names: Iterable[str]) -> None:
        """Name features that every row should have."""
        self._expected |= {column for name in names if (column := self._column(name)) is not None}

    def _column(self, name: str) -> int | None:
        known = self._index.get(name)
        if known is not None:
            return known
        if len(self.names) >= MAX_FEATURES:
            return None
        column = self._index[name] = len(self.names)
        self.names.append(name)
        have = len(self._moments.count)
        if column >= have:
            self._resize(max(8, 2 * have))
        return column

    def _resize(self, width: int) -> None:
        self._moments.resize(width)
        for counted, array in self._counts.items():
            resized = np.zeros(width, np.int64)
            resized[: len(array)] = array[:width]
            self._counts[counted] = resized

    def _layout(self, names: tuple[str, ...]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Indices of the table's columns that are kept, and of the matching columns here."""
        layout = self._layouts.get(names)
        if layout is None:
            ours: dict[int, int] = {}
            for position, name in enumerate(names):
                column = self._column(name)
                if column is not None:
                    ours.setdefault(column, position)
            layout = (
                np.array(list(ours.values()), np.intp),
                np.array(list(ours), np.intp),
            )
            if len(self._layouts) >= _MAX_LAYOUTS:
                self._layouts.clear()
            self._layouts[names] = layout
        return layout

    def add(self, names: tuple[str, ...], columns: Sequence[Column], rows: int) -> None:
        """Add ``rows`` rows, with a column for each of the names."""
        if not names or not rows:
            return
        matrix, other = matrix_of(columns, rows)
        theirs, ours = self._layout(names)
        self.rows += rows
        self.overflow += (len(names) - len(theirs)) * rows
        if len(theirs) < len(names):
            matrix = matrix[:, theirs]
            other = other[:, theirs] if other is not None else None
        counts = self._counts
        counts["present"][ours] += rows
        if len(ours) < len(self.names):
            present = counts["present"][: len(self.names)]
            usual = present * 2 > self.rows
            usual[list(self._expected)] = True
            usual[ours] = False
            counts["missing"][: len(self.names)][usual] += rows
        nan = np.isnan(matrix)
        if nan.any():
            if other is not None:
                nan &= ~other
            counts["missing"][ours] += nan.sum(0)
        if other is not None:
            counts["text"][ours] += other.sum(0)
        infinite = np.isinf(matrix)
        if infinite.any():
            counts["infinite"][ours] += infinite.sum(0)
        self._moments.add(matrix, ours)

    def missing(self) -> dict[str, int]:
        """Missing values by feature."""
        return dict(zip(self.names, self._counts["missing"].tolist(), strict=False))

    def summary(self) -> list[dict[str, Any]]:
        """One entry per feature, in order of appearance."""
        return [
            {
                "name": name,
                **{counted: int(array[column]) for counted, array in self._counts.items()},
                **self._moments.of(column),
            }
            for column, name in enumerate(self.names)
        ]

    def _before_dump(self) -> None:
        if len(self._moments.count) > len(self.names):
            self._resize(len(self.names))

    def _restored(self) -> None:
        width = len(self.names)
        if width > MAX_FEATURES:
            raise FieldError("names", f"must be at most {MAX_FEATURES}")
        self._index = {name: column for column, name in enumerate(self.names)}
        for counted, array in {**self._counts, "moments": self._moments.count}.items():
            if array.shape != (width,):
                raise FieldError(counted, f"must have {width} columns, not {array.shape}")
