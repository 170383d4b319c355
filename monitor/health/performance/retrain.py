"""When to retrain: the trend of a metric, extrapolated to the configured floor."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from understudy.common.special import stdtrit

Floats = NDArray[np.float64]
FEWEST = 8
"""Fewest windows for a trend."""
_LEVEL = 0.95
_FURTHEST = 3.0
"""How far ahead a date may lie, in lengths of the history."""
SEASONS = (("daily", 1.0), ("weekly", 7.0))
"""Names and lengths in days of the patterns that are looked for."""
_CYCLES = 2.0
"""Fewest cycles that separate a pattern from a trend."""
_PER_CYCLE = 4.0
"""Fewest windows in a cycle that show the pattern."""
_STRONGER = 10.0
"""By how much a pattern must lower the information criterion to be removed."""


@dataclass(frozen=True, slots=True)
class Point:
    """A window's ``value`` of the metric with its standard error, at unix time ``at``."""

    state_as_list: ClassVar[bool] = True

    at: float
    value: float
    error: float


@dataclass(frozen=True, slots=True)
class RetrainAdvice:
    """``earliest`` and ``latest`` are unix times between which the metric reaches the floor, None
    where that is unknown; ``slope`` is per day with a 95 % interval [``low``, ``high``]; ``words``
    is the advice as text."""

    words: str
    slope: float | None = None
    low: float | None = None
    high: float | None = None
    earliest: float | None = None
    latest: float | None = None
    assumptions: tuple[str, ...] = ()

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "words": self.words,
            "slope_per_day": self.slope,
            "slope_low": self.low,
            "slope_high": self.high,
            "earliest": self.earliest,
            "latest": self.latest,
            "assumptions": list(self.assumptions),
        }


def retrain_advice(points: Sequence[Point], floor: float) -> RetrainAdvice:
    """Extrapolate a straight line to ``floor``, below which the metric should not fall.

    Weighted least squares, with standard errors that are robust to what the line does not explain
    and to dependent windows (Newey & West 1987), widened for their small number. A daily or weekly
    pattern is removed where the data can separate it from a trend; the assumptions list it
    otherwise. There is no date when the interval of the slope contains 0, or when the date lies
    further ahead than three times the history.
    """
    points = sorted(
        (p for p in points if math.isfinite(p.at) and math.isfinite(p.value)), key=lambda p: p.at
    )
    if len(points) < FEWEST:
        return RetrainAdvice(f"not enough evidence: {len(points)} windows, {FEWEST} are required")
    at = np.array([p.at for p in points])
    value = np.array([p.value for p in points])
    error = np.array([max(p.error, 1e-6) if math.isfinite(p.error) else 1.0 for p in points])
    now = float(at[-1])
    span = now - float(at[0])
    if span <= 0.0:
        return RetrainAdvice("not enough evidence: all windows have the same time")
    days = (at - now) / 86400.0
    design, assumptions = _design(days, value, 1.0 / error**2)
    level, slope, variances, freedom = _fit(design, value, 1.0 / error**2)
    quantile = float(stdtrit(freedom, 0.5 + _LEVEL / 2.0))
    half = quantile * math.sqrt(variances[1])
    low, high = slope - half, slope + half
    level_half = quantile * math.sqrt(variances[0])

    def advice(
        words: str, earliest: float | None = None, latest: float | None = None
    ) -> RetrainAdvice:
        return RetrainAdvice(words, slope, low, high, earliest, latest, assumptions)

    if level + level_half < floor:
        return advice("retrain now: accuracy is already below the floor", now, now)
    if high >= 0.0:
        return advice("not enough evidence of a decline")
    # The level at present and the slope are both uncertain: the two corners of their intervals.
    nearest = max(level - level_half - floor, 0.0) / -low
    farthest = (level + level_half - floor) / -high
    earliest, latest = now + nearest * 86400.0, now + farthest * 86400.0
    furthest = now + _FURTHEST * span
    if earliest > furthest:
        return advice("declining, but the date of reaching the floor is too far ahead to predict")
    if latest > furthest:
        return advice("retrain soon: the date of falling below the floor is uncertain", earliest)
    return advice("will fall below the floor", earliest, latest)


def _design(days: Floats, value: Floats, weights: Floats) -> tuple[Floats, tuple[str, ...]]:
    """Columns for the level, the slope, and a sine and cosine of each pattern; the assumptions."""
    design = np.column_stack([np.ones_like(days), days])
    span = float(days[-1] - days[0])
    assumptions = ["the metric continues on a straight line, without future changes in the data"]
    for name, length in SEASONS:
        if span < _CYCLES * length:
            assumptions.append(f"not enough data to separate a {name} pattern from a trend")
            continue
        if len(days) < _PER_CYCLE * span / length or len(days) < design.shape[1] + 8:
            continue  # windows longer than that average it out
        angle = 2.0 * np.pi * days / length
        more = np.column_stack([design, np.sin(angle), np.cos(angle)])
        if _criterion(more, value, weights) < _criterion(design, value, weights) - _STRONGER:
            design = more
            assumptions.append(f"a {name} pattern was removed")
    assumptions.append("patterns longer than a week cannot be separated from a trend")
    return design, tuple(assumptions)


def _criterion(design: Floats, value: Floats, weights: Floats) -> float:
    """Bayes information criterion of the weighted fit (Schwarz 1978), its noise estimated."""
    root = np.sqrt(weights)
    fitted, *_ = np.linalg.lstsq(design * root[:, None], value * root, rcond=None)
    left = float((weights * (value - design @ fitted) ** 2).sum())
    count = len(value)
    free = float(design.shape[1])
    return count * math.log(max(left, 1e-12) / count) + free * math.log(count)


def _fit(
    design: Floats, value: Floats, weights: Floats
) -> tuple[float, float, tuple[float, float], int]:
    """Level and slope at present, their variances, and the degrees of freedom."""
    bread = np.linalg.pinv(design.T @ (design * weights[:, None]))
    fitted = bread @ (design.T @ (weights * value))
    residuals = value - design @ fitted
    freedom = len(value) - design.shape[1]
    widened = len(value) / freedom
    covariance = widened * bread @ _meat(design * (weights * residuals)[:, None]) @ bread
    # The spread of the windows themselves is a lower bound of what can be known.
    variances = np.maximum(np.diag(covariance), np.diag(bread))
    return float(fitted[0]), float(fitted[1]), (float(variances[0]), float(variances[1])), freedom


def _meat(scores: Floats) -> Floats:
    """Bartlett-weighted sums of products of the scores, over as many lags as Newey & West (1994)
    advise for white noise, 4 (n/100)^(2/9), and at least one."""
    total = scores.T @ scores
    lags = max(1, int(4.0 * (len(scores) / 100.0) ** (2.0 / 9.0)))
    for lag in range(1, lags + 1):
        product = scores[lag:].T @ scores[:-lag]
        total = total + (1.0 - lag / (lags + 1.0)) * (product + product.T)
    advice: Floats = total
    return advice
