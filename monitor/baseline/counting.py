"""Series while they are counted."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from understudy.monitor.baseline.profiles import CategoryCounter, NumericProfile, Profile
from understudy.monitor.baseline.scores import normal_scores

Floats = NDArray[np.float64]


class Numbers:
    """A numeric series while it is counted. ``scores`` (2, buckets) are those of location and
    spread by which the memory of the series is measured."""

    def __init__(self, edges: Floats, scores: Floats) -> None:
        self.edges = edges
        self._scores = scores
        self.counts: NDArray[np.int64] = np.zeros(len(edges) + 1, np.int64)
        self.count = 0
        self.mean = 0.0
        self.squares = 0.0
        self.low = math.inf
        self.high = -math.inf
        self.whole = True
        self._last: Floats = np.zeros((2, 0))
        self._pairs = 0
        self._products: Floats = np.zeros(2)
        self._sums: Floats = np.zeros((2, 2))
        """Of the scores and their squares."""

    def add(self, values: Floats) -> None:
        """Count values; what is not finite counts for nothing."""
        here = np.isfinite(values)
        x = values[here]
        if not len(x):
            return
        indices = self.edges.searchsorted(x)
        self.counts += np.bincount(indices, minlength=len(self.counts))
        with np.errstate(over="ignore", invalid="ignore"):
            mean = float(x.mean())
            squares = float(((x - mean) ** 2).sum())
        total = self.count + len(x)
        step = mean - self.mean
        self.squares += squares + step * step * self.count * len(x) / total
        self.mean += step * len(x) / total
        self.count = total
        self.low, self.high = min(self.low, float(x.min())), max(self.high, float(x.max()))
        self.whole = self.whole and bool((x == np.floor(x)).all())
        line = np.concatenate([self._last, self._scores[:, indices]], axis=1)
        self._products += np.einsum("kn,kn->k", line[:, 1:], line[:, :-1])
        self._pairs += line.shape[1] - 1
        new = line[:, self._last.shape[1] :]
        self._sums += np.stack([new.sum(axis=1), (new**2).sum(axis=1)])
        self._last = line[:, -1:]

    def profile(self) -> Profile:
        """What was counted so far."""
        lag1, spread = self._lags()
        squares = self.squares if math.isfinite(self.squares) else 0.0
        mean = self.mean if math.isfinite(self.mean) else 0.0
        whole = self.whole and self.count > 0
        return NumericProfile(
            self.edges, self.counts.copy(), self.count, mean, squares, self.low, self.high, lag1,
            whole, spread,
        )  # fmt: skip

    def _lags(self) -> tuple[float | None, float | None]:
        """Correlation of each row's score with that of the one before, of location and spread."""
        if self._pairs < 3:
            return None, None
        mean, square = self._sums / self.count
        variance = square - mean**2
        result = [
            min(1.0, max(-1.0, (p / self._pairs - m * m) / v)) if v > 1e-9 else None
            for p, m, v in zip(
                self._products.tolist(), mean.tolist(), variance.tolist(), strict=True
            )
        ]
        return result[0], result[1]


class Categories:
    """A categorical series while it is counted."""

    def __init__(self) -> None:
        self._counter = CategoryCounter()
        self._last: str | None = None
        self._both: dict[str, int] = {}
        self._pairs = 0

    def add(self, values: Sequence[str | None]) -> None:
        """Count categories; None counts for nothing."""
        last, both = self._last, self._both
        tallied: dict[str, int] = {}
        for value in values:
            if value is None:
                continue
            tallied[value] = tallied.get(value, 0) + 1
            if last is not None:
                self._pairs += 1
                if value == last and (value in both or len(both) < 256):
                    both[value] = both.get(value, 0) + 1
            last = value
        for value, count in tallied.items():
            self._counter.add(value, count)
        self._last = last

    def profile(self) -> Profile:
        """What was counted so far."""
        counts = self._counter.counts
        lag1 = None
        if counts and self._pairs > 2:
            commonest = max(counts, key=counts.__getitem__)
            p = counts[commonest] / max(self._counter.total, 1)
            if 0.0 < p < 1.0:
                result = (self._both.get(commonest, 0) / self._pairs - p * p) / (p * (1.0 - p))
                lag1 = min(1.0, max(-1.0, result))
        return self._counter.profile(lag1)


class Correlation:
    """Sums of products of normal scores; missing values count as the middle."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self._edges: list[Floats] = []
        self._scores: list[Floats] = []
        self._products: Floats = np.zeros((0, 0))
        self._rows = 0

    @classmethod
    def of(cls, sampled: Mapping[str, tuple[Floats, Floats]]) -> Correlation:
        """Of series by name, each with its edges and a sample of its values."""
        result = cls()
        for name, (edges, values) in sampled.items():
            finite = values[np.isfinite(values)]
            if not len(finite):
                continue
            counts = np.bincount(edges.searchsorted(finite), minlength=len(edges) + 1)
            scores = normal_scores(counts / counts.sum())
            if scores.any():
                result._names.append(name)
                result._edges.append(edges)
                result._scores.append(scores)
        size = len(result._names)
        result._products = np.zeros((size, size))
        return result

    def add(self, numbers: Mapping[str, Floats]) -> None:
        """Add rows of all series."""
        if not self._names:
            return
        rows = len(next(iter(numbers.values()))) if numbers else 0
        scores = np.zeros((rows, len(self._names)))
        for index, name in enumerate(self._names):
            values = numbers.get(name)
            if values is not None:
                here = np.isfinite(values)
                result = self._edges[index].searchsorted(values[here])
                scores[here, index] = self._scores[index][result]
        self._products += scores.T @ scores
        self._rows += rows

    def dump_state(self) -> dict[str, Any] | None:
        """As JSON; None for fewer than two series."""
        if len(self._names) < 2 or not self._rows:
            return None
        scale = np.sqrt(np.maximum(np.diag(self._products), 1e-12))
        matrix = np.clip(self._products / np.outer(scale, scale), -1.0, 1.0)
        return {
            "series": self._names,
            "matrix": matrix.round(5).tolist(),
            "rows": self._rows,
        }
