"""Labels of a random sample, a known share of the predictions.

Every prediction waits until its label should have come. Then it is passed on, in the order of the
predictions, with or without a label: the detector sees the expected error of all and the measured
error of some, which is more information than the labels alone
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
"""Most predictions that wait; the oldest above that are dropped."""
Key = tuple[str, int]
"""Request id and row."""


@dataclass(frozen=True, slots=True)
class ResolvedLosses:
    """Unbiased ``losses`` (n,) of predictions whose wait has ended, at unix ``times`` (n,), and the
    detector's evidence."""

    losses: Floats
    times: Floats
    evidence: Evidence


class SampledLabels(Stateful):
    """``null`` is the usual error rate, ``share`` the probability of a label, ``wait`` in seconds
    how long one may take. Waiting predictions are not saved: after a restart they and their labels
    are left out."""

    estimator: Config[ConfidenceEstimator]
    share: Config[float]
    wait: Config[float]
    settled: Saved[Count]
    labelled: Saved[Count]
    lost: Saved[Count]
    """Predictions that were dropped because too many waited."""
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
        """Predictions of a request, as finite scores; NaN for a row that has none.

        Of requests with the same id, which clients may choose, the first one gets the label.
        """
        for row, score in enumerate(scores):
            if score == score:
                self._waiting.setdefault((request_id, row), (score, started))
        while len(self._waiting) > MOST:
            key, _ = self._waiting.popitem(last=False)
            self._losses.pop(key, None)
            self.lost += 1
        self._newest = max(self._newest, started)

    def label(self, request_id: str, row: int, loss: float) -> None:
        """Record a label: ``loss`` is 1 for a wrong prediction, else 0."""
        if (request_id, row) in self._waiting:
            self._losses[request_id, row] = loss

    def resolve(self) -> ResolvedLosses | None:
        """The predictions whose wait has ended, by the time of the newest one; None without any."""
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
        return ResolvedLosses(filled(expected, known, self.share), np.array(times), evidence)

    def reset(self, series: NDArray[np.bool_]) -> None:
        """Restart the detector where the mask (1,) is true."""
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
