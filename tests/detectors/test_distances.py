"""Distances against scipy, to the last digits, and against what chance makes of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from scipy.stats import chi2_contingency, false_discovery_control, ks_2samp, wasserstein_distance

from understudy.monitor.detectors.distances import (
    benjamini_hochberg,
    between,
    chi_squared,
    from_counts,
    ks_p_value,
    thresholds,
)


@settings(max_examples=60)
@given(st.integers(0, 10**6), st.integers(1, 200), st.integers(1, 200), st.booleans())
def test_distances_of_samples_agree_with_scipy(seed: int, n: int, m: int, ties: bool) -> None:
    rng = np.random.default_rng(seed)
    if ties:
        a, b = (rng.integers(0, 6, (k, 2)).astype(float) for k in (n, m))
    else:
        a, b = rng.lognormal(size=(n, 2)), rng.lognormal(size=(m, 2)) * 1.3
    found = between(a, b)
    for column in (0, 1):
        x, y = a[:, column], b[:, column]
        assert found.ks[column] == pytest.approx(ks_2samp(x, y).statistic, abs=1e-12)
        wanted = wasserstein_distance(x, y)
        assert found.wasserstein[column] == pytest.approx(wanted, rel=1e-12, abs=1e-12)
    assert ((found.js >= 0.0) & (found.js <= 1.0 + 1e-12)).all()
    assert ((found.hellinger >= 0.0) & (found.hellinger <= 1.0 + 1e-12)).all()


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 90), st.integers(0, 90)), min_size=2, max_size=12))
def test_distances_of_counts_agree_with_scipy(pairs: list[tuple[int, int]]) -> None:
    p, q = (np.array([column], float) for column in zip(*pairs, strict=True))
    if not p.sum() or not q.sum():
        return
    psi, js, hellinger = from_counts(p, q)
    assert js[0] == pytest.approx(jensenshannon(p[0], q[0], 2), abs=1e-7)
    assert psi[0] >= -1e-12
    assert hellinger[0] <= 1.0 + 1e-12
    held = (p + q)[0] > 0
    if held.sum() > 1:
        table = np.stack([p[0][held], q[0][held]])
        statistic, p_value, cramer = chi_squared(p, q)
        wanted = chi2_contingency(table, correction=False)
        assert statistic[0] == pytest.approx(wanted.statistic, rel=1e-9, abs=1e-9)
        assert p_value[0] == pytest.approx(wanted.pvalue, rel=1e-9, abs=1e-12)
        assert cramer[0] == pytest.approx(np.sqrt(wanted.statistic / table.sum()), abs=1e-9)


@pytest.mark.parametrize("n", [500, 5000])
def test_chance_stays_below_the_thresholds(n: int) -> None:
    rng = np.random.default_rng(n)
    a, b = rng.normal(size=(n, 400)), rng.normal(size=(n, 400))
    found = between(a, b)
    limits = thresholds(10, n, n, 0.001)
    # 0.4 of 400 are to be expected above; ten or more has a probability below 1e-9.
    for name in ("psi", "js", "hellinger", "ks"):
        assert (getattr(found, name) > limits[name]).sum() < 10, name
    p_values = ks_p_value(found.ks, n, n)
    assert (p_values < 0.001).sum() < 10
    moved = between(a, b + 0.5)
    # Half a standard deviation: a PSI of 0.25, with an error of 0.06 at the smaller size.
    assert (moved.psi > limits["psi"]).mean() > 0.9


def test_adjusted_p_values_bound_false_discoveries() -> None:
    p = np.array([0.001, 0.8, 0.03, 0.02, 0.04, 1.0])
    assert benjamini_hochberg(p) == pytest.approx(false_discovery_control(p))
    with pytest.raises(ValueError, match="need rows"):
        between(np.zeros((0, 2)), np.zeros((3, 2)))
    with pytest.raises(ValueError, match="shapes"):
        between(np.zeros((2, 2)), np.zeros((3, 3)))
