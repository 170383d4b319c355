"""When to retrain: the trend of a metric, carried on to the floor that was set."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import stdtrit

_FEWEST = 8
_LEVEL = 0.95
_FURTHEST = 3.0
"""Times the length of the history that a date may lie ahead."""


@dataclass(frozen=True, slots=True)
class Point:
    """A window's ``value`` of the metric with its standard error, at unix time ``at``."""

    at: float
    value: float
    error: float


@dataclass(frozen=True, slots=True)
class Outlook:
    """``earliest`` and ``latest`` are unix times between which the metric reaches the floor, None
    where that cannot be said; ``slope`` is per day with a 95 % interval; ``words`` say it."""

    words: str
    slope: float | None = None
    low: float | None = None
    high: float | None = None
    earliest: float | None = None
    latest: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "words": self.words,
            "slope_per_day": self.slope,
            "slope_low": self.low,
            "slope_high": self.high,
            "earliest": self.earliest,
            "latest": self.latest,
        }


def outlook(points: Sequence[Point], floor: float) -> Outlook:
    """Carry a straight line on to ``floor``, below which the metric should not fall.

    Weighted least squares, with standard errors that are robust to what the line does not explain
    and to windows that hang together (Newey & West 1987). No date where the slope is not surely
    negative, or where it would lie further ahead than three times what was seen: a line says
    nothing of the season after next.
    """
    if len(points) < _FEWEST:
        return Outlook(f"not enough evidence: {len(points)} windows, {_FEWEST} are needed")
    at = np.array([p.at for p in points])
    value = np.array([p.value for p in points])
    error = np.array([max(p.error, 1e-6) for p in points])
    now = float(at[-1])
    span = now - float(at[0])
    if span <= 0.0:
        return Outlook("not enough evidence: all windows have the same time")
    days = (at - now) / 86400.0
    design = np.column_stack([np.ones_like(days), days])
    weights = 1.0 / error**2
    bread = np.linalg.inv(design.T @ (design * weights[:, None]))
    fitted = bread @ (design.T @ (weights * value))
    residuals = value - design @ fitted
    covariance = bread @ _meat(design * (weights * residuals)[:, None]) @ bread
    # The spread of the windows themselves is a lower bound of what can be known.
    variance = np.maximum(np.diag(covariance), np.diag(bread))
    quantile = float(stdtrit(len(points) - 2, 0.5 + _LEVEL / 2.0))
    level, slope = float(fitted[0]), float(fitted[1])
    half = quantile * math.sqrt(float(variance[1]))
    low, high = slope - half, slope + half
    level_half = quantile * math.sqrt(float(variance[0]))
    if level + level_half < floor:
        return Outlook("retrain now: it is below the floor already", slope, low, high, now, now)
    if high >= 0.0:
        return Outlook("not enough evidence of a decline", slope, low, high)
    ahead = max(level - level_half - floor, 0.0) / -low, (level + level_half - floor) / -high
    earliest, latest = (now + days * 86400.0 for days in ahead)
    furthest = now + _FURTHEST * span
    if earliest > furthest:
        return Outlook(
            "it declines, but reaches the floor later than can be foreseen", slope, low, high
        )
    if latest > furthest:
        return Outlook("retrain soon: when it falls below the floor is uncertain", slope, low, high,
                       earliest)  # fmt: skip
    return Outlook("it will fall below the floor", slope, low, high, earliest, latest)


def _meat(scores: Any) -> Any:
    """Bartlett-weighted sums of products of the scores over up to n^(1/4) lags."""
    total = scores.T @ scores
    lags = max(1, int(len(scores) ** 0.25))
    for lag in range(1, lags + 1):
        product = scores[lag:].T @ scores[:-lag]
        total = total + (1.0 - lag / (lags + 1.0)) * (product + product.T)
    return total
