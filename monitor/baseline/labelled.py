"""What the labels of the training or validation rows say: calibration and reference performance."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from understudy.monitor.baseline.kinds import category, number
from understudy.monitor.baseline.model import Column, Role

Floats = NDArray[np.float64]
BINS = 100
"""Of the calibration table; by quantiles of the score, so that each holds about as many rows."""
_CLIP = 1e-6


class Labelled:
    """Either probabilities of a yes-or-no target, or predictions of a number, or of a class."""

    def __init__(self, prediction: str, target: str, task: str, edges: Floats) -> None:
        self.prediction = prediction
        self.target = target
        self.task = task
        self._edges = edges
        self._counts: Floats = np.zeros(len(edges) + 1)
        self._positives: Floats = np.zeros(len(edges) + 1)
        self._scores: Floats = np.zeros(len(edges) + 1)
        self._sums: dict[str, tuple[float, float]] = {}
        self._rows = 0

    @classmethod
    def of(
        cls,
        columns: Mapping[str, Column],
        cells: Mapping[str, Sequence[Any]],
        roles: Mapping[str, Role],
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
            edges = np.unique(np.quantile(score, np.linspace(0.0, 1.0, BINS + 1)[1:-1]))
            return cls(prediction.name, target.name, "binary", edges[edges < score.max()])
        if target.kind == "numeric" and prediction.kind == "numeric":
            return cls(prediction.name, target.name, "regression", np.zeros(0))
        return cls(prediction.name, target.name, "classes", np.zeros(0))

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
        self._take(
            {
                "accuracy": ((p > 0.5) == (y > 0.5)).astype(np.float64),
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
            total, squares = self._sums.get(name, (0.0, 0.0))
            self._sums[name] = total + float(result.sum()), squares + float((result**2).sum())
        self._rows += len(next(iter(values.values())))

    def calibration(self) -> dict[str, Any] | None:
        """How often a score was right, by bin; None where there is no score."""
        if self.task != "binary" or not self._rows:
            return None
        return {
            "prediction": self.prediction,
            "edges": self._edges.tolist(),
            "counts": self._counts.astype(int).tolist(),
            "positives": self._positives.astype(int).tolist(),
            "scores": self._scores.round(9).tolist(),
        }

    def performance(self) -> dict[str, Any] | None:
        """Each metric's mean and standard deviation over rows."""
        if not self._rows:
            return None
        result = {}
        for name, (total, squares) in self._sums.items():
            mean = total / self._rows
            variance = max(squares / self._rows - mean**2, 0.0)
            if not (math.isfinite(mean) and math.isfinite(variance)):
                continue  # errors beyond the largest float
            result[name] = {"value": mean, "deviation": math.sqrt(variance), "rows": self._rows}
        return result


def _yes(cell: Any) -> float:
    if isinstance(cell, str):
        return {"1": 1.0, "true": 1.0, "0": 0.0, "false": 0.0}.get(cell.lower(), math.nan)
    return number(cell)
