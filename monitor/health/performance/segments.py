"""Performance by segment (rows with the same value of a declared feature), and the gaps between.

Two questions, two tests. **Has a segment become worse than it was?** A segment may be harder than
the whole from the start, so its first labels are its reference, with the error of that in the null;
a Shiryaev-Roberts e-detector runs for each, and all of them together keep the configured run
length. **Are groups treated unlike each other?** The gap between the best and the worst group in
accuracy, error rate, positive rate or true positive rate, with an interval that holds at every
moment and for all groups at once; 0 outside of it means that there is a gap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from understudy.common.arrays import distinct
from understudy.common.special import betaincinv
from understudy.monitor.baseline.calibration.codes import OTHER
from understudy.monitor.detectors.edetector import SrDetector
from understudy.monitor.detectors.packed import Open
from understudy.monitor.health.performance.intervals import share
from understudy.monitor.health.performance.tallies import WholeFloats
from understudy.shadow.experiment.margin import Margin
from understudy.shadow.state import Config, Converter, FieldError, Key, Saved, Stateful

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]
REFERENCE = 500
"""Labels of a segment that are its reference."""
MOST = 20
"""Values of a feature that have a separate group; all others are "other"."""
_REFERENCE_ALPHA = 0.05
"""Probability that the reference of any segment is further off than allowed for."""
GAPS = ("accuracy", "error_rate", "positive_rate", "true_positive_rate")
_HITS = {"accuracy": 1, "error_rate": 2, "positive_rate": 3, "true_positive_rate": 5}
_ROWS = {"accuracy": 0, "error_rate": 0, "positive_rate": 0, "true_positive_rate": 4}
_COLUMNS = 6


@dataclass(frozen=True, slots=True)
class GroupRate:
    """A rate of one group: ``value`` (None without rows) in [``low``, ``high``], of ``rows``."""

    name: str
    value: float | None
    low: float
    high: float
    rows: int

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Gap:
    """Between the groups with the highest and the lowest rate: ``value`` in [``low``, ``high``]."""

    metric: str
    value: float
    low: float
    high: float
    highest: str
    lowest: str

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def _load_indices(name: str, value: Any, _: Any) -> dict[str, int]:
    return {str(one): index for index, one in enumerate(value)}


def _dump_detectors(detectors: dict[int, SrDetector]) -> dict[str, Any]:
    return {str(index): detector.dump_state() for index, detector in detectors.items()}


def _raw(name: str, value: Any, _: Any) -> Any:
    """The value unchanged; the owner builds the detectors once their references are loaded."""
    return value


class Groups(Stateful):
    """Counts of labelled rows by value of one feature. The first ``most`` values get separate
    groups; the others share the last."""

    feature: Config[str]
    most: Config[int]
    _indices: Saved[Annotated[dict[str, int], Key("names"), Converter(list, _load_indices)]]
    _sums: Saved[WholeFloats]
    """Labels, right, wrong, predicted positives, positives, and the predicted ones of these."""

    def __init__(self, feature: str, most: int = MOST) -> None:
        if most < 2:
            raise ValueError(f"most must be at least 2 groups, not {most}")
        self.feature = feature
        self.most = most
        self._indices = {}
        self._sums = np.zeros((most + 1, _COLUMNS))

    def _restored(self) -> None:
        if len(self._indices) > self.most:
            raise FieldError("names", f"must be at most {self.most}")

    @property
    def has_yes(self) -> bool:
        """Whether there was a positive prediction or label; else only error rates apply."""
        return bool(self._sums[:, 3:5].any())

    @property
    def names(self) -> list[str]:
        """Names of the groups in the order of their first rows; "other" last where there is one."""
        named = list(self._indices)
        return [*named, OTHER] if self._sums[self.most, 0] else named

    def indices(self, values: Sequence[str | None]) -> Indices:
        """The group (n,) of each value; -1 for a missing one."""
        result = np.full(len(values), -1, np.intp)
        for row, value in enumerate(values):
            if value is None:
                continue
            index = self._indices.get(value)
            if index is None:
                if len(self._indices) < self.most:
                    index = self._indices[value] = len(self._indices)
                else:
                    index = self.most
            result[row] = index
        return result

    def name(self, index: int) -> str:
        """The name of a group."""
        return list(self._indices)[index] if index < len(self._indices) else OTHER

    def add(self, indices: Indices, wrong: Floats, predicted: Floats, labels: Floats) -> None:
        """Labelled rows, all (n,): groups of :meth:`places`, ``wrong`` 0 or 1, and whether yes was
        ``predicted`` and is the ``label`` (NaN where that means nothing)."""
        here = (indices >= 0) & np.isfinite(wrong)
        index, bad = indices[here], wrong[here]
        yes = np.nan_to_num(predicted[here]) > 0.5
        true = np.nan_to_num(labels[here]) > 0.5
        columns = (np.ones_like(bad), 1.0 - bad, bad, yes, true, yes & true)
        for column, values in enumerate(columns):
            weights = np.asarray(values, np.float64)
            self._sums[:, column] += np.bincount(index, weights, self.most + 1)

    def rates(self, metric: str, alpha: float = 0.05) -> list[GroupRate]:
        """Of every group that has rows; the intervals hold all at once at level ``alpha``: the k-th
        group to come has alpha / (k (k + 1)). Raises KeyError for a metric not in :data:`GAPS`."""
        hits, rows = self._sums[:, _HITS[metric]], self._sums[:, _ROWS[metric]]
        result = []
        for index in np.flatnonzero(rows):
            # "other" may come at any time, so the first position is reserved for it.
            order = 1 if index == self.most else int(index) + 2
            low, high = share(hits[index], rows[index], alpha / (order * (order + 1.0)))
            value = float(hits[index] / rows[index])
            result.append(GroupRate(self.name(int(index)), value, low, high, int(rows[index])))
        return result

    def gap(self, metric: str, alpha: float = 0.05, fewest: int = 1) -> Gap | None:
        """Between the groups of at least ``fewest`` rows; None with fewer than two of them.

        The interval is for the largest difference between any two of these groups, whichever they
        are, so the search for the largest gap causes no bias. While all groups are alike,
        ``low`` is ever above 0 with a probability of at most ``alpha``.
        """
        rates = [r for r in self.rates(metric, alpha) if r.rows >= fewest and r.value is not None]
        if len(rates) < 2:
            return None
        rates.sort(key=lambda r: r.value or 0.0)
        lowest, highest = rates[0], rates[-1]
        low = max(0.0, max(r.low for r in rates) - min(r.high for r in rates))
        high = max(a.high - b.low for a in rates for b in rates if a is not b)
        value = (highest.value or 0.0) - (lowest.value or 0.0)
        return Gap(metric, value, low, min(1.0, high), highest.name, lowest.name)

    def merge(self, other: Groups) -> None:
        """Add the counts of another object for the same feature. Raises ValueError otherwise."""
        if (self.feature, self.most) != (other.feature, other.most):
            raise ValueError(f"groups of {self.feature!r} and of {other.feature!r} do not add up")
        indices = self.indices(list(other._indices))
        for index, row in zip(indices, other._sums, strict=False):
            self._sums[index] += row
        self._sums[self.most] += other._sums[self.most]


@dataclass(frozen=True, slots=True)
class WorseSegment:
    """A segment whose error rate has risen to ``value`` from ``reference``."""

    name: str
    value: float
    reference: float
    rows: int


class SegmentAlarms(Stateful):
    """Whether the error rate of any of at most ``most`` segments has risen.

    ``run_length`` is that of all together, in labels of the model: of d segments each one's own
    detector has d times as much (Shin, Ramdas & Rinaldo, arXiv:2203.03532, section 5), and since a
    segment sees its own labels only, this is more than enough. ``smallest`` is the smallest rise
    that matters. A segment of less than :data:`REFERENCE` labels is not tested.
    """

    run_length: Config[float]
    smallest: Config[Margin]
    most: Config[int]
    _counts: Saved[WholeFloats]
    """Labels and errors of the reference."""
    _recent: Saved[Open]
    _since: Saved[NDArray[np.int64]]
    _detectors: Saved[Annotated[dict[int, SrDetector], Converter(_dump_detectors, _raw)]]
    alarmed: Saved[NDArray[np.bool_]]

    def __init__(self, run_length: float, smallest: Margin, most: int = MOST + 1) -> None:
        self.run_length = run_length
        self.smallest = smallest
        self.most = most
        self._counts = np.zeros((most, 2))
        self._recent = np.full(most, np.nan)
        self._since = np.zeros(most, np.int64)
        self._detectors = {}
        self.alarmed = np.zeros(most, np.bool_)

    def _restored(self) -> None:
        saved: dict[str, Any] = self._detectors  # type: ignore[assignment]
        self._detectors = {}
        for index, data in saved.items():
            detector = self._detectors[int(index)] = self._detector(int(index))
            detector.load_state(data)

    def add(self, indices: Indices, wrong: Floats) -> None:
        """Labels in their order: segments (n,) from 0 to ``most`` - 1 (-1: none), errors (n,)."""
        for index in distinct(indices[(indices >= 0) & np.isfinite(wrong)]).tolist():
            values = wrong[(indices == index) & np.isfinite(wrong)]
            missing = int(REFERENCE - self._counts[index, 0])
            if missing > 0:
                part = values[:missing]
                self._counts[index] += (len(part), part.sum())
                values = values[missing:]
            if len(values):
                self._evaluate(index, values)

    def _evaluate(self, index: int, values: Floats) -> None:
        detector = self._detectors.get(index)
        if detector is None:
            detector = self._detectors[index] = self._detector(index)
        if detector.update(values[:, None]).crossed[0] >= 0:
            self.alarmed[index] = True
        # The recent rate: an exponential average over some two hundred labels.
        keep = 0.995
        level = self._recent[index] if self._since[index] else values[0]
        weights = (1.0 - keep) * keep ** np.arange(len(values) - 1, -1, -1.0)
        self._recent[index] = level * keep ** len(values) + float(weights @ values)
        self._since[index] += len(values)
        rows, errors = self._counts[index]
        if self.alarmed[index] and self._recent[index] <= errors / rows:
            self.alarmed[index] = False
            detector.reset(np.array([True]))

    def _detector(self, index: int) -> SrDetector:
        # Clopper & Pearson's bound, at a level that holds for all segments at once.
        rows, errors = self._counts[index].tolist()
        level = 1.0 - _REFERENCE_ALPHA / self.most
        bound = float(betaincinv(errors + 1.0, rows - errors, level)) if errors < rows else 1.0
        matters = self.smallest.value
        if self.smallest.relative:
            matters *= errors / rows
        null = min(bound + matters, 1.0 - 1e-6)
        return SrDetector(np.array([null]), self.run_length * self.most)

    def waiting(self) -> tuple[int, int]:
        """How many segments still lack labels for their reference, and how many there are."""
        rows = self._counts[:, 0]
        return int(((rows > 0.0) & (rows < REFERENCE)).sum()), int((rows > 0.0).sum())

    def worse(self, names: Groups) -> list[WorseSegment]:
        """The segments that are in alarm, the largest rise first."""
        result = []
        for index in np.flatnonzero(self.alarmed).tolist():
            rows, errors = self._counts[index]
            value = float(self._recent[index])
            result.append(
                WorseSegment(
                    names.name(index), value, float(errors / rows), int(self._since[index])
                )
            )
        return sorted(result, key=lambda w: w.reference - w.value)
