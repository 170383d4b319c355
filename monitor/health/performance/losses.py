"""The metrics that are tested, as losses: what each one is measured on, and how large it is.

A test sees losses, values that are larger when the model is worse. Of recall, precision and
specificity these are the errors among the rows that the metric is about (labels that are positive,
predictions that are positive, labels that are negative), so a rare class counts in full however
rare it is. The area under the curve is a mean over blocks, each with positives and negatives that
no other block has.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from understudy.shadow.experiment.margin import Margin, Unit
from understudy.shadow.state import Saved, Stateful

Floats = NDArray[np.float64]
_CLIP = 1e-6
_BLOCK = 20
"""Fewest labels of a block of the area under the curve."""
_MOST_OF_BLOCK = 200
"""Most negatives, or positives, that a block holds; the oldest are dropped."""


@dataclass(frozen=True, slots=True)
class LossKind:
    """``title`` begins a sentence; ``rows`` names what is counted. ``score``: the metric is 1 less
    the loss. ``rate``: losses are 0 or 1; ``bounded``: they are at most 1. ``part``: only a part of
    the labels counts. ``smallest`` is the smallest loss that matters by default, ``series`` how
    many tests there are: a bias may go both ways."""

    name: str
    title: str
    rows: str
    smallest: Margin
    score: bool = False
    rate: bool = False
    bounded: bool = False
    part: bool = False
    series: int = 1


_TENTH = Margin(0.1, Unit.RELATIVE)
LOSSES = {
    one.name: one
    for one in (
        LossKind("recall", "Recall", "positive labels", _TENTH, True, True, True, True),
        LossKind("precision", "Precision", "positive predictions", _TENTH, True, True, True, True),
        LossKind("specificity", "Specificity", "negative labels", _TENTH, True, True, True, True),
        LossKind(
            "auc", "Area under the curve", "blocks of labels", Margin(0.02, Unit.VALUE), True,
            bounded=True, part=True,
        ),
        LossKind("log_loss", "Log loss", "labels", _TENTH),
        LossKind("brier", "Brier score", "labels", _TENTH, bounded=True),
        LossKind("mae", "Mean absolute error", "labels", _TENTH),
        LossKind("mse", "Mean squared error", "labels", Margin(0.2, Unit.RELATIVE)),
        LossKind("bias", "Bias", "labels", Margin(0.25, Unit.RELATIVE), series=2),
    )
}  # fmt: skip
"""By the names that the configuration knows."""
DEFAULTS = {
    "scores": ("recall", "precision", "auc", "log_loss"),
    "numbers": ("mae", "mse", "bias"),
    "classes": ("recall",),
}
"""What is tested by default besides the error rate, by kind of prediction."""


def losses_of(
    name: str, predicted: Floats, labels: Floats, threshold: float
) -> tuple[NDArray[np.intp], Floats]:
    """The rows that count for a metric, and the loss of each; not of ``auc``.

    ``predicted`` and ``labels`` (n,) are finite, labels of scores 0 or 1. The losses of ``bias``
    are signed errors.
    """
    every = np.arange(len(predicted))
    if name in ("recall", "precision", "specificity"):
        yes, true = predicted > threshold, labels > 0.5
        about = {"recall": true, "precision": yes, "specificity": ~true}[name]
        rows = np.flatnonzero(about)
        return rows, (yes != true)[rows].astype(np.float64)
    if name == "log_loss":
        sure = np.clip(predicted, _CLIP, 1.0 - _CLIP)
        return every, -(labels * np.log(sure) + (1.0 - labels) * np.log1p(-sure))
    error = predicted - labels
    if name == "brier":
        return every, np.minimum(error**2, 1.0)
    return every, {"mae": np.abs(error), "mse": error**2, "bias": error}[name]


class AucBlocks(Stateful):
    """Cuts labelled scores into blocks and measures the area under the curve in each one.

    Given the labels, scores of a block are independent of those of others, so the share of its
    pairs in which a negative has the higher score has the mean 1 - AUC, whatever the share of
    positives (Mann & Whitney 1947).
    """

    _positives: Saved[list[float]]
    _negatives: Saved[list[float]]

    def __init__(self) -> None:
        self._positives = []
        self._negatives = []

    def add(self, scores: Floats, labels: Floats) -> tuple[NDArray[np.intp], Floats]:
        """Labelled scores (n,): the rows with which a block was complete, and 1 - AUC of each."""
        rows: list[int] = []
        values: list[float] = []
        for row, (score, label) in enumerate(zip(scores.tolist(), labels.tolist(), strict=True)):
            side = self._positives if label > 0.5 else self._negatives
            side.append(score)
            del side[:-_MOST_OF_BLOCK]
            have = len(self._positives), len(self._negatives)
            if min(have) and sum(have) >= _BLOCK:
                p, n = np.array(self._positives)[:, None], np.array(self._negatives)[None, :]
                rows.append(row)
                values.append(float(((n > p) + 0.5 * (n == p)).mean()))
                self._positives, self._negatives = [], []
        return np.array(rows, np.intp), np.array(values)
