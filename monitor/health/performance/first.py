"""The first labels, where the baseline has none: error rate and meaning of scores."""

from __future__ import annotations

import math
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from understudy.monitor.baseline.calibration.curve import BINS, tabulate
from understudy.monitor.detectors.packed import rounded
from understudy.shadow.state import Config, Converter, Count, Saved, Stateful

Floats = NDArray[np.float64]
_ROWS_OF_BIN = 25
"""Fewest labels of a bin of the calibration table, on average."""

_Numbers = Annotated[
    list[float],
    Converter(
        lambda values: rounded(values, 9),
        lambda name, value, now: [float(one) for one in value],
    ),
]


class FirstLabels(Stateful):
    """Collects ``needed`` labels; of scores for the ``prediction`` also their calibration table, in
    the form of a baseline's."""

    needed: Config[int]
    prediction: Config[str]
    rows: Saved[Count]
    wrong: Saved[float]
    """Of them, predictions that were wrong."""
    table: Saved[object]
    _scores: Saved[_Numbers]
    _labels: Saved[_Numbers]

    def __init__(self, needed: int, prediction: str) -> None:
        self.needed = needed
        self.prediction = prediction
        self.restart()

    def restart(self) -> None:
        """Forget what was collected."""
        self.rows = 0
        self.wrong = 0.0
        self.table = None
        self._scores = []
        self._labels = []

    @property
    def done(self) -> bool:
        """Whether there are enough."""
        return self.rows >= self.needed

    @property
    def missing(self) -> int:
        """How many labels are still needed."""
        return max(0, self.needed - self.rows)

    @property
    def reference(self) -> tuple[float, float]:
        """The accuracy, and the number of labels."""
        return 1.0 - self.wrong / self.rows, float(self.rows)

    def add(self, missed: Floats, scores: Floats | None, labels: Floats | None) -> None:
        """Take at most :attr:`missing` labels: which predictions were wrong (n,), 1 or 0, and of
        scores these and their labels (n,)."""
        self.rows += len(missed)
        self.wrong += float(np.nansum(missed))
        if scores is not None and labels is not None:
            self._scores += scores.tolist()
            self._labels += labels.tolist()
        if self.done and self._scores:
            self.table = self._tabulated()
            self._scores, self._labels = [], []

    def _tabulated(self) -> dict[str, Any] | None:
        scores = np.array(self._scores)
        labels = np.array(self._labels)
        inside = (scores >= 0.0) & (scores <= 1.0)
        if not inside.all() or len(set(self._labels)) < 2:
            return None
        bins = max(2, min(BINS, math.floor(len(scores) / _ROWS_OF_BIN)))
        return {"prediction": self.prediction, **tabulate(scores, labels, bins)}
