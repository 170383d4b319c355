"""What methods for bounded values share: the bounds, and the predictable mean, variance and bet."""

from __future__ import annotations

import math
from typing import Annotated

import numpy as np
import numpy.typing as npt

from understudy.shadow.sequential.common import Array, Interval, SequentialError, real, reals
from understudy.shadow.state import Count, Derived, Saved, Setting, Stateful, Through


class Bounds(Stateful):
    """Declared bounds [lower, upper] of a value, and how many values broke them."""

    state_as_list = True

    lower: Setting[float]
    upper: Setting[float]
    width: Derived[float]
    outside: Saved[Count]

    def __init__(self, lower: float, upper: float) -> None:
        self.lower, self.upper = real("lower", lower), real("upper", upper)
        if not self.lower < self.upper:
            raise SequentialError("upper", f"must be above lower ({self.lower}), not {self.upper}")
        self.width = self.upper - self.lower
        if not math.isfinite(self.width):
            raise SequentialError("upper", "is too far from lower")
        self.outside = 0

    def scale(self, values: npt.ArrayLike) -> Array:
        """The values within the bounds as [0, 1], in order; the others are counted and left out."""
        x = reals("values", values)
        inside = (x >= self.lower) & (x <= self.upper)
        if not inside.all():
            self.outside += int(x.size - np.count_nonzero(inside))
            x = x[inside]
        return (x - self.lower) / self.width

    def scale_one(self, argument: str, value: float) -> float:
        """A parameter strictly inside the bounds, as (0, 1)."""
        scaled = (real(argument, value) - self.lower) / self.width
        if not 0.0 < scaled < 1.0:
            raise SequentialError(
                argument, f"must lie strictly between {self.lower} and {self.upper}, not {value}"
            )
        return scaled

    def unscale(self, x: float) -> float:
        """A value of [0, 1] in its own unit."""
        return self.lower + self.width * x

    def unscale_interval(self, interval: Interval) -> Interval:
        """An interval in [0, 1] in its own unit."""
        return Interval(self.unscale(interval.lower), self.unscale(interval.upper))

    def merge(self, other: Bounds) -> Bounds:
        """The same bounds with both counts; SequentialError when they differ."""
        if (self.lower, self.upper) != (other.lower, other.upper):
            raise SequentialError("other", "cannot be merged: its bounds differ")
        both = Bounds(self.lower, self.upper)
        both.outside = self.outside + other.outside
        return both


class Moments(Stateful):
    """Predictable mean and variance of values in [0, 1], and the bet they suggest.

    mu_t = (1/2 + sum x)/(t+1), s2_t = (1/4 + sum (x_i - mu_i)^2)/(t+1), and the bet for record t
    sqrt(2 L/(s2_{t-1} t ln(1+t))): the predictable plug-in of Waudby-Smith & Ramdas 2024. Each
    record's bet uses only what came before it.
    """

    __slots__ = ("n", "squares", "sum")
    state_as_list = True

    n: Saved[Count]
    sum: Saved[float]
    squares: Saved[float]

    def __init__(self) -> None:
        self.n = 0
        self.sum = 0.0
        self.squares = 0.0

    def step(self, x: Array, log_term: float) -> tuple[Array, Array]:
        """Take a batch; returns (mean before each record, uncapped bet for each record)."""
        t = self.n + np.arange(1.0, x.size + 1.0)
        total = np.cumsum(np.concatenate(((self.sum,), x)))
        mean = (0.5 + total[1:]) / (t + 1.0)
        squares = np.cumsum(np.concatenate(((self.squares,), (x - mean) ** 2)))
        variance = (0.25 + squares[:-1]) / t
        mean_before = (0.5 + total[:-1]) / t
        self.n += x.size
        self.sum, self.squares = float(total[-1]), float(squares[-1])
        return mean_before, np.sqrt(2.0 * log_term / (variance * t * np.log1p(t)))

    def step_one(self, x: float, log_term: float) -> float:
        """:meth:`step` for a single record; returns its uncapped bet."""
        t = self.n + 1
        variance = (0.25 + self.squares) / t
        self.n = t
        self.sum += x
        self.squares += (x - (0.5 + self.sum) / (t + 1.0)) ** 2
        return math.sqrt(2.0 * log_term / (variance * t * math.log1p(t)))

    def merge(self, other: Moments) -> Moments:
        """Sums of both: still a function of the past only, so bets may go on from it."""
        both = Moments()
        both.n = self.n + other.n
        both.sum = self.sum + other.sum
        both.squares = self.squares + other.squares
        return both


OfBounds = Annotated[Bounds, Through("lower", "upper")]
"""The bounds that a constructor is given by their ends."""


class BoundedMean:
    """What is known of the mean of bounded values besides its confidence sequence."""

    bounds: Saved[OfBounds]
    moments: Saved[Moments]

    @property
    def n(self) -> int:
        """Values within the bounds so far."""
        return self.moments.n

    @property
    def out_of_bounds(self) -> int:
        """Values left out because they lay outside the declared bounds."""
        return self.bounds.outside

    @property
    def mean(self) -> float | None:
        """The plain average of the values in their own unit; None before any."""
        return self.bounds.unscale(self.moments.sum / self.n) if self.n else None
