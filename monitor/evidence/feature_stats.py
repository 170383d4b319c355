"""Statistics of the features of one model version: counts, missing values, range, mean, spread."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from understudy.monitor.evidence.columns import Column, Moments, matrix_of

MAX_FEATURES = 1000
"""Features per model version; values of further names are counted as ``overflow``."""
_MAX_LAYOUTS = 256
_COUNTS = ("present", "missing", "text", "infinite")


class FeatureStats:
    """Feature statistics of one model version.

    A feature is *missing* in a row when its value is null or NaN, or when it is absent although it
    is expected: named in the configuration, or present in most rows so far.
    """

    def __init__(self, expected: Iterable[str] = ()) -> None:
        self.names: list[str] = []
        self.rows = 0
        self.overflow = 0
        self._moments = Moments(0)
        self._counts = {name: np.zeros(0, np.int64) for name in _COUNTS}
        self._index: dict[str, int] = {}
        self._layouts: dict[tuple[str, ...], tuple[NDArray[np.intp], NDArray[np.intp]]] = {}
        self._expected: set[int] = set()
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
            width = max(8, 2 * have)
            self._moments.grow(width)
            for counted, array in self._counts.items():
                self._counts[counted] = np.concatenate([array, np.zeros(width - have, np.int64)])
        return column

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

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for the state file."""
        width = len(self.names)
        return {
            "names": list(self.names),
            "rows": self.rows,
            "overflow": self.overflow,
            "moments": self._moments.to_dict(width),
            "counts": {name: array[:width].tolist() for name, array in self._counts.items()},
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> FeatureStats:
        """The reverse of :meth:`to_dict`. Raises KeyError, TypeError or ValueError."""
        stats = cls()
        names = [str(name) for name in data["names"]][:MAX_FEATURES]
        stats.names = names
        stats._index = {name: column for column, name in enumerate(names)}
        stats.rows = int(data["rows"])
        stats.overflow = int(data["overflow"])
        stats._moments = Moments.from_dict(data["moments"])
        for name in _COUNTS:
            array = np.array(data["counts"][name], np.int64)
            if array.shape != (len(names),):
                raise ValueError(f"{name} has shape {array.shape}")
            stats._counts[name] = array
        if len(stats._moments.count) != len(names):
            raise ValueError("the number of moments differs from the number of names")
        return stats
