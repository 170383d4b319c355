"""The performance of one model: estimated at once, and known when labels come."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monitor.baseline.kinds import category, number
from monitor.baseline.model import Baseline
from monitor.config.performance import Performance
from monitor.drift.calibration import CalibrationDetector, Recalibration
from monitor.drift.change_point import ChangePoint
from monitor.drift.edetector import SrDetector, null_rate
from monitor.drift.evidence import Evidence
from monitor.feedback.store import Joined
from monitor.performance.estimate import ConfidenceEstimator, Estimate
from monitor.performance.retrain import Outlook, Point, outlook
from monitor.performance.tallies import BinaryTally, ClassTally, NumberTally, Tally
from monitor.watch.latches import Latches
from shadow.sequential import BernoulliInterval

Floats = NDArray[np.float64]
_MOST_WINDOWS = 240
_BATCH = 64
_RECOVERED = 0.5
"""Of the smallest loss that matters: what counts as no loss any more."""


class PerformanceWatch:
    """``run_length`` in predictions, or labels, of all that is tested here together.

    Three things are tested: the share of wrong predictions that is to be expected from the scores
    (without labels), the share that was wrong (with labels), and whether scores still mean what
    they did (with labels). All three are bounded risks with a null from the baseline; without a
    labelled baseline only the figures are shown.
    """

    def __init__(self, settings: Performance, baseline: Baseline, run_length: float) -> None:
        self.settings = settings
        self.run_length = run_length
        self.estimator = _estimator(settings, baseline)
        self.reference = _reference(baseline)
        """Accuracy in the baseline and the rows it rests on."""
        each = 3.0 * run_length
        loss = settings.smallest_loss
        self.expected: SrDetector | None = None
        self.expected_null = 0.0
        if self.estimator is not None:
            error, variance = self.estimator.expected_error()
            self.expected_null = min(error + loss, 1.0 - 1e-6)
            spread = np.array([max(variance, 1e-4)])
            self.expected = SrDetector(np.array([self.expected_null]), each, spread)
        self.realised: SrDetector | None = None
        self.realised_null = 0.0
        if self.reference is not None:
            accuracy, rows = self.reference
            self.realised_null = null_rate((1.0 - accuracy) * rows, rows, loss)
            self.realised = SrDetector(np.array([self.realised_null]), each)
        self.calibration: CalibrationDetector | None = None
        if self.estimator is not None and baseline.calibration is not None:
            try:
                self.calibration = CalibrationDetector(
                    each, Recalibration.fit(baseline.calibration)
                )
            except ValueError:
                self.calibration = None  # one class only: the scores cannot be checked
        self.latches = Latches(3)
        """Expected errors, realised errors, calibration."""
        self.history = ChangePoint(2)
        self.predictions = 0
        self.labels = 0
        self.whole: Tally = self._tally()
        self.window: Tally = self._tally()
        self.last: Tally | None = None
        """The last full window."""
        self.interval = BernoulliInterval(planned=float(settings.window))
        self.windows: list[Point] = []
        self._recent: list[float] = []
        self._scores: list[tuple[float, float]] = []
        self._labelled: list[tuple[Any, Any, float, str]] = []
        self._began = 0.0
        self.examples: list[str] = []

    def _tally(self) -> Tally:
        if self.settings.threshold is not None:
            return BinaryTally(self.settings.threshold)
        return NumberTally(self.settings.tolerance) if self.settings.tolerance else ClassTally()

    # Without labels -----------------------------------------------------------------------------

    def take(self, cells: Sequence[Any], times: Sequence[float]) -> None:
        """Predictions as they were given, with their unix times."""
        self.predictions += len(cells)
        if self.estimator is None:
            return
        for cell, at in zip(cells, times, strict=True):
            score = number(cell)
            if math.isfinite(score):
                self._scores.append((score, at))
        if len(self._scores) >= _BATCH:
            self._expect()

    def _expect(self) -> None:
        """Hand the waiting scores to the detector of expected errors."""
        if self.estimator is None or self.expected is None or not self._scores:
            return
        scores = np.array([s for s, _ in self._scores])
        times = np.array([t for _, t in self._scores])
        self._scores.clear()
        self._recent = (self._recent + scores.tolist())[-self.settings.window :]
        wrong = self.estimator.wrong(scores)[:, None]
        evidence = self.expected.update(wrong)
        three = np.full((len(scores), 3), np.nan)
        three[:, 0] = wrong[:, 0]
        self.latches.update(_only(evidence, 0), three, self.predictions - len(scores))
        spread = math.sqrt(self.expected_null * (1.0 - self.expected_null))
        both = np.full((len(scores), 2), np.nan)
        both[:, 0] = (wrong[:, 0] - self.expected_null) / spread
        self.history.update(both, times)

    def estimate(self) -> Estimate | None:
        """Accuracy of the last predictions, without their labels; None before there are any."""
        if self.estimator is None or len(self._recent) < 50:
            return None
        found = self.estimator.accuracy(np.array(self._recent))
        if self.latches.alarmed[2] and self.calibration is not None:
            doubt = f"labels say that the scores have changed their meaning: {self._bend()}"
            return Estimate(
                found.metric, found.value, found.low, found.high, found.rows,
                (*found.doubts, doubt),
            )  # fmt: skip
        return found

    def _bend(self) -> str:
        return self.calibration.words() if self.calibration is not None else ""

    # With labels --------------------------------------------------------------------------------

    def take_label(self, joined: Joined) -> None:
        """A label has come for a prediction of the champion."""
        cell = joined.outputs.get(self.settings.prediction)
        if cell is None or joined.label is None:
            return
        self._labelled.append((cell, joined.label, joined.started, joined.request_id))
        if len(self._labelled) >= _BATCH:
            self._compare()

    def _compare(self) -> None:
        """Evaluate the labels that wait."""
        waiting, self._labelled = self._labelled, []
        if not waiting:
            return
        times = np.array([at for _, _, at, _ in waiting])
        wrong = self._count(waiting)
        here = np.isfinite(wrong)
        if not here.any():
            return
        self.labels += int(here.sum())
        self.interval.update(1.0 - wrong[here])
        failed = [one[3] for one, bad in zip(waiting, wrong, strict=True) if bad == 1.0]
        self.examples = (self.examples + failed)[-5:]
        three = np.full((len(wrong), 3), np.nan)
        three[:, 1] = wrong
        if self.realised is not None:
            evidence = self.realised.update(wrong[:, None])
            self.latches.update(_only(evidence, 1), three, self.labels)
            null = self.realised_null
            both = np.full((len(wrong), 2), np.nan)
            both[:, 1] = (wrong - null) / math.sqrt(null * (1.0 - null))
            self.history.update(both, times)
        if self.calibration is not None:
            scores = np.array([number(cell) for cell, _, _, _ in waiting])
            labels = np.array([_yes(label) for _, label, _, _ in waiting])
            if self.calibration.update(scores, labels) >= 0:
                self.latches.alarmed[2] = True
        if not self._began:
            self._began = float(times[0])
        if self.window.count >= self.settings.window:
            self._close_window(float(times[-1]))

    def _count(self, waiting: Sequence[tuple[Any, Any, float, str]]) -> Floats:
        """Which predictions were wrong: 1 or 0, NaN where that cannot be said."""
        for tally in (self.whole, self.window):
            if isinstance(tally, ClassTally):
                pairs = [(category(cell), category(label)) for cell, label, _, _ in waiting]
                known = [(a, b) for a, b in pairs if a is not None and b is not None]
                tally.add([a for a, _ in known], [b for _, b in known])
                wrong = [math.nan if None in pair else float(pair[0] != pair[1]) for pair in pairs]
                found = np.array(wrong)
            else:
                values = np.array([number(cell) for cell, _, _, _ in waiting])
                if isinstance(tally, BinaryTally):
                    labels = np.array([_yes(label) for _, label, _, _ in waiting])
                    found = ((values > tally.threshold) != (labels > 0.5)).astype(np.float64)
                else:
                    labels = np.array([number(label) for _, label, _, _ in waiting])
                    found = (np.abs(values - labels) > (tally.tolerance or 0.0)).astype(np.float64)
                found[~(np.isfinite(values) & np.isfinite(labels))] = np.nan
                tally.add(values, labels)
        return found

    def _close_window(self, now: float) -> None:
        metrics = self.window.metrics()
        accuracy = metrics.get("accuracy")
        if accuracy is not None:
            count = self.window.count
            error = math.sqrt(max(accuracy * (1.0 - accuracy), 1.0 / count) / count)
            self.windows.append(Point((self._began + now) / 2.0, accuracy, error))
            del self.windows[:-_MOST_WINDOWS]
        self.last, self.window = self.window, self._tally()
        self._began = 0.0

    def outlook(self) -> Outlook | None:
        """When it should be retrained; None where no floor is set."""
        if self.settings.floor is None:
            return None
        return outlook(self.windows, self.settings.floor)

    # Both ---------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Evaluate what waits, and let go of what has recovered."""
        self._expect()
        self._compare()
        nulls = np.array([self.expected_null, self.realised_null, 1.0])
        alarmed = self.latches.alarmed[2]
        again = self.latches.recovered(nulls - _RECOVERED * self.settings.smallest_loss, 0.0)
        self.latches.alarmed[2] = alarmed  # it has no values of its own, and stays
        if again[0] and self.expected is not None:
            self.expected.reset(np.array([True]))
        if again[1] and self.realised is not None:
            self.realised.reset(np.array([True]))
            if self.calibration is not None:
                self.calibration.reset()
                self.latches.alarmed[2] = False
        if again[:2].any():
            self.history.reset(again[:2])

    def summary(self) -> dict[str, Any]:
        """Figures for machines and for the page."""
        estimate = self.estimate()
        ahead = self.outlook()
        bounds = self.interval.interval() if self.labels else None
        window = self.last or self.window
        return {
            "predictions": self.predictions,
            "labels": self.labels,
            "coverage": self.labels / self.predictions if self.predictions else None,
            "reference_accuracy": self.reference[0] if self.reference is not None else None,
            "estimate": estimate.to_dict() if estimate is not None else None,
            "realised": self.whole.metrics(),
            "window": {"labels": window.count, **window.metrics()},
            "accuracy_interval": [bounds.lower, bounds.upper] if bounds is not None else None,
            "calibration_statistic": self.calibration.statistic if self.calibration else None,
            "retrain": ahead.to_dict() if ahead is not None else None,
            "windows": [{"at": p.at, "accuracy": p.value} for p in self.windows[-60:]],
        }

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        self.flush()
        return {
            "predictions": self.predictions,
            "labels": self.labels,
            "expected": self.expected.to_dict() if self.expected is not None else None,
            "realised": self.realised.to_dict() if self.realised is not None else None,
            "calibration": self.calibration.to_dict() if self.calibration is not None else None,
            "latches": self.latches.to_dict(),
            "history": self.history.to_dict(),
            "whole": self.whole.to_dict(),
            "window": self.window.to_dict(),
            "last": self.last.to_dict() if self.last is not None else None,
            "interval": self.interval.to_dict(),
            "windows": [[p.at, p.value, p.error] for p in self.windows],
            "recent": [round(s, 6) for s in self._recent],
            "began": self._began,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Undo :meth:`to_dict`, of the same settings and baseline.

        Raises KeyError, TypeError or ValueError for another shape.
        """
        for name in ("expected", "realised"):
            if (getattr(self, name) is None) != (state[name] is None):
                raise ValueError(f"{name} is there in one and not in the other")
            if state[name] is not None:
                getattr(self, name).restore(state[name])
        if self.calibration is not None and state["calibration"] is not None:
            self.calibration.restore(state["calibration"])
        self.latches.restore(state["latches"])
        self.history.restore(state["history"])
        self.whole.restore(state["whole"])
        self.window.restore(state["window"])
        if state["last"] is not None:
            self.last = self._tally()
            self.last.restore(state["last"])
        self.interval = BernoulliInterval.from_dict(state["interval"])
        self.windows = [Point(*map(float, point)) for point in state["windows"]]
        self._recent = [float(s) for s in state["recent"]]
        self._began = float(state["began"])
        self.predictions = int(state["predictions"])
        self.labels = int(state["labels"])


def _only(evidence: Evidence, place: int) -> Evidence:
    """The evidence of one of three series, as that of all three."""
    statistic, threshold = np.full(3, -np.inf), np.zeros(3)
    crossed = np.full(3, -1, np.intp)
    direction = np.zeros(3, np.int8)
    statistic[place] = evidence.statistic[0]
    threshold[place] = evidence.threshold[0]
    crossed[place] = evidence.crossed[0]
    direction[place] = evidence.direction[0]
    return Evidence(statistic, threshold, crossed, direction)


def _estimator(settings: Performance, baseline: Baseline) -> ConfidenceEstimator | None:
    table = baseline.calibration
    if table is None or settings.threshold is None or table["prediction"] != settings.prediction:
        return None
    return ConfidenceEstimator(table, settings.threshold)


def _reference(baseline: Baseline) -> tuple[float, float] | None:
    found = (baseline.performance or {}).get("accuracy")
    return (float(found["value"]), float(found["rows"])) if found else None


def _yes(label: Any) -> float:
    if isinstance(label, str):
        return {"1": 1.0, "true": 1.0, "0": 0.0, "false": 0.0}.get(label.lower(), math.nan)
    return number(label)
