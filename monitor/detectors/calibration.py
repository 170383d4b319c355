"""Do probabilities still mean what they say? An e-detector on labelled scores.

Null: a label is 1 with a probability that lies within the baseline's band around the score. The
alternatives bend the scores, q = sigma(a + b logit p), and bet q(y) / p(y) against it; a mixture
over a grid of (a, b) runs by the Shiryaev-Roberts recursion, so that the run length is at least
the one that was asked for (Shin, Ramdas & Rinaldo, arXiv:2203.03532). The bend that has won says
what is wrong: this finds a calibration that has moved long before the error rate shows anything.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from understudy.common.special import expit, logit
from understudy.monitor.detectors.edetector import log_sum, shiryaev_roberts
from understudy.monitor.detectors.packed import Logs
from understudy.shadow.state import Config, Count, Saved, Stateful

Floats = NDArray[np.float64]
SHIFTS = (-2.0, -1.0, -0.5, -0.25, 0.0, 0.25, 0.5, 1.0, 2.0)
SLOPES = (0.5, 0.75, 1.0, 1.5)
_SIMPLE = 0.5
"""Of the prior, what the bends have that are a shift or a slope alone: another share of positives,
or a model that is too sure, are what happens most. The others share the rest."""
_CLIP = 1e-4
_BAND = 1.6448536269514722


class Recalibration:
    """What a score meant in the baseline: sigma(shift + slope logit score), with standard errors.

    ``errors`` are the covariances [[ss, sb], [sb, bb]] of shift and slope. Where the baseline's own
    labels do not bear this form out, as at the ends of scores that were rounded, the band reaches
    to what they do: ``edges`` (B - 1,) of bins of the score, ``lowest`` and ``highest`` (B,) the
    log odds that are plausible in each.
    """

    def __init__(
        self,
        shift: float = 0.0,
        slope: float = 1.0,
        errors: Any = None,
        edges: Floats | None = None,
        lowest: Floats | None = None,
        highest: Floats | None = None,
    ) -> None:
        self.shift = shift
        self.slope = slope
        self.errors: Floats = np.zeros((2, 2)) if errors is None else np.asarray(errors, np.float64)
        self._edges = np.zeros(0) if edges is None else edges
        self._lowest = np.full(len(self._edges) + 1, -np.inf) if lowest is None else lowest
        self._highest = np.full(len(self._edges) + 1, np.inf) if highest is None else highest

    @classmethod
    def fit(cls, calibration: Mapping[str, Any]) -> Recalibration:
        """Logistic regression of the labels on the logit of the scores (Platt 1999), by the bins of
        a baseline's table. Raises ValueError when it holds no two classes."""
        counts = np.array(calibration["counts"], np.float64)
        positives = np.array(calibration["positives"], np.float64)
        held = counts > 0.0
        edges = (np.array(calibration["edges"], np.float64), counts, positives)
        counts, positives = counts[held], positives[held]
        if positives.sum() < 1.0 or (counts - positives).sum() < 1.0:
            raise ValueError("the calibration table holds one class only")
        scores = np.array(calibration["scores"], np.float64)[held] / counts
        x = logit(np.clip(scores, _CLIP, 1.0 - _CLIP))
        shift, slope = 0.0, 1.0
        design = np.column_stack([np.ones_like(x), x])
        information = np.eye(2)
        for _ in range(50):
            p = expit(shift + slope * x)
            weight = np.maximum(counts * p * (1.0 - p), 1e-12)
            information = design.T @ (design * weight[:, None]) + 1e-9 * np.eye(2)
            step = np.linalg.solve(information, design.T @ (positives - counts * p))
            shift, slope = shift + float(step[0]), slope + float(step[1])
            if float(np.abs(step).max()) < 1e-10:
                break
        return cls(shift, slope, np.linalg.inv(information), edges[0], *_plausible(*edges[1:]))

    def band(self, scores: Floats) -> tuple[Floats, Floats]:
        """Lowest and highest log odds of the scores (n,) that the baseline allows."""
        x, error = self.logits(scores)
        index = self._edges.searchsorted(scores)
        low = np.minimum(x - _BAND * error, self._highest[index])
        return low, np.maximum(x + _BAND * error, self._lowest[index])

    def logits(self, scores: Floats) -> tuple[Floats, Floats]:
        """Log odds of the scores as the baseline means them, and their standard errors."""
        x = logit(np.clip(scores, _CLIP, 1.0 - _CLIP))
        e = self.errors
        variance = e[0, 0] + 2.0 * e[0, 1] * x + e[1, 1] * x**2
        return self.shift + self.slope * x, np.sqrt(np.maximum(variance, 0.0))


class CalibrationDetector(Stateful):
    """``run_length`` in labels. Scores and labels come in the order of their predictions, or of the
    labels: what matters is that the order does not depend on what the labels are."""

    baseline: Config[Recalibration]
    log_threshold: Config[float]
    grid: Config[list[tuple[float, float]]]
    _log_prior: Config[Floats]
    _log_m: Saved[Logs]
    labels: Saved[Count]

    def __init__(self, run_length: float, baseline: Recalibration | None = None) -> None:
        self.baseline = baseline or Recalibration()
        self.log_threshold = math.log(run_length)
        self.grid = [(a, b) for a in SHIFTS for b in SLOPES if (a, b) != (0.0, 1.0)]
        simple = np.array([a == 0.0 or b == 1.0 for a, b in self.grid])
        shares = np.where(simple, _SIMPLE / simple.sum(), (1.0 - _SIMPLE) / (~simple).sum())
        self._log_prior = np.log(shares)
        self._log_m = np.full(len(self.grid), -np.inf)
        self.labels = 0

    def update(self, scores: Floats, labels: Floats) -> int:
        """Take labelled scores (n,), labels 0 or 1; the first row with an alarm, or -1."""
        here = np.isfinite(scores) & np.isfinite(labels)
        if not here.any():
            return -1
        x, _ = self.baseline.logits(scores[here])
        low, high = self.baseline.band(scores[here])
        y = labels[here] > 0.5
        # The probability of what came, at its largest within the band: nothing in it is rejected.
        log_null = np.where(y, _log_sigma(high), _log_sigma(-low))
        a = np.array([one for one, _ in self.grid])
        b = np.array([one for _, one in self.grid])
        bent = a + b * x[:, None]
        log_e = np.where(y[:, None], _log_sigma(bent), _log_sigma(-bent)) - log_null[:, None]
        log_m = shiryaev_roberts(self._log_m, log_e)
        self._log_m = log_m[-1]
        self.labels += int(here.sum())
        mixed = log_sum(log_m + self._log_prior)
        over = mixed >= self.log_threshold
        if not over.any():
            return -1
        return int(np.flatnonzero(here)[int(np.argmax(over))])

    @property
    def statistic(self) -> float:
        """Log of the mixture over the log of its threshold: an alarm at 1."""
        mixed = float(log_sum(self._log_m + self._log_prior))
        return max(0.0, mixed / self.log_threshold) if math.isfinite(mixed) else 0.0

    @property
    def winner(self) -> tuple[float, float]:
        """The bend (shift, slope) that the labels speak for most."""
        return self.grid[int(np.argmax(self._log_m))]

    def words(self) -> str:
        """What the winner means."""
        shift, slope = self.winner
        parts = []
        if shift:
            parts.append(f"scores are too {'low' if shift > 0 else 'high'}")
        if slope != 1.0:
            parts.append(f"the model is {'under' if slope > 1.0 else 'over'}confident")
        return " and ".join(parts)

    def reset(self) -> None:
        """Restart."""
        self._log_m = np.full(len(self.grid), -np.inf)


def _plausible(counts: Floats, positives: Floats) -> tuple[Floats, Floats]:
    """Log odds (B,) between which each bin's rate lies, by Agresti & Coull (1998); anything in an
    empty one."""
    rate = (positives + 1.0) / (counts + 2.0)
    half = _BAND * np.sqrt(rate * (1.0 - rate) / (counts + 2.0))
    low, high = np.clip(rate - half, _CLIP, None), np.clip(rate + half, None, 1.0 - _CLIP)
    empty = counts <= 0.0
    return (
        np.where(empty, -np.inf, logit(np.minimum(low, 1.0 - _CLIP))),
        np.where(empty, np.inf, logit(np.maximum(high, _CLIP))),
    )


def _log_sigma(x: Floats) -> Floats:
    result: Floats = -np.logaddexp(0.0, -x)
    return result
