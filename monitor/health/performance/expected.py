"""Metrics of predictions whose labels are not known, but their probabilities are.

Each metric is a smooth function of the labels' probabilities p. Its value is that function at p (of
ratios: the ratio of the expectations); its gradient says how far a wrong p moves it, and so gives
both parts of its error: that of the labels' draw, sum of d^2 p (1 - p), and the calibration's own.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
METRICS = (
    "accuracy", "error_rate", "precision", "recall", "f1", "auc", "brier", "log_loss",
    "positive_rate",
)  # fmt: skip
_CLIP = 1e-6


def expected(scores: Floats, p: Floats, threshold: float) -> Mapping[str, tuple[float, Floats]]:
    """Value and gradient (n,) of every metric that is defined.

    ``scores`` (n,) are what the model gave, ``p`` (n,) the probabilities that the labels are 1; a
    prediction is positive above ``threshold``. Brier and log loss need scores in [0, 1] and are
    left out without; so is precision without a positive prediction, or an AUC where one class is
    not expected at all.
    """
    n = float(len(scores))
    yes = (scores > threshold).astype(np.float64)
    sign = 2.0 * yes - 1.0
    accuracy = float(np.where(yes > 0.0, p, 1.0 - p).mean())
    positives, predicted, hits = float(p.sum()), float(yes.sum()), float((yes * p).sum())
    result: dict[str, tuple[float, Floats]] = {
        "accuracy": (accuracy, sign / n),
        "error_rate": (1.0 - accuracy, -sign / n),
        "positive_rate": (positives / n, np.full(len(p), 1.0 / n)),
    }
    if predicted:
        result["precision"] = (hits / predicted, yes / predicted)
    if positives > 0.0:
        recall = hits / positives
        result["recall"] = (recall, (yes - recall) / positives)
    if positives + predicted > 0.0:
        f1 = 2.0 * hits / (positives + predicted)
        result["f1"] = (f1, (2.0 * yes - f1) / (positives + predicted))
    if positives > 0.0 and positives < n:
        result["auc"] = _auc(scores, p)
    if scores.min() >= 0.0 and scores.max() <= 1.0:
        sure = np.clip(scores, _CLIP, 1.0 - _CLIP)
        logit = np.log(sure) - np.log1p(-sure)
        result["brier"] = (
            float((scores**2 - 2.0 * scores * p + p).mean()),
            (1.0 - 2.0 * scores) / n,
        )
        result["log_loss"] = (float(-(p * logit + np.log1p(-sure)).mean()), -logit / n)
    return result


def _auc(scores: Floats, p: Floats) -> tuple[float, Floats]:
    """P(score of a positive > score of a negative), ties half, of independent labels."""
    _, index = np.unique(scores, return_inverse=True)
    by_score, of_negatives = np.bincount(index, p), np.bincount(index, 1.0 - p)
    positives, negatives = float(by_score.sum()), float(of_negatives.sum())
    # At or below each value; a tie is half below.
    negatives_below = np.cumsum(of_negatives) - of_negatives / 2.0
    positives_above = positives - np.cumsum(by_score) + by_score / 2.0
    pairs = positives * negatives
    auc = float((by_score * negatives_below).sum()) / pairs
    gradient = (negatives_below - positives_above - auc * (negatives - positives)) / pairs
    return auc, gradient[index]
