"""Scores by rank: standard under the baseline, whatever that looks like."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from understudy.monitor.baseline.scores import normal_scores, spread_scores, tail_factor

COUNTS = st.lists(st.integers(0, 10_000), min_size=1, max_size=256).filter(lambda c: sum(c) > 0)


@given(COUNTS)
def test_scores_are_standard_and_rise(counts: list[int]) -> None:
    shares = np.array(counts, float) / sum(counts)
    location = normal_scores(shares)
    several = np.count_nonzero(shares) > 1
    assert location @ shares == pytest.approx(0.0, abs=1e-9)
    if several and location.any():
        assert location**2 @ shares == pytest.approx(1.0)
        assert (np.diff(location[shares > 0]) > 0).all()
    spread = spread_scores(location, shares)
    assert spread @ shares == pytest.approx(0.0, abs=1e-9)
    if spread.any():
        assert spread**2 @ shares == pytest.approx(1.0)


def test_normal_values_keep_their_scores() -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(size=200_000)
    edges = np.quantile(values, np.linspace(0, 1, 257)[1:-1])
    counts = np.bincount(edges.searchsorted(values), minlength=256)
    location = normal_scores(counts / counts.sum())
    shifted = location[edges.searchsorted(values + 0.5)]
    # The mean score of a shifted normal is close to the shift; five standard errors are 0.011.
    assert shifted.mean() == pytest.approx(0.5, abs=0.03)


def test_a_skewed_score_needs_a_higher_threshold() -> None:
    shares = np.array([0.9, 0.1])
    scores = normal_scores(shares)
    up = tail_factor(scores, shares, 0.5)
    assert up > 1.3
    assert tail_factor(-scores, shares, 0.5) == 1.0
    even = np.full(256, 1 / 256)
    assert tail_factor(normal_scores(even), even, 0.5) == 1.0
    # The factor is the ratio of Lundberg's exponents: check the root.
    theta = 1.0 / up
    assert shares @ np.exp(theta * (scores - 0.5)) == pytest.approx(1.0, abs=1e-9)


def test_a_constant_has_no_scores() -> None:
    assert not normal_scores(np.array([0.0, 1.0, 0.0])).any()
    assert tail_factor(np.zeros(3), np.array([0.0, 1.0, 0.0]), 0.25) == 1.0
