"""Quantiles within 1 % of the exact ones; merging is a commutative monoid."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from understudy.monitor.stats.buckets import middle, upper_edge
from understudy.monitor.stats.distribution import Distribution, summary

durations = st.floats(min_value=2e-6, max_value=4000.0, allow_nan=False)
samples = st.lists(durations, min_size=1, max_size=300)


def exact(values: list[float], q: float) -> float:
    ordered = sorted(values)
    return ordered[max(math.ceil(q * len(ordered)), 1) - 1]


@given(samples, st.floats(0, 1))
def test_quantile_is_within_one_percent(values: list[float], q: float) -> None:
    quantiles = Distribution.of(values).quantiles([q])
    assert quantiles is not None
    assert quantiles[0] == pytest.approx(exact(values, q), rel=0.01)


@pytest.mark.parametrize("shape", ["lognormal", "pareto", "bimodal"])
def test_tails_of_large_samples_are_within_one_percent(shape: str) -> None:
    rng = np.random.default_rng(7)
    values = {
        "lognormal": rng.lognormal(-4, 1, 50_000),
        "pareto": 0.001 * (1 + rng.pareto(1.5, 50_000)),
        "bimodal": np.where(rng.random(50_000) < 0.01, 0.4, 0.004) * rng.uniform(0.9, 1.1, 50_000),
    }[shape].tolist()
    wanted = [0.5, 0.9, 0.95, 0.99, 0.999, 1.0]
    quantiles = Distribution.of(values).quantiles(wanted)
    assert quantiles is not None
    for q, value in zip(wanted, quantiles, strict=True):
        assert value == pytest.approx(exact(values, q), rel=0.01)


def same(a: Distribution, b: Distribution) -> bool:
    return (
        bool(np.array_equal(a.counts, b.counts)) and a.sum_ns == b.sum_ns and a.max_ns == b.max_ns
    )


@given(samples, samples, samples)
def test_merge_is_associative_and_commutative(
    x: list[float], y: list[float], z: list[float]
) -> None:
    a, b, c = Distribution.of(x), Distribution.of(y), Distribution.of(z)
    assert same(a.merge(b), b.merge(a))
    assert same(a.merge(b).merge(c), a.merge(b.merge(c)))
    assert same(a.merge(Distribution()), a)
    assert same(a.merge(b), Distribution.of(x + y))


def test_empty_has_no_quantiles() -> None:
    empty = summary(Distribution(), 10.0)
    assert empty["count"] == 0
    assert empty["p99"] is None
    assert empty["max"] is None


def test_no_quantile_is_above_the_maximum() -> None:
    lowest_of_a_bucket = upper_edge(1000) * 1.0001
    result = summary(Distribution.of([lowest_of_a_bucket]), 2.0)
    assert middle(1001) > lowest_of_a_bucket
    assert result["p50"] == result["p99_9"] == result["max"] == int(lowest_of_a_bucket * 1e9) / 1e9
    assert result["rate"] == 0.5
