"""A calibration curve: how often a score was that of a positive, and how well that is known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from understudy.common.arrays import distinct, quantiles

Floats = NDArray[np.float64]
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


class Curve:
    """``means`` (B,) of the score in each bin, rising; ``rates`` (B,) of positives, isotonic;
    ``counts`` (B,) of labels. Raises ValueError for what holds nothing or does not fit together."""

    def __init__(self, counts: Floats, positives: Floats, scores: Floats) -> None:
        if not counts.shape == positives.shape == scores.shape or counts.ndim != 1:
            raise ValueError("the calibration table has another shape")
        if counts.sum() < 1.0:
            raise ValueError("the calibration table is empty")
        held = counts > 0.0
        self.counts: Floats = counts[held]
        self.means: Floats = np.maximum.accumulate(scores[held] / self.counts)
        self.rates: Floats = isotonic(positives[held] / self.counts, self.counts)
        self.rows = int(self.counts.sum())

    @classmethod
    def of_table(cls, table: Mapping[str, Any]) -> Curve:
        """Of a baseline's calibration table: ``counts``, ``positives`` and summed ``scores`` by
        bin. Raises KeyError or ValueError."""
        counts, positives, scores = (
            np.array(table[name], np.float64) for name in ("counts", "positives", "scores")
        )
        return cls(counts, positives, scores)

    @classmethod
    def of_rows(cls, scores: Floats, labels: Floats, bins: int = BINS) -> Curve:
        """Of scores and labels (n,), by quantiles of the score."""
        return cls.of_table(tabulate(scores, labels, bins))

    def probability(self, scores: Floats) -> Floats:
        """Share of positives at each score (n,), between the bins' means."""
        return np.interp(scores, self.means, self.rates)

    def indices(self, scores: Floats) -> NDArray[np.intp]:
        """The bin that each score (n,) belongs to: the one with the nearest mean."""
        middles = (self.means[1:] + self.means[:-1]) / 2.0
        return np.searchsorted(middles, scores)

    def variances(self) -> Floats:
        """Of the rates (B,), by the draws of their labels. A bin of few labels that are all alike
        is not taken to be certain: half a label of each kind is added."""
        shifted = (self.rates * self.counts + 0.5) / (self.counts + 1.0)
        result: Floats = shifted * (1.0 - shifted) / self.counts
        return result

    def outside(self, scores: Floats) -> float:
        """Share of the scores that lie beyond the outermost bins' means by more than a hundredth of
        the range."""
        slack = 0.01 * max(float(self.means[-1] - self.means[0]), 1e-9)
        low, high = float(self.means[0]) - slack, float(self.means[-1]) + slack
        return float(np.mean((scores < low) | (scores > high)))

    def labels_behind(self, scores: Floats) -> float:
        """Effective number of labels behind the mean rate over these scores: all labels when they
        are distributed like the reference, fewer when they lie in bins with few labels."""
        shares = np.bincount(self.indices(scores), minlength=len(self.counts)) / len(scores)
        return float(1.0 / (shares**2 / self.counts).sum())

    def moved(self, scores: Floats) -> float:
        """Population stability index of the scores against the reference, over ten groups of
        bins, less what it is on average for so many rows of the reference itself."""
        groups = np.minimum(
            (np.cumsum(self.counts) - self.counts / 2.0) / self.rows * 10.0, 9.0
        ).astype(np.intp)
        was = np.bincount(groups, self.counts, 10)
        now = np.bincount(groups[self.indices(scores)], minlength=10).astype(np.float64)
        held = was > 0.0
        a = (was[held] + 0.5) / (self.rows + 0.5 * held.sum())
        b = (now[held] + 0.5) / (len(scores) + 0.5 * held.sum())
        index = float(((b - a) * np.log(b / a)).sum())
        usual = float(held.sum() - 1) * (1.0 / len(scores) + 1.0 / self.rows)
        return max(0.0, index - usual)


def tabulate(scores: Floats, labels: Floats, bins: int = BINS) -> dict[str, list[float]]:
    """A calibration table of scores and labels (n,) by quantiles of the score: ``edges``,
    ``counts``, ``positives``, ``scores``."""
    edges = distinct(quantiles(scores, np.linspace(0.0, 1.0, bins + 1)[1:-1]))
    edges = edges[edges < scores.max()]
    index = np.searchsorted(edges, scores)
    size = len(edges) + 1
    return {
        "edges": edges.tolist(),
        "counts": np.bincount(index, minlength=size).astype(np.float64).tolist(),
        "positives": np.bincount(index, labels, size).tolist(),
        "scores": np.bincount(index, scores, size).tolist(),
    }
