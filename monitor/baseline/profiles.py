"""What one series looks like: a histogram and moments of numbers, or counts of categories."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from understudy.common.arrays import distinct, quantiles
from understudy.monitor.detectors.dependence import Memory

Floats = NDArray[np.float64]
MOST_EDGES = 255
HASHED = 16
"""Groups of the categories that are not counted by name."""
MOST_CATEGORIES = 255 - HASHED
"""Categories that are counted by name."""
_MOST_NAMES = 256
"""In a file of an earlier version."""
_HEAVY_ROWS = 100
_HEAVY_SHARE = 0.005


@dataclass
class NumericProfile:
    """``edges`` rise strictly; bucket i holds edges[i-1] < x <= edges[i], so there is one bucket
    more than edges. ``count``, ``mean``, ``squares`` (the sum of squared deviations), ``minimum``
    and ``maximum`` are of finite values. ``location`` and ``spread`` say how the scores (by rank)
    of rows depend on those of the rows before them. ``whole``: only whole numbers."""

    edges: Floats
    counts: NDArray[np.int64]
    count: int = 0
    mean: float = 0.0
    squares: float = 0.0
    minimum: float = math.inf
    maximum: float = -math.inf
    whole: bool = False
    location: Memory = field(default_factory=Memory)
    spread: Memory = field(default_factory=Memory)

    @property
    def deviation(self) -> float:
        """Standard deviation; 0 for fewer than two values."""
        return math.sqrt(self.squares / (self.count - 1)) if self.count > 1 else 0.0

    def merge(self, other: NumericProfile) -> NumericProfile:
        """Of the rows of both. Counts by bucket are exact for equal edges, and otherwise spread
        evenly within their old buckets; all else is exact, but for the dependence, of which the
        stronger one counts."""
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
        return NumericProfile(
            edges,
            counts,
            count,
            mean,
            squares,
            minimum,
            maximum,
            self.whole and other.whole,
            self.location.merge(other.location),
            self.spread.merge(other.spread),
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
            "whole": self.whole,
            "location": self.location.to_dict(),
            "spread": self.spread.to_dict(),
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
            bool(data.get("whole", False)),
            *_memories(data, int(data["count"])),
        )


@dataclass
class CategoryProfile:
    """``counts`` are of the categories that are counted by name, all of them while these are few;
    ``groups`` of the others, by a hash of the name (:func:`group_of`), so that a category is
    counted in the same place whenever and wherever it comes. ``distinct`` is how many categories
    there were, ``once`` how many of these came once; both are estimates beyond
    :data:`~CategoryCounter.SAMPLED`. ``location`` and ``spread`` say how the scores (by rank of the
    category) of rows depend on those of the rows before them."""

    counts: dict[str, int] = field(default_factory=dict)
    groups: tuple[int, ...] = ()
    distinct: int = 0
    once: int = 0
    location: Memory = field(default_factory=Memory)
    spread: Memory = field(default_factory=Memory)

    @property
    def other(self) -> int:
        """Values of categories that are not counted by name."""
        return sum(self.groups)

    @property
    def complete(self) -> bool:
        """Whether every category is counted by name, so that another one is known as unseen."""
        return not self.groups

    @property
    def count(self) -> int:
        """Values in all."""
        return sum(self.counts.values()) + self.other

    def merge(self, other: CategoryProfile) -> CategoryProfile:
        """Of the rows of both: exact. A category keeps its name where both know its count."""
        names = [
            name
            for name in dict.fromkeys((*self.counts, *other.counts))
            if all(name in one.counts or one.complete for one in (self, other))
        ]
        counts = {name: self.counts.get(name, 0) + other.counts.get(name, 0) for name in names}
        rest: dict[str, int] = {}
        for one in (self, other):
            for name, count in one.counts.items():
                if name not in counts:
                    rest[name] = rest.get(name, 0) + count
        widths = {len(one.groups) for one in (self, other) if one.groups}
        groups: list[int] = []
        if len(widths) == 1 and widths != {1}:
            groups = [0] * widths.pop()
            for one in (self, other):
                for index, count in enumerate(one.groups):
                    groups[index] += count
        elif widths:
            groups = [self.other + other.other]
        for name, count in rest.items():
            groups[group_of(name, len(groups))] += count
        merged = CategoryProfile(
            counts,
            tuple(groups),
            max(len(counts), self.distinct, other.distinct),
            max(self.once, other.once) if groups else sum(n == 1 for n in counts.values()),
            self.location.merge(other.location),
            self.spread.merge(other.spread),
        )
        return merged.folded()

    def folded(self) -> CategoryProfile:
        """With no more names than a file may have: beyond that, only heavy ones keep theirs."""
        if len(self.counts) <= MOST_CATEGORIES:
            return self
        total = self.count
        counts, groups = {}, list(self.groups) or [0] * HASHED
        for name, count in self.counts.items():
            if heavy(count, total):
                counts[name] = count
            else:
                groups[group_of(name, len(groups))] += count
        return replace(self, counts=counts, groups=tuple(groups))

    def to_dict(self) -> dict[str, Any]:
        """As JSON, the heaviest first."""
        ranked = sorted(self.counts.items(), key=lambda item: (-item[1], item[0]))
        return {
            "counts": dict(ranked),
            "groups": list(self.groups),
            "distinct": self.distinct,
            "once": self.once,
            "location": self.location.to_dict(),
            "spread": self.spread.to_dict(),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> CategoryProfile:
        """Undo :meth:`to_dict`. Raises KeyError, TypeError or ValueError."""
        counts = {str(name): int(count) for name, count in data["counts"].items()}
        if len(counts) > _MOST_NAMES or any(count < 0 for count in counts.values()):
            raise ValueError(f"at most {_MOST_NAMES} categories, with counts of at least 0")
        # Files of an earlier version have one group, and no number of categories that came once.
        given = data["groups"] if "groups" in data else [int(data["other"])]
        groups = tuple(int(count) for count in given) if any(given) else ()
        if len(groups) > HASHED or any(count < 0 for count in groups):
            raise ValueError(f"at most {HASHED} groups, with counts of at least 0")
        once = data.get("once", sum(count == 1 for count in counts.values()))
        memories = _memories(data, sum(counts.values()) + sum(groups))
        profile = cls(counts, groups, int(data["distinct"]), int(once), *memories)
        return profile.folded()


Profile = NumericProfile | CategoryProfile


def group_of(name: str, groups: int) -> int:
    """The group that a category without a count by name is counted in."""
    return crc32(name.encode("utf-8", "replace")) % groups


def heavy(count: int, total: int) -> bool:
    """Whether a category is so frequent that its share is known well although it was chosen for
    being frequent."""
    return count >= max(_HEAVY_ROWS, _HEAVY_SHARE * total)


def discount(profile: CategoryProfile) -> float:
    """How much to subtract from the count of each category in favour of unseen ones: absolute
    discounting (Ney, Essen & Kneser 1994), in total at most the number of categories that were seen
    once, which is how many of as many rows to come will have one that was not seen (Good 1953). 0
    where rare categories are counted in groups, which hold unseen ones as well."""
    if not profile.complete:
        return 0.0
    twice = sum(count == 2 for count in profile.counts.values())
    once = profile.once
    return min(once / max(once + 2 * twice, 1), once / max(len(profile.counts), 1))


class CategoryCounter:
    """Counts categories in bounded memory. All have their names while they are few; when they
    become too many, only the ``heavy`` ones of a sample keep theirs, and all others are counted by
    a hash. So each count is exact, and of the same rows as it will be live. How many there are, and
    how many came once, is counted among those whose hash ends in so many zeros that they are few
    (adaptive sampling; Flajolet, Computing 43, 1990). ``folded``: no others get a name."""

    SAMPLED = 1024
    """Categories that are counted to estimate how many there are."""

    def __init__(self, heavy: Collection[str] = (), *, folded: bool = False) -> None:
        self.counts: dict[str, int] = dict.fromkeys(heavy, 0)
        self.groups: list[int] = [0] * HASHED if folded else []
        self.total = 0
        self._heavy = frozenset(heavy)
        self._sampled: dict[str, int] = {}
        self._depth = 0

    def add(self, name: str, count: int = 1) -> None:
        """Count a category."""
        self.total += count
        hashed = crc32(name.encode("utf-8", "replace"))
        if name in self._sampled:
            self._sampled[name] += count
        elif not hashed >> 4 & ((1 << self._depth) - 1):
            self._sampled[name] = count
            while len(self._sampled) > self.SAMPLED:
                self._depth += 1
                mask = (1 << self._depth) - 1
                self._sampled = {
                    key: held
                    for key, held in self._sampled.items()
                    if not crc32(key.encode("utf-8", "replace")) >> 4 & mask
                }
        if name in self.counts:
            self.counts[name] += count
        elif self.groups:
            self.groups[hashed % HASHED] += count
        else:
            self.counts[name] = count
            if len(self.counts) > MOST_CATEGORIES:
                self._fold()

    def _fold(self) -> None:
        self.groups = [0] * HASHED
        for name in [name for name in self.counts if name not in self._heavy]:
            self.groups[group_of(name, HASHED)] += self.counts.pop(name)

    def profile(self, location: Memory, spread: Memory) -> CategoryProfile:
        """What was counted."""
        counts = {name: count for name, count in self.counts.items() if count}
        distinct = len(self._sampled) << self._depth
        once = sum(count == 1 for count in self._sampled.values()) << self._depth
        return CategoryProfile(counts, tuple(self.groups), distinct, once, location, spread)


def edges_of(sample: Floats) -> Floats:
    """Edges for a sample of finite values: halfway between the values where these are few, else
    its quantiles. At most :data:`MOST_EDGES`, strictly rising."""
    if not len(sample):
        return np.zeros(0)
    values = distinct(sample)
    if len(values) <= MOST_EDGES:
        # A value is the upper edge of its own bucket; the last one needs none.
        own: Floats = values[:-1]
        return own
    result = distinct(quantiles(sample, np.linspace(0.0, 1.0, MOST_EDGES + 2)[1:-1]))
    edges: Floats = result[result < values[-1]]
    return edges


def _rebinned(
    a: NumericProfile, b: NumericProfile, maximum: float
) -> tuple[Floats, NDArray[np.int64]]:
    every = distinct(np.concatenate([a.edges, b.edges, [maximum]]))
    together = below(a, every) + below(b, every)
    total = a.count + b.count
    if len(every) - 1 > MOST_EDGES:
        wanted = np.linspace(0.0, total, MOST_EDGES + 2)[1:-1]
        indices = distinct(np.minimum(np.searchsorted(together, wanted), len(every) - 2))
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


def _memories(data: Mapping[str, Any], rows: int) -> tuple[Memory, Memory]:
    """Of location and spread; of files without them, by the lag-1 correlations."""
    if "location" in data:
        return Memory.from_dict(data["location"]), Memory.from_dict(data["spread"])
    lags = [data.get("lag1"), data.get("lag1_spread", data.get("lag1"))]
    first, second = (
        Memory.of_correlation(None if lag is None else float(lag), rows) for lag in lags
    )
    return first, second


def _plain(value: float) -> float | int:
    return int(value) if value.is_integer() and abs(value) < 2**53 else value


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
