"""Errors that labels have shown: the alarm, and the detectors that corroborate it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from understudy.monitor.config.extensions import DETECTORS
from understudy.monitor.config.performance import Performance
from understudy.monitor.detectors.edetector import SrDetector, null_rate
from understudy.monitor.detectors.risk_sequence import RiskSequence
from understudy.monitor.errors import MissingExtraError
from understudy.monitor.health.corroborate import Corroborator
from understudy.monitor.health.performance.estimate import ConfidenceEstimator
from understudy.monitor.health.performance.sampled import ResolvedLosses, SampledLabels
from understudy.monitor.health.performance.tested import BASELINE_BOUND
from understudy.monitor.labels.store import Joined
from understudy.shadow.state import Config, Saved, Stateful

Floats = NDArray[np.float64]


class RealisedErrors(Stateful):
    """Tests the error rate of labelled predictions. ``reference`` is the accuracy in the baseline
    and its number of rows; without one nothing is tested until :meth:`begin`, and ``null``, the
    largest error rate that is accepted, is 0. ``run_length`` is in labels, or with ``label_share``
    in predictions."""

    settings: Config[Performance]
    run_length: Config[float]
    matters: Config[float]
    """Smallest rise of the error rate that matters."""
    null: Config[float]
    usual: Config[float]
    """Error rate of the baseline, for texts and charts."""
    rule: Config[str]
    guarantee: Config[str | None]
    """A guarantee other than that of all performance detectors; None: theirs."""
    errors: Config[list[str]]
    """Why a declared detector does not run."""
    sampled: Saved[SampledLabels | None]
    _detector: Saved[SrDetector | RiskSequence | None]
    corroborators: Saved[list[Corroborator]]

    def __init__(
        self,
        settings: Performance,
        reference: tuple[float, float] | None,
        estimator: ConfidenceEstimator | None,
        run_length: float,
    ) -> None:
        self.settings = settings
        self.run_length = run_length
        self.null = 0.0
        self.matters = 0.0
        self.usual = 0.5
        self.sampled = None
        self._detector = None
        self.rule = "Shiryaev-Roberts e-detector on the error rate"
        self.guarantee = None
        self.corroborators = []
        self.errors = []
        self._corroborate(1.0, errors_only=True)
        if reference is not None:
            self.begin(reference, estimator)

    def begin(
        self,
        reference: tuple[float, float],
        estimator: ConfidenceEstimator | None,
        deviations: float = BASELINE_BOUND,
    ) -> None:
        """Test against a ``reference``, an accuracy and its number of rows, whose error is allowed
        for with so many ``deviations``."""
        settings = self.settings
        accuracy, rows = reference
        self.usual = min(max(1.0 - accuracy, 1e-3), 1.0 - 1e-3)
        errors, loss = (1.0 - accuracy) * rows, settings.smallest.value
        if settings.smallest.relative:
            loss *= 1.0 - accuracy
        self.matters = loss
        self.null = null_rate(errors, rows, loss, deviations)
        if settings.label_share is not None and estimator is not None:
            share, wait = settings.label_share, settings.label_wait
            self.sampled = SampledLabels(estimator, self.null, self.run_length, share, wait)
            self.rule += f", measured for a share of {share:.3g} and expected for the rest"
        elif settings.guarantee == "ever":
            totals, count = np.array([errors]), np.array([float(rows)])
            self._detector = RiskSequence(totals, count, loss, settings.alpha)
            self.rule = "confidence sequence of the error rate"
            self.guarantee = (
                f"the probability of any false alarm is at most {settings.alpha:g}, if the "
                "reference is right"
            )
        else:
            self._detector = SrDetector(np.array([self.null]), self.run_length)
        self._corroborate(rows, errors_only=False)

    def _corroborate(self, rows: float, errors_only: bool) -> None:
        """Start the declared detectors; those that do not take errors as they are need a reference,
        of so many ``rows``."""
        for one in self.settings.detectors:
            if DETECTORS[one.kind].errors_only is not errors_only:
                continue
            try:
                self.corroborators.append(Corroborator(one, "wrong predictions", rows))
            except (ValueError, MissingExtraError) as error:
                self.errors.append(str(error))

    @property
    def tested(self) -> bool:
        """Whether there is a reference to test against."""
        return self._detector is not None or self.sampled is not None

    def label(self, pairs: Sequence[Joined], missed: Floats) -> None:
        """Record which labelled predictions were wrong (n,), 1 or 0; call before :meth:`update`."""
        if self.sampled is not None:
            for pair, bad in zip(pairs, missed.tolist(), strict=True):
                if math.isfinite(bad):
                    self.sampled.label(pair.request_id, pair.row, bad)

    def update(self, missed: Floats, times: Floats) -> ResolvedLosses | None:
        """Test which labelled predictions (n,) were wrong, 1 or 0; ``times`` are unix seconds."""
        for one in self.corroborators:
            one.update(missed if DETECTORS[one.kind].errors_only else self.standard(missed), times)
        if self._detector is None:
            return None
        return ResolvedLosses(missed, times, self._detector.update(missed[:, None]))

    def resolve(self) -> ResolvedLosses | None:
        """With sampled labels: the predictions whose wait for a label has ended."""
        return self.sampled.resolve() if self.sampled is not None else None

    def standard(self, losses: Floats) -> Floats:
        """Losses in standard deviations from the usual error rate."""
        result: Floats = (losses - self.usual) / self.deviation
        return result

    @property
    def deviation(self) -> float:
        """Usual standard deviation of a single error."""
        return math.sqrt(self.usual * (1.0 - self.usual))

    def reset(self) -> None:
        """Restart the detectors."""
        for one in (self._detector, self.sampled):
            if one is not None:
                one.reset(np.ones(1, np.bool_))

    def summary(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "sampled": self.sampled.summary() if self.sampled is not None else None,
            "detectors": [one.summary() for one in self.corroborators],
            "errors": list(self.errors),
        }
