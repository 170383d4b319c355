"""Series while they are counted."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from understudy.monitor.baseline.profiles import (
    MOST_CATEGORIES,
    CategoryCounter,
    CategoryProfile,
    NumericProfile,
    heavy,
)
from understudy.monitor.baseline.scores import normal_scores, spread_scores
from understudy.monitor.detectors.dependence import Dependence

Floats = NDArray[np.float64]


class Order:
    """How often the mean of ``size`` rows in a row is above and below that of those before."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.rose = 0
        self.fell = 0
        self._open: Floats = np.zeros(0)
        self._newest = math.nan

    def add(self, values: Floats) -> None:
        """Take finite values in their order."""
        x = np.concatenate([self._open, values])
        whole = len(x) // self.size * self.size
        self._open = x[whole:]
        if not whole:
            return
        with np.errstate(over="ignore", invalid="ignore"):
            means = x[:whole].reshape(-1, self.size).mean(axis=1)
            moved = np.diff(means, prepend=self._newest)
        self.rose += int((moved > 0.0).sum())
        self.fell += int((moved < 0.0).sum())
        self._newest = float(means[-1])


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
        self._dependence = Dependence(2)
        self.order = Order(1)

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
        self.order.add(x)
        self._dependence.update(self._scores[:, indices].T)

    def profile(self) -> NumericProfile:
        """What was counted so far."""
        squares = self.squares if math.isfinite(self.squares) else 0.0
        mean = self.mean if math.isfinite(self.mean) else 0.0
        whole = self.whole and self.count > 0
        return NumericProfile(
            self.edges, self.counts.copy(), self.count, mean, squares, self.low, self.high, whole,
            *self._dependence.memories(),
        )  # fmt: skip


class Categories:
    """A categorical series while it is counted. ``tallied`` are categories with counts that are
    known, by whose scores the memory of the series is measured; ``counter`` counts."""

    def __init__(self, tallied: Mapping[str, int], counter: CategoryCounter) -> None:
        self._counter = counter
        total = sum(tallied.values())
        ranked = sorted(tallied.items(), key=lambda item: (-item[1], item[0]))
        named = [name for name, _ in ranked[:MOST_CATEGORIES]]
        counts = np.array([*(tallied[name] for name in named), 0.0], np.float64)
        counts[-1] = max(total - counts.sum(), 0.0)
        self._codes = {name: code for code, name in enumerate(named)}
        self._scores = np.zeros((2, len(counts)))
        if total:
            shares = counts / total
            self._scores[0] = normal_scores(shares)
            self._scores[1] = spread_scores(self._scores[0], shares)
        self._dependence = Dependence(2)

    @classmethod
    def of(cls, sample: Sequence[str | None]) -> Categories:
        """Of a sample, which says which categories keep their names when there are too many."""
        tallied = Counter(value for value in sample if value is not None)
        total = sum(tallied.values())
        frequent = [name for name, count in tallied.most_common() if heavy(count, total)]
        return cls(tallied, CategoryCounter(frequent[:MOST_CATEGORIES]))

    @classmethod
    def like(cls, profile: CategoryProfile) -> Categories:
        """That counts the same categories by name as a profile, and in the same groups."""
        counter = CategoryCounter(profile.counts, folded=not profile.complete)
        return cls(profile.counts, counter)

    def add(self, values: Sequence[str | None]) -> None:
        """Count categories; None counts for nothing."""
        present = [value for value in values if value is not None]
        for value, count in Counter(present).items():
            self._counter.add(value, count)
        rest, codes = len(self._codes), self._codes
        indices = np.array([codes.get(value, rest) for value in present], np.intp)
        self._dependence.update(self._scores[:, indices].T)

    def profile(self) -> CategoryProfile:
        """What was counted so far."""
        return self._counter.profile(*self._dependence.memories())


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
