"""Bucket boundaries that every latency summary shares.

The sketch has logarithmic buckets of base 2^(1/64): bucket ``i`` holds values in
``(2^((i-1)/64), 2^(i/64)]`` seconds, which is exactly schema 6 of Prometheus' native histograms, so
that no resolution is lost on export and coarser schemas are sums of neighbours. Reporting the
middle of a bucket is wrong by at most (γ-1)/(γ+1) = 0.54 % (Masson, Rim & Lee, "DDSketch",
VLDB 2019, section 2.1, with γ = 2^(1/64)).

Only the standard library is used here: workers import this module.
"""

from __future__ import annotations

from math import ceil, log2

SCALE = 64
"""Buckets per doubling."""
SCHEMA = 6
"""Prometheus native-histogram schema of the same buckets (2^(2^-6) = 2^(1/64))."""
LOWEST_EXPONENT = -20
"""Everything up to 2^-20 s (0.95 µs) falls into bucket 0."""
HIGHEST_EXPONENT = 12
"""Everything above 2^12 s (68 min) falls into the last bucket."""
BUCKETS = (HIGHEST_EXPONENT - LOWEST_EXPONENT) * SCALE + 1
OFFSET = -LOWEST_EXPONENT * SCALE

CLASSIC_EDGES = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
"""Upper edges in seconds of OpenTelemetry's ``http.server.request.duration``."""
CLASSIC = len(CLASSIC_EDGES) + 1


def bucket_of(seconds: float) -> int:
    """Index in ``[0, BUCKETS)`` of a duration in seconds; values outside the range are clamped."""
    if seconds <= 2.0**LOWEST_EXPONENT:
        return 0
    index = ceil(log2(seconds) * SCALE) + OFFSET
    return index if index < BUCKETS else BUCKETS - 1


def upper_edge(index: int) -> float:
    """Inclusive upper edge of bucket ``index``, in seconds."""
    return float(2.0 ** ((index - OFFSET) / SCALE))


def middle(index: int) -> float:
    """The value with the smallest worst relative error within bucket ``index``, in seconds."""
    upper = upper_edge(index)
    lower = upper_edge(index - 1) if index > 0 else upper
    return 2.0 * upper * lower / (upper + lower)
