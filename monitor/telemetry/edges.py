"""Edges of a latency histogram beyond the usual ones: the limits of objectives.

A share of requests within a limit can be read exactly only where a bucket ends. The usual edges are
counted apart and exact; for any other limit the sketch knows the count to within half of one of its
buckets, which are 1.1 % wide.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, log2

import numpy as np

from understudy.monitor.stats.buckets import BUCKETS, CLASSIC_EDGES, OFFSET, SCALE
from understudy.monitor.stats.distribution import Words, classic_counts
from understudy.monitor.stats.shared import SKETCH_BUCKETS


@dataclass(frozen=True, slots=True)
class Bucket:
    """``count`` is cumulative; ``classic`` is the number of the classic bucket that holds it, and
    ``low`` where it begins."""

    low: float
    edge: float
    count: int
    classic: int


def nearest(seconds: float) -> int:
    """The bucket of the sketch whose upper edge is the nearest, in ratio."""
    if seconds <= 0.0:
        return 0
    return min(max(round(log2(seconds) * SCALE) + OFFSET, 0), BUCKETS - 1)


def buckets(words: Words, more: Sequence[float] = ()) -> list[Bucket]:
    """All buckets of a shared sketch in order, with those that end at ``more`` (seconds)."""
    counts = classic_counts(words)
    edges = (*CLASSIC_EDGES, inf)
    extra = sorted({edge for edge in more if 0.0 < edge < inf} - set(CLASSIC_EDGES))
    result: list[Bucket] = []
    low, before = 0.0, 0
    for number, (edge, count) in enumerate(zip(edges, counts, strict=True)):
        for own in (one for one in extra if low < one < edge):
            within = int(
                words[SKETCH_BUCKETS : SKETCH_BUCKETS + nearest(own) + 1].sum(dtype=np.int64)
            )
            # The sketch may be read in the middle of an observation; a histogram never falls.
            before = min(max(within, before), count)
            result.append(Bucket(low, own, before, number))
            low = own
        result.append(Bucket(low, edge, count, number))
        low, before = edge, count
    return result
