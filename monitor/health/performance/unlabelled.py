"""Estimates for predictions that have no label yet."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from understudy.monitor.baseline.kinds import number
from understudy.monitor.detectors.packed import exact, rounded
from understudy.monitor.health.performance.estimate import ConfidenceEstimator, Estimate
from understudy.monitor.health.performance.partial import Follower
from understudy.monitor.health.performance.retrain import Point
from understudy.shadow.state import Config, Converter, Count, Saved, Stateful, Transient

Floats = NDArray[np.float64]
_BATCH = 64
_FEWEST = 50
_MOST_FORESEEN = 20_000
_MOST_WINDOWS = 240
_TWO_SIDED_95 = 1.959963984540054


@dataclass(frozen=True, slots=True)
class Expected:
    """Scores (n,) with their unix times, and the probability of each prediction to be wrong."""

    scores: Floats
    times: Floats
    wrong: Floats


_Scores = Annotated[
    list[float],
    Converter(
        lambda scores: rounded(scores, 6),
        lambda name, value, now: [float(s) for s in value],
    ),
]
_Foreseen = Annotated[
    list[tuple[float, float]],
    Converter(
        lambda pairs: [[a if exact() else round(a, 4), b] for a, b in pairs],
        lambda name, value, now: [(float(a), float(b)) for a, b in value],
    ),
]


class Unlabelled(Stateful):
    """The last ``window`` predictions, and the metrics that ``estimator`` gives for them."""

    estimator: Config[ConfidenceEstimator]
    window: Config[int]
    follower: Saved[Follower]
    points: Saved[list[Point]]
    """Estimated accuracy by window."""
    _recent: Saved[_Scores]
    _foreseen: Saved[_Foreseen]
    """For labels since the last step: the expected and the actual correctness."""
    _since: Saved[Count]
    _waiting: Transient[list[tuple[float, float]]]
    _waiting_codes: Transient[list[NDArray[np.uint8]]]
    _codes: Transient[list[NDArray[np.uint8]]]
    """Not saved: after a restart, features are used again once a window is full."""

    def __init__(self, estimator: ConfidenceEstimator, window: int) -> None:
        self.estimator = estimator
        self.window = window
        self.follower = Follower(estimator.reference_error())
        self.points = []
        self._waiting = []
        self._waiting_codes = []
        self._recent = []
        self._codes = []
        self._foreseen = []
        self._since = 0

    def take(
        self,
        cells: Sequence[Any],
        times: Sequence[float],
        features: Mapping[str, Sequence[Any]] | None,
    ) -> bool:
        """Buffer predictions with their unix times and, where known, the features of the rows by
        name. Returns whether there are enough to :meth:`draw`."""
        regions = self.estimator.regions
        codes = None
        if regions is not None and features is not None:
            codes = regions.codes.encode(features, len(cells))
        for row, (cell, at) in enumerate(zip(cells, times, strict=True)):
            score = number(cell)
            if math.isfinite(score):
                self._waiting.append((score, at))
                if codes is not None:
                    self._waiting_codes.append(codes[row])
        return len(self._waiting) >= _BATCH

    def draw(self) -> Expected | None:
        """The buffered predictions with their expected errors; None without any."""
        if not self._waiting:
            return None
        scores = np.array([s for s, _ in self._waiting])
        times = np.array([t for _, t in self._waiting])
        codes = None
        if len(self._waiting_codes) == len(scores):
            codes = np.array(self._waiting_codes, np.uint8)
        self._waiting.clear()
        self._waiting_codes.clear()
        # Codes are used where every row of the window has some.
        complete = len(self._codes) == len(self._recent)
        self._codes = [*self._codes, *codes] if complete and codes is not None else []
        self._codes = self._codes[-self.window :]
        self._recent = (self._recent + scores.tolist())[-self.window :]
        if not self._codes and codes is not None and len(codes) >= len(self._recent):
            self._codes = list(codes[-self.window :])
        wrong = self.estimator.wrong(scores, codes)
        self._since += len(scores)
        if self._since >= self.window:
            self._step(float(times[-1]))
        return Expected(scores, times, wrong)

    def _step(self, now: float) -> None:
        """Close a full window: update the follower with the labels that came meanwhile."""
        self._since = 0
        pairs = np.array(self._foreseen, np.float64).reshape(-1, 2)
        self._foreseen.clear()
        moved = self.follower.update(pairs[:, 0], pairs[:, 1])
        result = self.estimates().get("accuracy")
        if result is not None:
            error = math.hypot(result.usual, moved.deviation)
            self.points.append(Point(now, result.value + moved.error, error))
            del self.points[:-_MOST_WINDOWS]

    def labelled(self, scores: Floats, right: Floats) -> None:
        """Record labels: scores (n,), and whether the predictions were right, 1 or 0."""
        expected = 1.0 - self.estimator.wrong(scores)
        pairs = zip(expected.tolist(), right.tolist(), strict=True)
        self._foreseen = [*self._foreseen, *pairs][-_MOST_FORESEEN:]

    def estimates(self, doubt: str | None = None) -> dict[str, Estimate]:
        """Every metric of the last predictions, by name, with one more ``doubt``; empty before
        there are enough."""
        if len(self._recent) < _FEWEST:
            return {}
        codes = None
        if self._codes and len(self._codes) == len(self._recent):
            codes = np.array(self._codes, np.uint8)
        result = self.estimator.estimate(np.array(self._recent), codes)
        if doubt is None:
            return result
        return {n: replace(one, doubts=(*one.doubts, doubt)) for n, one in result.items()}

    def followed(self) -> Estimate | None:
        """The accuracy, corrected by what the labels so far say of such estimates; None without
        labels."""
        result = self.estimates().get("accuracy")
        if result is None or not self.follower.labels:
            return None
        now = self.follower.now()
        value = min(1.0, max(0.0, result.value + now.error))
        drawn = ((result.high - result.low) / 2.0) ** 2 - (_TWO_SIDED_95 * result.own) ** 2
        half = math.sqrt(max(drawn, 0.0) + (_TWO_SIDED_95 * now.deviation) ** 2)
        low, high = max(0.0, value - half), min(1.0, value + half)
        return replace(result, value=value, low=low, high=high, own=now.deviation, doubts=())
