"""The test of one metric of labelled predictions against its reference.

The reference is the baseline's figure where it has one, else that of the first labels. Its own
uncertainty is in the null: the upper bound of its mean loss, plus the smallest loss that matters.
Losses without an upper limit are capped at their mean plus eight deviations of the reference, and
then tested by the same Shiryaev-Roberts e-detector as rates (Shin, Ramdas & Rinaldo,
arXiv:2203.03532): a cap lowers the mean, so the guarantee stays.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from understudy.monitor.detectors.change_point import ChangePoint
from understudy.monitor.detectors.edetector import SrDetector, null_rate
from understudy.monitor.health.latches import Latches
from understudy.monitor.health.performance.intervals import share
from understudy.monitor.health.performance.losses import LossKind
from understudy.monitor.health.untested import Untested
from understudy.shadow.experiment.margin import Margin, Unit
from understudy.shadow.state import Config, Converter, Count, Derived, Saved, Stateful

Floats = NDArray[np.float64]
BASELINE_BOUND = 1.6448536269514722
"""Standard errors of the reference that are allowed for when a baseline gives it: 95 %."""
_CAP = 8.0
_BIAS_CAP = 6.0
_RECOVERED = 0.5
"""Share of the smallest loss that matters below which a loss has recovered."""
_MOST_NULL = 0.98
"""A loss that is usually that large cannot grow noticeably."""
_BETS = (0.1, 0.2, 0.4, 0.6, 0.8, 0.95)
"""Of the largest possible bet, for a bias."""
_SMALLEST_DEVIATION = 1e-3


@dataclass(frozen=True, slots=True)
class Reference:
    """Of a metric's losses: their ``mean`` and ``deviation`` over ``rows``. ``size`` is what a
    relative loss is relative to; ``source`` is ``baseline`` or ``first labels``."""

    rows: float
    mean: float
    deviation: float
    size: float
    source: str

    @classmethod
    def of_figure(cls, kind: LossKind, figure: Mapping[str, Any], size: float) -> Reference:
        """Of a baseline's figure; a score becomes a loss."""
        value = float(figure["value"])
        mean = 1.0 - value if kind.score else value
        return cls(float(figure["rows"]), mean, float(figure["deviation"]), size, "baseline")


def _dump_detector(detector: SrDetector | None) -> Any:
    return detector.dump_state() if detector is not None else None


def _raw(name: str, value: Any, _: Any) -> Any:
    """The value unchanged; the owner builds the detector once the reference is loaded."""
    return value


class MetricTest(Stateful):
    """Compares the losses of one metric with its reference.

    Where ``from_baseline`` is None the first labels are the reference, of which at least ``needed``
    rows count for the metric; ``deviations`` of their mean's error are then allowed for.
    ``run_length`` is in rows that count for the metric. ``label`` names a class if the metric
    is that of a class.
    """

    kind: Config[LossKind]
    label: Config[str]
    needed: Config[int]
    run_length: Config[float]
    smallest: Config[Margin]
    deviations: Config[float]
    from_baseline: Config[Reference | None]
    rows: Saved[Count]
    """Of the reference that the first labels give; likewise the sums."""
    total: Saved[float]
    squares: Saved[float]
    absolute: Saved[float]
    complete: Saved[bool]
    """Whether the first labels are all there."""
    tested: Saved[Count]
    """Rows that were compared with the reference."""
    latches: Saved[Latches]
    history: Saved[ChangePoint]
    _detector: Saved[Annotated[SrDetector | None, Converter(_dump_detector, _raw)]]
    reference: Derived[Reference | None]

    def __init__(
        self,
        kind: LossKind,
        run_length: float,
        needed: int,
        deviations: float,
        smallest: Margin | None = None,
        from_baseline: Reference | None = None,
        label: str = "",
    ) -> None:
        self.kind = kind
        self.label = label
        self.needed = needed
        self.run_length = run_length
        self.smallest = smallest or kind.smallest
        self.deviations = deviations if from_baseline is None else BASELINE_BOUND
        self.from_baseline = from_baseline
        self.restart()

    def restart(self) -> None:
        """Forget the first labels and everything that was compared with them."""
        self.rows = 0
        self.total = self.squares = self.absolute = 0.0
        self.complete = False
        self.restart_test()

    def restart_test(self) -> None:
        """Forget what was compared with the reference."""
        self.tested = 0
        self.latches = Latches(self.kind.series)
        self.history = ChangePoint(self.kind.series)
        self._begin()

    def _restored(self) -> None:
        saved: Any = self._detector
        self._begin()
        if saved is not None and self._detector is not None:
            self._detector.load_state(saved)

    # The reference ------------------------------------------------------------------------------

    def _begin(self) -> None:
        self.reference = self.from_baseline or self._first()
        self._detector = None
        if self.reference is not None and self.null < _MOST_NULL:
            self._detector = self._made()

    def _first(self) -> Reference | None:
        if not self.complete:
            return None
        mean = self.total / self.rows
        deviation = math.sqrt(max(self.squares / self.rows - mean**2, 0.0))
        size = 1.0 - mean if self.kind.score else mean
        if self.kind.name == "bias":
            size = self.absolute / self.rows
        return Reference(float(self.rows), mean, deviation, size, "first labels")

    @property
    def matters(self) -> float:
        """The smallest loss that matters, in the unit of the losses."""
        if self.smallest.unit is not Unit.RELATIVE or self.reference is None:
            return self.smallest.value
        return self.smallest.value * self.reference.size

    @property
    def scale(self) -> float:
        """What losses are divided by, so that they lie in [0, 1]; larger ones count as 1."""
        reference = self.reference
        if reference is None or self.kind.bounded:
            return 1.0
        if self.kind.name == "bias":
            return 2.0 * _BIAS_CAP * max(reference.deviation, self.matters) or 1.0
        return reference.mean + _CAP * reference.deviation or 1.0

    @property
    def null(self) -> float:
        """Upper bound of the mean loss that is accepted, in units of :attr:`scale`."""
        reference = self.reference
        if reference is None:
            return 1.0
        matters = self.matters / self.scale
        if self.kind.rate:
            errors = reference.mean * reference.rows
            return null_rate(errors, reference.rows, matters, self.deviations)
        spread = reference.deviation / self.scale
        # A loss at the cap that the reference happens not to hold would be one of its rows.
        unseen = 1.0 / reference.rows if not self.kind.bounded else 1.0 / reference.rows**2
        bound = self.deviations * math.sqrt((spread**2 + unseen) / reference.rows)
        if self.kind.name == "bias":
            # Cutting at C moves a mean by at most variance / (4 C).
            return 0.5 + bound + spread**2 / 2.0 + matters
        return min(reference.mean / self.scale + bound + matters, 1.0 - 1e-6)

    def _made(self) -> SrDetector:
        assert self.reference is not None
        null = np.full(self.kind.series, self.null)
        if self.kind.rate:
            return SrDetector(null, self.run_length)
        if self.kind.name == "bias":
            bets = np.tile(np.array(_BETS) / self.null, (2, 1))
            return SrDetector(null, self.run_length, bets=bets)
        variance = max((self.reference.deviation / self.scale) ** 2, 1e-4)
        return SrDetector(null, self.run_length, np.array([variance]))

    # Rows ---------------------------------------------------------------------------------------

    def update(self, losses: Floats, times: Floats, enough: bool = True) -> None:
        """Take losses (n,) of rows that count, with their unix times. ``enough``: with these, there
        are as many labels as a reference needs."""
        if self.from_baseline is None and not self.complete:
            self.rows += len(losses)
            self.total += float(losses.sum())
            self.squares += float((losses**2).sum())
            self.absolute += float(np.abs(losses).sum())
            self.complete = enough and self.rows >= self.needed
            self._begin()
            return
        if self._detector is None or self.reference is None or not len(losses):
            return
        x = self._scaled(losses)
        evidence = self._detector.update(x)
        self.latches.update(evidence, x, self.tested)
        self.history.update((x - self._usual) / self._spread, times)
        self.tested += len(losses)

    def _scaled(self, losses: Floats) -> Floats:
        if self.kind.name != "bias":
            return np.clip(losses / self.scale, 0.0, 1.0)[:, None]
        assert self.reference is not None
        up = np.clip(0.5 + (losses - self.reference.mean) / self.scale, 0.0, 1.0)
        return np.column_stack([up, 1.0 - up])

    @property
    def _usual(self) -> float:
        if self.reference is None or self.kind.name == "bias":
            return 0.5
        return self.reference.mean / self.scale

    @property
    def _spread(self) -> float:
        assert self.reference is not None
        if self.kind.rate:
            usual = min(max(self._usual, _SMALLEST_DEVIATION), 1.0 - _SMALLEST_DEVIATION)
            return math.sqrt(usual * (1.0 - usual))
        return max(self.reference.deviation / self.scale, _SMALLEST_DEVIATION)

    def settle(self) -> None:
        """End an alarm that has recovered."""
        if self._detector is None:
            return
        limit = self.null - _RECOVERED * self.matters / self.scale
        again = self.latches.recovered(np.full(self.kind.series, limit), 0.0)
        if again.any():
            self._detector.reset(again)
            self.history.reset(again)

    # What it says -------------------------------------------------------------------------------

    @property
    def alarmed(self) -> bool:
        """Whether the metric is worse than its reference by more than the smallest loss."""
        return bool(self.latches.alarmed.any())

    @property
    def usual(self) -> float | None:
        """The metric in the reference; None before there is one."""
        return None if self.reference is None else self._metric(self.reference.mean)

    def _metric(self, loss: float) -> float:
        return 1.0 - loss if self.kind.score else loss

    def change(self) -> tuple[float | None, float, float, float]:
        """Since when, as unix time, and the metric since then with an interval."""
        assert self.reference is not None
        series = int(np.argmax(self.latches.alarmed))
        estimate = self.history.estimate(series)
        sign = -1.0 if series == 1 else 1.0
        by = self._spread * self.scale * sign
        value, low, high = (
            self._metric(self.reference.mean + by * size)
            for size in (estimate.size, estimate.low, estimate.high)
        )
        if self.kind.rate:
            wrong = min(max(self.reference.mean + by * estimate.size, 0.0), 1.0)
            rows = max(estimate.rows, 1.0)
            value = self._metric(wrong)
            low, high = (self._metric(end) for end in share(wrong * rows, rows, 0.05))
        return estimate.time, value, min(low, high), max(low, high)

    def untested(self, labels: int, wanted: int) -> Untested | None:
        """Why it is not tested yet, with ``labels`` of the ``wanted`` ones; None when it is."""
        name = self.kind.name
        title = f"{self.kind.title} of {self.label}" if self.label else self.kind.title
        if self.reference is None and self.rows >= self.needed:
            words = f"{title}: {labels:,} of {wanted:,} labels for the reference"
            return Untested(name, "reference", words, labels, wanted)
        if self.reference is None:
            need = f"{self.rows:,} of {self.needed:,} {self.kind.rows} for the reference"
            return Untested(name, "reference", f"{title}: {need}", self.rows, self.needed)
        if self._detector is None:
            worst = self.usual
            words = f"{title}: the reference is {worst:.3g}, which leaves no room for a loss"
            return Untested(name, "reference", words)
        return None

    def summary(self) -> dict[str, Any]:
        """As JSON."""
        reference = self.reference
        return {
            "class": self.label or None,
            "tested": self._detector is not None,
            "rows": self.tested,
            "reference": self.usual,
            "reference_rows": int(reference.rows) if reference is not None else self.rows,
            "reference_source": reference.source if reference is not None else None,
            "needed": self.needed if self.from_baseline is None else None,
            "smallest_loss": self.matters if reference is not None else None,
            "worse": self.alarmed,
        }
