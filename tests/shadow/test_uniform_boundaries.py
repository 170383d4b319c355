"""Boundaries against the published reference values of confseq, and against themselves."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.shadow.sequential import (
    SequentialError,
    best_rho,
    beta_binomial_bound,
    double_stitching_bound,
    gamma_exponential_bound,
    gamma_poisson_bound,
    normal_mixture_bound,
    poly_stitching_bound,
)
from understudy.shadow.sequential.dkw import dkw_constant, dkw_radius, ks_p_value
from understudy.shadow.sequential.normal_mixture import (
    log_beta_binomial,
    log_gamma_exponential,
    log_gamma_poisson,
    log_normal_mixture,
)

TWO = best_rho(100.0, 0.05)
ONE = best_rho(100.0, 0.05, sided=1)


@pytest.mark.parametrize(
    ("value", "printed", "digits"),
    [
        (TWO, 12.60056, 5),
        (normal_mixture_bound(100, 0.05, TWO), 30.3520899, 7),
        (normal_mixture_bound(100, 0.05, ONE, sided=1), 27.6607088, 7),
        (gamma_exponential_bound(100, 0.05, ONE, 2), 33.0201702, 7),
        (gamma_poisson_bound(100, 0.05, ONE, 2), 30.1949, 4),
        (beta_binomial_bound(100, 0.05, TWO, 0.2, 0.8, sided=2), 31.4307976, 7),
        (beta_binomial_bound(100, 0.05, ONE, 0.2, 0.8), 28.4123801, 6),
        (beta_binomial_bound(2 * 0.2 * 0.8, 0.05, ONE, 0.2, 0.8), 2 * 0.8, 7),
        (poly_stitching_bound(100, 0.05, 10, 3), 64.4875467, 7),
        (poly_stitching_bound(100, 0.05, 10, -1), 28.99389, 5),
        (log_normal_mixture(10, 100, TWO), -0.6510052, 7),
        (log_normal_mixture(10, 100, ONE, sided=1), -0.06502391, 8),
        (log_gamma_exponential(10, 100, ONE, 2), -0.2490165, 7),
        (log_gamma_poisson(10, 100, ONE, 2), -0.06991219, 8),
        (log_beta_binomial(10, 100, TWO, 0.2, 0.8, sided=2), -0.6941012, 7),
        (log_beta_binomial(10, 100, ONE, 0.2, 0.8), -0.07134019, 8),
        (dkw_radius(1000, 0.05, 100), 0.0820478, 7),
        (double_stitching_bound(0.5, 1000, 0.05, 100), 68.62803, 5),
        (double_stitching_bound(0.9, 1000, 0.05, 100), 43.72119, 5),
        (double_stitching_bound(0.1, 1000, 0.05, 100), 59.96521, 5),
    ],
)
def test_published_values(value: float, printed: float, digits: int) -> None:
    assert float(value) == pytest.approx(printed, abs=0.51 * 10.0**-digits)


@settings(max_examples=60)
@given(
    v=st.floats(1e-3, 1e7),
    alpha=st.floats(1e-9, 0.3),
    v_opt=st.floats(1.0, 1e6),
    sided=st.sampled_from([1, 2]),
)
def test_the_bound_is_where_the_mixture_reaches_the_level(
    v: float, alpha: float, v_opt: float, sided: int
) -> None:
    rho = best_rho(v_opt, alpha, sided=sided)
    goal = -math.log(alpha)
    s = float(normal_mixture_bound(v, alpha, rho, sided=sided))
    assert float(log_normal_mixture(s, v, rho, sided=sided)) == pytest.approx(goal, abs=1e-7)
    g, h = 0.2, 0.8
    s = float(beta_binomial_bound(v, alpha, rho, g, h, sided=sided))
    if s < v / g * (1 - 1e-9):
        reached = float(log_beta_binomial(s, v, rho, g, h, sided=sided))
        assert reached == pytest.approx(goal, rel=1e-6, abs=1e-6)


def test_one_sided_is_tighter_than_two_sided_and_looser_than_a_fixed_time() -> None:
    v = np.array([10.0, 100.0, 1e4])
    one = normal_mixture_bound(v, 0.05, ONE, sided=1)
    assert (one < normal_mixture_bound(v, 0.05, TWO)).all()
    assert (one > 1.6448536 * np.sqrt(v)).all()


def test_closed_form_of_the_band_is_an_upper_bound() -> None:
    for alpha in (0.2, 0.05, 0.01, 1e-6, 1e-12):
        assert dkw_constant(alpha) <= 0.8 * math.log(1612 / alpha)
    assert np.isinf(dkw_radius(99, 0.05, 100))


def test_the_p_value_is_the_level_at_which_the_bands_part() -> None:
    for n1, n2, gap in ((500, 5000, 0.2), (3000, 3000, 0.12), (10**6, 200, 0.25)):
        p = ks_p_value(gap, n1, n2, 100)
        assert 0.0 < p < 1.0
        parted = dkw_radius(n1, p / 2, 100) + dkw_radius(n2, p / 2, 100)
        assert float(parted) == pytest.approx(gap, rel=1e-6)
    assert ks_p_value(1.0, 99, 10**6, 100) == 1.0
    assert ks_p_value(0.001, 1000, 1000, 100) == 1.0
    assert ks_p_value(1.0, 10**8, 10**8) < 1e-300


def test_bad_arguments_are_named() -> None:
    with pytest.raises(SequentialError, match="alpha must be below 1/2"):
        best_rho(100.0, 0.5, sided=1)
    with pytest.raises(SequentialError, match="sided"):
        best_rho(100.0, 0.05, sided=3)
    with pytest.raises(SequentialError, match="v_min"):
        poly_stitching_bound(1.0, 0.05, 0.0)
    with pytest.raises(SequentialError, match="distance"):
        ks_p_value(1.5, 10, 10)
    with pytest.raises(SequentialError, match="p must lie"):
        double_stitching_bound(1.0, 10, 0.05, 10)
    with pytest.raises(SequentialError, match="scale"):
        dkw_constant(0.05, 0.7)
