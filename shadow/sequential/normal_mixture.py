"""Uniform boundaries: curves that a martingale crosses with probability at most alpha.

If exp(lambda S_t - psi(lambda) V_t) is a supermartingale for every lambda of a mixing distribution,
then so is the mixture, and {S_t >= bound(V_t)} has probability at most alpha over all t together.
S is a sum of centred observations, V its intrinsic time (for variance-one data, t). The families
differ in psi and in the mixing distribution; all are from Howard, Ramdas, McAuliffe & Sekhon,
"Time-uniform, nonparametric, nonasymptotic confidence sequences", Ann. Statist. 49 (2021),
arXiv:1810.08240, section 3 and appendix A.

Every mixture is tuned by ``rho``, from :func:`best_rho`: the intrinsic time at which the bound is
tightest. Functions take arrays and broadcast; arguments are checked where a mistake would go
unnoticed (signs and ranges of the tuning).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from understudy.common import special
from understudy.shadow.sequential.common import (
    Array,
    SequentialError,
    log_beta_mixture,
    positive,
    probability,
)

_BISECTIONS = 80


def best_rho(v_opt: float, alpha: float = 0.05, *, sided: int = 2) -> float:
    """The normal mixture's precision that makes its bound tightest at intrinsic time ``v_opt``.

    v_opt / (2 ln(1/a) + ln(1 + 2 ln(1/a))) with a = alpha (two-sided) or 2 alpha (one-sided):
    Howard et al. 2021, section 3.5, by the expansion of Lambert's W. One-sided needs alpha < 1/2.
    """
    a = probability("alpha", alpha) * (1 if _sides(sided) == 2 else 2)
    if a >= 1.0:
        raise SequentialError("alpha", f"must be below 1/2 for a one-sided bound, not {alpha}")
    twice = -2.0 * math.log(a)
    return positive("v_opt", v_opt) / (twice + math.log1p(twice))


def _sides(sided: int) -> int:
    if sided not in (1, 2):
        raise SequentialError("sided", f"must be 1 or 2, not {sided!r}")
    return sided


def log_normal_mixture(s: npt.ArrayLike, v: npt.ArrayLike, rho: float, *, sided: int = 2) -> Array:
    """ln of the normal mixture of exp(lambda s - lambda^2 v / 2), for sub-Gaussian sums.

    Two-sided, lambda ~ N(0, 1/rho): ln sqrt(rho/(v+rho)) + s^2/(2(v+rho)). One-sided, lambda is
    half-normal: plus ln 2 + ln Phi(s/sqrt(v+rho)). Howard et al. 2021, Propositions 5 and 6.
    """
    s, v = np.asarray(s, dtype=np.float64), np.asarray(v, dtype=np.float64)
    total = v + positive("rho", rho)
    value = 0.5 * np.log(rho / total) + s * s / (2.0 * total)
    if _sides(sided) == 1:
        value = value + math.log(2.0) + special.log_ndtr(s / np.sqrt(total))
    return np.asarray(value)


def normal_mixture_bound(v: npt.ArrayLike, alpha: float, rho: float, *, sided: int = 2) -> Array:
    """The s at which :func:`log_normal_mixture` reaches ln(1/alpha), for each ``v`` >= 0."""
    v = np.asarray(v, dtype=np.float64)
    goal = -math.log(probability("alpha", alpha))
    total = v + positive("rho", rho)
    if _sides(sided) == 2:
        return np.asarray(np.sqrt(total * (2.0 * goal + np.log(total / rho))))
    root = _root(
        lambda z: z * z / 2.0 + special.log_ndtr(z),
        goal - math.log(2.0) - 0.5 * np.log(rho / total),
        np.full_like(total, 1.0),
    )
    return np.asarray(root * np.sqrt(total))


def log_gamma_exponential(s: npt.ArrayLike, v: npt.ArrayLike, rho: float, c: float) -> Array:
    """ln of the gamma-exponential mixture, for sub-exponential sums with scale ``c`` > 0.

    psi(lambda) = (-ln(1 - c lambda) - c lambda)/c^2, lambda mixed by a truncated gamma; one-sided.
    Howard et al. 2021, Proposition 9.
    """
    s, v = np.asarray(s, dtype=np.float64), np.asarray(v, dtype=np.float64)
    c2 = positive("c", c) ** 2
    r = positive("rho", rho) / c2
    shape, rate = v / c2 + r, (c * s + v) / c2 + r
    start = r * math.log(r) - math.lgamma(r) - math.log(float(special.gammainc(r, r)))
    with np.errstate(divide="ignore"):
        below = np.log(special.gammainc(shape, rate))
    grown = special.gammaln(shape) + below - shape * np.log(rate) + rate - r
    return np.asarray(start + grown)


def gamma_exponential_bound(v: npt.ArrayLike, alpha: float, rho: float, c: float) -> Array:
    """The s at which :func:`log_gamma_exponential` reaches ln(1/alpha)."""
    v = np.asarray(v, dtype=np.float64)
    goal = np.full_like(v, -math.log(probability("alpha", alpha)))
    return _root(lambda s: log_gamma_exponential(s, v, rho, c), goal, np.maximum(v, 1.0))


def log_gamma_poisson(s: npt.ArrayLike, v: npt.ArrayLike, rho: float, c: float) -> Array:
    """ln of the gamma-Poisson mixture, for sub-Poisson sums with step ``c`` > 0; one-sided.

    psi(lambda) = (e^(c lambda) - c lambda - 1)/c^2, mixed so that the tilted intensity is a gamma
    variable above its null value. Howard et al. 2021, Proposition 10.
    """
    s, v = np.asarray(s, dtype=np.float64), np.asarray(v, dtype=np.float64)
    c2 = positive("c", c) ** 2
    r = positive("rho", rho) / c2
    rate = v / c2 + r
    shape = s / c + rate
    start = r * math.log(r) - math.lgamma(r) - math.log(float(special.gammaincc(r, r)))
    with np.errstate(divide="ignore"):
        above = np.log(special.gammaincc(shape, rate))
    return np.asarray(start + special.gammaln(shape) + above - shape * np.log(rate) + v / c2)


def gamma_poisson_bound(v: npt.ArrayLike, alpha: float, rho: float, c: float) -> Array:
    """The s at which :func:`log_gamma_poisson` reaches ln(1/alpha)."""
    v = np.asarray(v, dtype=np.float64)
    goal = np.full_like(v, -math.log(probability("alpha", alpha)))
    return _root(lambda s: log_gamma_poisson(s, v, rho, c), goal, np.maximum(v, 1.0))


def beta_shapes(rho: float, g: float, h: float) -> tuple[float, float]:
    """The Beta(a, b) over the probability of a step +h (else -g) that ``rho`` stands for.

    r = max(rho - g h, g h / 1000), a = r/(h (g+h)), b = r/(g (g+h)): centred on g/(g+h), at which
    the step has mean 0. Howard et al. 2021, Propositions 7 and 8.
    """
    g, h = positive("g", g), positive("h", h)
    r = max(positive("rho", rho) - g * h, 1e-3 * g * h)
    return r / (h * (g + h)), r / (g * (g + h))


def log_beta_binomial(
    s: npt.ArrayLike, v: npt.ArrayLike, rho: float, g: float, h: float, *, sided: int = 1
) -> Array:
    """ln of the beta-binomial mixture, for sums of steps in [-g, h] with mean 0 (v = g h t).

    One-sided it is cut to success probabilities above g/(g+h). Howard et al. 2021, Propositions 7
    and 8. For counts, :func:`understudy.shadow.sequential.common.log_beta_mixture` is the same
    thing.
    """
    s, v = np.asarray(s, dtype=np.float64), np.asarray(v, dtype=np.float64)
    a, b = beta_shapes(rho, g, h)
    p, n = g / (g + h), v / (g * h)
    k = (s + g * n) / (g + h)
    value = log_beta_mixture(k, n, p, a, b)
    if _sides(sided) == 1:
        with np.errstate(divide="ignore"):
            cut = np.log(special.betaincc(a + k, b + n - k, p))
        value = value + cut - math.log(float(special.betaincc(a, b, p)))
    return np.asarray(value)


def beta_binomial_bound(
    v: npt.ArrayLike, alpha: float, rho: float, g: float, h: float, *, sided: int = 1
) -> Array:
    """The s > 0 at which :func:`log_beta_binomial` reaches ln(1/alpha), at most v/g."""
    v = np.asarray(v, dtype=np.float64)
    goal = np.full_like(v, -math.log(probability("alpha", alpha)))
    most = v / positive("g", g)

    def log_e(s: Array) -> Array:
        inside = np.minimum(s, most * (1.0 - 1e-15))
        return log_beta_binomial(inside, v, rho, g, h, sided=sided)

    reached = log_beta_binomial(most, v, rho, g, h, sided=sided) >= goal
    high = np.where(reached, most, 0.0)
    return np.asarray(np.where(reached, _bisect(log_e, goal, np.zeros_like(v), high), most))


def poly_stitching_bound(
    v: npt.ArrayLike,
    alpha: float,
    v_min: float,
    c: float = 0.0,
    *,
    s: float = 1.4,
    eta: float = 2.0,
) -> Array:
    """The polynomial stitched bound for sub-gamma sums with scale ``c``; one-sided.

    sqrt(k1^2 v l + k2^2 c^2 l^2) + k2 c l with l = s ln ln(eta v/v_min) + ln(zeta(s)/(alpha ln^s
    eta)), v at least ``v_min``: Howard et al. 2021, Theorem 1 with equation (10). Grows like the
    law of the iterated logarithm; a reference here, mixtures are tighter in practice.
    """
    v = np.maximum(np.asarray(v, dtype=np.float64), positive("v_min", v_min))
    if not (s > 1.0 and eta > 1.0):
        raise SequentialError("s", f"and eta must be above 1, not {s} and {eta}")
    const = float(special.zeta(s)) / (probability("alpha", alpha) * math.log(eta) ** s)
    ell = s * np.log(np.log(eta * v / v_min)) + math.log(const)
    k1 = (eta**0.25 + eta**-0.25) / math.sqrt(2.0)
    linear = 0.5 * (math.sqrt(eta) + 1.0) * c * ell
    return np.asarray(np.sqrt(k1 * k1 * v * ell + linear * linear) + linear)


def _root(f: Callable[[Array], Array], goal: Array, guess: Array) -> Array:
    """Where the increasing ``f`` reaches ``goal``, elementwise, for a root above 0."""
    high = guess.astype(np.float64)
    for _ in range(200):
        short = f(high) < goal
        if not short.any():
            return _bisect(f, goal, np.zeros_like(high), high)
        high = np.where(short, 2.0 * high, high)
    raise SequentialError("v", "is so large that the bound could not be bracketed")


def _bisect(f: Callable[[Array], Array], goal: Array, low: Array, high: Array) -> Array:
    for _ in range(_BISECTIONS):
        middle = 0.5 * (low + high)
        short = f(middle) < goal
        low, high = np.where(short, middle, low), np.where(short, high, middle)
    return np.asarray(high)
