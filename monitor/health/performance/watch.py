"""Performance of one model, estimated at once and measured once labels arrive."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from understudy.monitor.baseline.calibration.regions import RegionalCalibration
from understudy.monitor.baseline.kinds import number
from understudy.monitor.baseline.model import Baseline
from understudy.monitor.config.performance import Performance
from understudy.monitor.detectors.calibration import CalibrationDetector, Recalibration
from understudy.monitor.detectors.change_point import ChangePoint
from understudy.monitor.detectors.edetector import SrDetector
from understudy.monitor.detectors.evidence import Evidence
from understudy.monitor.health.latches import Latches
from understudy.monitor.health.performance.declared import DeclaredSegments
from understudy.monitor.health.performance.estimate import ConfidenceEstimator, Estimate
from understudy.monitor.health.performance.joined import batch_of, known, wrong
from understudy.monitor.health.performance.metrics import (
    DELAY_QUANTILES,
    Delays,
    LabelledBatch,
    metric_values,
    tally_for,
)
from understudy.monitor.health.performance.realised import RealisedErrors
from understudy.monitor.health.performance.retrain import (
    FEWEST,
    Point,
    RetrainAdvice,
    retrain_advice,
)
from understudy.monitor.health.performance.sampled import ResolvedLosses
from understudy.monitor.health.performance.tallies import BinaryTally, Tally
from understudy.monitor.health.performance.unlabelled import Unlabelled
from understudy.monitor.health.performance.worst import WorstSlices
from understudy.monitor.labels.store import Joined
from understudy.shadow.sequential import BernoulliInterval
from understudy.shadow.state import IF_BOTH, Config, Converter, Count, Saved, Stateful, Transient

Floats = NDArray[np.float64]
_MOST_WINDOWS = 240
_BATCH = 64
_RECOVERED = 0.5
"""Share of the smallest loss that matters below which the loss has recovered."""


def _dump_tally(tally: Tally | None) -> Any:
    return tally.dump_state() if tally is not None else None


def _raw(name: str, value: Any, _: Any) -> Any:
    """The value unchanged; the owner builds the tally."""
    return value


class PerformanceWatch(Stateful):
    """``run_length`` in predictions, or labels, of all tests together; ``segments`` are
    features whose values are tested separately.

    Three things are tested: the share of wrong predictions that the scores imply
    (without labels), the share that was wrong (with labels), and whether scores are still
    calibrated (with labels). All three are bounded risks with a null from the baseline; without a
    labelled baseline only the figures are shown.
    """

    settings: Config[Performance]
    run_length: Config[float]
    estimator: Config[ConfidenceEstimator | None]
    reference: Config[tuple[float, float] | None]
    """Accuracy in the baseline, and its number of rows."""
    expected_null: Config[float]
    expected_error: Config[float]
    expected_spread: Config[float]
    expected: Saved[SrDetector | None]
    realised: Saved[RealisedErrors]
    slices: Saved[WorstSlices | None]
    calibration: Saved[Annotated[CalibrationDetector | None, IF_BOTH]]
    declared: Saved[DeclaredSegments]
    delays: Saved[Delays]
    unlabelled: Saved[Unlabelled | None]
    latches: Saved[Latches]
    """Expected errors, realised errors, calibration."""
    history: Saved[ChangePoint]
    predictions: Saved[Count]
    labels: Saved[Count]
    whole: Saved[Tally]
    window: Saved[Tally]
    last: Saved[Annotated[Tally | None, Converter(_dump_tally, _raw)]]
    """The last full window."""
    interval: Saved[BernoulliInterval]
    windows: Saved[list[Point]]
    """Measured accuracy by window."""
    began: Saved[float]
    """Unix time of the first label of the present window; 0 without one."""
    _labelled: Transient[list[Joined]]
    examples: Transient[list[str]]

    def __init__(
        self,
        settings: Performance,
        baseline: Baseline,
        run_length: float,
        segments: Sequence[str] = (),
    ) -> None:
        self.settings = settings
        self.run_length = run_length
        self.estimator = _estimator(settings, baseline)
        self.reference = _reference(baseline)
        each = (4.0 if segments else 3.0) * run_length
        loss = settings.smallest_loss
        self.expected = None
        self.expected_null = self.expected_error = self.expected_spread = 0.0
        if self.estimator is not None:
            self.expected_error, bound, variance = self.estimator.expected_error()
            self.expected_null = min(bound + loss, 1.0 - 1e-6)
            variance = max(variance, 1e-4)
            self.expected_spread = math.sqrt(variance)
            self.expected = SrDetector(np.array([self.expected_null]), each, np.array([variance]))
        self.realised = RealisedErrors(settings, self.reference, self.estimator, each)
        self.slices = WorstSlices() if settings.slices else None
        self.calibration = None
        if self.estimator is not None and baseline.calibration is not None:
            try:
                self.calibration = CalibrationDetector(
                    each, Recalibration.fit(baseline.calibration)
                )
            except ValueError:
                self.calibration = None  # one class only: the scores cannot be checked
        self.declared = DeclaredSegments(segments, each, loss, settings.largest_gap)
        self.delays = Delays()
        self.unlabelled = None
        if self.estimator is not None:
            self.unlabelled = Unlabelled(self.estimator, settings.window)
        self.latches = Latches(3)
        self.history = ChangePoint(2)
        self.predictions = 0
        self.labels = 0
        self.whole = self.tally()
        self.window = self.tally()
        self.last = None
        self.interval = BernoulliInterval(planned=float(settings.window))
        self.windows = []
        self._labelled = []
        self.began = 0.0
        self.examples = []

    def _restored(self) -> None:
        saved: Any = self.last
        self.last = None
        if saved is not None:
            self.last = self.tally()
            self.last.load_state(saved)

    @property
    def uses_features(self) -> bool:
        """Whether predictions should come with their features."""
        return self.estimator is not None and self.estimator.regions is not None

    def tally(self) -> Tally:
        """An empty tally of the kind that fits the predictions."""
        return tally_for(self.settings.threshold, self.settings.tolerance)

    # Without labels -----------------------------------------------------------------------------

    def take(
        self,
        cells: Sequence[Any],
        times: Sequence[float],
        features: Mapping[str, Sequence[Any]] | None = None,
        request_id: str = "",
    ) -> None:
        """Take the predictions of a request, with their unix times and, where known, the features
        of the rows by name."""
        self.predictions += len(cells)
        if self.realised.sampled is not None:
            self.realised.sampled.take(request_id, [number(cell) for cell in cells], times[0])
        if self.unlabelled is not None and self.unlabelled.take(cells, times, features):
            self._expect()

    def take_rows(
        self,
        cells: Sequence[Any],
        times: Sequence[float],
        features: Mapping[str, Sequence[Any]] | None,
        ids: Sequence[bytes],
    ) -> None:
        """Take the predictions of many requests, with the request id of each row."""
        begin = 0
        while begin < len(cells):
            end = begin + 1
            if self.realised.sampled is None:
                end = min(begin + _BATCH, len(cells))
            else:
                while end < len(cells) and ids[end] == ids[begin]:
                    end += 1
            of_rows = None
            if features is not None:
                of_rows = {name: column[begin:end] for name, column in features.items()}
            request_id = ids[begin].decode("latin-1")
            self.take(cells[begin:end], times[begin:end], of_rows, request_id)
            begin = end

    def _expect(self) -> None:
        """Pass the buffered scores to the detector of expected errors."""
        drawn = self.unlabelled.draw() if self.unlabelled is not None else None
        if drawn is None or self.expected is None:
            return
        evidence = self.expected.update(drawn.wrong[:, None])
        rows = len(drawn.wrong)
        three = np.full((rows, 3), np.nan)
        three[:, 0] = drawn.wrong
        self.latches.update(_only(evidence, 0), three, self.predictions - rows)
        both = np.full((rows, 2), np.nan)
        both[:, 0] = (drawn.wrong - self.expected_error) / self.expected_spread
        self.history.update(both, drawn.times)

    def estimates(self) -> dict[str, Estimate]:
        """Every metric of the last predictions, without their labels, by name; empty before there
        are any."""
        if self.unlabelled is None:
            return {}
        bent = self.latches.alarmed[2] and self.calibration is not None
        doubt = f"labels show that the scores are miscalibrated: {self._bend()}"
        return self.unlabelled.estimates(doubt if bent else None)

    def estimate(self) -> Estimate | None:
        """Accuracy of the last predictions, without their labels; None before there are any."""
        return self.estimates().get("accuracy")

    def _bend(self) -> str:
        return self.calibration.words() if self.calibration is not None else ""

    # With labels --------------------------------------------------------------------------------

    def take_label(self, joined: Joined) -> None:
        """Take the label of a prediction of the champion."""
        if joined.outputs.get(self.settings.prediction) is None or joined.label is None:
            return
        self._labelled.append(joined)
        if len(self._labelled) >= _BATCH:
            self._compare()

    def _compare(self) -> None:
        """Evaluate the buffered labels."""
        waiting, self._labelled = self._labelled, []
        if not waiting:
            return
        batch = batch_of(waiting, self.settings.prediction, self.whole)
        missed = wrong(batch, self.whole)
        here = np.isfinite(missed)
        if not here.any():
            return
        self.realised.label(waiting, missed)
        rows = [pair.outputs for pair, known_ in zip(waiting, here, strict=True) if known_]
        self.take_batch(known(batch, here), rows)

    def take_batch(self, batch: LabelledBatch, rows: Sequence[Mapping[str, object]] = ()) -> None:
        """Take labelled predictions, all of them valid; ``rows`` are the features that were stored
        with them, for the segments."""
        missed = wrong(batch, self.whole)
        times = batch.started
        batch.add_to(self.whole)
        batch.add_to(self.window)
        self.delays.add(batch.delays)
        self.labels += len(batch)
        self.interval.update(1.0 - missed)
        failed = [one for one, bad in zip(batch.ids, missed, strict=False) if bad == 1.0]
        self.examples = (self.examples + failed)[-5:]
        self._realise(self.realised.update(missed, times))
        if self.slices is not None and rows:
            self.slices.add(rows, missed)
        yes_predicted, yes_true = np.full((2, len(missed)), np.nan)
        if isinstance(batch.predicted, np.ndarray) and isinstance(batch.labels, np.ndarray):
            if isinstance(self.whole, BinaryTally):
                yes_predicted = (batch.predicted > self.whole.threshold).astype(np.float64)
                yes_true = (batch.labels > 0.5).astype(np.float64)
            self._check(batch.predicted, batch.labels, missed)
        if self.declared.features and rows:
            self.declared.add(rows, missed, yes_predicted, yes_true)
        if not self.began:
            self.began = float(times[0])
        if self.window.count >= self.settings.window:
            self._close_window(float(times[-1]))

    def _realise(self, found: ResolvedLosses | None) -> None:
        """Update the alarm and the history with measured losses."""
        if found is None:
            return
        three = np.full((len(found.losses), 3), np.nan)
        three[:, 1] = found.losses
        self.latches.update(_only(found.evidence, 1), three, self.labels)
        both = np.full((len(found.losses), 2), np.nan)
        both[:, 1] = self.realised.standard(found.losses)
        self.history.update(both, found.times)

    def _check(self, scores: Floats, labels: Floats, missed: Floats) -> None:
        """Test the calibration of the scores with their labels."""
        if self.calibration is not None and self.calibration.update(scores, labels) >= 0:
            self.latches.alarmed[2] = True
        if self.unlabelled is not None:
            self.unlabelled.labelled(scores, 1.0 - missed)

    def _close_window(self, now: float) -> None:
        metrics = self.window.metrics()
        accuracy = metrics.get("accuracy")
        if accuracy is not None:
            count = self.window.count
            error = math.sqrt(max(accuracy * (1.0 - accuracy), 1.0 / count) / count)
            self.windows.append(Point((self.began + now) / 2.0, accuracy, error))
            del self.windows[:-_MOST_WINDOWS]
        self.last, self.window = self.window, self.tally()
        self.began = 0.0

    def retrain_advice(self) -> RetrainAdvice | None:
        """When to retrain; None without a floor. Based on labels if they fill enough windows, else
        on estimates."""
        if self.settings.floor is None:
            return None
        points = self.unlabelled.points if self.unlabelled is not None else []
        if len(self.windows) >= FEWEST or len(points) < FEWEST:
            return retrain_advice(self.windows, self.settings.floor)
        found = retrain_advice(points, self.settings.floor)
        predicted = "estimated from the scores, because there are few labels"
        return replace(found, assumptions=(predicted, *found.assumptions))

    # Both ---------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Evaluate all buffered rows, and end the alarms that have recovered."""
        self._expect()
        self._compare()
        self._realise(self.realised.resolve())
        nulls = np.array([self.expected_null, self.realised.null, 1.0])
        alarmed = self.latches.alarmed[2]
        again = self.latches.recovered(nulls - _RECOVERED * self.settings.smallest_loss, 0.0)
        self.latches.alarmed[2] = alarmed  # it has no values in the latches, so it stays
        if again[0] and self.expected is not None:
            self.expected.reset(np.array([True]))
        if again[1]:
            self.realised.reset()
            if self.calibration is not None:
                self.calibration.reset()
                self.latches.alarmed[2] = False
        if again[:2].any():
            self.history.reset(again[:2])

    def _before_dump(self) -> None:
        self.flush()

    def summary(self) -> dict[str, Any]:
        """Figures for machines and for the page."""
        estimates = self.estimates()
        estimate = estimates.get("accuracy")
        followed = self.unlabelled.followed() if self.unlabelled is not None else None
        ahead = self.retrain_advice()
        bounds = self.interval.interval() if self.labels else None
        window = self.last or self.window
        return {
            "predictions": self.predictions,
            "labels": self.labels,
            "coverage": min(1.0, self.labels / self.predictions) if self.predictions else None,
            "delay": {f"p{100 * q:g}": self.delays.quantile(q) for q in DELAY_QUANTILES},
            "reference_accuracy": self.reference[0] if self.reference is not None else None,
            "estimate": estimate.document() if estimate is not None else None,
            "estimates": {name: one.document() for name, one in estimates.items()},
            "followed": followed.document() if followed is not None else None,
            "realised": self.whole.metrics(),
            "intervals": {m: f.document() for m, f in metric_values(self.whole).items()},
            "window_intervals": {m: f.document() for m, f in metric_values(window).items()},
            "segments": self.declared.summary(),
            "window": {"labels": window.count, **window.metrics()},
            "accuracy_interval": [bounds.lower, bounds.upper] if bounds is not None else None,
            "calibration_statistic": self.calibration.statistic if self.calibration else None,
            **self.realised.summary(),
            "worst_slices": self.slices.found if self.slices is not None else [],
            "retrain": ahead.document() if ahead is not None else None,
            "windows": [{"at": p.at, "accuracy": p.value} for p in self.windows[-60:]],
        }


def _only(evidence: Evidence, index: int) -> Evidence:
    """The evidence of one of three series, as that of all three."""
    statistic, threshold = np.full(3, -np.inf), np.zeros(3)
    crossed = np.full(3, -1, np.intp)
    direction = np.zeros(3, np.int8)
    statistic[index] = evidence.statistic[0]
    threshold[index] = evidence.threshold[0]
    crossed[index] = evidence.crossed[0]
    direction[index] = evidence.direction[0]
    return Evidence(statistic, threshold, crossed, direction)


def _estimator(settings: Performance, baseline: Baseline) -> ConfidenceEstimator | None:
    table = baseline.calibration
    if table is None or settings.threshold is None or table["prediction"] != settings.prediction:
        return None
    regions = table.get("regions")
    return ConfidenceEstimator(
        table,
        settings.threshold,
        RegionalCalibration.from_dict(regions) if regions is not None else None,
    )


def _reference(baseline: Baseline) -> tuple[float, float] | None:
    found = (baseline.performance or {}).get("accuracy")
    return (float(found["value"]), float(found["rows"])) if found else None
