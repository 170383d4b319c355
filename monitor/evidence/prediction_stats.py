"""Statistics of a model version's predictions on one arm: value histogram and class counts."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from understudy.monitor.evidence.columns import Column, Moments, floats_of

DEFAULT_BUCKETS = (
    *(-1e6, -1e5, -1e4, -1e3, -100.0, -50.0, -20.0, -10.0, -5.0, -2.0, -1.0, -0.1, 0.0),
    *(0.001, 0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999, 1.0),
    *(2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 1e3, 1e4, 1e5, 1e6),
)
"""Upper edges: fine for probabilities, by orders of magnitude elsewhere."""
MAX_PREDICTIONS = 64
"""Names per model, version and arm; values of further names are counted as overflow."""
MAX_CLASSES = 20
"""Classes counted separately per prediction; further ones are counted as ``other``."""
OTHER = "other"
_MAX_LABEL = 64
_NONE = type(None)


class PredictionStats:
    """Statistics of one named output.

    ``edges`` are the upper edges of the buckets, ascending. Every number is a value. Texts, truth
    values and integers are classes, unless the output ever had a fractional value.
    """

    def __init__(self, edges: NDArray[np.float64], max_classes: int = MAX_CLASSES) -> None:
        self.edges = edges
        self.max_classes = max_classes
        self.buckets: NDArray[np.int64] = np.zeros(len(edges) + 1, np.int64)
        self.total = 0.0
        self.missing = 0
        self.infinite = 0
        self.continuous = False
        self.classes: dict[str, int] = {}
        self._moments = Moments(1)

    def add(self, values: Column) -> None:
        """Add a column of values."""
        if isinstance(values, np.ndarray):
            if values.dtype == np.float64:
                self.continuous = True
            elif not self.continuous:
                self._classify(values.tolist())
            self._add(values.astype(np.float64, copy=False), None)
            return
        kinds = set(map(type, values))
        if float in kinds:
            self.continuous = True
        if not (self.continuous and kinds <= {float, int, _NONE}):
            self._classify(values)
        self._add(*floats_of(values))

    def _add(self, column: NDArray[np.float64], other: NDArray[np.bool_] | None) -> None:
        finite = np.isfinite(column)
        if not finite.all():
            nan = np.isnan(column)
            self.infinite += int((~finite & ~nan).sum())
            if other is not None:
                nan &= ~other
            self.missing += int(nan.sum())
            column = column[finite]
        if len(column):
            indices = np.searchsorted(self.edges, column)
            self.buckets += np.bincount(indices, minlength=len(self.buckets))
            with np.errstate(over="ignore"):
                self.total += float(column.sum())
            self._moments.add(column[:, None], np.zeros(1, np.intp))

    def _classify(self, values: Sequence[Any]) -> None:
        # True and 1 are equal keys, so count by the pair of type and value.
        for (kind, value), count in Counter(
            (type(v), v) for v in values if isinstance(v, (str, int))
        ).items():
            if kind is int and self.continuous:
                continue
            label = str(value).lower() if kind is bool else str(value)[:_MAX_LABEL]
            if label not in self.classes and len(self.classes) >= self.max_classes:
                label = OTHER
            self.classes[label] = self.classes.get(label, 0) + count

    @property
    def count(self) -> int:
        """How many finite values there are."""
        return int(self.buckets.sum())

    def cumulative(self) -> list[tuple[float, int]]:
        """Pairs of upper edge (infinity last) and count of values up to it."""
        sums = np.cumsum(self.buckets).tolist()
        return list(zip([*self.edges.tolist(), float("inf")], sums, strict=True))

    def summary(self) -> dict[str, Any]:
        """The statistics as JSON, for the API and pages."""
        return {
            **self._moments.of(0),
            "missing": self.missing,
            "infinite": self.infinite,
            "classes": dict(sorted(self.classes.items(), key=lambda item: -item[1])),
        }

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for the state file."""
        return {
            "edges": self.edges.tolist(),
            "buckets": self.buckets.tolist(),
            "total": self.total if np.isfinite(self.total) else 0.0,
            "missing": self.missing,
            "infinite": self.infinite,
            "continuous": self.continuous,
            "classes": self.classes,
            "moments": self._moments.to_dict(1),
        }

    def restore(self, data: dict[str, Any]) -> None:
        """Load the output of :meth:`to_dict`. Raises KeyError, TypeError or ValueError.

        If the edges have changed since, each count moves to the bucket of its upper edge.
        """
        edges, counts = data["edges"], data["buckets"]
        if len(counts) != len(edges) + 1:
            raise ValueError("the number of counts does not match the number of edges")
        ours = self.edges.tolist()
        for edge, count in zip([*edges, float("inf")], counts, strict=True):
            index = bisect_left(ours, edge)
            self.buckets[index] += int(count)
        self.total = float(data["total"])
        self.missing = int(data["missing"])
        self.infinite = int(data["infinite"])
        self.continuous = bool(data["continuous"])
        self.classes = {str(label): int(count) for label, count in data["classes"].items()}
        self._moments = Moments.from_dict(data["moments"])


class Predictions:
    """All outputs of one model version on one arm."""

    def __init__(
        self, edges: Sequence[float] = DEFAULT_BUCKETS, max_classes: int = MAX_CLASSES
    ) -> None:
        self._edges = np.array(sorted(edges), np.float64)
        self._max_classes = max_classes
        self.rows = 0
        self.overflow = 0
        self.by_name: dict[str, PredictionStats] = {}

    def add(self, names: tuple[str, ...], columns: Sequence[Column], rows: int) -> None:
        """Add ``rows`` rows, with a column for each of the names."""
        if not names or not rows:
            return
        self.rows += rows
        for name, column in zip(names, columns, strict=True):
            stats = self._named(name)
            if stats is None:
                self.overflow += rows
            else:
                stats.add(column)

    def _named(self, name: str) -> PredictionStats | None:
        stats = self.by_name.get(name)
        if stats is None and len(self.by_name) < MAX_PREDICTIONS:
            stats = self.by_name[name] = PredictionStats(self._edges, self._max_classes)
        return stats

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for the state file."""
        return {
            "rows": self.rows,
            "overflow": self.overflow,
            "names": {name: stats.to_dict() for name, stats in self.by_name.items()},
        }

    def restore(self, data: dict[str, Any]) -> None:
        """Load the output of :meth:`to_dict`. Raises KeyError, TypeError or ValueError."""
        self.rows = int(data["rows"])
        self.overflow = int(data["overflow"])
        for name, part in data["names"].items():
            stats = self._named(str(name))
            if stats is not None:
                stats.restore(part)
