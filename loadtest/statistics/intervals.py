"""Confidence intervals of quantiles, rates and means; None where there are too few values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta, binom
from scipy.stats import t as student

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Interval:
    """``value`` in [``low``, ``high``]."""

    value: float
    low: float
    high: float


def quantile(values: Floats, p: float, level: float = 0.95) -> Interval | None:
    """The quantile ``p`` of ``values``, (n,), with an interval between two order statistics (by the
    binomial, as Clopper & Pearson; David & Nagaraja, Order Statistics, 7.1); None if there are too
    few values.

    It assumes independent values; correlated latencies make it too narrow.
    """
    n = len(values)
    if n == 0:
        return None
    below = int(binom.ppf((1.0 - level) / 2.0, n, p))
    above = int(binom.ppf((1.0 + level) / 2.0, n, p)) + 1
    # The ranks must exist: otherwise the interval has no upper end for this n.
    if below < 1 or above > n:
        return None
    ranks = [below - 1, max(1, math.ceil(p * n - 1e-9)) - 1, above - 1]
    low, value, high = np.partition(values, sorted(set(ranks)))[ranks].tolist()
    return Interval(value, low, high)


def needed(p: float, level: float = 0.95) -> int:
    """The smallest number of values for which the quantile ``p`` has an interval."""
    n = 2
    while (
        int(binom.ppf((1.0 - level) / 2.0, n, p)) < 1
        or int(binom.ppf((1.0 + level) / 2.0, n, p)) + 1 > n
    ):
        n = max(n + 1, int(n * 1.02))
    return n


def rate(hits: int, count: int, level: float = 0.95) -> Interval | None:
    """The share ``hits / count`` with the exact interval of Clopper & Pearson; None without
    values."""
    if not count:
        return None
    tail = (1.0 - level) / 2.0
    low = float(beta.ppf(tail, hits, count - hits + 1)) if hits else 0.0
    high = float(beta.ppf(1.0 - tail, hits + 1, count - hits)) if hits < count else 1.0
    return Interval(hits / count, low, high)


def difference(hits: int, count: int, others: int, of: int, level: float = 0.95) -> Interval | None:
    """The share ``others / of`` minus the share ``hits / count``, with an interval squared and
    added from those of both shares (Newcombe 1998, method 10, from Clopper & Pearson's); None
    without values."""
    a, b = rate(hits, count, level), rate(others, of, level)
    if a is None or b is None:
        return None
    value = b.value - a.value
    low = value - math.hypot(b.value - b.low, a.high - a.value)
    high = value + math.hypot(b.high - b.value, a.value - a.low)
    return Interval(value, low, high)


def mean(values: Sequence[float], level: float = 0.95) -> Interval | None:
    """The mean of repeats, by Student's t; None for fewer than two."""
    n = len(values)
    if n < 2:
        return None
    x = np.array(values, np.float64)
    half = float(student.ppf((1.0 + level) / 2.0, n - 1)) * float(x.std(ddof=1)) / math.sqrt(n)
    middle = float(x.mean())
    return Interval(middle, middle - half, middle + half)
