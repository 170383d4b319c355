"""Metrics of labelled predictions, as sums that add up over batches, windows and replicas."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from understudy.monitor.detectors.packed import rounded
from understudy.shadow.state import Config, Converter, Saved, Stateful

Floats = NDArray[np.float64]
BINS = 100
"""Bins of the score, of equal width; the area under the curve is exact to within a bin."""
_ECE_BINS = 10
_CLIP = 1e-6


def _load_floats(name: str, value: Any, now: Floats) -> Floats:
    return np.array(value, np.float64).reshape(now.shape)


WholeFloats = Annotated[Floats, Converter(lambda a: a.astype(int).tolist(), _load_floats)]
"""Counts that are stored as floats."""
_Rounded = Annotated[Floats, Converter(lambda a: rounded(a.tolist(), 9), _load_floats)]


class BinaryTally(Stateful):
    """Scores in [0, 1] of a yes-or-no label; positive above ``threshold``."""

    kind = "binary"

    threshold: Config[float]
    _counts: Saved[WholeFloats]
    """Negatives, then positives, by bin."""
    _scores: Saved[_Rounded]
    _table: Saved[WholeFloats]
    """[label][prediction]"""
    _losses: Saved[Floats]
    """Log loss and Brier score, summed; their squares, summed."""

    def __init__(self, threshold: float = 0.5) -> None:
        self.threshold = threshold
        self._counts = np.zeros((2, BINS))
        self._scores = np.zeros(BINS)
        self._table = np.zeros((2, 2))
        self._losses = np.zeros(4)

    @property
    def count(self) -> int:
        """Labelled predictions."""
        return int(self._table.sum())

    @property
    def table(self) -> Floats:
        """Counts (2, 2) by [label][prediction]."""
        return self._table

    @property
    def histogram(self) -> Floats:
        """Counts (2, BINS) by [label][bin of the score]."""
        return self._counts

    @property
    def scores(self) -> Floats:
        """Scores summed by bin, (BINS,)."""
        return self._scores

    @property
    def losses(self) -> Floats:
        """Log loss and Brier score summed, and their squares summed: (4,)."""
        return self._losses

    def add(self, scores: Floats, labels: Floats) -> None:
        """Scores and labels (n,), labels 0 or 1; what is not finite is left out."""
        here = np.isfinite(scores) & np.isfinite(labels)
        p, y = np.clip(scores[here], 0.0, 1.0), (labels[here] > 0.5).astype(np.float64)
        # A score on an edge belongs above it, also where 100 x 0.29 is 28.999….
        index = np.minimum((p * BINS + 1e-9).astype(np.int64), BINS - 1)
        for label in (0, 1):
            self._counts[label] += np.bincount(index[y == label], minlength=BINS)
        self._scores += np.bincount(index, weights=p, minlength=BINS)
        predicted = (p > self.threshold).astype(np.int64)
        self._table += np.bincount(y.astype(np.int64) * 2 + predicted, minlength=4).reshape(2, 2)
        sure = np.clip(p, _CLIP, 1.0 - _CLIP)
        log_loss = -(y * np.log(sure) + (1.0 - y) * np.log1p(-sure))
        brier = (p - y) ** 2
        columns = (log_loss, brier, log_loss**2, brier**2)
        self._losses = self._losses + np.array([float(c.sum()) for c in columns])

    def metrics(self) -> dict[str, float]:
        """All defined metrics; precision is left out without a positive prediction."""
        total = float(self._table.sum())
        if not total:
            return {}
        (tn, fp), (fn, tp) = self._table.tolist()
        result = {
            "accuracy": (tp + tn) / total,
            "error_rate": (fp + fn) / total,
            "log_loss": float(self._losses[0]) / total,
            "brier": float(self._losses[1]) / total,
            "ece": self._ece(),
            "positive_rate": (tp + fn) / total,
        }
        if tp + fp:
            result["precision"] = tp / (tp + fp)
        if tp + fn:
            result["recall"] = tp / (tp + fn)
        if tp + fp + fn:
            result["f1"] = 2.0 * tp / (2.0 * tp + fp + fn)
        negatives, positives = self._counts
        pairs = positives.sum() * negatives.sum()
        if pairs:
            below = np.cumsum(negatives) - negatives
            result["auc"] = float((positives * (below + negatives / 2.0)).sum() / pairs)
        return result

    def _ece(self) -> float:
        """Expected calibration error over ten bins of equal width (Naeini et al. 2015)."""
        grouped = (self._counts.sum(0), self._counts[1], self._scores)
        counts, positives, scores = (a.reshape(_ECE_BINS, -1).sum(1) for a in grouped)
        return float(np.abs(positives - scores).sum() / counts.sum())

    def merge(self, other: BinaryTally) -> None:
        """Add the counts of ``other``."""
        for name in ("_counts", "_scores", "_table", "_losses"):
            setattr(self, name, getattr(self, name) + getattr(other, name))


class ClassTally(Stateful):
    """Predicted classes against true ones; the first ``most`` classes are counted separately."""

    kind = "classes"

    most: Config[int]
    _table: Saved[dict[str, dict[str, int]]]
    """[label][prediction]"""

    def __init__(self, most: int = 50) -> None:
        self.most = most
        self._table = {}

    @property
    def count(self) -> int:
        """Labelled predictions."""
        return sum(sum(row.values()) for row in self._table.values())

    @property
    def table(self) -> Mapping[str, Mapping[str, int]]:
        """Counts by [label][prediction]."""
        return self._table

    def classes(self) -> dict[str, dict[str, float]]:
        """Precision, recall, F1 and number of labels of each class, where they are defined."""
        result: dict[str, dict[str, float]] = {}
        names = dict.fromkeys([*self._table, *(n for row in self._table.values() for n in row)])
        for name in names:
            hits = self._table.get(name, {}).get(name, 0)
            true = sum(self._table.get(name, {}).values())
            predicted = sum(row.get(name, 0) for row in self._table.values())
            one = {"labels": float(true), "f1": 2.0 * hits / (true + predicted)}
            one |= {"precision": hits / predicted} if predicted else {}
            result[name] = one | ({"recall": hits / true} if true else {})
        return result

    def add(self, predicted: list[str], labels: list[str]) -> None:
        """Classes as texts, one predicted and one true for each row."""
        for answer, label in zip(predicted, labels, strict=True):
            row = self._table.setdefault(self._name(label), {})
            name = self._name(answer)
            row[name] = row.get(name, 0) + 1

    def _name(self, name: str) -> str:
        return name if name in self._table or len(self._table) < self.most else "other"

    def metrics(self) -> dict[str, float]:
        """Accuracy, and precision, recall and F1 as plain means over the classes."""
        total = self.count
        if not total:
            return {}
        right = sum(row.get(name, 0) for name, row in self._table.items())
        classes = self.classes().values()
        result = {"accuracy": right / total, "error_rate": 1.0 - right / total}
        for metric in ("precision", "recall", "f1"):
            values = [one[metric] for one in classes if metric in one]
            if values:
                result[metric] = sum(values) / len(values)
        return result

    def merge(self, other: ClassTally) -> None:
        """Add the counts of ``other``."""
        for label, row in other._table.items():
            for predicted, count in row.items():
                mine = self._table.setdefault(self._name(label), {})
                mine[predicted] = mine.get(predicted, 0) + count


class NumberTally(Stateful):
    """Predicted numbers against true ones."""

    kind = "numbers"

    tolerance: Config[float | None]
    _sums: Saved[Floats]
    """Count, |error|, error, error squared, label, label squared, within the tolerance, error to
    the fourth."""

    def __init__(self, tolerance: float | None = None) -> None:
        self.tolerance = tolerance
        self._sums = np.zeros(8)

    @property
    def count(self) -> int:
        """Labelled predictions."""
        return int(self._sums[0])

    @property
    def sums(self) -> Floats:
        """Over the rows: 1, |error|, error, error^2, label, label^2, within the tolerance,
        error^4: (8,)."""
        return self._sums

    def add(self, values: Floats, labels: Floats) -> None:
        """Predictions and labels (n,); what is not finite is left out."""
        here = np.isfinite(values) & np.isfinite(labels)
        y = labels[here]
        error = values[here] - y
        near = np.abs(error) <= (self.tolerance or 0.0)
        columns = (np.ones_like(y), np.abs(error), error, error**2, y, y**2, near, error**4)
        self._sums += np.array([float(np.sum(column)) for column in columns])

    def metrics(self) -> dict[str, float]:
        """MAE, RMSE, bias, R2 where the labels vary, and the accuracy within the tolerance."""
        count = float(self._sums[0])
        if not count:
            return {}
        _, absolute, error, squares, label, label_squares, near, _ = (self._sums / count).tolist()
        result = {"mae": absolute, "rmse": math.sqrt(max(squares, 0.0)), "bias": error}
        variance = label_squares - label**2
        if variance > 0.0:
            result["r2"] = 1.0 - squares / variance
        if self.tolerance is not None:
            result |= {"accuracy": near, "error_rate": 1.0 - near}
        return result

    def merge(self, other: NumberTally) -> None:
        """Add the counts of ``other``."""
        self._sums = self._sums + other._sums


Tally = BinaryTally | ClassTally | NumberTally
