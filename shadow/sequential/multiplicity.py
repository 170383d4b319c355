"""Several metrics and challengers at once, by averaging e-values over every subset (closure).

The e-values may depend on each other in any way, as those of several metrics on the same requests
do. They must be taken *at one stopping time* (``log_e`` now), not as running maxima: the maximum of
an e-process is not an e-value. Dependent e-values are averaged, never multiplied (Vovk & Wang,
"E-values: calibration, combination and applications", arXiv:1912.06116).

All functions take natural logarithms, so that strong evidence does not overflow.
"""

from __future__ import annotations

import math
from bisect import bisect_left

import numpy as np
import numpy.typing as npt

from understudy.shadow.sequential.common import Array, SequentialError, logmeanexp, probability

MAX_HYPOTHESES = 400


def _log_es(values: npt.ArrayLike) -> Array:
    """1-D logs of e-values; -inf (no evidence left) is allowed, NaN and +inf are not."""
    try:
        x = np.atleast_1d(np.asarray(values, dtype=np.float64))
    except (TypeError, ValueError):
        raise SequentialError("log_es", "must hold only numbers") from None
    if x.ndim != 1:
        raise SequentialError("log_es", f"must be one-dimensional, not of shape {x.shape}")
    if np.isnan(x).any() or (x == math.inf).any():
        raise SequentialError("log_es", "must not hold NaN or +inf")
    return x


def _weights(weights: npt.ArrayLike | None, size: int) -> Array:
    if weights is None:
        return np.ones(size)
    w = np.atleast_1d(np.asarray(weights, dtype=np.float64))
    if w.shape != (size,):
        raise SequentialError("weights", f"must be as many as e-values ({size}), not {w.size}")
    if not (np.isfinite(w).all() and (w > 0.0).all()):
        raise SequentialError("weights", "must be finite and above 0")
    return w


def average(log_es: npt.ArrayLike, weights: npt.ArrayLike | None = None) -> float:
    """ln of the (weighted) mean of e-values: an e-value for "all null hypotheses hold"."""
    x = _log_es(log_es)
    if not x.size:
        raise SequentialError("log_es", "must hold at least one e-value")
    w = _weights(weights, x.size)
    return float(logmeanexp(x, np.log(w / w.sum())))


def familywise(log_es: npt.ArrayLike, weights: npt.ArrayLike | None = None) -> Array:
    """ln of the adjusted e-values e*_j = min over S containing j of mean(e_S), shape as given.

    Rejecting where e*_j >= 1/alpha makes even one false rejection with probability at most alpha
    (closed testing with averages: Vovk & Wang, arXiv:1912.06116, Algorithm 1). With
    ``weights`` (shares of alpha, any positive scale) the means are weighted; uniform weights
    give the plain procedure.

    O(k log k): the worst set adds the smallest other e-values, for as long as each still lowers
    the mean; where that ends is found by bisection.
    """
    x = _log_es(log_es)
    w = _weights(weights, x.size)
    if not x.size:
        return x
    order = np.argsort(x, kind="stable")
    e, log_w = x[order], np.log(w[order])
    # Sums over the first u e-values in ascending order, u = 0..k.
    log_sum_we = np.concatenate(((-math.inf,), np.logaddexp.accumulate(e + log_w)))
    log_sum_w = np.concatenate(((-math.inf,), np.logaddexp.accumulate(log_w)))
    adjusted = np.empty_like(x)
    for i in range(x.size):

        def log_mean(u: int, own: int = i) -> float:
            above = np.logaddexp(e[own] + log_w[own], log_sum_we[u])
            return float(above - np.logaddexp(log_w[own], log_sum_w[u]))

        def useless(u: int) -> bool:
            """Whether the u-th smallest would no longer lower the mean; monotone in u."""
            return bool(e[u] >= log_mean(u))

        fillers = bisect_left(range(i), True, key=useless)
        adjusted[order[i]] = log_mean(fillers) if fillers else e[i]
    return adjusted


def required(
    log_es: npt.ArrayLike, log_threshold: float, weights: npt.ArrayLike | None = None
) -> Array:
    """ln of the e-value from which on each would be rejected by :func:`familywise` at
    ``log_threshold`` (ln of 1/alpha) while the others stay as they are, shape as given.

    With T = 1/alpha, e*_j >= T holds for every set exactly if it does for the one with all other
    e-values below T: w_j e_j >= w_j T + sum over these of w_i (T - e_i). Between T, once all others
    have reached it, and Bonferroni's T sum(w) / w_j, while these are 0.
    """
    x = _log_es(log_es)
    w = _weights(weights, x.size)
    # As multiples of T, which may be large.
    lacking = w * np.maximum(0.0, -np.expm1(np.minimum(0.0, x - log_threshold)))
    found: Array = log_threshold + np.log1p((lacking.sum() - lacking) / w)
    return found


def e_bh(log_es: npt.ArrayLike, alpha: float) -> list[int]:
    """Indices rejected by the base e-BH procedure at false discovery rate ``alpha``, ascending.

    The r largest e-values where r is the largest with e_(r) >= m/(alpha r) (Wang & Ramdas 2022).
    """
    x = _log_es(log_es)
    level = probability("alpha", alpha)
    order = np.argsort(-x, kind="stable")
    r = np.arange(1, x.size + 1)
    passed = np.flatnonzero(x[order] >= np.log(x.size / (level * r)))
    return sorted(int(i) for i in order[: passed[-1] + 1]) if passed.size else []


def closed_e_bh(log_es: npt.ArrayLike, alpha: float) -> list[int]:
    """Indices rejected by closed e-BH at false discovery rate ``alpha``, ascending.

    R may be rejected when mean(e_S) >= |R n S|/(alpha |R|) for every set S of hypotheses (Xu,
    Fischer & Ramdas, arXiv:2504.11759, with averages as local e-values); it never rejects less than
    e-BH. For the r largest e-values the worst S with a members inside and b outside takes the
    smallest of both, so r (k - r + 1) means settle a size: O(k^3) in all, a few ms at k = 100. The
    largest r that passes is returned. At most 400 hypotheses.
    """
    x = _log_es(log_es)
    level = probability("alpha", alpha)
    if x.size > MAX_HYPOTHESES:
        raise SequentialError("log_es", f"must be at most {MAX_HYPOTHESES}, not {x.size}")
    order = np.argsort(-x, kind="stable")
    # Beyond k/alpha an e-value passes every comparison, so capping there changes no decision.
    e = np.exp(np.minimum(x[order], math.log(4.0 * max(x.size, 1) ** 2 / level)))
    for r in range(x.size, 0, -1):
        inside = np.cumsum(e[:r][::-1])  # sums of the a smallest inside, a = 1..r
        outside = np.concatenate(([0.0], np.cumsum(e[r:][::-1])))  # b = 0..k-r
        a = np.arange(1, r + 1)[:, None]
        b = np.arange(x.size - r + 1)[None, :]
        need = a * (a + b) / (level * r)
        if np.all(inside[:, None] + outside[None, :] >= need * (1.0 - 1e-12)):
            return sorted(int(i) for i in order[:r])
    return []
