"""Rates of one arm and two, against published values and brute force."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import optimize

from understudy.shadow.sequential import (
    BernoulliInterval,
    SequentialError,
    SplitDifference,
    TwoProportions,
    bernoulli_interval,
    tuned_concentration,
)
from understudy.shadow.sequential.common import log_beta_mixture_1, log_beta_mixture_upper


@pytest.mark.parametrize(
    ("k", "n", "planned", "lower", "upper"),
    [
        (700, 1000, 100, 0.651630, 0.745950),
        (15, 50, 50, 0.129557, 0.511896),
        (5, 50, 50, 0.013022, 0.269265),
    ],
)
def test_published_bernoulli_intervals(
    k: int, n: int, planned: int, lower: float, upper: float
) -> None:
    process = BernoulliInterval(planned, 0.05)
    process.update(np.repeat([1.0, 0.0], [k, n - k]))
    assert process.estimate == k / n
    assert process.interval(0.5).width < process.interval().width
    assert process.interval().lower == pytest.approx(lower, abs=1e-6)
    assert process.interval().upper == pytest.approx(upper, abs=1e-6)


@pytest.mark.parametrize(("one_sided", "bound"), [(False, 31.4307976), (True, 28.4123801)])
def test_published_beta_binomial_boundaries(one_sided: bool, bound: float) -> None:
    # Howard et al.: steps of -0.2 or +0.8 with mean 0 (a coin of 1/5), v = v_opt = 100, alpha .05.
    g, h, v, alpha = 0.2, 0.8, 100.0, 0.05
    rho = v / ((s := -2 * math.log(2 * alpha if one_sided else alpha)) + math.log1p(s))
    r = max(rho - g * h, 1e-3 * g * h)
    p, n = g / (g + h), v / (g * h)
    a, b = r / (h * (g + h)), r / (g * (g + h))
    mixture = log_beta_mixture_upper if one_sided else log_beta_mixture_1

    def excess(s: float) -> float:
        return mixture(n * p + s / (g + h), n, p, a, b) - math.log(1 / alpha)

    assert optimize.brentq(excess, 1.0, 100.0) == pytest.approx(bound, abs=1e-6)


def test_bernoulli_interval_is_the_set_not_rejected() -> None:
    c = tuned_concentration(500, 0.05)
    interval = bernoulli_interval(12, 400, 0.05, c)
    for p, rejected in (
        (interval.lower * 0.999, True),
        (interval.lower * 1.001, False),
        (interval.upper * 0.999, False),
        (interval.upper * 1.001, True),
    ):
        e = log_beta_mixture_1(12, 400, p, c * p, c * (1 - p))
        assert (e >= math.log(20)) is rejected


@pytest.mark.parametrize(
    ("k", "n"), [(0, 1), (1, 1), (0, 10**9), (10**9, 10**9), (1, 10**9), (5 * 10**8, 10**9)]
)
def test_bernoulli_interval_at_extremes(k: int, n: int) -> None:
    interval = bernoulli_interval(k, n, 0.01, tuned_concentration(1000))
    assert 0.0 <= interval.lower <= k / n <= interval.upper <= 1.0
    if n == 10**9:
        assert interval.width < 2.5e-4


@pytest.mark.parametrize("declared", [(0.5, 1.0), (0.1, 10.0)])
def test_difference_and_ratio_are_the_shadow_of_the_joint_region(
    declared: tuple[float, float],
) -> None:
    process = TwoProportions(*declared)
    process.successes, process.n = [40, 70], [400, 450]
    g1, g0 = process._log_e(1), process._log_e(0)
    theta = np.linspace(0.02, 0.35, 1500)
    e1, e0 = np.array([g1(t) for t in theta]), np.array([g0(t) for t in theta])
    inside = e1[:, None] + e0[None, :] < math.log(20)
    difference = (theta[:, None] - theta[None, :])[inside]
    ratio = (theta[:, None] / theta[None, :])[inside]
    got, got_ratio = process.difference(0.05), process.ratio(0.05)
    assert got.lower == pytest.approx(difference.min(), abs=5e-4)
    assert got.upper == pytest.approx(difference.max(), abs=5e-4)
    assert got_ratio.lower == pytest.approx(ratio.min(), rel=5e-3)
    assert got_ratio.upper == pytest.approx(ratio.max(), rel=5e-3)
    assert difference.min() >= got.lower - 1e-9  # brute force can only find less of the region
    assert ratio.max() <= got_ratio.upper + 1e-9


def test_two_arms_are_mirrored() -> None:
    first, second = TwoProportions(), TwoProportions()
    first.successes, first.n = [3, 9], [200, 210]
    second.successes, second.n = [9, 3], [210, 200]
    a, b = first.difference(), second.difference().scale(-1.0)
    assert (a.lower, a.upper) == pytest.approx((b.lower, b.upper), abs=1e-9)
    assert first.ratio().lower == pytest.approx(1 / second.ratio().upper, rel=1e-6)


@pytest.mark.parametrize("n", [(0, 0), (0, 50), (50, 50), (10**9, 10**6)])
@pytest.mark.parametrize("share", [(0.0, 0.0), (1.0, 1.0), (0.0, 1.0), (1.0, 0.0), (0.5, 0.0)])
def test_two_arms_at_extremes(n: tuple[int, int], share: tuple[float, float]) -> None:
    process = TwoProportions()
    process.n = list(n)
    process.successes = [int(a * b) for a, b in zip(n, share, strict=True)]
    difference, ratio = process.difference(), process.ratio()
    assert -1.0 <= difference.lower <= difference.upper <= 1.0
    assert 0.0 <= ratio.lower <= ratio.upper
    if all(n):
        rates = process.rates()
        assert rates[1] - rates[0] in difference  # type: ignore[operator]


def test_split_difference_covers_under_drift_and_is_the_tighter_one() -> None:
    rng = np.random.default_rng(6)
    n = 20_000
    level = 0.3 + 0.2 * np.sin(np.arange(n) / 700.0)
    share = np.where(np.arange(n) < n // 2, 0.1, 0.5)
    arm = (rng.random(n) < share).astype(float)
    y = (rng.random(n) < level + 0.05 * arm).astype(float)
    split, counts = SplitDifference(0.1), TwoProportions()
    split.update(arm, y, share)
    counts.update(arm, y)
    assert 0.05 in split.interval()
    steady = SplitDifference(0.5)
    arm = rng.integers(0, 2, n).astype(float)
    y = (rng.random(n) < 0.3 + 0.05 * arm).astype(float)
    steady.update(arm, y, 0.5)
    counts = TwoProportions()
    counts.update(arm, y)
    assert steady.interval().width < counts.difference().width


def test_split_difference_of_scores_in_their_unit() -> None:
    rng = np.random.default_rng(9)
    arm = rng.integers(0, 2, 5000).astype(float)
    score = rng.uniform(0, 6, 5000) + 2.0 * arm
    process = SplitDifference(0.5, 0.0, 10.0)
    process.update(arm, score, 0.5)
    process.update([1.0, 0.0], [11.0, -1.0], 0.5)
    process.update(1, 12.0, 0.5)
    assert process.out_of_bounds == 3
    assert process.n == 5000
    assert 2.0 in process.interval()
    assert process.interval().width < 1.0
    assert process.estimate == pytest.approx(2.0, abs=0.3)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: bernoulli_interval(2, 1, 0.05, 1.0), "successes"),
        (lambda: bernoulli_interval(1, 2, 1.5, 1.0), "alpha"),
        (lambda: bernoulli_interval(1, 2, 0.05, 0.0), "concentration"),
        (lambda: tuned_concentration(0.0), "planned"),
        (lambda: TwoProportions(0.0), "base_rate"),
        (lambda: TwoProportions().update([1], [1, 0]), "outcomes"),
        (lambda: SplitDifference(0.6), "min_share"),
        (lambda: SplitDifference(0.3).update([1], [1], 0.2), "share"),
        (lambda: SplitDifference(0.3).update(1, 1, 0.2), "share"),
        (lambda: SplitDifference(0.3).update(2, 1, 0.5), "arms"),
    ],
)
def test_errors_name_the_argument(make: object, name: str) -> None:
    with pytest.raises(SequentialError, match=rf"^{name} "):
        make()  # type: ignore[operator]
