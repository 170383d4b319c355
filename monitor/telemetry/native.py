"""A latency sketch as a native histogram of Prometheus.

Our buckets are those of schema 6, so a coarser schema is an exact sum of neighbours: index ``i`` of
schema ``s`` covers ``(2^((i-1)·2^-s), 2^(i·2^-s)]``. The lowest bucket, which also holds what is
below its range, becomes the zero bucket.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from understudy.monitor.stats.buckets import LOWEST_EXPONENT, OFFSET, SCHEMA
from understudy.monitor.stats.distribution import Words
from understudy.monitor.stats.shared import SKETCH_BUCKETS

EXPORTED_SCHEMA = 3
"""Eight buckets per doubling, each 9 % wide."""
_MAX_GAP = 2
"""Empty buckets that are written out rather than starting a span of their own."""


@dataclass(frozen=True, slots=True)
class NativeHistogram:
    """``spans`` are (offset, length) and ``deltas`` the counts, each as difference to the one
    before, as the exposition format has them; ``count`` is the sum of all buckets."""

    schema: int
    zero_threshold: float
    zero_count: int
    spans: list[tuple[int, int]]
    deltas: list[int]
    count: int


def native_histogram(words: Words, schema: int = EXPORTED_SCHEMA) -> NativeHistogram:
    """Convert the numbers of a shared sketch; ``schema`` from 0 to 6."""
    if not 0 <= schema <= SCHEMA:
        raise ValueError(f"schema {schema} is not in 0..{SCHEMA}")
    counts = words[SKETCH_BUCKETS:].astype(np.int64)
    filled = np.flatnonzero(counts[1:]) + 1
    # Bucket i of schema 6 lies in bucket ceil(i / 2^(6-s)) of schema s.
    coarse = -((OFFSET - filled) // (1 << (SCHEMA - schema)))
    indices, where = np.unique(coarse, return_inverse=True)
    sums = np.bincount(where, counts[filled], len(indices)).astype(np.int64)
    spans: list[tuple[int, int]] = []
    deltas: list[int] = []
    following, before = 0, 0
    for index, count in zip(indices.tolist(), sums.tolist(), strict=True):
        gap = index - following
        if not spans or gap > _MAX_GAP:
            spans.append((gap, 1))
        else:
            # A short gap costs less as empty buckets than as a span of its own.
            for _ in range(gap):
                deltas.append(-before)
                before = 0
            spans[-1] = (spans[-1][0], spans[-1][1] + gap + 1)
        deltas.append(count - before)
        before, following = count, index + 1
    return NativeHistogram(
        schema, 2.0**LOWEST_EXPONENT, int(counts[0]), spans, deltas, int(counts.sum())
    )
