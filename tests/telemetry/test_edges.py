"""Edges of the histogram at the limits of objectives."""

from __future__ import annotations

import random
from math import inf

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from understudy.monitor.config.objective import latency_limits
from understudy.monitor.stats.buckets import CLASSIC_EDGES, bucket_of, upper_edge
from understudy.monitor.stats.distribution import Words
from understudy.monitor.stats.shared import (
    SKETCH_BUCKETS,
    SKETCH_CLASSIC,
    SKETCH_SUM_NS,
    SKETCH_WORDS,
)
from understudy.monitor.telemetry.edges import buckets, nearest
from understudy.monitor.telemetry.exposition import encode
from understudy.monitor.telemetry.families import sketches


def words_of(seconds: list[float]) -> Words:
    words = np.zeros(SKETCH_WORDS, np.uint64)
    for value in seconds:
        words[SKETCH_BUCKETS + bucket_of(value)] += np.uint64(1)
        words[SKETCH_CLASSIC + sum(value > edge for edge in CLASSIC_EDGES)] += np.uint64(1)
        words[SKETCH_SUM_NS] += np.uint64(int(value * 1e9))
    return words


@given(
    st.lists(st.floats(1e-5, 100.0), min_size=1, max_size=200),
    st.lists(st.floats(1e-4, 60.0), max_size=5),
)
def test_counts_are_right_within_half_a_bucket_of_the_sketch(
    seconds: list[float], more: list[float]
) -> None:
    found = buckets(words_of(seconds), more)
    edges = [bucket.edge for bucket in found]
    assert edges == sorted({*CLASSIC_EDGES, *more, inf})
    counts = [bucket.count for bucket in found]
    assert counts == sorted(counts)
    assert counts[-1] == len(seconds)
    for bucket in found:
        least = sum(value <= bucket.edge / 1.0055 for value in seconds)
        most = sum(value <= bucket.edge * 1.0055 for value in seconds)
        assert least <= bucket.count <= most
        if bucket.edge in CLASSIC_EDGES:
            assert bucket.count == sum(value <= bucket.edge for value in seconds)


def test_the_nearest_edge_is_taken() -> None:
    for value in (0.001, 0.06, 0.8, 30.0):
        edge = upper_edge(nearest(value))
        assert abs(edge / value - 1) < 0.0055
    assert nearest(0.0) == 0


def test_limits_of_latencies_become_edges() -> None:
    objectives = {"latency_p99": "<= 60ms", "latency_p50": "<= 50ms", "error_rate": "<= 1 %",
                  "latency_mean": "<= 20ms"}  # fmt: skip
    assert latency_limits(objectives) == (0.05, 0.06)
    chance = random.Random(3)
    seconds = [chance.lognormvariate(-3.0, 0.5) for _ in range(5000)]
    labels = tuple((name, "x") for name in ("model", "version", "arm", "role", "protocol",
                                            "outcome"))  # fmt: skip
    family = sketches("d_seconds", "help", {labels: words_of(seconds)}, None, (0.05, 0.06))
    text = encode([family], "text/plain")[1].decode()
    (read,) = text_string_to_metric_families(text)
    by = {s.labels["le"]: s.value for s in read.samples if s.name.endswith("_bucket")}
    assert len(by) == len(CLASSIC_EDGES) + 2
    assert by["0.06"] == pytest.approx(sum(v <= 0.06 for v in seconds), rel=0.01)
    assert by["0.05"] == sum(v <= 0.05 for v in seconds)
