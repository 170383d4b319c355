"""Arrays, without what numpy loads for them."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T", bound=np.generic)


def distinct(values: NDArray[T]) -> NDArray[T]:
    """The values that differ, in ascending order, shape (k,); NaN differs from NaN.

    ``numpy.unique`` does the same, and loads masked arrays (6 MiB) to see whether it was given one.
    """
    ordered = np.sort(values, axis=None)
    first = np.ones(ordered.shape, np.bool_)
    np.not_equal(ordered[1:], ordered[:-1], out=first[1:])
    return ordered[first]


def quantiles(values: NDArray[np.float64], shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Quantiles of finite values, shape (n,), n > 0, at ``shares`` in [0, 1], shape (k,), with
    linear interpolation.

    ``numpy.quantile`` does the same, and loads what ``numpy.unique`` does.
    """
    ordered = np.sort(values)
    at = (len(ordered) - 1) * shares
    below = np.floor(at).astype(np.intp)
    low, high = ordered[below], ordered[np.minimum(below + 1, len(ordered) - 1)]
    part = at - below
    gap = high - low
    return np.where(part >= 0.5, high - gap * (1.0 - part), low + gap * part)


def quantile(values: NDArray[np.float64], share: float) -> float:
    """The same for one share."""
    return float(quantiles(values, np.array([share]))[0])
