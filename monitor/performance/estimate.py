"""Accuracy without labels, from scores whose meaning the baseline knows.

Confidence-based estimation: a score that the baseline found to be right in a share p of the cases
is counted as right with that share. It holds as long as scores keep their meaning, whatever
happens to the inputs; when the meaning itself changes (concept drift), no method without labels can
see it. So every estimate says what it rests on, and its interval holds the error of the baseline as
well as that of the sample.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_TWO_SIDED_95 = 1.959963984540054
_FEW_LABELS = 500
_MOST_OUTSIDE = 0.05
BINS = 100


def isotonic(values: Floats, weights: Floats) -> Floats:
    """The rising values that are nearest to the given ones by weighted squares: pool adjacent
    violators (Ayer et al. 1955). Shapes (n,)."""
    levels: list[float] = []
    masses: list[float] = []
    sizes: list[int] = []
    for value, weight in zip(values.tolist(), weights.tolist(), strict=True):
        levels.append(value)
        masses.append(weight)
        sizes.append(1)
        while len(levels) > 1 and levels[-2] >= levels[-1]:
            mass = masses[-2] + masses[-1]
            level = levels[-2]
            if mass > 0.0:
                level = (levels[-2] * masses[-2] + levels[-1] * masses[-1]) / mass
            size = sizes[-2] + sizes[-1]
            del levels[-1], masses[-1], sizes[-1]
            levels[-1], masses[-1], sizes[-1] = level, mass, size
    return np.repeat(np.array(levels), sizes)


@dataclass(frozen=True, slots=True)
class Estimate:
    """``value`` with a 95 % interval [``low``, ``high``] from ``rows`` predictions; ``doubts`` say
    why it might not be trusted."""

    metric: str
    value: float
    low: float
    high: float
    rows: int
    doubts: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "metric": self.metric,
            "value": self.value,
            "low": self.low,
            "high": self.high,
            "rows": self.rows,
            "doubts": list(self.doubts),
        }


class ConfidenceEstimator:
    """Of a yes-or-no prediction: ``calibration`` is a baseline's table, a positive is predicted
    above ``threshold``. Raises ValueError for a table that holds nothing."""

    def __init__(self, calibration: Mapping[str, Any], threshold: float = 0.5) -> None:
        self.edges: Floats = np.array(calibration["edges"], np.float64)
        counts = np.array(calibration["counts"], np.float64)
        positives = np.array(calibration["positives"], np.float64)
        scores = np.array(calibration["scores"], np.float64)
        if counts.shape != (len(self.edges) + 1,) or counts.sum() < 1.0:
            raise ValueError("the calibration table is empty or has another shape")
        self.threshold = threshold
        self.reference_rows = int(counts.sum())
        held = counts > 0.0
        rates = isotonic(positives[held] / counts[held], counts[held])
        self._means = scores[held] / counts[held]
        self._rates: Floats = rates
        self._counts: Floats = counts[held]
        self.low = float(self._means[0])
        self.high = float(self._means[-1])

    def probability(self, scores: Floats) -> Floats:
        """How often the baseline found a score to be a positive: (n,), between the bins' means."""
        return np.interp(scores, self._means, self._rates)

    def wrong(self, scores: Floats) -> Floats:
        """Probability of each score's prediction to be wrong: (n,)."""
        p = self.probability(scores)
        found: Floats = np.where(scores > self.threshold, 1.0 - p, p)
        return found

    def expected_error(self) -> tuple[float, float]:
        """Share of wrong predictions in the baseline itself, as an upper bound at 95 %, and the
        variance of a prediction's own."""
        wrong = np.where(self._means > self.threshold, 1.0 - self._rates, self._rates)
        total = float(self._counts.sum())
        mean = float(wrong @ self._counts) / total
        variance = float((wrong - mean) ** 2 @ self._counts) / total
        return mean + 1.64 * math.sqrt(variance / total), variance

    def accuracy(self, scores: Floats) -> Estimate:
        """Share of right predictions among ``scores`` (n,). Raises ValueError without any."""
        scores = scores[np.isfinite(scores)]
        if not len(scores):
            raise ValueError("there is no score to estimate from")
        p = self.probability(scores)
        says_yes = scores > self.threshold
        right = np.where(says_yes, p, 1.0 - p)
        value = float(right.mean())
        # Which labels come is a draw each; how often a bin is right is known from its own draws.
        sampling = float((p * (1.0 - p)).mean()) / len(scores)
        place = np.clip(np.searchsorted(self._means, scores), 0, len(self._means) - 1)
        sign = np.where(says_yes, 1.0, -1.0)
        weight = np.bincount(place, weights=sign, minlength=len(self._means)) / len(scores)
        own = (self._rates * (1.0 - self._rates) + 0.25 / self._counts) / self._counts
        half = _TWO_SIDED_95 * math.sqrt(sampling + float(weight**2 @ own))
        outside = float(np.mean((scores < self.low - 0.01) | (scores > self.high + 0.01)))
        return Estimate(
            "accuracy",
            value,
            max(0.0, value - half),
            min(1.0, value + half),
            len(scores),
            self._doubts(outside),
        )

    def _doubts(self, outside: float) -> tuple[str, ...]:
        doubts = []
        if self.reference_rows < _FEW_LABELS:
            doubts.append(f"the calibration rests on {self.reference_rows} labels only")
        if outside > _MOST_OUTSIDE:
            doubts.append(f"{outside:.0%} of the scores lie outside of what the baseline has seen")
        return tuple(doubts)
