"""Distances between two samples, column by column, for people to read.

Exact on the samples themselves: one sort of each column, then everything from the order.
From bucket counts: :func:`from_counts`. Alarms do not come from here: a distance has no memory, and
its noise depends on the size of the sample; :func:`thresholds` says how large it gets by chance.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from understudy.common.arrays import distinct
from understudy.common.special import chdtrc, chdtri, kolmogorov

Floats = NDArray[np.float64]
GROUPS = 10
"""Groups of equal size in the reference, for PSI and Jensen-Shannon, as is the custom."""
_FLOOR = 1e-4
_STRETCH = 16


@dataclass(frozen=True, slots=True)
class Distances:
    """One number for each of d columns: ``psi`` (population stability index, nats), ``js``
    (Jensen-Shannon distance, base 2, 0 to 1), ``ks`` (Kolmogorov-Smirnov, 0 to 1), ``wasserstein``
    (first order, in the unit of the column), ``hellinger`` (0 to 1)."""

    psi: Floats
    js: Floats
    ks: Floats
    wasserstein: Floats
    hellinger: Floats


def between(reference: Floats, current: Floats, groups: int = GROUPS) -> Distances:
    """Of samples (n, d) and (m, d), all finite; the edges of the groups are quantiles of the
    reference. Raises ValueError for other shapes, or without rows."""
    if reference.ndim != 2 or current.ndim != 2 or reference.shape[1] != current.shape[1]:
        raise ValueError(f"samples of shapes {reference.shape} and {current.shape}")
    if not len(reference) or not len(current):
        raise ValueError("both samples need rows")
    a = np.sort(np.ascontiguousarray(reference.T), axis=1)
    b = np.sort(np.ascontiguousarray(current.T), axis=1)
    columns = len(a)
    ks, wasserstein = np.empty(columns), np.empty(columns)
    p, q = np.zeros((columns, groups)), np.zeros((columns, groups))
    n = a.shape[1]
    indices = np.arange(1, groups) * n // groups
    for column in range(columns):
        x, y = a[column], b[column]
        ks[column], wasserstein[column] = _kolmogorov_smirnov(x, y), _wasserstein(x, y)
        edges = distinct(x[indices])
        for sample, shares in ((x, p), (y, q)):
            upto = np.searchsorted(sample, edges, side="right")
            shares[column, : len(edges) + 1] = np.diff(upto, prepend=0, append=len(sample))
    psi, js, hellinger = from_counts(p, q)
    return Distances(psi, js, ks, wasserstein, hellinger)


def _kolmogorov_smirnov(x: Floats, y: Floats) -> float:
    """Largest difference of the distribution functions of two sorted samples."""
    n, m = len(x), len(y)
    # At every so many values of y first: within a stretch of y both functions rise, so that the
    # difference is bounded by what they are at its ends, and most stretches need no second look.
    cuts = np.append(np.arange(0, m, _STRETCH), m)
    ends = y[np.minimum(cuts, m - 1)]
    low = np.searchsorted(x, ends[:-1], side="left") / n
    high = np.append(low[1:], np.searchsorted(x, ends[-1:], side="right") / n)
    upto = np.searchsorted(x, ends[:-1], side="right") / n
    first, last = cuts[:-1] / m, cuts[1:] / m
    least = max(float((low - first).max()), float((first + 1.0 / m - upto).max()), 0.0)
    near = (high - first >= least) | (last - low >= least)
    if not near.any():
        return least
    indices = np.flatnonzero(np.repeat(near, np.diff(cuts)))
    values = y[indices]
    below = np.searchsorted(x, values, side="left")
    upto = below
    if (x[np.minimum(below, n - 1)] == values).any():
        upto = np.searchsorted(x, values, side="right")
    # At each value of y the other function is compared with both ends of the step; where values of
    # y are equal, the largest difference picks the right one of their steps.
    rises = float(((indices + 1) / m - upto / n).max())
    falls = float((below / n - indices / m).max())
    return max(rises, falls, least)


def _wasserstein(x: Floats, y: Floats) -> float:
    """Area between the distribution functions of two sorted samples."""
    n, m = len(x), len(y)
    if n == m:
        return float(np.abs(x - y).mean())  # the k-th value goes to the k-th
    both = np.concatenate([x, y])
    # Two runs that are sorted already: a stable sort merges them in one pass.
    order = np.argsort(both, kind="stable")
    passed = np.cumsum(order < n)
    apart = np.abs(passed / n - (np.arange(1, n + m + 1) - passed) / m)
    return float(apart[:-1] @ np.diff(both[order]))


def from_counts(p: Floats, q: Floats) -> tuple[Floats, Floats, Floats]:
    """PSI, Jensen-Shannon and Hellinger distances of counts (d, groups) of the same groups."""
    p = p / np.maximum(p.sum(axis=1, keepdims=True), 1.0)
    q = q / np.maximum(q.sum(axis=1, keepdims=True), 1.0)
    # An empty group would make the index infinite; one that is empty in both says nothing.
    held = (p > 0.0) | (q > 0.0)
    lifted_p = np.where(held, np.maximum(p, _FLOOR), 1.0)
    lifted_q = np.where(held, np.maximum(q, _FLOOR), 1.0)
    psi = ((lifted_q - lifted_p) * np.log(lifted_q / lifted_p)).sum(axis=1)
    middle = (p + q) / 2.0
    with np.errstate(divide="ignore", invalid="ignore"):
        part = np.where(p > 0.0, p * np.log2(p / middle), 0.0)
        part += np.where(q > 0.0, q * np.log2(q / middle), 0.0)
    js = np.sqrt(np.maximum(part.sum(axis=1) / 2.0, 0.0))
    hellinger = np.sqrt(((np.sqrt(p) - np.sqrt(q)) ** 2).sum(axis=1) / 2.0)
    return psi, js, hellinger


def chi_squared(p: Floats, q: Floats) -> tuple[Floats, Floats, Floats]:
    """Statistic, p-value and Cramer's V of counts (d, groups) in two samples (Pearson 1900)."""
    total = p + q
    rows = np.stack([p.sum(axis=1), q.sum(axis=1)])
    whole = np.maximum(rows.sum(axis=0), 1.0)
    held = total > 0.0
    statistic = np.zeros(len(p))
    for counts, size in ((p, rows[0]), (q, rows[1])):
        expected = total * (size / whole)[:, None]
        term = np.where(expected > 0.0, (counts - expected) ** 2 / np.maximum(expected, 1e-300), 0)
        statistic += term.sum(axis=1)
    freedom = np.maximum(held.sum(axis=1) - 1, 1)
    return statistic, chdtrc(freedom, statistic), np.sqrt(statistic / whole)


def ks_p_value(statistic: Floats, n: int, m: int) -> Floats:
    """Asymptotic p-values of two-sample Kolmogorov-Smirnov distances (Smirnov 1948)."""
    size = np.sqrt(n * m / (n + m))
    result: Floats = kolmogorov(statistic * (size + 0.12 + 0.11 / size))
    return result


def thresholds(groups: int, n: float, m: float, level: float = 0.001) -> dict[str, float]:
    """How large distances get by chance with probability ``level``, for samples of n and m rows.

    PSI and squared distances are, for samples of one distribution, chi-squared with one degree of
    freedom less than groups, times (1/n + 1/m) (Yurdakul & Naranjo 2020); Jensen-Shannon and
    Hellinger follow from their second-order expansions.
    """
    quantile = float(chdtri(max(groups - 1, 1), level))
    scale = 1.0 / n + 1.0 / m
    size = np.sqrt(n * m / (n + m))
    return {
        "psi": quantile * scale,
        "js": float(np.sqrt(quantile * scale / (8.0 * np.log(2.0)))),
        "hellinger": float(np.sqrt(quantile * scale / 8.0)),
        "ks": float(np.sqrt(-np.log(level / 2.0) / 2.0) / size),
    }


def psi_by_chance(
    counts: Floats, n: float, m: float, level: float = 0.001, draws: int = 4_000
) -> float:
    """PSI that samples of n and m rows of one population reach with probability ``level``, by
    simulation. The shares of the population are those of ``counts`` (groups,). Seeded.

    For few rows in a group PSI is far above the chi-squared of :func:`thresholds`.
    """
    if not counts.sum() or n < 1.0 or m < 1.0:
        return 0.0
    chance = np.random.default_rng(20)
    shares = counts / counts.sum()
    p = chance.multinomial(round(n), shares, draws).astype(np.float64)
    q = chance.multinomial(round(m), shares, draws).astype(np.float64)
    # The quantile with a margin for the number of draws: the value that few enough draws pass.
    beyond = max(1, int(level * draws))
    return float(np.sort(from_counts(p, q)[0])[-beyond])


def benjamini_hochberg(p_values: Floats) -> Floats:
    """Adjusted p-values (Benjamini & Hochberg 1995): below q, at most a share q is false."""
    count = len(p_values)
    order = np.argsort(p_values)
    raised = p_values[order] * count / np.arange(1, count + 1)
    lowest = np.minimum.accumulate(raised[::-1])[::-1]
    adjusted = np.empty(count)
    adjusted[order] = np.minimum(lowest, 1.0)
    return adjusted
