"""Features as small whole numbers: buckets of numbers, and categories, a bounded number of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from understudy.common.arrays import distinct, quantiles
from understudy.monitor.baseline.kinds import category, number

Floats = NDArray[np.float64]
NUMBERS = 16
"""Buckets of a number, by quantiles."""
CATEGORIES = 40
"""Categories that are told apart; all others are one."""
OTHER = "other"
_RAREST = 0.003
_NUMERIC = 0.5


@dataclass(frozen=True, slots=True)
class FeatureCode:
    """One feature: ``edges`` (rising) of a number, or ``values`` of a category. The last code is
    for what is missing, not a number, or no known category."""

    name: str
    edges: tuple[float, ...] | None = None
    values: tuple[str, ...] = ()

    @property
    def ordered(self) -> bool:
        """Whether its codes have an order."""
        return self.edges is not None

    @property
    def size(self) -> int:
        """Number of codes."""
        return len(self.edges) + 2 if self.edges is not None else len(self.values) + 1

    def encode(self, cells: Sequence[Any]) -> NDArray[np.uint8]:
        """Codes (n,) of the cells."""
        last = self.size - 1
        if self.edges is None:
            indices = {value: index for index, value in enumerate(self.values)}
            return np.array([indices.get(category(c) or "", last) for c in cells], np.uint8)
        x = np.array([number(c) for c in cells], np.float64)
        result = np.searchsorted(np.array(self.edges), x).astype(np.uint8)
        result[np.isnan(x)] = last
        return result

    def name_of(self, code: int) -> str:
        """A code in words."""
        if self.edges is None:
            return self.values[code] if code < len(self.values) else OTHER
        edges = self.edges
        if code == len(edges) + 1:
            return "missing"
        if not edges:
            return "any"
        if code == 0:
            return f"<= {edges[0]:g}"
        if code == len(edges):
            return f"> {edges[-1]:g}"
        return f"{edges[code - 1]:g} to {edges[code]:g}"

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        edges = list(self.edges) if self.edges is not None else None
        return {"name": self.name, "edges": edges, "values": list(self.values)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> FeatureCode:
        """Undo :meth:`to_dict`. Raises KeyError, TypeError or ValueError."""
        edges = data["edges"]
        result = cls(
            str(data["name"]),
            None if edges is None else tuple(float(e) for e in edges),
            tuple(str(v) for v in data["values"]),
        )
        if result.size > 256:
            raise ValueError(f"{result.name}: more than 256 codes")
        return result

    @classmethod
    def learn(
        cls, name: str, cells: Sequence[Any], categorical: bool | None = None, most: int = NUMBERS
    ) -> FeatureCode:
        """From the cells of a reference; ``categorical`` None: by what most of them are."""
        x = np.array([number(c) for c in cells], np.float64)
        x = x[np.isfinite(x)]
        if categorical is None:
            present = sum(1 for c in cells if c is not None)
            categorical = len(x) < _NUMERIC * max(1, present)
        if not categorical:
            if not len(x):
                return cls(name, ())
            edges = distinct(quantiles(x, np.linspace(0.0, 1.0, most + 1)[1:-1]))
            return cls(name, tuple(float(e) for e in edges if e < x.max()))
        counts = Counter(value for c in cells if (value := category(c)) is not None)
        fewest = _RAREST * len(cells)
        heavy = [(v, n) for v, n in counts.items() if n >= fewest]
        heavy.sort(key=lambda item: (-item[1], item[0]))
        return cls(name, None, tuple(value for value, _ in heavy[:CATEGORIES]))


class FeatureCodes:
    """Several features, in the order in which they are given."""

    def __init__(self, features: Sequence[FeatureCode]) -> None:
        self.features = tuple(features)
        self.sizes = np.array([f.size for f in self.features], np.intp)
        self.ordered = np.array([f.ordered for f in self.features], np.bool_)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the features."""
        return tuple(f.name for f in self.features)

    @classmethod
    def learn(
        cls, cells: Mapping[str, Sequence[Any]], categorical: frozenset[str] | None = None
    ) -> FeatureCodes:
        """Learn the codes of all columns of ``cells``. ``categorical`` names the columns that are
        not numbers; None: decide by their cells."""
        kinds = {n: None if categorical is None else n in categorical for n in cells}
        return cls([FeatureCode.learn(n, column, kinds[n]) for n, column in cells.items()])

    def encode(self, cells: Mapping[str, Sequence[Any]], rows: int) -> NDArray[np.uint8]:
        """Codes (rows, F); a feature that is not there is missing in every row."""
        result = np.empty((rows, len(self.features)), np.uint8)
        for index, feature in enumerate(self.features):
            column = cells.get(feature.name)
            result[:, index] = feature.size - 1 if column is None else feature.encode(column)
        return result

    def to_dict(self) -> list[dict[str, Any]]:
        """As JSON."""
        return [f.to_dict() for f in self.features]

    @classmethod
    def from_dict(cls, data: Sequence[Mapping[str, Any]]) -> FeatureCodes:
        """Undo :meth:`to_dict`. Raises KeyError, TypeError or ValueError."""
        return cls([FeatureCode.from_dict(item) for item in data])
