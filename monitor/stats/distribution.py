"""A latency sketch as numpy counts: merging and quantiles, for readers.

Merging adds counts, so it is associative and commutative and a merge loses nothing. A quantile is
the value of rank ``ceil(q·n)`` to within 0.54 % inside the range of the buckets (see
:mod:`understudy.monitor.stats.buckets`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from understudy.monitor.stats.buckets import BUCKETS, CLASSIC, bucket_of, middle, upper_edge
from understudy.monitor.stats.shared import (
    SKETCH_BUCKETS,
    SKETCH_CLASSIC,
    SKETCH_MAX_NS,
    SKETCH_SUM_NS,
    SKETCH_WORDS,
)

Counts = NDArray[np.int64]
Words = NDArray[np.uint64]

MIDDLES: NDArray[np.float64] = np.array([middle(i) for i in range(BUCKETS)])
UPPER_EDGES: NDArray[np.float64] = np.array([upper_edge(i) for i in range(BUCKETS)])
QUANTILES = (0.5, 0.9, 0.95, 0.99, 0.999)


class Distribution:
    """Counts of shape ``(BUCKETS,)``, with the sum and the maximum in nanoseconds."""

    __slots__ = ("counts", "max_ns", "sum_ns")

    def __init__(self, counts: Counts | None = None, sum_ns: int = 0, max_ns: int = 0) -> None:
        self.counts: Counts = np.zeros(BUCKETS, np.int64) if counts is None else counts
        self.sum_ns = sum_ns
        self.max_ns = max_ns

    @classmethod
    def from_words(cls, words: Words) -> Distribution:
        """From the ``SKETCH_WORDS`` numbers of a shared sketch; the counts are copied."""
        if len(words) != SKETCH_WORDS:
            raise ValueError(f"a sketch has {SKETCH_WORDS} numbers, not {len(words)}")
        return cls(
            words[SKETCH_BUCKETS:].astype(np.int64),
            int(words[SKETCH_SUM_NS]),
            int(words[SKETCH_MAX_NS]),
        )

    @classmethod
    def of(cls, seconds: Iterable[float]) -> Distribution:
        """Sketch of the given durations, in seconds."""
        result = cls()
        for value in seconds:
            nanoseconds = int(value * 1e9)
            result.counts[bucket_of(value)] += 1
            result.sum_ns += nanoseconds
            result.max_ns = max(result.max_ns, nanoseconds)
        return result

    @property
    def count(self) -> int:
        """Number of values."""
        return int(self.counts.sum())

    @property
    def mean(self) -> float | None:
        """Mean in seconds; None without values."""
        count = self.count
        return self.sum_ns / 1e9 / count if count > 0 else None

    @property
    def maximum(self) -> float | None:
        """Largest value in seconds; None without values."""
        return self.max_ns / 1e9 if self.count > 0 else None

    def merge(self, other: Distribution) -> Distribution:
        """The distribution of both together, as a new object."""
        return Distribution(
            self.counts + other.counts,
            self.sum_ns + other.sum_ns,
            max(self.max_ns, other.max_ns),
        )

    def add(self, other: Distribution) -> None:
        """Merge ``other`` into this one."""
        self.counts += other.counts
        self.sum_ns += other.sum_ns
        self.max_ns = max(self.max_ns, other.max_ns)

    def quantiles(self, wanted: Sequence[float] = QUANTILES) -> list[float] | None:
        """Values in seconds at the given quantiles in [0, 1]; None without values.

        No quantile exceeds the maximum.
        """
        cumulative = np.cumsum(np.maximum(self.counts, 0))
        total = int(cumulative[-1])
        if total == 0:
            return None
        ranks = np.maximum(np.ceil(np.asarray(wanted, float) * total), 1)
        values = MIDDLES[np.searchsorted(cumulative, ranks)]
        if self.max_ns:
            values = np.minimum(values, self.max_ns / 1e9)
        return [float(value) for value in values]


def classic_counts(words: Words) -> list[int]:
    """Cumulative counts at the classic edges and at infinity, from a shared sketch."""
    part = words[SKETCH_CLASSIC : SKETCH_CLASSIC + CLASSIC]
    return [int(value) for value in np.cumsum(part)]


def summary(distribution: Distribution, seconds: float) -> dict[str, Any]:
    """Summary over ``seconds`` of time as JSON; durations in seconds, None when empty."""
    quantiles = distribution.quantiles()
    names = ("p50", "p90", "p95", "p99", "p99_9")
    values: Sequence[float | None] = quantiles if quantiles is not None else [None] * len(names)
    count = distribution.count
    return {
        "count": count,
        "rate": count / seconds if seconds > 0 else 0.0,
        "mean": distribution.mean,
        **dict(zip(names, values, strict=True)),
        "max": distribution.maximum,
    }
