"""From a baseline's counts to the scores that its detectors run on.

A value is looked at through its bucket (or category) alone. Each bucket has two scores that are
standard under the baseline: **location**, the mean normal score of the bucket's ranks (van der
Waerden 1952), and **spread**, the same of the ranks of the location's size. They do not care how
heavy the tails of the raw values are, and a change of unit moves them no further than the last
bucket.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from understudy.common.special import ndtr, ndtri
from understudy.shadow.roots import find_root

Floats = NDArray[np.float64]

_SMALLEST_VARIANCE = 1e-9
_STEEPEST = 40.0


def normal_scores(shares: Floats) -> Floats:
    """Mean standard normal value of each bucket, of shape ``(buckets,)``, by rank.

    ``shares`` are the buckets' probabilities in order of the values. The scores have mean 0 and
    variance 1 under these, or are all 0 where a single bucket holds everything. An empty bucket has
    the score of its place between its neighbours.
    """
    upper = np.cumsum(shares)
    upper[-1] = 1.0
    lower = np.concatenate([[0.0], upper[:-1]])
    held = shares > 0.0
    scores: Floats = ndtri(np.clip((lower + upper) / 2.0, 1e-6, 1.0 - 1e-6))
    ends = _density(lower) - _density(upper)
    scores[held] = ends[held] / shares[held]
    mean = float(scores[held] @ shares[held])
    variance = float((scores[held] - mean) ** 2 @ shares[held])
    if variance < _SMALLEST_VARIANCE:
        return np.zeros_like(scores)
    standard: Floats = (scores - mean) / np.sqrt(variance)
    return standard


def spread_scores(location: Floats, shares: Floats) -> Floats:
    """Scores of how far out a bucket lies, of shape ``(buckets,)``, standard under ``shares``.

    All 0 where the size of the location has fewer than three values, and so says nothing of its
    own.
    """
    size = np.abs(location)
    values, indices = np.unique(np.round(size, 9), return_inverse=True)
    summed = np.bincount(indices, weights=shares, minlength=len(values)).astype(np.float64)
    if np.count_nonzero(summed) < 3:
        return np.zeros_like(location)
    return normal_scores(summed)[indices]


def tail_factor(scores: Floats, shares: Floats, slack: float) -> float:
    """By how much a CUSUM's threshold must grow for scores that are not normal.

    A one-sided CUSUM with increments ``x = score - slack`` has a run length of the order of
    exp(theta h), where E exp(theta x) = 1 (Lundberg's exponent; Siegmund 1985, ch. II); for a
    normal score theta is twice the slack. Skewed scores have a smaller one, and the threshold grows
    in proportion. Never below 1.
    """
    held = shares > 0.0
    values, weights = scores[held] - slack, shares[held]
    if values.max() <= 0.0:
        return 1.0

    def excess(theta: float) -> float:
        # In log space: the largest term of a steep theta would overflow.
        terms = theta * values + np.log(weights)
        top = float(terms.max())
        return top + float(np.log(np.exp(terms - top).sum()))

    if excess(2.0 * slack) <= 0.0:
        return 1.0
    # Convex in theta, 0 at 0, falling there; so the other root lies below twice the slack.
    theta = find_root(excess, 1e-9 * slack, 2.0 * slack) if excess(1e-9 * slack) < 0.0 else 0.0
    return min(2.0 * slack / theta, _STEEPEST) if theta > 0.0 else _STEEPEST


def explained(shift: float) -> float:
    """Share of the baseline's values below the middle of the shifted ones, for people: a shift of
    the location by 0 is 0.5."""
    return float(ndtr(shift))


def _density(at: Floats) -> Floats:
    """The normal density at the quantiles ``at``; 0 at 0 and 1."""
    inside = (at > 0.0) & (at < 1.0)
    result = np.zeros_like(at)
    result[inside] = np.exp(-0.5 * ndtri(at[inside]) ** 2) / np.sqrt(2.0 * np.pi)
    return result
