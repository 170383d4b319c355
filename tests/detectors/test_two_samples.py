"""Two-sample tests on counts: exact against enumeration and scipy, and calibrated for few rows."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from understudy.monitor.detectors.two_samples import (
    all_among,
    constant_by_chance,
    exact_p_value,
    kolmogorov_smirnov,
    same_rate,
    same_shares,
)

Floats = np.typing.NDArray[np.float64]


@pytest.mark.parametrize(("n", "m"), [(1, 1), (5, 5), (20, 6_000), (7, 300), (150, 180), (8, 3)])
def test_kolmogorov_smirnov_is_exact(n: int, m: int) -> None:
    rng = np.random.default_rng(n * m)
    for shift in (0.0, 0.3, 2.0):
        x, y = rng.normal(size=n), rng.normal(shift, 1.0, m)
        known = stats.ks_2samp(x, y, method="exact")
        found = exact_p_value(float(known.statistic), n, m)
        assert found == pytest.approx(max(known.pvalue, 1e-10), rel=1e-6, abs=2e-10)
        edges = np.sort(np.concatenate([x, y]))
        p, q = (np.bincount(edges.searchsorted(s), minlength=len(edges)) for s in (x, y))
        distance, _, p_value = kolmogorov_smirnov(p.astype(float), q.astype(float))
        assert distance == pytest.approx(known.statistic, abs=1e-12)
        assert p_value == pytest.approx(found, rel=1e-9)


def test_fisher() -> None:
    for k, n, j, m in ((8, 6_000, 24, 6_000), (0, 20, 6, 20), (3, 5, 1, 4), (30, 6_000, 30, 100)):
        known = stats.fisher_exact([[k, n - k], [j, m - j]])[1]
        assert same_rate(k, n, j, m) == pytest.approx(known, rel=1e-9)
    assert same_rate(0, 10, 0, 10) == 1.0
    assert same_rate(10, 10, 10, 10) == 1.0
    large = stats.chi2_contingency([[500, 5_500], [600, 5_400]], correction=False)
    assert same_rate(500, 6_000, 600, 6_000) == pytest.approx(large.pvalue, rel=1e-9)


def test_permutations_agree_with_all_of_them() -> None:
    p, q = np.array([4.0, 1.0, 0.0]), np.array([1.0, 2.0, 4.0])
    rows = np.repeat([0, 1, 2], (p + q).astype(int))

    def statistic(current: tuple[int, ...]) -> float:
        now = np.bincount(rows[list(current)], minlength=3)
        table = np.array([p + q - now, now])
        expected = table.sum(1, keepdims=True) * table.sum(0) / table.sum()
        return float(((table - expected) ** 2 / expected).sum())

    every = [statistic(chosen) for chosen in combinations(range(12), 7)]
    own = statistic(tuple(np.flatnonzero(np.isin(np.arange(12), [4, 5, 6, 8, 9, 10, 11]))))
    known = float(np.mean(np.array(every) >= own - 1e-9))
    assert same_shares(p, q) == pytest.approx(known, abs=0.02)


@pytest.mark.simulation
@pytest.mark.parametrize(("n", "m"), [(20, 20), (20, 2_000), (2_000, 50), (400, 2_000)])
def test_p_values_of_one_population_are_not_too_small(n: int, m: int) -> None:
    rng = np.random.default_rng(n + m)
    shares = 1.0 / np.arange(1, 16)
    shares /= shares.sum()
    small = {"ks": 0, "shares": 0}
    turns = 400 if min(n, m) >= 200 else 150
    for _ in range(turns):
        x, y = rng.lognormal(size=n), rng.lognormal(size=m)
        edges = np.unique(np.quantile(x, np.linspace(0, 1, 66)[1:-1]))  # of one sample alone
        p, q = (np.bincount(edges.searchsorted(s), minlength=len(edges) + 1) for s in (x, y))
        small["ks"] += kolmogorov_smirnov(p.astype(float), q.astype(float))[2] <= 0.05
        a, b = rng.multinomial(n, shares), rng.multinomial(m, shares)
        small["shares"] += same_shares(a.astype(float), b.astype(float)) <= 0.05
    # Beyond this many with probability below 1e-6, if each happens with probability 0.05.
    most = int(stats.binom.isf(1e-7, turns, 0.05))
    assert small["ks"] <= most
    assert small["shares"] <= most


def test_small_samples_of_different_populations_differ() -> None:
    p, q = np.array([20.0, 0.0, 0.0]), np.array([1.0, 9.0, 10.0])
    assert same_shares(p, q) < 1e-3
    assert kolmogorov_smirnov(p, q)[2] < 1e-6
    assert same_shares(np.array([5.0]), np.array([7.0])) == 1.0


def test_values_on_one_side_only() -> None:
    assert all_among(1.0, 10, 30) == pytest.approx(30 / 40)
    assert all_among(2.0, 10, 30) == pytest.approx(30 / 40 * 29 / 39)
    assert all_among(31.0, 10, 30) == 0.0
    assert constant_by_chance(np.array([3.0, 2.0]), 1.0) == pytest.approx(1.0)
    assert constant_by_chance(np.array([3.0, 2.0]), 2.0) == pytest.approx(0.4)
    assert constant_by_chance(np.array([3.0, 2.0]), 4.0) == 0.0
