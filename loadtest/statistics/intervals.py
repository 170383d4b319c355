"""Intervals of quantiles, rates and differences, or the word that there are too few requests."""

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
    """A quantile with an interval of two order statistics (Clopper & Pearson's idea, by the
    binomial; David & Nagaraja, Order Statistics, 7.1); None where the values are too few for one.

    It holds for independent values; latencies that hang together make it too narrow.
    """
    n = len(values)
    if n == 0:
        return None
    below = int(binom.ppf((1.0 - level) / 2.0, n, p))
    above = int(binom.ppf((1.0 + level) / 2.0, n, p)) + 1
    # The two ranks must really cover: else there is no upper end at this number of values.
    if below < 1 or above > n:
        return None
    ranks = [below - 1, max(1, math.ceil(p * n - 1e-9)) - 1, above - 1]
    low, value, high = np.partition(values, sorted(set(ranks)))[ranks].tolist()
    return Interval(value, low, high)


def needed(p: float, level: float = 0.95) -> int:
    """The fewest values of which a quantile has an interval."""
    n = 2
    while (
        int(binom.ppf((1.0 - level) / 2.0, n, p)) < 1
        or int(binom.ppf((1.0 + level) / 2.0, n, p)) + 1 > n
    ):
        n = max(n + 1, int(n * 1.02))
    return n


def rate(hits: int, count: int, level: float = 0.95) -> Interval | None:
    """A share with the exact interval of Clopper & Pearson; None of nothing."""
    if not count:
        return None
    tail = (1.0 - level) / 2.0
    low = float(beta.ppf(tail, hits, count - hits + 1)) if hits else 0.0
    high = float(beta.ppf(1.0 - tail, hits + 1, count - hits)) if hits < count else 1.0
    return Interval(hits / count, low, high)


def mean(values: Sequence[float], level: float = 0.95) -> Interval | None:
    """Of some repeats, by Student's t; None for fewer than two."""
    n = len(values)
    if n < 2:
        return None
    x = np.array(values, np.float64)
    half = float(student.ppf((1.0 + level) / 2.0, n - 1)) * float(x.std(ddof=1)) / math.sqrt(n)
    middle = float(x.mean())
    return Interval(middle, middle - half, middle + half)
