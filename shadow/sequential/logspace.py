"""Arithmetic in log space that stays exact at a thousand million records."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from understudy.common import special

Array = npt.NDArray[np.float64]

HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)


def log_beta(a: npt.ArrayLike, b: npt.ArrayLike) -> Array:
    """ln B(a, b), elementwise. For differences at large counts use :func:`log_beta_mixture`."""
    return np.asarray(special.betaln(a, b), dtype=np.float64)


def logaddexp(a: float, b: float) -> float:
    """ln(e^a + e^b) of two numbers, -inf allowed."""
    high, low = (a, b) if a >= b else (b, a)
    return high if low == -math.inf else high + math.log1p(math.exp(low - high))


def logsumexp(values: npt.ArrayLike, axis: int = -1) -> Array:
    """ln of the sum of exponentials along ``axis``; all -inf gives -inf."""
    x = np.asarray(values, dtype=np.float64)
    top = np.max(x, axis=axis, keepdims=True)
    safe = np.where(np.isfinite(top), top, 0.0)
    with np.errstate(divide="ignore"):
        total = np.log(np.sum(np.exp(x - safe), axis=axis, keepdims=True)) + safe
    return np.asarray(np.squeeze(total, axis=axis), dtype=np.float64)


def logmeanexp(
    values: npt.ArrayLike, log_weights: npt.ArrayLike | None = None, axis: int = -1
) -> Array:
    """ln of the mean of exponentials along ``axis``.

    ``log_weights`` (logs of weights that sum to one, broadcastable) make it a weighted mean: the
    log of a mixture of e-values, itself an e-value.
    """
    x = np.asarray(values, dtype=np.float64)
    if log_weights is None:
        return logsumexp(x, axis) - math.log(x.shape[axis])
    return logsumexp(x + np.asarray(log_weights, dtype=np.float64), axis)


def stirling_rest(x: Array) -> Array:
    """ln Gamma(x) - [(x - 1/2) ln x - x + ln(2 pi)/2] for x > 0, to about 1e-13."""
    big = np.maximum(x, 10.0)
    r = 1.0 / big
    r2 = r * r
    series = r * (1 / 12 - r2 * (1 / 360 - r2 * (1 / 1260 - r2 * (1 / 1680 - r2 / 1188))))
    if np.all(x >= 10.0):
        return np.asarray(series)
    small = np.minimum(x, 10.0)
    exact = special.gammaln(small) - ((small - 0.5) * np.log(small) - small + HALF_LOG_2PI)
    return np.asarray(np.where(x >= 10.0, series, exact))


def stirling_rest_1(x: float) -> float:
    """:func:`stirling_rest` of a plain number."""
    if x < 10.0:
        return math.lgamma(x) - ((x - 0.5) * math.log(x) - x + HALF_LOG_2PI)
    r = 1.0 / x
    r2 = r * r
    return r * (1 / 12 - r2 * (1 / 360 - r2 * (1 / 1260 - r2 * (1 / 1680 - r2 / 1188))))


def _log_ratio(excess: Array, ratio: Array) -> Array:
    """ln(ratio) where ratio = 1 + excess: from the excess, unless that has cancelled to -1."""
    near = excess > -0.5
    return np.asarray(np.where(near, np.log1p(np.where(near, excess, 0.0)), np.log(ratio)))


def log_beta_mixture(
    k: npt.ArrayLike, n: npt.ArrayLike, p: npt.ArrayLike, a: npt.ArrayLike, b: npt.ArrayLike
) -> Array:
    """ln of the Beta(a, b) mixture of binomial likelihood ratios against ``p``, elementwise.

    lnB(a+k, b+n-k) - lnB(a, b) - k ln p - (n-k) ln(1-p): the e-process of k successes in n trials
    against success probability p (Robbins 1970), shared by paired tests, rates, quantiles and
    the tail detector. ``0 <= k <= n``, ``0 < p < 1``, ``a, b > 0`` (not checked); the arrays
    broadcast. Written around (n+a+b) KL(posterior mean, p), so that it keeps about 1e-9 absolute
    accuracy at n = 1e9, where a difference of ``betaln`` loses six digits.
    """
    k, n, p, a, b = (np.asarray(x, dtype=np.float64) for x in (k, n, p, a, b))
    a1, b1 = a + k, b + (n - k)
    total = a1 + b1
    gap = a1 / total - p
    kl = a1 * _log_ratio(gap / p, a1 / total / p)
    kl += b1 * _log_ratio(-gap / (1.0 - p), b1 / total / (1.0 - p))
    shape = 0.5 * np.log(total / a1 / b1) + HALF_LOG_2PI
    rest = stirling_rest(a1) + stirling_rest(b1) - stirling_rest(total)
    prior = a * np.log(p) + b * np.log1p(-p) - special.betaln(a, b)
    return np.asarray(kl + shape + rest + prior, dtype=np.float64)


def log_beta_mixture_1(k: float, n: float, p: float, a: float, b: float) -> float:
    """:func:`log_beta_mixture` of plain numbers, an order of magnitude faster for a single one."""
    a1, b1 = a + k, b + (n - k)
    total = a1 + b1
    gap = a1 / total - p
    up, down = gap / p, -gap / (1.0 - p)
    kl = a1 * (math.log1p(up) if up > -0.5 else math.log(a1 / total / p))
    kl += b1 * (math.log1p(down) if down > -0.5 else math.log(b1 / total / (1.0 - p)))
    shape = 0.5 * math.log(total / a1 / b1) + HALF_LOG_2PI
    rest = stirling_rest_1(a1) + stirling_rest_1(b1) - stirling_rest_1(total)
    prior = a * math.log(p) + b * math.log1p(-p)
    return kl + shape + rest + prior - float(special.betaln(a, b))


def log_beta_upper(p: float, a: float, b: float) -> float:
    """ln P(X > p) for X ~ Beta(a, b), also where the probability underflows.

    Beyond about e^-650 the tail is f(p)/s, the first term of its expansion at the edge (s the slope
    of -ln f there), which is accurate to a thousandth at that distance.
    """
    tail = float(special.betaincc(a, b, p))
    if tail > 1e-280:
        return math.log(tail)
    slope = (b - 1.0) / (1.0 - p) - (a - 1.0) / p
    log_density = (a - 1.0) * math.log(p) + (b - 1.0) * math.log1p(-p) - float(special.betaln(a, b))
    return log_density - math.log(max(slope, 1.0))


def log_beta_mixture_upper(k: float, n: float, p: float, a: float, b: float) -> float:
    """The one-sided form of :func:`log_beta_mixture_1`: Beta(a, b) cut to (p, 1).

    Evidence that the success probability exceeds p; a supermartingale when it is p or less at every
    trial (each likelihood ratio has theta > p). Howard et al. 2021 (arXiv:1810.08240), Prop. 7.
    """
    whole = log_beta_mixture_1(k, n, p, a, b)
    return whole + log_beta_upper(p, a + k, b + n - k) - log_beta_upper(p, a, b)
