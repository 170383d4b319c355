"""What stands in for scipy.stats in the service has the values of scipy.stats."""

from __future__ import annotations

from fractions import Fraction
from math import comb

import numpy as np
import pytest
from scipy import stats
from scipy.special import betaincinv, ndtr, ndtri, stdtrit

from understudy.monitor.health.performance.slices import hypergeometric_tail


def test_quantiles_and_tails_agree_with_scipy() -> None:
    p = np.array([1e-9, 1e-4, 0.025, 0.3, 0.5, 0.9, 0.975, 1 - 1e-6])
    np.testing.assert_allclose(ndtri(p), stats.norm.ppf(p), rtol=1e-12, atol=1e-12)
    for freedom in (1.0, 2.0, 7.0, 120.0):
        np.testing.assert_allclose(
            stdtrit(freedom, p), stats.t.ppf(p, freedom), rtol=1e-12, atol=1e-12
        )
    for a, b in ((1.0, 50.0), (4.0, 96.0), (501.0, 9_500.0)):
        np.testing.assert_allclose(betaincinv(a, b, p), stats.beta.ppf(p, a, b), rtol=1e-12)
    z = np.linspace(-8, 8, 33)
    np.testing.assert_allclose(ndtr(-z), stats.norm.sf(z), rtol=1e-12)


@pytest.mark.parametrize(
    "case",
    [(30, 1000, 100, 200), (3, 50, 10, 20), (150, 5000, 400, 1500), (1, 2, 1, 1), (5, 9, 5, 7)],
)
def test_fishers_exact_test_agrees_with_integer_arithmetic(case: tuple[int, int, int, int]) -> None:
    hits, rows, errors, drawn = case
    ways = sum(
        comb(errors, i) * comb(rows - errors, drawn - i)
        for i in range(hits, min(errors, drawn) + 1)
    )
    exact = float(Fraction(ways, comb(rows, drawn)))
    assert hypergeometric_tail(hits, rows, errors, drawn) == pytest.approx(exact, rel=1e-11)


def test_fishers_exact_test_at_its_limits() -> None:
    assert hypergeometric_tail(0, 100, 10, 20) == 1.0
    assert hypergeometric_tail(11, 100, 10, 20) == 0.0
    # Of 100 rows with 95 errors, 20 rows hold at least 15 errors.
    assert hypergeometric_tail(15, 100, 95, 20) == 1.0
