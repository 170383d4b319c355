"""Performance without labels, from scores that the baseline has calibrated.

Confidence-based estimation: a score that was right in a share p of the baseline's cases counts as
right with that share. The estimate is valid while the calibration of scores stays the same,
whatever happens to the inputs; with a calibration by regions also where it differs between parts of
the data and their mix changes. When the calibration itself changes (concept drift), no method
without labels can detect it. So every estimate lists its assumptions, and its interval contains the
error of the baseline as well as that of the sample.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from understudy.common.units import percent
from understudy.monitor.baseline.calibration.curve import BINS, Curve, isotonic
from understudy.monitor.baseline.calibration.regions import RegionalCalibration
from understudy.monitor.health.performance.expected import expected

__all__ = ["BINS", "ConfidenceEstimator", "Estimate", "isotonic"]

Floats = NDArray[np.float64]
Codes = NDArray[np.uint8]
_TWO_SIDED_95 = 1.959963984540054
_FEW_LABELS = 500
_MOST_OUTSIDE = 0.05
_MOVED = 0.25
_ENOUGH_TO_SEE = 200
_UNBOUNDED = frozenset(("log_loss",))


@dataclass(frozen=True, slots=True)
class Estimate:
    """``value`` with a 95 % interval [``low``, ``high``] from ``rows`` predictions; ``doubts`` are
    reasons not to trust it. ``usual`` is the standard error that the value has by the mix of
    the rows alone: how far it strays from the baseline's while nothing has changed. ``own`` is the
    standard error that the calibration gives it."""

    metric: str
    value: float
    low: float
    high: float
    rows: int
    doubts: tuple[str, ...] = ()
    usual: float = 0.0
    own: float = 0.0

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {**asdict(self), "doubts": list(self.doubts)}


class ConfidenceEstimator:
    """Estimates metrics of a binary prediction: ``calibration`` is a baseline's table, a positive
    is predicted above ``threshold``. Raises ValueError for an empty table.

    ``regions`` is used where it is given and adds something, and the rows' codes are known. Codes
    are those of ``regions.codes.encode``.
    """

    def __init__(
        self,
        calibration: Mapping[str, Any],
        threshold: float = 0.5,
        regions: RegionalCalibration | None = None,
    ) -> None:
        self.edges: Floats = np.array(calibration["edges"], np.float64)
        if len(calibration["counts"]) != len(self.edges) + 1:
            raise ValueError("the calibration table is empty or has another shape")
        self.curve = Curve.of_table(calibration)
        self.regions = regions if regions is not None and regions.worthwhile else None
        self.threshold = threshold
        self.reference_rows = self.curve.rows

    def probability(self, scores: Floats, codes: Codes | None = None) -> Floats:
        """How often the baseline found such scores (n,) to be a positive: (n,)."""
        if self.regions is None or codes is None:
            return self.curve.probability(scores)
        return self.regions.probability(scores, codes)

    def wrong(self, scores: Floats, codes: Codes | None = None) -> Floats:
        """Probability of each score's prediction to be wrong: (n,)."""
        p = self.probability(scores, codes)
        result: Floats = np.where(scores > self.threshold, 1.0 - p, p)
        return result

    def expected_error(self) -> tuple[float, float, float]:
        """Share of wrong predictions in the baseline itself, its upper bound at 95 %, and the
        variance of a prediction's own."""
        rates, counts = self.curve.rates, self.curve.counts
        wrong = np.where(self.curve.means > self.threshold, 1.0 - rates, rates)
        total = float(counts.sum())
        mean = float(wrong @ counts) / total
        variance = float((wrong - mean) ** 2 @ counts) / total
        return mean, mean + 1.64 * math.sqrt(variance / total), variance

    def expected_residual(self) -> float:
        """Mean squared difference of an error from its expectation, in the baseline."""
        rates, counts = self.curve.rates, self.curve.counts
        return max(float((rates * (1.0 - rates)) @ counts) / float(counts.sum()), 1e-6)

    def reference_error(self) -> float:
        """Standard error of the baseline's accuracy by the draws of its labels."""
        share = self.curve.counts / self.curve.rows
        return math.sqrt(float(share**2 @ self.curve.variances()))

    def accuracy(self, scores: Floats, codes: Codes | None = None) -> Estimate:
        """Share of right predictions among ``scores`` (n,). Raises ValueError without any."""
        return self.estimate(scores, codes)["accuracy"]

    def estimate(self, scores: Floats, codes: Codes | None = None) -> dict[str, Estimate]:
        """All metrics that can be computed for ``scores`` (n,), by name (:mod:`.expected`):
        accuracy, error rate, precision, recall, F1, AUC, Brier, log loss, positive rate.

        The interval is for the metric that the labels of these rows will give: it contains the draw
        of the labels, the error of the calibration's own rates, and with regions the error of the
        trees, by the jackknife over their parts. What is not finite is left out. Raises ValueError
        without any score.
        """
        here = np.isfinite(scores)
        scores = scores[here]
        if not len(scores):
            raise ValueError("there is no score to estimate from")
        curve, x = self.curve, scores
        models = None
        if self.regions is not None and codes is not None:
            curve = self.regions.curve
            models = self.regions.log_odds(scores, codes[here])
            x = models.mean(axis=0)
        p = curve.probability(x)
        result = expected(scores, p, self.threshold)
        indices, own = curve.indices(x), curve.variances()
        several = None
        if models is not None:
            rates = [curve.probability(model) for model in models]
            several = [expected(scores, rate, self.threshold) for rate in rates]
        doubts = self._doubts(scores, curve, x)
        estimates = {}
        for metric, (value, gradient) in result.items():
            drawn = float(gradient**2 @ (p * (1.0 - p)))
            known = float(np.bincount(indices, gradient, len(own)) ** 2 @ own)
            if several is not None:
                # Each part's trees lack a part of the rows: a jackknife of as many groups.
                parts = np.array([one[metric][0] for one in several if metric in one])
                known += (len(parts) - 1.0) * float(parts.var())
            half = _TWO_SIDED_95 * math.sqrt(drawn + known)
            most = math.inf if metric in _UNBOUNDED else 1.0
            # What each row contributes to a mean; the sign of accuracy's gradient is that of yes.
            usual = _spread(metric, scores, p, gradient) / math.sqrt(len(scores))
            estimates[metric] = Estimate(
                metric, value, max(0.0, value - half), min(most, value + half), len(scores),
                doubts, usual, math.sqrt(known),
            )  # fmt: skip
        return estimates

    def _doubts(self, scores: Floats, curve: Curve, x: Floats) -> tuple[str, ...]:
        doubts = []
        if self.reference_rows < _FEW_LABELS:
            doubts.append(f"the calibration is based on only {self.reference_rows} labels")
        outside = self.curve.outside(scores)
        if outside > _MOST_OUTSIDE:
            doubts.append(
                f"{percent(outside, 2)} of the scores are outside the range of the baseline"
            )
        behind = curve.labels_behind(x)
        if behind < _FEW_LABELS <= self.reference_rows:
            doubts.append(f"most scores are where the baseline has few labels ({behind:.0f})")
        if len(scores) >= _ENOUGH_TO_SEE and self.curve.moved(scores) > _MOVED:
            doubts.append("the score distribution differs strongly from the baseline")
        return tuple(doubts)


def _spread(metric: str, scores: Floats, p: Floats, gradient: Floats) -> float:
    """Standard deviation of what a row contributes to a metric that is a mean; 0 of others."""
    n = len(scores)
    if metric in ("accuracy", "error_rate"):
        return float(np.where(gradient > 0.0, p, 1.0 - p).std())
    if metric in ("positive_rate", "brier"):
        own = scores**2 if metric == "brier" else 0.0
        return float((gradient * n * p + own).std())
    return 0.0
