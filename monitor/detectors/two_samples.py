"""Tests whether two sets of rows come from one population, exact where rows are few.

All work on counts: of the values up to each edge, or of each category. Rows are taken as
independent of each other. Below :data:`SPARSE` rows on either side the p-values are exact or drawn
from permutations: the asymptotic ones call small samples of one population different far too often.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from understudy.common.special import chdtrc, gammaln
from understudy.monitor.detectors.distances import ks_p_value

Floats = NDArray[np.float64]
SPARSE = 200
"""Rows on the smaller side below which tests are exact."""
PERMUTATIONS = 9_999
_MOST_CELLS = 4_000_000
_EXPECTED = 5.0
_SMALLEST_P = 1e-10
"""Of the exact test: rounding hides what lies below."""


def kolmogorov_smirnov(p: Floats, q: Floats) -> tuple[float, int, float]:
    """The largest difference of two distribution functions, the bucket at whose upper edge it is,
    and its p-value, from counts (buckets,) of both samples.

    The edges may be any, also quantiles of one of the samples: the difference at some points is at
    most that at all of them, so the p-value is never too small (nor with ties). Exact for few rows
    (:func:`exact_p_value`), else asymptotic (Smirnov 1948).
    """
    n, m = float(p.sum()), float(q.sum())
    if not n or not m:
        return 0.0, 0, 1.0
    apart = np.abs(np.cumsum(p) / n - np.cumsum(q) / m)
    at = int(np.argmax(apart))
    distance = float(apart[at])
    if min(n, m) < SPARSE and n * m <= _MOST_CELLS:
        return distance, at, exact_p_value(distance, round(n), round(m))
    return distance, at, float(ks_p_value(np.array([distance]), round(n), round(m))[0])


def exact_p_value(distance: float, n: int, m: int) -> float:
    """Probability of a two-sample Kolmogorov-Smirnov distance of at least ``distance``, for samples
    of n and m rows without ties.

    Counts the lattice paths from (0, 0) to (n, m) that stay nearer to the diagonal (Hodges 1957).
    """
    if n > m:
        n, m = m, n
    # Paths with |i / n - j / m| < distance, in whole numbers.
    limit = round(distance * n * m)
    if limit <= 0:
        return 1.0
    columns = np.arange(m + 1, dtype=np.int64)
    line = (columns * n < limit).astype(np.float64)
    logarithm = 0.0
    for row in range(1, n + 1):
        band = np.abs(row * m - columns * n) < limit
        line = np.cumsum(line * band) * band  # one step up, then any number to the right
        top = float(line.max())
        if top <= 0.0:
            return 1.0
        line /= top
        logarithm += np.log(top)
    if line[m] <= 0.0:
        return 1.0
    paths = gammaln(n + m + 1) - gammaln(n + 1) - gammaln(m + 1)
    inside = float(np.exp(np.log(line[m]) + logarithm - paths))
    return min(1.0, max(_SMALLEST_P, 1.0 - inside))


def same_shares(p: Floats, q: Floats) -> float:
    """p-value of Pearson's chi-squared for counts (groups,) of the same groups in two samples.

    Groups that are rare in both together count as one. Below :data:`SPARSE` rows on a side, the
    statistic is compared with that of permuted rows (seeded, so that a report can be repeated).
    """
    total = p + q
    n, m = float(p.sum()), float(q.sum())
    if not n or not m:
        return 1.0
    if min(n, m) < SPARSE:
        return _permuted(p[total > 0.0], q[total > 0.0])
    rare = total * (min(n, m) / (n + m)) < _EXPECTED
    a = np.append(p[~rare], p[rare].sum())
    b = np.append(q[~rare], q[rare].sum())
    held = a + b > 0.0
    if held.sum() < 2:
        return 1.0
    statistic = _pearson(a[held], b[held][None, :])
    return float(chdtrc(held.sum() - 1, statistic[0]))


def _permuted(p: Floats, q: Floats) -> float:
    if len(p) < 2:
        return 1.0
    total = np.round(p + q).astype(np.int64)
    n, m = round(float(p.sum())), round(float(q.sum()))
    chance = np.random.default_rng(1908)
    # The smaller sample is drawn: the table is the same, and its numbers are smaller.
    drawn = chance.multivariate_hypergeometric(
        total, min(n, m), PERMUTATIONS, method="marginals"
    ).astype(np.float64)
    small = p if n <= m else q
    statistics = _pearson(total - small, np.concatenate([small[None, :], drawn]), total)
    return float((statistics >= statistics[0] - 1e-9).sum() / len(statistics))


def _pearson(p: Floats, q: Floats, total: NDArray[np.int64] | None = None) -> Floats:
    """Statistics of counts q (d, groups); the others are p, or what is left of ``total``."""
    whole = p + q[0] if total is None else total.astype(np.float64)
    size = q.sum(axis=1, keepdims=True)
    expected = whole * (size / whole.sum())
    # Both rows of the table deviate by the same, so the second one only adds a factor.
    part: Floats = ((q - expected) ** 2 / np.maximum(expected, 1e-300)).sum(axis=1)
    rest = whole.sum() - size[:, 0]
    result: Floats = part * (1.0 + size[:, 0] / np.maximum(rest, 1e-300))
    return result


def same_rate(k: float, n: float, j: float, m: float) -> float:
    """Two-sided p-value that k of n and j of m rows have one rate: Fisher's exact test, or
    chi-squared where all expected counts are large."""
    total, rows = k + j, n + m
    if not n or not m or not 0.0 < total < rows:
        return 1.0
    least = min(total, rows - total) * min(n, m) / rows
    if least > 100.0:
        return same_shares(np.array([k, n - k]), np.array([j, m - j]))
    x = np.arange(max(0.0, total - m), min(total, n) + 1.0)
    chances = np.exp(_choose(n, x) + _choose(m, total - x) - _choose(rows, np.array([total])))
    own = chances[round(k - x[0])]
    return float(min(1.0, chances[chances <= own * (1.0 + 1e-7)].sum()))


def all_among(count: Floats | float, n: float, m: float) -> Floats:
    """Probability that ``count`` given rows of n + m all lie among the m: what a value that one of
    two samples never has is worth as evidence."""
    c = np.asarray(count, np.float64)
    with np.errstate(invalid="ignore"):
        result: Floats = np.exp(_choose(m, c) - _choose(n + m, c))
    return np.where(c > m, 0.0, result)


def constant_by_chance(counts: Floats, m: float) -> float:
    """Probability that m rows drawn from the pooled ``counts`` of all values have one value."""
    held = counts[counts >= m]
    if not len(held) or not m:
        return 0.0 if m else 1.0
    whole = _choose(float(counts.sum()), np.array([m]))
    return float(min(1.0, np.exp(_choose_from(held, m) - whole).sum()))


def _choose(n: float, k: Floats) -> Floats:
    """Logarithm of the binomial coefficient; k may not exceed n."""
    k = np.minimum(k, n)
    result: Floats = gammaln(n + 1.0) - gammaln(k + 1.0) - gammaln(n - k + 1.0)
    return result


def _choose_from(n: Floats, k: float) -> Floats:
    result: Floats = gammaln(n + 1.0) - gammaln(k + 1.0) - gammaln(n - k + 1.0)
    return result
