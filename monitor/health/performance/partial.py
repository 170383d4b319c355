"""Estimates that combine scores with the labels of a share of the predictions.

Two ways. :func:`augmented` is unbiased whatever the estimate is worth, and as wide as the labels
are few: x = f + (xi / pi) (l - f), with f what the estimate expects of a row, l what its label
says, xi whether there is one and pi the probability of that (augmented inverse probability
weighting, Robins, Rotnitzky & Zhao 1994; prediction-powered inference, Angelopoulos et al. 2023).
:class:`Follower` follows the error of the estimate from window to window and so collects the labels
of all of them; it assumes that the error moves slowly, and learns how slowly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from understudy.monitor.health.performance.estimate import Estimate
from understudy.shadow.state import Config, Count, Saved, Stateful

Floats = NDArray[np.float64]
_TWO_SIDED_95 = 1.959963984540054
STEPS = (0.0, 0.001, 0.002, 0.004, 0.008, 0.016)
"""Standard deviations of how far the error may move from one window to the next."""
_STEADY = 0.5
"""Probability beforehand that it does not move at all; the other steps share the rest."""


def augmented(
    expected: Floats, outcomes: Floats, share: float | Floats, metric: str = "accuracy"
) -> Estimate:
    """Mean outcome of a window's rows, of which some are known.

    ``expected`` (n,) is what an estimate without labels says of each row, in [0, 1]; ``outcomes``
    (n,) is what its label says, NaN where there is none. ``share`` is the known probability that a
    row gets a label, one number or (n,), above 0. The interval is for the mean of these n outcomes,
    so it closes as the share goes to 1. Raises ValueError for no rows, no label, or shares outside
    of (0, 1].
    """
    pi: Floats = np.broadcast_to(np.asarray(share, np.float64), expected.shape)
    if not len(expected) or not ((pi > 0.0) & (pi <= 1.0)).all():
        raise ValueError("shares of labels must lie above 0 and not above 1")
    known = np.isfinite(outcomes)
    count = int(known.sum())
    if not count:
        raise ValueError("there is no label among the rows")
    weight = 1.0 / pi[known]
    residual = outcomes[known] - expected[known]
    # Divided by what the weights add up to, not by n: the number of labels is not informative.
    shift = float((weight * residual).sum() / weight.sum())
    value = float(expected.mean()) + shift
    spread = (residual - shift) ** 2 * weight**2 * (1.0 - pi[known])
    # A residual like none seen yet may exist: one half of an outcome, a row's weight at the most.
    unseen = 0.25 * float((weight**2 * (1.0 - pi[known])).max())
    variance = (float(spread.sum()) + unseen) / float(weight.sum()) ** 2
    half = _TWO_SIDED_95 * math.sqrt(variance)
    low, high = max(0.0, value - half), min(1.0, value + half)
    return Estimate(metric, min(1.0, max(0.0, value)), low, high, len(expected))


@dataclass(frozen=True, slots=True)
class Followed:
    """The error of the estimate, to be added to it: ``error`` with standard error ``deviation``."""

    error: float
    deviation: float


class Follower(Stateful):
    """Follows the error of an estimate by the labels that come, window by window.

    A local level: the error takes a normal step from window to window, the labelled rows of a
    window show it with their own noise. How large the steps are is not known: a Kalman filter runs
    for each of :data:`STEPS`, and they are mixed by how well they foresaw what came (Bayesian model
    averaging; Raftery, Karny & Ettler 2010). ``prior`` is the standard error that the baseline's
    calibration has by itself.
    """

    prior: Config[float]
    _steps: Config[Floats]
    _level: Saved[Floats]
    _variance: Saved[Floats]
    _log_weight: Saved[Floats]
    labels: Saved[Count]

    def __init__(self, prior: float) -> None:
        self.prior = prior
        steps = np.array(STEPS)
        self._steps = steps**2
        self._level = np.zeros(len(steps))
        self._variance = np.full(len(steps), prior**2)
        rest = (1.0 - _STEADY) / (len(steps) - 1)
        self._log_weight = np.log(np.where(steps == 0.0, _STEADY, rest))
        self.labels = 0

    def update(self, expected: Floats, outcomes: Floats) -> Followed:
        """A window: of its labelled rows, what the estimate expected and what the labels say, in
        [0, 1], shapes (m,); m may be 0. Rows are labelled whatever their outcome will be."""
        self._variance = self._variance + self._steps
        if len(expected):
            residual = float((outcomes - expected).mean())
            noise = max(float((expected * (1.0 - expected)).mean()), 1e-4) / len(expected)
            total = self._variance + noise
            off = residual - self._level
            self._log_weight = self._log_weight - 0.5 * (np.log(total) + off**2 / total)
            self._log_weight -= self._log_weight.max()
            gain = self._variance / total
            self._level = self._level + gain * off
            self._variance = self._variance * (1.0 - gain)
            self.labels += len(expected)
        return self.now()

    def now(self) -> Followed:
        """The present estimate of the error."""
        weight = np.exp(self._log_weight)
        weight /= weight.sum()
        error = float(weight @ self._level)
        variance = float(weight @ (self._variance + (self._level - error) ** 2))
        return Followed(error, math.sqrt(variance))


def departs(estimate: Estimate, reference: float, deviations: float = 3.0) -> int:
    """Whether an estimate without labels is further from the ``reference`` than it strays while
    nothing has changed: -1 below, +1 above, 0 not. The yardstick is the estimate's own spread
    (``usual``) and the calibration's error (``own``), not the spread of realised windows, which is
    larger by the draw of the labels: an estimate that is held against that sees little.
    """
    off = (estimate.value - reference) / max(math.hypot(estimate.usual, estimate.own), 1e-9)
    return 0 if abs(off) < deviations else int(math.copysign(1, off))
