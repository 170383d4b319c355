"""Labels that are asked for at random, for a known share of the predictions.

Every prediction waits until its label would have come. Then it goes on, in the order of the
predictions, with its label or without: the detector sees what was expected of all of them and what
came of some, which tells more than the labels alone
(:mod:`understudy.monitor.detectors.partial_labels`).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from understudy.monitor.detectors.evidence import Evidence
from understudy.monitor.detectors.partial_labels import PartialLabelDetector, filled
from understudy.monitor.health.performance.estimate import ConfidenceEstimator
from understudy.shadow.state import Config, Count, Saved, Stateful, Transient

Floats = NDArray[np.float64]
MOST = 500_000
"""Predictions that wait; of more the oldest are let go, whatever their labels."""
Key = tuple[str, int]
"""Request id and row."""


@dataclass(frozen=True, slots=True)
class Settled:
    """``losses`` (n,) of the predictions that have waited long enough, without bias, at unix
    ``times`` (n,), and what the detector says of them."""

    losses: Floats
    times: Floats
    evidence: Evidence


class SampledLabels(Stateful):
    """``null`` is the usual error rate, ``share`` the probability of a label, ``wait`` in seconds
    how long one may take. What waits is not part of a saved state: after a restart the predictions
    of that time are left out, with their labels."""

    estimator: Config[ConfidenceEstimator]
    share: Config[float]
    wait: Config[float]
    settled: Saved[Count]
    labelled: Saved[Count]
    lost: Saved[Count]
    """Predictions for which there was no room to wait."""
    _detector: Saved[PartialLabelDetector]
    _waiting: Transient[OrderedDict[Key, tuple[float, float]]]
    _losses: Transient[dict[Key, float]]
    _newest: Transient[float]

    def __init__(
        self,
        estimator: ConfidenceEstimator,
        null: float,
        run_length: float,
        share: float,
        wait: float,
    ) -> None:
        self.estimator = estimator
        self.share = share
        self.wait = wait
        self.settled = 0
        self.labelled = 0
        self.lost = 0
        residual = np.array([estimator.expected_residual()])
        self._detector = PartialLabelDetector(np.array([null]), run_length, share, residual)
        self._waiting = OrderedDict()
        self._losses = {}
        self._newest = 0.0

    def take(self, request_id: str, scores: Sequence[float], started: float) -> None:
        """Predictions of a request, as finite scores; NaN for a row that has none."""
        for row, score in enumerate(scores):
            if score == score:
                self._waiting[request_id, row] = (score, started)
        while len(self._waiting) > MOST:
            key, _ = self._waiting.popitem(last=False)
            self._losses.pop(key, None)
            self.lost += 1
        self._newest = max(self._newest, started)

    def label(self, request_id: str, row: int, loss: float) -> None:
        """A label has come: 1 for a wrong prediction, else 0."""
        if (request_id, row) in self._waiting:
            self._losses[request_id, row] = loss

    def settle(self) -> Settled | None:
        """Those that have waited long enough, by the time of the newest prediction."""
        limit = self._newest - self.wait
        scores: list[float] = []
        losses: list[float] = []
        times: list[float] = []
        while self._waiting:
            key = next(iter(self._waiting))
            score, started = self._waiting[key]
            if started > limit:
                break
            del self._waiting[key]
            scores.append(score)
            losses.append(self._losses.pop(key, np.nan))
            times.append(started)
        if not scores:
            return None
        expected = self.estimator.wrong(np.array(scores))
        known = np.array(losses)
        self.settled += len(scores)
        self.labelled += int(np.isfinite(known).sum())
        evidence = self._detector.update(expected[:, None], known[:, None])
        return Settled(filled(expected, known, self.share), np.array(times), evidence)

    def reset(self, series: NDArray[np.bool_]) -> None:
        """Begin anew, where the mask (1,) says so."""
        self._detector.reset(series)

    def summary(self) -> dict[str, Any]:
        """As JSON; the share of labels should be the one that was declared."""
        return {
            "settled": self.settled,
            "waiting": len(self._waiting),
            "lost": self.lost,
            "share": self.labelled / self.settled if self.settled else None,
            "declared_share": self.share,
        }
