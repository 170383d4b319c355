"""The tests of all metrics of a model besides its error rate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from understudy.monitor.baseline.labelled import OF_THRESHOLD, THRESHOLD
from understudy.monitor.baseline.model import Baseline
from understudy.monitor.config.performance import Performance, loss_margin
from understudy.monitor.health.performance.intervals import area_under_curve
from understudy.monitor.health.performance.losses import DEFAULTS, LOSSES, AucBlocks, losses_of
from understudy.monitor.health.performance.metrics import LabelledBatch
from understudy.monitor.health.performance.tested import MetricTest, Reference
from understudy.shadow.experiment.margin import Margin
from understudy.shadow.state import Config, Converter, Count, Saved, Stateful

Floats = NDArray[np.float64]
MOST_CLASSES = 20
"""Classes whose recall is tested."""
_FEWEST = 30
"""Fewest rows of a reference of a metric that is measured on a part of the labels."""


def figures_of(baseline: Baseline | None, settings: Performance) -> dict[str, Any]:
    """The figures of a baseline that are about the configured prediction, by metric; those that
    another threshold gave are left out."""
    if baseline is None or baseline.performance is None:
        return {}
    predictions = [c.name for c in baseline.columns.values() if c.role == "prediction"]
    table = baseline.calibration
    named = table["prediction"] if table is not None else predictions[0] if predictions else ""
    if named != settings.prediction or (table is None and len(predictions) > 1):
        return {}
    figures = dict(baseline.performance)
    if table is not None:
        for name in OF_THRESHOLD:
            if name in figures and figures[name].get("threshold", THRESHOLD) != settings.threshold:
                del figures[name]
        counts, positives = (np.array(table[k], np.float64) for k in ("counts", "positives"))
        area = area_under_curve(np.array([counts - positives, positives]))
        if area is not None:
            figure = {"value": area[0], "deviation": area[1] ** 0.5, "rows": float(counts.sum())}
            figures["auc"] = figure
    return figures


def declared_metrics(settings: Performance, kind: str) -> dict[str, Margin | None]:
    """What is tested of a ``kind`` of prediction besides the error rate, with the smallest loss
    where one is declared."""
    if settings.metrics is None:
        return dict.fromkeys(DEFAULTS.get(kind, ()))
    return {
        one.metric: loss_margin(one.smallest_loss) if one.smallest_loss is not None else None
        for one in settings.metrics
        if one.metric in _POSSIBLE.get(kind, ())
    }


_POSSIBLE = {
    "scores": ("recall", "precision", "specificity", "auc", "log_loss", "brier"),
    "numbers": ("mae", "mse", "bias"),
    "classes": ("recall",),
}


def tests_of(settings: Performance, kind: str) -> int:
    """How many tests share the run length."""
    return sum(LOSSES[name].series for name in declared_metrics(settings, kind))


def _dump_classes(classes: dict[str, MetricTest]) -> list[list[Any]]:
    return [[name, test.dump_state()] for name, test in classes.items()]


def _raw(name: str, value: Any, _: Any) -> Any:
    """The value unchanged; the owner builds the tests."""
    return value


class MetricTests(Stateful):
    """``kind`` is that of the predictions: scores, numbers or classes. ``run_length`` is that of
    each test. ``figures`` are a baseline's; ``deviations`` of the error of a reference of first
    labels are allowed for. ``hidden``: names of classes must not be shown."""

    settings: Config[Performance]
    kind: Config[str]
    run_length: Config[float]
    deviations: Config[float]
    hidden: Config[bool]
    tests: Saved[dict[str, MetricTest]]
    blocks: Saved[AucBlocks]
    labels: Saved[Count]
    """Labels so far."""
    classes: Saved[Annotated[dict[str, MetricTest], Converter(_dump_classes, _raw)]]
    """Recall of each class."""
    _of_classes: Config[Margin | None]

    def __init__(
        self,
        settings: Performance,
        kind: str,
        run_length: float,
        deviations: float,
        figures: Mapping[str, Any],
        hidden: bool = False,
    ) -> None:
        self.hidden = hidden
        self.settings = settings
        self.kind = kind
        self.run_length = run_length
        self.deviations = deviations
        self.blocks = AucBlocks()
        self.labels = 0
        self.tests = {}
        self.classes = {}
        self._of_classes = None
        for name, smallest in declared_metrics(settings, kind).items():
            if kind == "classes":
                self._of_classes = smallest or LOSSES["recall"].smallest
                continue
            reference = None
            if name in figures and float(figures[name]["rows"]) >= _FEWEST:
                size = "mae" if name == "bias" else name
                about = abs(float(figures[size]["value"]))
                reference = Reference.of_figure(LOSSES[name], figures[name], about)
            self.tests[name] = MetricTest(
                LOSSES[name], run_length, self._needed(name), deviations, smallest, reference
            )

    def _needed(self, name: str) -> int:
        whole = self.settings.reference_labels
        return max(_FEWEST, whole // 20) if LOSSES[name].part else whole

    def _restored(self) -> None:
        saved: Any = self.classes
        self.classes = {}
        for name, state in saved[:MOST_CLASSES]:
            self._class(str(name)).load_state(state)

    def _class(self, name: str) -> MetricTest:
        test = self.classes.get(name)
        if test is None:
            length = self.run_length * MOST_CLASSES
            needed = self._needed("recall")
            label = f"class {len(self.classes) + 1}" if self.hidden else name
            test = self.classes[name] = MetricTest(
                LOSSES["recall"], length, needed, self.deviations, self._of_classes, label=label
            )
        return test

    def __iter__(self) -> Iterator[MetricTest]:
        return iter((*self.tests.values(), *self.classes.values()))

    def update(self, batch: LabelledBatch) -> None:
        """Take labelled predictions, all of them valid."""
        self.labels += len(batch)
        enough = self.labels >= self.settings.reference_labels
        predicted, labels, times = batch.predicted, batch.labels, batch.started
        if isinstance(predicted, list) or isinstance(labels, list):
            if self._of_classes is not None:
                self._update_classes(list(predicted), list(labels), batch.started, enough)
            return
        threshold = self.settings.threshold or 0.0
        for name, test in self.tests.items():
            if name == "auc":
                rows, losses = self.blocks.add(predicted, labels)
            else:
                rows, losses = losses_of(name, predicted, labels, threshold)
            if len(rows):
                test.update(losses, times[rows], enough)

    def _update_classes(
        self, predicted: list[Any], labels: list[Any], times: Floats, enough: bool
    ) -> None:
        rows: dict[str, list[int]] = {}
        for row, label in enumerate(labels):
            if label in self.classes or len(self.classes) < MOST_CLASSES:
                self._class(label)
                rows.setdefault(label, []).append(row)
        for label, mine in rows.items():
            wrong = np.array([float(predicted[row] != label) for row in mine])
            self._class(label).update(wrong, times[mine], enough)

    def settle(self) -> None:
        """End the alarms that have recovered."""
        for test in self:
            test.settle()

    def restart_tests(self) -> None:
        """Forget what was compared with the references, which stay."""
        for test in self:
            test.restart_test()

    def restart(self) -> None:
        """Forget references of first labels, and what was compared with them."""
        self.blocks = AucBlocks()
        self.labels = 0
        for test in self:
            if test.from_baseline is None:
                test.restart()
