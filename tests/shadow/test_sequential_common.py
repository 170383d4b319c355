"""The log arithmetic against exact and slow references, intervals, and the argument checks."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from scipy import integrate, special

from understudy.shadow.sequential.common import (
    Interval,
    SequentialError,
    binary,
    count,
    log_beta_mixture,
    log_beta_mixture_1,
    log_beta_mixture_upper,
    logaddexp,
    logmeanexp,
    logsumexp,
    pack,
    positive,
    probability,
    real,
    reals,
    reject,
    unpack,
)


def test_beta_mixture_agrees_with_betaln_where_that_is_accurate() -> None:
    rng = np.random.default_rng(0)
    n = rng.integers(1, 5000, size=2000)
    k = rng.binomial(n, rng.random(2000))
    p = rng.uniform(0.001, 0.999, size=2000)
    a, b = 10.0 ** rng.uniform(-1.0, 2.0, size=(2, 2000))
    direct = special.betaln(a + k, b + n - k) - special.betaln(a, b)
    direct -= k * np.log(p) + (n - k) * np.log1p(-p)
    assert log_beta_mixture(k, n, p, a, b) == pytest.approx(direct, rel=1e-10, abs=1e-9)
    single = [log_beta_mixture_1(*map(float, row)) for row in zip(k, n, p, a, b, strict=True)]
    assert single == pytest.approx(list(log_beta_mixture(k, n, p, a, b)), rel=1e-12, abs=1e-11)


@pytest.mark.parametrize(("k", "n"), [(5, 9), (500_020_000, 10**9), (10**9, 10**9), (0, 10**9)])
def test_beta_mixture_is_exact_at_large_counts(k: int, n: int) -> None:
    # B(1+k, 1+n-k)/B(1, 1) = 1/((n+1) C(n, k)); Stirling with four terms as the reference for C.
    def log_factorial(m: int) -> Fraction | float:
        if m < 300:
            return math.log(math.factorial(m))
        return float("nan")

    value = log_beta_mixture_1(float(k), float(n), 0.5, 1.0, 1.0)
    if n < 300:
        exact = (
            n * math.log(2)
            - math.log(n + 1)
            - (log_factorial(n) - log_factorial(k) - log_factorial(n - k))
        )
    elif k in (0, n):
        exact = n * math.log(2) - math.log(n + 1)
    else:
        # Local limit: C(n, k) 2^-n = sqrt(2/(pi n)) exp(-2 d^2/n - (4/3) d^4/n^3 ...) (1 - 1/(4n))
        d = k - n / 2
        exact = -math.log(n + 1) - (0.5 * math.log(2 / (math.pi * n)) - 2 * d * d / n)
        exact += 4.0 / 3.0 * d**4 / n**3
    assert value == pytest.approx(exact, rel=1e-11, abs=1e-8)


@pytest.mark.parametrize(
    ("k", "n", "p"), [(3, 10, 0.2), (30, 40, 0.5), (0, 25, 0.4), (40, 40, 0.9)]
)
def test_one_sided_mixture_is_the_integral_it_claims(k: int, n: int, p: float) -> None:
    a, b = 3.0, 5.0

    def ratio(theta: float) -> float:
        return (theta / p) ** k * ((1 - theta) / (1 - p)) ** (n - k) * _beta_pdf(theta, a, b)

    top, _ = integrate.quad(ratio, p, 1.0, epsabs=0.0, epsrel=1e-11, limit=500)
    mass, _ = integrate.quad(lambda t: _beta_pdf(t, a, b), p, 1.0, epsabs=0.0, epsrel=1e-11)
    assert log_beta_mixture_upper(k, n, p, a, b) == pytest.approx(math.log(top / mass), abs=1e-8)


def _beta_pdf(theta: float, a: float, b: float) -> float:
    return math.exp((a - 1) * math.log(theta) + (b - 1) * math.log1p(-theta) - special.betaln(a, b))


def test_one_sided_mixture_is_smooth_where_the_tail_underflows() -> None:
    values = [log_beta_mixture_upper(k, 4000.0, 0.5, 5.0, 5.0) for k in range(1100, 1300, 2)]
    steps = np.diff(values)
    assert np.isfinite(values).all()
    assert (steps > 0).all()
    assert steps.max() < 1.5 * steps.min()  # a jump where the formula changes would show


def test_log_sums() -> None:
    assert logaddexp(-math.inf, -math.inf) == -math.inf
    assert logaddexp(-math.inf, 3.0) == 3.0
    assert logaddexp(1000.0, 1000.0) == pytest.approx(1000.0 + math.log(2.0))
    x = np.array([[0.0, 1.0, 2.0], [-1e4, -1e4, -1e4]])
    assert logsumexp(x)[0] == pytest.approx(math.log(sum(math.exp(v) for v in (0, 1, 2))))
    assert logsumexp(x)[1] == pytest.approx(-1e4 + math.log(3))
    assert float(logsumexp([-math.inf, -math.inf])) == -math.inf
    assert float(logmeanexp([5.0, 5.0])) == pytest.approx(5.0)
    assert float(logmeanexp([0.0, 9.0], np.log([0.25, 0.75]))) == pytest.approx(
        math.log(0.25 + 0.75 * math.exp(9.0))
    )


def test_reject_is_at_one_over_alpha() -> None:
    assert reject(math.log(20.0) + 1e-12, 0.05)
    assert not reject(math.log(20.0) - 1e-9, 0.05)


def test_interval() -> None:
    a = Interval(0.0, 2.0).intersect(Interval(1.0, 5.0))
    assert (a.lower, a.upper, a.width) == (1.0, 2.0, 1.0)
    assert 1.5 in a
    assert 2.5 not in a
    assert a.within(0.5, 2.5)
    assert not a.within(1.0, 2.5)
    assert Interval(0.0, 1.0).intersect(Interval(2.0, 3.0)).is_empty
    assert a.scale(-2.0) == Interval(-4.0, -2.0)
    assert a.shift(1.0) == Interval(2.0, 3.0)
    assert Interval.from_list(Interval().to_list()) == Interval()
    assert Interval(0.0, math.inf).to_list() == [0.0, None]
    assert not Interval().is_finite
    with pytest.raises(SequentialError, match="interval"):
        Interval(math.nan, 1.0)
    with pytest.raises(SequentialError, match="running"):
        Interval.from_list([1.0], "running")


@pytest.mark.parametrize(
    ("check", "bad"),
    [
        (real, "1"),
        (real, None),
        (real, True),
        (real, math.nan),
        (real, math.inf),
        (probability, 0.0),
        (probability, 1.0),
        (positive, 0.0),
        (count, -1),
        (count, 1.5),
        (count, 2**54),
        (reals, [[1.0]]),
        (reals, ["a"]),
        (reals, [math.nan]),
        (binary, [0.0, 2.0]),
    ],
)
def test_arguments_are_named_when_refused(check: object, bad: object) -> None:
    with pytest.raises(SequentialError, match=r"^some_name ") as caught:
        check("some_name", bad)  # type: ignore[operator]
    assert caught.value.argument == "some_name"
    assert isinstance(caught.value, ValueError)


def test_packed_floats_are_exact() -> None:
    values = np.array([0.1, -1e300, 5e-324, 0.0])
    assert (unpack("x", pack(values), 4) == values).all()
    for bad in (pack(values)[:-4], "!", 7, pack([math.nan] * 4)):
        with pytest.raises(SequentialError, match=r"^x "):
            unpack("x", bad, 4)
