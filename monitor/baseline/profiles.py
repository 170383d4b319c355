"""What one series looks like: a histogram and moments of numbers, or counts of categories."""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
MOST_EDGES = 255
MOST_CATEGORIES = 256
_CAPACITY = 4 * MOST_CATEGORIES
"""Categories that are counted while a profile is built; the surest of them are kept."""


@dataclass
class NumericProfile:
    """``edges`` rise strictly; bucket i holds edges[i-1] < x <= edges[i], so there is one bucket
    more than edges. ``count``, ``mean``, ``squares`` (the sum of squared deviations), ``minimum``
    and ``maximum`` are of finite values. ``lag1`` is the correlation of a value's score (by rank)
    with that of the one before it, in the order of the rows, ``lag1_spread`` the same of how far
    out they lie; None where it is not known. ``whole``: only whole numbers."""

    edges: Floats
    counts: NDArray[np.int64]
    count: int = 0
    mean: float = 0.0
    squares: float = 0.0
    minimum: float = math.inf
    maximum: float = -math.inf
    lag1: float | None = None
    whole: bool = False
    lag1_spread: float | None = None

    @property
    def deviation(self) -> float:
        """Standard deviation; 0 for fewer than two values."""
        return math.sqrt(self.squares / (self.count - 1)) if self.count > 1 else 0.0

    def merge(self, other: NumericProfile) -> NumericProfile:
        """Of the rows of both. Counts by bucket are exact for equal edges, and otherwise spread
        evenly within their old buckets; all else is exact, but for ``lag1``, which is weighted."""
        count = self.count + other.count
        if not self.count or not other.count:
            return self if self.count else other
        step = other.mean - self.mean
        mean = self.mean + step * (other.count / count)
        squares = self.squares + other.squares + step * step * (self.count * other.count / count)
        # As in the builder: what is too large for a float cannot be told.
        mean = mean if math.isfinite(mean) else 0.0
        squares = squares if math.isfinite(squares) else 0.0
        minimum, maximum = min(self.minimum, other.minimum), max(self.maximum, other.maximum)
        if np.array_equal(self.edges, other.edges):
            edges, counts = self.edges, self.counts + other.counts
        else:
            edges, counts = _rebinned(self, other, maximum)
        lag1 = _weighted((self.lag1, self.count), (other.lag1, other.count))
        spread = _weighted((self.lag1_spread, self.count), (other.lag1_spread, other.count))
        whole = self.whole and other.whole
        return NumericProfile(
            edges, counts, count, mean, squares, minimum, maximum, lag1, whole, spread
        )

    def to_dict(self) -> dict[str, Any]:
        """As JSON; what is infinite, in an empty profile, is None."""
        return {
            "edges": [_plain(v) for v in self.edges.tolist()],
            "counts": self.counts.tolist(),
            "count": self.count,
            "mean": self.mean,
            "squares": self.squares,
            "minimum": _finite(self.minimum),
            "maximum": _finite(self.maximum),
            "lag1": None if self.lag1 is None else round(self.lag1, 6),
            "lag1_spread": None if self.lag1_spread is None else round(self.lag1_spread, 6),
            "whole": self.whole,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> NumericProfile:
        """Undo :meth:`to_dict`. Raises KeyError, TypeError or ValueError."""
        edges = np.array(data["edges"], np.float64)
        counts = np.array(data["counts"], np.int64)
        if edges.ndim != 1 or len(edges) > MOST_EDGES or not (edges[1:] > edges[:-1]).all():
            raise ValueError(f"edges must rise, and be at most {MOST_EDGES}")
        if counts.shape != (len(edges) + 1,) or (counts < 0).any():
            raise ValueError("counts must be one more than edges, and not negative")
        low, high = data["minimum"], data["maximum"]
        if not np.isfinite(edges).all() or int(data["count"]) != int(counts.sum()):
            raise ValueError("edges must be finite, and counts add up to count")
        return cls(
            edges,
            counts,
            int(data["count"]),
            float(data["mean"]),
            float(data["squares"]),
            math.inf if low is None else float(low),
            -math.inf if high is None else float(high),
            None if data.get("lag1") is None else float(data["lag1"]),
            bool(data.get("whole", False)),
            None if data.get("lag1_spread") is None else float(data["lag1_spread"]),
        )


@dataclass
class CategoryProfile:
    """``counts`` are of the heaviest categories, ``other`` of all the rest, ``distinct`` how many
    there were, as far as that was counted. ``lag1`` is that of the commonest category's
    indicator."""

    counts: dict[str, int] = field(default_factory=dict)
    other: int = 0
    distinct: int = 0
    lag1: float | None = None

    @property
    def count(self) -> int:
        """Values in all."""
        return sum(self.counts.values()) + self.other

    def merge(self, other: CategoryProfile) -> CategoryProfile:
        """Of the rows of both: exact, where none of the two has an ``other``."""
        counts = dict(self.counts)
        for name, count in other.counts.items():
            counts[name] = counts.get(name, 0) + count
        distinct = max(len(counts), self.distinct, other.distinct)
        lag1 = _weighted((self.lag1, self.count), (other.lag1, other.count))
        return CategoryProfile(counts, self.other + other.other, distinct, lag1).kept()

    def kept(self) -> CategoryProfile:
        """With the heaviest categories only."""
        if len(self.counts) <= MOST_CATEGORIES:
            return self
        ranked = sorted(self.counts.items(), key=lambda item: (-item[1], item[0]))
        rest = sum(count for _, count in ranked[MOST_CATEGORIES:])
        return CategoryProfile(
            dict(ranked[:MOST_CATEGORIES]), self.other + rest, self.distinct, self.lag1
        )

    def to_dict(self) -> dict[str, Any]:
        """As JSON, the heaviest first."""
        ranked = sorted(self.counts.items(), key=lambda item: (-item[1], item[0]))
        return {
            "counts": dict(ranked),
            "other": self.other,
            "distinct": self.distinct,
            "lag1": None if self.lag1 is None else round(self.lag1, 6),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> CategoryProfile:
        """Undo :meth:`to_dict`. Raises KeyError, TypeError or ValueError."""
        counts = {str(name): int(count) for name, count in data["counts"].items()}
        if len(counts) > MOST_CATEGORIES or any(count < 0 for count in counts.values()):
            raise ValueError(f"at most {MOST_CATEGORIES} categories, with counts of at least 0")
        lag1 = data.get("lag1")
        return cls(
            counts,
            int(data["other"]),
            int(data["distinct"]),
            None if lag1 is None else float(lag1),
        )


Profile = NumericProfile | CategoryProfile


def singles(profile: CategoryProfile) -> int:
    """Categories that were seen once: about as many of as many rows to come will have one that was
    not seen (Good 1953)."""
    return sum(count == 1 for count in profile.counts.values())


def discount(profile: CategoryProfile) -> float:
    """How much to subtract from the count of each category in favour of unseen ones: absolute
    discounting (Ney, Essen & Kneser 1994), in total at most the number of categories that were seen
    once. 1 where rare categories were counted together."""
    if profile.other:
        return 1.0
    once = singles(profile)
    twice = sum(count == 2 for count in profile.counts.values())
    return min(once / max(once + 2 * twice, 1), once / max(len(profile.counts), 1))


class CategoryCounter:
    """Counts categories in bounded memory: exact for up to a thousand different ones, and then by
    SpaceSaving (Metwally, Agrawal & El Abbadi 2005), which never misses a heavy one."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self._lightest: list[tuple[int, str]] = []
        self.total = 0
        self.replaced = 0
        """Number of categories that were evicted."""

    def add(self, name: str, count: int = 1) -> None:
        """Count a category."""
        self.total += count
        if name in self.counts or len(self.counts) < _CAPACITY:
            self.counts[name] = self.counts.get(name, 0) + count
            return
        # Counts only grow, so one in the heap that is out of date is too small: it is put back.
        heap = self._lightest
        if not heap:
            heap.extend((held, key) for key, held in self.counts.items())
            heapq.heapify(heap)
        while self.counts[heap[0][1]] != heap[0][0]:
            heapq.heapreplace(heap, (self.counts[heap[0][1]], heap[0][1]))
        lightest = heap[0][1]
        self.counts[name] = self.counts.pop(lightest) + count
        heapq.heapreplace(heap, (self.counts[name], name))
        self.replaced += 1

    def profile(self, lag1: float | None) -> CategoryProfile:
        """What was counted; where categories made room for others, only the sure part of a count
        is given to its category, and the rest is ``other``."""
        ranked = sorted(self.counts.items(), key=lambda item: (-item[1], item[0]))
        least = ranked[-1][1] if self.replaced and ranked else 0
        # A count may contain at most the lightest one's, of those that had its place before.
        sure = {name: count - least for name, count in ranked if count > least or not least}
        kept = dict(list(sure.items())[:MOST_CATEGORIES])
        other = self.total - sum(kept.values())
        return CategoryProfile(kept, other, len(self.counts) + self.replaced, lag1)


def edges_of(sample: Floats) -> Floats:
    """Edges for a sample of finite values: halfway between the values where these are few, else
    its quantiles. At most :data:`MOST_EDGES`, strictly rising."""
    if not len(sample):
        return np.zeros(0)
    values = np.unique(sample)
    if len(values) <= MOST_EDGES:
        # A value is the upper edge of its own bucket; the last one needs none.
        own: Floats = values[:-1]
        return own
    result = np.unique(np.quantile(sample, np.linspace(0.0, 1.0, MOST_EDGES + 2)[1:-1]))
    edges: Floats = result[result < values[-1]]
    return edges


def _rebinned(
    a: NumericProfile, b: NumericProfile, maximum: float
) -> tuple[Floats, NDArray[np.int64]]:
    every = np.unique(np.concatenate([a.edges, b.edges, [maximum]]))
    together = below(a, every) + below(b, every)
    total = a.count + b.count
    if len(every) - 1 > MOST_EDGES:
        wanted = np.linspace(0.0, total, MOST_EDGES + 2)[1:-1]
        indices = np.unique(np.minimum(np.searchsorted(together, wanted), len(every) - 2))
        edges = every[indices]
    else:
        edges = every[every < maximum]
    sums = np.interp(edges, every, together) if len(edges) else np.zeros(0)
    upto = np.round(np.concatenate([[0.0], sums, [float(total)]])).astype(np.int64)
    return edges, np.diff(upto)


def below(profile: NumericProfile, at: Floats) -> Floats:
    """Values at or below each point, evenly spread within a bucket."""
    points = np.concatenate([[profile.minimum], profile.edges, [profile.maximum]])
    sums = np.concatenate([[0.0], np.cumsum(profile.counts)])
    points, indices = np.unique(points, return_index=True)
    # Of equal points the last sum counts.
    last = np.append(indices[1:] - 1, len(sums) - 1)
    below: Floats = np.interp(at, points, sums[last], left=0.0, right=float(profile.count))
    return below


def _weighted(*lags: tuple[float | None, int]) -> float | None:
    """Mean of the values that are known, each by its number of rows."""
    known = [(value, rows) for value, rows in lags if value is not None and rows]
    return sum(v * n for v, n in known) / sum(n for _, n in known) if known else None


def _plain(value: float) -> float | int:
    return int(value) if value.is_integer() and abs(value) < 2**53 else value


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
