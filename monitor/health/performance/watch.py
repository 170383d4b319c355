"""Performance of one model, estimated at once and measured once labels arrive."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from understudy.common.special import ndtri
from understudy.common.units import percent
from understudy.monitor.baseline.calibration.regions import RegionalCalibration
from understudy.monitor.baseline.kinds import category, number
from understudy.monitor.baseline.model import Baseline
from understudy.monitor.config.performance import OF_NUMBERS, Performance
from understudy.monitor.detectors.calibration import CalibrationDetector, Recalibration
from understudy.monitor.detectors.change_point import ChangePoint
from understudy.monitor.detectors.edetector import SrDetector
from understudy.monitor.detectors.evidence import Evidence
from understudy.monitor.health.latches import Latches
from understudy.monitor.health.performance.declared import DeclaredSegments
from understudy.monitor.health.performance.estimate import ConfidenceEstimator, Estimate
from understudy.monitor.health.performance.first import FirstLabels
from understudy.monitor.health.performance.intervals import intervals
from understudy.monitor.health.performance.joined import batch_of, kind_of, known, valid, wrong
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
from understudy.monitor.health.performance.segments import REFERENCE
from understudy.monitor.health.performance.selection import ASSUMPTION, LabelSelection, Selective
from understudy.monitor.health.performance.suite import MetricTests, figures_of, tests_of
from understudy.monitor.health.performance.tallies import BinaryTally, Tally
from understudy.monitor.health.performance.tested import BASELINE_BOUND
from understudy.monitor.health.performance.unlabelled import Unlabelled
from understudy.monitor.health.performance.worst import WorstSlices
from understudy.monitor.health.untested import Untested
from understudy.monitor.labels.store import Joined
from understudy.shadow.sequential import BernoulliInterval
from understudy.shadow.state import (
    IF_BOTH,
    Config,
    Converter,
    Count,
    FieldError,
    Saved,
    Stateful,
    Transient,
)

Floats = NDArray[np.float64]
_MOST_WINDOWS = 240
_BATCH = 64
KINDS = ("scores", "numbers", "classes")
_HORIZON = 7 * 86400.0
_REFERENCE_ALPHA = 0.05
"""Probability that the reference that first labels give to any test is further off than allowed
for."""
_DELAY = 0.9
"""Quantile of the delays after which labels should be there."""
CHECKED = 100
"""Labels that show whether labels depend on what was predicted, before anything is reported."""
ENOUGH = 500
"""The same where requests have many rows, of which only one counts for that."""
_MISSING = 0.999
"""Coverage below which figures depend on which predictions get labels."""
_RECOVERED = 0.5
"""Share of the smallest loss that matters below which the loss has recovered."""


def _dump_tally(tally: Tally | None) -> Any:
    return tally.dump_state() if tally is not None else None


def _raw(name: str, value: Any, _: Any) -> Any:
    """The value unchanged; the owner builds the tally."""
    return value


class PerformanceWatch(Stateful):
    """``run_length`` in predictions, or labels, of all tests together; ``segments`` are
    features whose values are tested separately; ``horizon`` in seconds is the longest delay of a
    label.

    Tested are the share of wrong predictions that the scores imply (without labels), the share that
    was wrong, whether scores are still calibrated, and the metrics of
    :mod:`understudy.monitor.health.performance.losses` (all with labels). The null of each is from
    the ``baseline``, or where that has no figure from the first labels, with their uncertainty.
    While labels depend on what was predicted, or most are missing, none of them is judged.
    """

    state_version = 2

    settings: Config[Performance]
    run_length: Config[float]
    segments: Config[tuple[str, ...]]
    baseline: Config[Baseline | None]
    horizon: Config[float]
    hidden: Config[bool]
    """Whether predicted values must not be shown."""
    kind: Saved[str]
    """scores, numbers or classes; empty while it is not known."""
    first: Saved[FirstLabels]
    estimator: Config[ConfidenceEstimator | None]
    reference: Config[tuple[float, float] | None]
    """Accuracy in the reference, and its number of rows; None before there is one."""
    expected_null: Config[float]
    expected_error: Config[float]
    expected_spread: Config[float]
    expected: Saved[SrDetector | None]
    realised: Saved[RealisedErrors]
    metrics: Saved[MetricTests | None]
    """None while the kind of predictions is not known; likewise ``selection``."""
    selection: Saved[LabelSelection | None]
    selective: Saved[Selective | None]
    """Why labels are not judged at present."""
    unjudged: Saved[Count]
    """Labels that were counted and not judged."""
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
    _each: Config[float]
    _deviations: Config[float]

    def __init__(
        self,
        settings: Performance,
        baseline: Baseline | None,
        run_length: float,
        segments: Sequence[str] = (),
        horizon: float = _HORIZON,
        hidden: bool = False,
    ) -> None:
        self.settings = settings
        self.hidden = hidden
        self.run_length = run_length
        self.segments = tuple(segments)
        self.baseline = baseline
        self.horizon = horizon
        self.kind = ""
        self.first = FirstLabels(settings.reference_labels, settings.prediction)
        self.estimator = None
        self.reference = None
        self.expected = None
        self.expected_null = self.expected_error = self.expected_spread = 0.0
        self.metrics = None
        self.selection = None
        self.selective = None
        self.unjudged = 0
        self.slices = WorstSlices() if settings.slices else None
        self.calibration = None
        self.delays = Delays()
        self.unlabelled = None
        self.latches = Latches(3)
        self.history = ChangePoint(2)
        self.predictions = 0
        self.labels = 0
        self.last = None
        self.interval = BernoulliInterval(planned=float(settings.window))
        self.windows = []
        self._labelled = []
        self.began = 0.0
        self.examples = []
        self._decide(_kind(settings, baseline))

    # What is tested -----------------------------------------------------------------------------

    def _decide(self, kind: str) -> None:
        """Prepare the tests for a kind of predictions."""
        self.kind = kind
        settings = self.settings
        tests = 3 + bool(self.segments) + tests_of(settings, kind)
        self._each = tests * self.run_length
        self._deviations = float(ndtri(1.0 - _REFERENCE_ALPHA / tests))
        self.whole = self.tally()
        self.window = self.tally()
        self.declared = DeclaredSegments(
            self.segments, self._each, settings.smallest, settings.largest_gap
        )
        self.realised = RealisedErrors(settings, None, None, self._each)
        if not kind:
            return
        self._arm()
        figures = figures_of(self.baseline, settings)
        self.metrics = MetricTests(
            settings, kind, self._each, self._deviations, figures, self.hidden
        )
        cut = settings.threshold if kind == "scores" else None
        self.selection = LabelSelection(
            kind == "classes", cut, self.horizon, self.run_length, self.hidden
        )

    def _arm(self) -> None:
        """Begin the tests whose reference the baseline is: error rate, calibration, estimates."""
        self.estimator = self.expected = self.calibration = self.unlabelled = None
        self.reference = None
        self.realised = RealisedErrors(self.settings, None, None, self._each)
        table = self.baseline.calibration if self.baseline is not None else None
        of_scores = table is not None and table["prediction"] == self.settings.prediction
        if table is not None and of_scores and self.kind == "scores":
            self._mean(table)
        known = figures_of(self.baseline, self.settings).get("accuracy")
        if known is not None and self.kind != "numbers":
            self._compare_with((float(known["value"]), float(known["rows"])))

    def _compare_with(
        self, reference: tuple[float, float], deviations: float = BASELINE_BOUND
    ) -> None:
        """Test the error rate against a reference: accuracy and number of rows."""
        self.reference = reference
        self.realised.begin(reference, self.estimator, deviations)

    def _mean(self, table: Mapping[str, Any]) -> None:
        """Use a calibration table: what scores mean, and so what errors they imply."""
        regions = table.get("regions")
        assert self.settings.threshold is not None
        self.estimator = ConfidenceEstimator(
            table,
            self.settings.threshold,
            RegionalCalibration.from_dict(regions) if regions is not None else None,
        )
        self.expected_error, bound, variance = self.estimator.expected_error()
        matters = self.settings.smallest.value
        if self.settings.smallest.relative:
            matters *= self.expected_error
        self.expected_null = min(bound + matters, 1.0 - 1e-6)
        variance = max(variance, 1e-4)
        self.expected_spread = math.sqrt(variance)
        null, each = np.array([self.expected_null]), self._each
        self.expected = SrDetector(null, each, np.array([variance]))
        try:
            self.calibration = CalibrationDetector(each, Recalibration.fit(table))
        except ValueError:
            self.calibration = None  # one class only: the scores cannot be checked
        self.unlabelled = Unlabelled(self.estimator, self.settings.window)

    def _complete(self) -> None:
        """Begin the tests whose reference the first labels are."""
        if not self.first.done:
            return
        table: Any = self.first.table
        if self.estimator is None and table is not None:
            self._mean(table)
        if self.reference is None:
            self._compare_with(self.first.reference, self._deviations)

    @property
    def _wants_first(self) -> bool:
        """Whether first labels are to be collected for error rate or calibration."""
        if self.kind == "numbers" and self.settings.tolerance is None:
            return False
        missing = self.reference is None or (self.kind == "scores" and self.estimator is None)
        return bool(self.kind) and missing and not self.first.done

    def _restart_reference(self) -> None:
        """Forget first labels that turned out not to be a fair sample."""
        if self.metrics is not None:
            self.metrics.restart()
        if self.first.rows:
            self.first.restart()
            self._arm()
            self.latches = Latches(3)
            self.history = ChangePoint(2)

    def _restart_tests(self) -> None:
        """Forget what labels have shown since the reference."""
        if self.metrics is not None:
            self.metrics.restart_tests()
        self.realised.reset()
        if self.calibration is not None:
            self.calibration.reset()
        self.latches.alarmed[1:] = False
        self.history.reset(np.array([False, True]))

    @property
    def checked(self) -> bool:
        """Whether there are enough labels to tell that they are a fair sample."""
        if self.selection is None or not self.selection.active:
            return True
        return self.selection.labels >= CHECKED or self.labels >= ENOUGH

    def load_state(self, state: Any) -> None:
        """Fill in a saved state: first what says which tests there are."""
        if isinstance(state, Mapping) and {"kind", "first"} <= state.keys():
            if state["kind"] != self.kind:
                if self.kind or state["kind"] not in KINDS:
                    raise FieldError("kind", f"is {state['kind']!r}, and {self.kind!r} here")
                self._decide(str(state["kind"]))
            self.first.load_state(state["first"])
            self._complete()
        super().load_state(state)

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
        return tally_for(self.kind, self.settings.threshold, self.settings.tolerance)

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
        if len(cells):
            self._offer(cells[:1], times[:1])
        self._take(cells, times, features, request_id)

    def _offer(self, cells: Sequence[Any], times: Sequence[float]) -> None:
        """Count predictions, one of each request: the labels of a request come together, so its
        rows say no more than one of them about who gets a label."""
        if self.selection is None:
            return
        moments = np.asarray(times, np.float64)
        if self.kind == "classes":
            self.selection.predicted([category(cell) or "" for cell in cells], moments)
        else:
            self.selection.predicted(np.array([number(cell) for cell in cells]), moments)

    def _take(
        self,
        cells: Sequence[Any],
        times: Sequence[float],
        features: Mapping[str, Sequence[Any]] | None,
        request_id: str,
    ) -> None:
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
        if self.selection is not None and len(cells):
            first = [0, *(n for n in range(1, len(ids)) if ids[n] != ids[n - 1])]
            self._offer([cells[n] for n in first], [times[n] for n in first])
        if self.unlabelled is None and self.realised.sampled is None:
            self.predictions += len(cells)
            return
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
            self._take(cells[begin:end], times[begin:end], of_rows, request_id)
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

    def _compare(self, decide: bool = False) -> None:
        """Evaluate the buffered labels; ``decide`` even where it is not clear what they are."""
        waiting = self._labelled
        if not waiting:
            return
        if not self.kind:
            kind = kind_of(waiting, self.settings.prediction, decide)
            if not kind:
                return
            self._decide(kind)
        self._labelled = []
        batch = batch_of(waiting, self.settings.prediction, self.whole)
        here = valid(batch)
        if not here.any():
            return
        self._check_selection(batch, waiting, here)
        missed = wrong(batch, self.whole)
        if self.selective is None:
            self.realised.label(waiting, missed)
        rows = [pair.outputs for pair, known_ in zip(waiting, here, strict=True) if known_]
        self.take_batch(known(batch, here), rows)

    def _check_selection(
        self, batch: LabelledBatch, pairs: Sequence[Joined], here: NDArray[np.bool_]
    ) -> None:
        """Whether these labels are a fair sample of the predictions."""
        assert self.selection is not None
        first = here & np.array([pair.row == 0 for pair in pairs])
        part = known(batch, first)
        self.selection.labelled(part.predicted, part.started)
        self._judge()

    def _judge(self) -> None:
        """Decide whether labels are judged at present."""
        if self.selection is None:
            return
        problem = self.selection.problem(self.delays.quantile(_DELAY))
        before = self.selective.reason if self.selective is not None else None
        if problem is not None and problem.reason == "selective" != before:
            # What was learned and found just before may be as selective.
            if self.labels < 2 * self.settings.reference_labels:
                self._restart_reference()
            self._restart_tests()
        self.selective = problem

    def take_batch(self, batch: LabelledBatch, rows: Sequence[Mapping[str, object]] = ()) -> None:
        """Take labelled predictions, all of them valid; ``rows`` are the features that were stored
        with them, for the segments."""
        if not self.kind:
            self._decide("numbers" if isinstance(batch.predicted, np.ndarray) else "classes")
        missed = wrong(batch, self.whole)
        batch.add_to(self.whole)
        batch.add_to(self.window)
        self.delays.add(batch.delays)
        self.labels += len(batch)
        if np.isfinite(missed).all():
            self.interval.update(1.0 - missed)
        failed = [one for one, bad in zip(batch.ids, missed, strict=False) if bad == 1.0]
        self.examples = (self.examples + failed)[-5:]
        if not self.began:
            self.began = float(batch.started[0])
        if self.selective is None:
            self._test(batch, rows, missed)
        else:
            self.unjudged += len(batch)
        if self.window.count >= self.settings.window:
            self._close_window(float(batch.started[-1]))

    def _test(
        self, batch: LabelledBatch, rows: Sequence[Mapping[str, object]], missed: Floats
    ) -> None:
        """Collect the reference, and compare with it."""
        assert self.metrics is not None
        self.metrics.update(batch)
        if self._wants_first:
            self._collect(batch, missed)
            return
        measured = bool(np.isfinite(missed).all())
        if measured:
            self._realise(self.realised.update(missed, batch.started))
            if self.slices is not None and rows:
                self.slices.add(rows, missed)
        yes_predicted, yes_true = np.full((2, len(missed)), np.nan)
        if isinstance(self.whole, BinaryTally):
            predicted, labels = np.asarray(batch.predicted), np.asarray(batch.labels)
            yes_predicted = (predicted > self.whole.threshold).astype(np.float64)
            yes_true = (labels > 0.5).astype(np.float64)
            self._check(predicted, labels, missed)
        if measured and self.declared.features and rows:
            self.declared.add(rows, missed, yes_predicted, yes_true)

    def _collect(self, batch: LabelledBatch, missed: Floats) -> None:
        missing = self.first.missing
        scores = labels = None
        if self.kind == "scores" and self.estimator is None:
            scores = np.asarray(batch.predicted)[:missing]
            labels = (np.asarray(batch.labels)[:missing] > 0.5).astype(np.float64)
        self.first.add(missed[:missing], scores, labels)
        self._complete()

    def _realise(self, resolved: ResolvedLosses | None) -> None:
        """Update the alarm and the history with measured losses."""
        if resolved is None:
            return
        three = np.full((len(resolved.losses), 3), np.nan)
        three[:, 1] = resolved.losses
        self.latches.update(_only(resolved.evidence, 1), three, self.labels)
        both = np.full((len(resolved.losses), 2), np.nan)
        both[:, 1] = self.realised.standard(resolved.losses)
        self.history.update(both, resolved.times)

    def _check(self, scores: Floats, labels: Floats, missed: Floats) -> None:
        """Test the calibration of the scores with their labels."""
        if self.calibration is not None and self.calibration.update(scores, labels) >= 0:
            self.latches.alarmed[2] = True
        if self.unlabelled is not None:
            self.unlabelled.labelled(scores, 1.0 - missed)

    def _close_window(self, now: float) -> None:
        accuracy = self.window.metrics().get("accuracy")
        if accuracy is not None and self.selective is None:
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
        if self.selective is not None:
            return RetrainAdvice(f"not judged: {self.selective.words}", assumptions=(ASSUMPTION,))
        points = self.unlabelled.points if self.unlabelled is not None else []
        if len(self.windows) >= FEWEST or len(points) < FEWEST:
            return retrain_advice(self.windows, self.settings.floor)
        advice = retrain_advice(points, self.settings.floor)
        predicted = "estimated from the scores, because there are few labels"
        return replace(advice, assumptions=(predicted, *advice.assumptions))

    # Both ---------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Evaluate all buffered rows, and end the alarms that have recovered."""
        self._expect()
        self._compare()
        self._judge()
        self._realise(self.realised.resolve())
        if self.metrics is not None:
            self.metrics.settle()
        alarmed = self.latches.alarmed[2]
        limits = [
            self.expected_null - _RECOVERED * (self.expected_null - self.expected_error),
            self.realised.null - _RECOVERED * self.realised.matters,
            1.0,
        ]
        again = self.latches.recovered(np.array(limits), 0.0)
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
        self._compare(decide=True)
        self.flush()

    def untested(self) -> list[Untested]:
        """What is declared and not tested at present, with the reasons."""
        result: list[Untested] = []
        if not self.labels:
            words = "performance: no label has arrived, send them to POST /v1/feedback"
            result.append(Untested("performance", "no_labels", words))
        elif self.selective is not None:
            words = f"performance: {self.selective.words}"
            result.append(Untested("performance", self.selective.reason, words))
        elif self.metrics is not None:
            result += self._incomplete()
        result += [Untested("detector", "detector", words) for words in self.realised.errors]
        no_accuracy = self.kind == "numbers" and self.settings.tolerance is None
        if self.settings.floor is not None and no_accuracy:
            words = "floor: numbers have no accuracy without a tolerance, declare one"
            result.append(Untested("floor", "floor", words))
        return result

    def _incomplete(self) -> list[Untested]:
        """Tests that wait for the labels of their reference."""
        assert self.metrics is not None
        result: list[Untested] = []
        if not self.checked and self.selection is not None:
            known = self.selection.labels
            words = (
                f"performance: {known} of {CHECKED} labels that show whether labels are a fair "
                "sample of the predictions"
            )
            result.append(Untested("performance", "checking", words, known, CHECKED))
        have, need = self.first.rows, self.first.needed
        count = f"{have:,} of {need:,} labels for the reference"
        numbers = self.kind == "numbers" and self.settings.tolerance is None
        if self.reference is None and not numbers:
            result.append(Untested("error_rate", "reference", f"Error rate: {count}", have, need))
        if self.kind == "scores" and self.calibration is None:
            if self.first.done or self.estimator is not None:
                words = "Calibration: the reference has one class only, or scores outside of 0 to 1"
                result.append(Untested("calibration", "calibration", words))
            else:
                words = f"Calibration: {count}"
                result.append(Untested("calibration", "reference", words, have, need))
        for test in self.metrics:
            untested = test.untested(self.metrics.labels, need)
            if untested is not None:
                result.append(untested)
        for feature in self.declared.features:
            few, all_ = self.declared.alarms[feature].waiting()
            if few:
                words = (
                    f"Segments of {feature}: {few} of {all_} have fewer than {REFERENCE:,} labels "
                    "for their reference"
                )
                result.append(Untested("segment", "segment", words, all_ - few, all_))
        return result

    def summary(self) -> dict[str, Any]:
        """Figures for machines and for the page."""
        estimates = self.estimates()
        estimate = estimates.get("accuracy")
        followed = self.unlabelled.followed() if self.unlabelled is not None else None
        ahead = self.retrain_advice()
        realised = self.whole.metrics()
        bounds = self.interval.interval() if "accuracy" in realised else None
        window = self.last or self.window
        return {
            "predictions": self.predictions,
            "labels": self.labels,
            "coverage": min(1.0, self.labels / self.predictions) if self.predictions else None,
            "delay": {f"p{100 * q:g}": self.delays.quantile(q) for q in DELAY_QUANTILES},
            "kind": self.kind or None,
            "reference_accuracy": self.reference[0] if self.reference is not None else None,
            "reference_labels": self.reference[1] if self.reference is not None else None,
            "judged": self.selective is None,
            "unjudged": self.unjudged,
            "not_tested": [one.document() for one in self.untested()],
            "assumptions": self.assumptions(),
            "selection": self.selection.summary() if self.selection is not None else None,
            "tests": {
                f"{test.kind.name}/{test.label}" if test.label else test.kind.name: test.summary()
                for test in self.metrics or ()
            },
            "estimate": estimate.document() if estimate is not None else None,
            "estimates": {name: one.document() for name, one in estimates.items()},
            "followed": followed.document() if followed is not None else None,
            "realised": realised,
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

    def assumptions(self) -> list[str]:
        """What the figures by labels assume; empty where all predictions have labels."""
        if self.predictions and self.labels >= _MISSING * self.predictions:
            return []
        result = [ASSUMPTION]
        usual, now = self._positive_share(), self.whole.metrics().get("positive_rate")
        ends = intervals(self.window).get("positive_rate", (0.0, 1.0))
        if usual is not None and now is not None and not ends[0] <= usual <= ends[1]:
            share = self.window.metrics()["positive_rate"]
            result.append(
                f"{percent(share, 3)} of the labels are positive, {percent(usual, 3)} in the "
                "reference: either that changed, or which predictions get labels"
            )
        if self.selective is not None and self.selective.reason == "coverage":
            result.append(self.selective.words)
        return result

    def _positive_share(self) -> float | None:
        """Share of positive labels in the reference."""
        if self.kind != "scores":
            return None
        figure = figures_of(self.baseline, self.settings).get("positive_rate")
        if figure is not None:
            return float(figure["value"])
        table: Any = self.first.table
        return sum(table["positives"]) / sum(table["counts"]) if table is not None else None


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


def _kind(settings: Performance, baseline: Baseline | None) -> str:
    """Kind of the predictions, as far as configuration and baseline say; else empty."""
    if settings.threshold is not None:
        return "scores"
    names = {one.metric for one in settings.metrics or ()}
    if settings.tolerance is not None or names & set(OF_NUMBERS):
        return "numbers"
    figures = figures_of(baseline, settings)
    if "mae" in figures:
        return "numbers"
    return "classes" if "recall" in names or "accuracy" in figures else ""
