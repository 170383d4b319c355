"""What the labels of the training or validation rows say: calibration and reference performance."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from understudy.common.arrays import distinct, quantiles
from understudy.monitor.baseline.kinds import category, number
from understudy.monitor.baseline.model import Baseline, Column, Role

Floats = NDArray[np.float64]
BINS = 100
"""Of the calibration table; by quantiles of the score, so that each holds about as many rows."""
_CLIP = 1e-6
THRESHOLD = 0.5
OF_THRESHOLD = ("accuracy", "recall", "precision", "specificity")
"""Metrics that depend on the threshold above which a score is positive."""


class Labelled:
    """Either probabilities of a yes-or-no target, or predictions of a number, or of a class. A
    score above ``threshold`` is positive."""

    def __init__(
        self,
        prediction: str,
        target: str,
        task: str,
        edges: Floats,
        threshold: float = THRESHOLD,
    ) -> None:
        self.prediction = prediction
        self.target = target
        self.task = task
        self.threshold = threshold
        self._edges = edges
        self._counts: Floats = np.zeros(len(edges) + 1)
        self._positives: Floats = np.zeros(len(edges) + 1)
        self._scores: Floats = np.zeros(len(edges) + 1)
        self._sums: dict[str, tuple[int, float, float]] = {}
        """By metric: rows, and the sums of its values and of their squares."""

    @classmethod
    def of(
        cls,
        columns: Mapping[str, Column],
        cells: Mapping[str, Sequence[Any]],
        roles: Mapping[str, Role],
        threshold: float = THRESHOLD,
    ) -> Labelled | None:
        """By the target and the prediction that were named first; None where there are none."""
        targets = [columns[n] for n, role in roles.items() if role == "target" and n in columns]
        predictions = [
            columns[n] for n, role in roles.items() if role == "prediction" and n in columns
        ]
        if not targets or not predictions:
            return None
        target, prediction = targets[0], predictions[0]
        wanted = {category(c) for c in cells[target.name]} - {None}
        score = np.array([number(c) for c in cells[prediction.name]])
        score = score[np.isfinite(score)]
        yes_or_no = wanted <= {"0", "1", "true", "false"}
        if yes_or_no and len(score) and score.min() >= 0.0 and score.max() <= 1.0:
            edges = distinct(quantiles(score, np.linspace(0.0, 1.0, BINS + 1)[1:-1]))
            below = edges[edges < score.max()]
            return cls(prediction.name, target.name, "binary", below, threshold)
        if target.kind == "numeric" and prediction.kind == "numeric":
            return cls(prediction.name, target.name, "regression", np.zeros(0))
        return cls(prediction.name, target.name, "classes", np.zeros(0))

    @classmethod
    def like(cls, baseline: Baseline) -> Labelled | None:
        """Without rows, to count others as those of a baseline were; None where it has no
        labels."""
        figures, columns = baseline.performance, baseline.columns
        targets = [c.name for c in columns.values() if c.role == "target"]
        predictions = [c for c in columns.values() if c.role == "prediction"]
        if not figures or not targets or not predictions:
            return None
        judged = [c.name for c in predictions if c.extra.get("judged")]
        if not judged and baseline.calibration is not None:
            judged = [str(baseline.calibration["prediction"])]
        task = (
            "binary" if "log_loss" in figures else "regression" if "mae" in figures else "classes"
        )
        threshold = figures.get("accuracy", {}).get("threshold", THRESHOLD)
        name = judged[0] if judged else predictions[0].name
        return cls(name, targets[0], task, np.zeros(0), threshold)

    def add(self, cells: Mapping[str, Sequence[Any]]) -> None:
        """Rows; those without a label or a prediction are left out."""
        if self.prediction not in cells or self.target not in cells:
            return
        said, true = cells[self.prediction], cells[self.target]
        if self.task == "classes":
            pairs = [(category(a), category(b)) for a, b in zip(said, true, strict=True)]
            hits = np.array([float(a == b) for a, b in pairs if a is not None and b is not None])
            self._take({"accuracy": hits})
            return
        if self.task == "binary":
            p, y = self.pairs(cells)
        else:
            p = np.array([number(c) for c in said], np.float64)
            y = np.array([number(c) for c in true], np.float64)
        here = np.isfinite(p) & np.isfinite(y)
        p, y = p[here], y[here]
        if self.task == "regression":
            error = p - y
            self._take({"mae": np.abs(error), "bias": error, "mse": error**2})
            return
        here = (p >= 0.0) & (p <= 1.0) & ((y == 0.0) | (y == 1.0))
        p, y = p[here], y[here]
        indices = self._edges.searchsorted(p)
        size = len(self._counts)
        self._counts += np.bincount(indices, minlength=size)
        self._positives += np.bincount(indices, weights=y, minlength=size)
        self._scores += np.bincount(indices, weights=p, minlength=size)
        sure = np.clip(p, _CLIP, 1.0 - _CLIP)
        yes, true = p > self.threshold, y > 0.5
        right = (yes == true).astype(np.float64)
        self._take(
            {
                "accuracy": right,
                "recall": right[true],
                "precision": right[yes],
                "specificity": right[~true],
                "log_loss": -(y * np.log(sure) + (1.0 - y) * np.log1p(-sure)),
                "brier": (p - y) ** 2,
                "positive_rate": y,
            }
        )

    def pairs(self, cells: Mapping[str, Sequence[Any]]) -> tuple[Floats, Floats]:
        """Scores and labels, 0 or 1, of rows (n,); NaN for what is none."""
        p = np.array([number(c) for c in cells[self.prediction]], np.float64)
        return p, np.array([_yes(c) for c in cells[self.target]], np.float64)

    def _take(self, values: Mapping[str, Floats]) -> None:
        for name, result in values.items():
            rows, total, squares = self._sums.get(name, (0, 0.0, 0.0))
            self._sums[name] = (
                rows + len(result),
                total + float(result.sum()),
                squares + float((result**2).sum()),
            )

    def calibration(self) -> dict[str, Any] | None:
        """How often a score was right, by bin; None where there is no score."""
        if self.task != "binary" or not self._counts.sum():
            return None
        return {
            "prediction": self.prediction,
            "edges": self._edges.tolist(),
            "counts": self._counts.astype(int).tolist(),
            "positives": self._positives.astype(int).tolist(),
            "scores": self._scores.round(9).tolist(),
        }

    def performance(self) -> dict[str, Any] | None:
        """Each metric's mean and standard deviation over the rows that count for it, and the
        threshold that it depends on."""
        result: dict[str, Any] = {}
        for name, (rows, total, squares) in self._sums.items():
            if not rows:
                continue
            mean = total / rows
            variance = max(squares / rows - mean**2, 0.0)
            if not (math.isfinite(mean) and math.isfinite(variance)):
                continue  # errors beyond the largest float
            result[name] = {"value": mean, "deviation": math.sqrt(variance), "rows": rows}
            if self.task == "binary" and name in OF_THRESHOLD:
                result[name]["threshold"] = self.threshold
        return result or None


def _yes(cell: Any) -> float:
    if isinstance(cell, str):
        return {"1": 1.0, "true": 1.0, "0": 0.0, "false": 0.0}.get(cell.lower(), math.nan)
    return number(cell)
