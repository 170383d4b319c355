"""Sketches in shared memory: how long exchanges took, as a worker counts it.

A module by itself, since workers may run it compiled. Only the standard library is used here.
"""

from __future__ import annotations

from bisect import bisect_left
from math import ceil, log2

from understudy.monitor.stats.buckets import (
    BUCKETS,
    CLASSIC_EDGES,
    LOWEST_EXPONENT,
    OFFSET,
    SCALE,
)
from understudy.monitor.stats.shared import SKETCH_BUCKETS

_LOWEST_NS = int(1e9 * 2.0**LOWEST_EXPONENT)
_EDGES_NS = tuple(int(edge * 1e9) for edge in CLASSIC_EDGES)
_SHIFT = OFFSET - log2(1e9) * SCALE


def observe(words: memoryview, sketch: int, nanoseconds: int) -> None:
    """Add a duration to the sketch at index ``sketch``. About half a microsecond."""
    if nanoseconds > _LOWEST_NS:
        index = ceil(log2(nanoseconds) * SCALE + _SHIFT)
        if index >= BUCKETS:
            index = BUCKETS - 1
    else:
        index = 0
        if nanoseconds < 0:
            nanoseconds = 0
    words[sketch] += 1
    words[sketch + 1] += nanoseconds
    if nanoseconds > words[sketch + 2]:
        words[sketch + 2] = nanoseconds
    words[sketch + 3 + bisect_left(_EDGES_NS, nanoseconds)] += 1
    words[sketch + SKETCH_BUCKETS + index] += 1
