"""Statistics of a model version's predictions on one arm: value histogram and class counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from understudy.common.codecs.llm.columns import TOKENS
from understudy.common.token_buckets import (
    COST_EDGES,
    FIRST_TOKEN_EDGES,
    PER_TOKEN_EDGES,
    TOKEN_EDGES,
    WHOLE_EDGES,
)
from understudy.monitor.evidence.columns import Column, Moments, floats_of, numbers
from understudy.shadow.state import (
    Converter,
    Count,
    FieldError,
    Saved,
    Setting,
    Stateful,
    Transient,
)

DEFAULT_BUCKETS = (
    *(-1e6, -1e5, -1e4, -1e3, -100.0, -50.0, -20.0, -10.0, -5.0, -2.0, -1.0, -0.1, 0.0),
    *(0.001, 0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999, 1.0),
    *(2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 1e3, 1e4, 1e5, 1e6),
)
"""Upper edges: fine for probabilities, by orders of magnitude elsewhere."""
EDGES_OF = {
    "ttfc_seconds": FIRST_TOKEN_EDGES,
    "ttft_seconds": FIRST_TOKEN_EDGES,
    "ttfo_seconds": FIRST_TOKEN_EDGES,
    "tpot_seconds": PER_TOKEN_EDGES,
    "gap_p50_seconds": PER_TOKEN_EDGES,
    "gap_p99_seconds": PER_TOKEN_EDGES,
    "longest_gap_seconds": PER_TOKEN_EDGES,
    "e2e_seconds": WHOLE_EDGES,
    "token_cost": COST_EDGES,
    **dict.fromkeys(TOKENS, TOKEN_EDGES),
}
"""Of answers of language models, whatever the configuration says: rules read these edges."""
MAX_PREDICTIONS = 64
"""Names per model, version and arm; values of further names are counted as overflow."""
MAX_CLASSES = 20
"""Classes counted separately per prediction; further ones are counted as ``other``."""
OTHER = "other"
_MAX_LABEL = 64
_NONE = type(None)


def _load_whole(name: str, value: Any, _: Any) -> NDArray[np.int64]:
    if not isinstance(value, list) or any(type(one) is not int for one in value):
        raise FieldError(name, f"must be a list of whole numbers, not {value!r}")
    return np.array(value, np.int64)


_Edges = Annotated[NDArray[np.float64], numbers(np.inf)]
_Buckets = Annotated[NDArray[np.int64], Converter(lambda array: array.tolist(), _load_whole)]
_Total = Annotated[
    float,
    Converter(
        lambda value: value if np.isfinite(value) else 0.0, lambda name, value, _: float(value)
    ),
]


class PredictionStats(Stateful):
    """One named output. Values are whatever is a number; classes are texts, truth values and whole
    numbers, unless the output was once seen with a fraction."""

    edges: Setting[_Edges]
    max_classes: Setting[Count]
    buckets: Saved[_Buckets]
    total: Saved[_Total]
    missing: Saved[Count]
    infinite: Saved[Count]
    continuous: Saved[bool]
    classes: Saved[dict[str, Count]]
    _moments: Saved[Moments]

    def __init__(self, edges: NDArray[np.float64], max_classes: int = MAX_CLASSES) -> None:
        self.edges = edges
        self.max_classes = max_classes
        self.buckets = np.zeros(len(edges) + 1, np.int64)
        self.total = 0.0
        self.missing = 0
        self.infinite = 0
        self.continuous = False
        self.classes = {}
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

    def configure(self, edges: NDArray[np.float64], max_classes: int) -> None:
        """Go on with other edges: the counts move to the bucket of their upper edge."""
        if not np.array_equal(edges, self.edges):
            buckets = np.zeros(len(edges) + 1, np.int64)
            places = np.searchsorted(edges, [*self.edges.tolist(), np.inf])
            np.add.at(buckets, places, self.buckets)
            self.edges, self.buckets = edges, buckets
        self.max_classes = max_classes
        if not max_classes and self.classes:
            self.classes = {OTHER: sum(self.classes.values())}

    def _restored(self) -> None:
        if len(self.buckets) != len(self.edges) + 1:
            raise FieldError("buckets", "and edges do not fit")
        if len(self._moments.count) != 1:
            raise FieldError("moments", "must be those of one column")


def _shown(_: str) -> bool:
    return False


class Predictions(Stateful):
    """All outputs of one model version on one arm. Of those whose name ``hides`` is true for, no
    classes are kept: they are values of single rows."""

    _hides: Transient[Callable[[str], bool]]
    _edges: Setting[_Edges]
    _max_classes: Setting[Count]
    rows: Saved[Count]
    overflow: Saved[Count]
    by_name: Saved[dict[str, PredictionStats]]

    def __init__(
        self,
        edges: Sequence[float] = DEFAULT_BUCKETS,
        max_classes: int = MAX_CLASSES,
    ) -> None:
        self.rows = 0
        self.overflow = 0
        self.by_name = {}
        self.configure(edges, max_classes)

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
            stats = self.by_name[name] = PredictionStats(
                self._edges_of(name), self._classes_of(name)
            )
        return stats

    def _edges_of(self, name: str) -> NDArray[np.float64]:
        edges = EDGES_OF.get(name)
        return self._edges if edges is None else np.array(edges)

    def _classes_of(self, name: str) -> int:
        return 0 if self._hides(name) else self._max_classes

    def configure(
        self,
        edges: Sequence[float],
        max_classes: int,
        hides: Callable[[str], bool] = _shown,
    ) -> None:
        """Go on with other edges and other rules."""
        self._edges = np.array(sorted(edges), np.float64)
        self._max_classes = max_classes
        self._hides = hides
        for name, stats in self.by_name.items():
            stats.configure(self._edges_of(name), self._classes_of(name))

    def _restored(self) -> None:
        if len(self.by_name) > MAX_PREDICTIONS:
            raise FieldError("by_name", f"must be at most {MAX_PREDICTIONS}")
        self.configure(self._edges.tolist(), self._max_classes)
