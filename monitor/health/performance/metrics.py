"""Metrics of labelled predictions, since the start and over a window.

They come with intervals, the share of labelled predictions, and the delay of labels: a metric of
the predictions that were labelled early is not that of all.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from understudy.monitor.health.performance.intervals import intervals
from understudy.monitor.health.performance.tallies import (
    BinaryTally,
    ClassTally,
    NumberTally,
    Tally,
)
from understudy.shadow.state import Config, Converter, Count, Saved, Stateful

Floats = NDArray[np.float64]
SLOTS = 12
"""Parts of a rolling window: it forgets by parts, so it holds between 11 and 12 twelfths."""
_DELAY_BASE = 2.0 ** (1.0 / 4.0)
_DELAY_LEAST = 1e-3
_DELAY_BUCKETS = 160
"""From a millisecond to some thirty years."""
DELAY_QUANTILES = (0.5, 0.9, 0.99)


@dataclass(frozen=True, slots=True)
class LabelledBatch:
    """Predictions of one model with their labels, n rows in the order in which labels came.

    ``predicted`` and ``labels`` are numbers (n,) for scores and predicted numbers, lists of texts
    for classes; ``started`` (n,) and ``delays`` (n,) are in seconds, unix time and from prediction
    to label; ``ids`` are request ids; ``segments`` (n,) are codes of the caller's segments.
    """

    predicted: Floats | list[str]
    labels: Floats | list[str]
    started: Floats
    delays: Floats
    ids: tuple[str, ...] = ()
    segments: NDArray[np.intp] | None = None

    def __post_init__(self) -> None:
        sizes = {len(self.predicted), len(self.labels), len(self.started), len(self.delays)}
        sizes |= {len(self.segments)} if self.segments is not None else set()
        if len(sizes) != 1 or (self.ids and len(self.ids) != len(self.predicted)):
            raise ValueError("the columns of a labelled batch are of different lengths")

    def __len__(self) -> int:
        return len(self.predicted)

    def add_to(self, tally: Tally) -> None:
        """Count the rows. Raises TypeError for a tally of another kind."""
        if isinstance(tally, ClassTally):
            if not isinstance(self.predicted, list) or not isinstance(self.labels, list):
                raise TypeError("classes are lists of texts")
            tally.add(self.predicted, self.labels)
            return
        if isinstance(self.predicted, list) or isinstance(self.labels, list):
            raise TypeError("scores and numbers are arrays")
        tally.add(self.predicted, self.labels)


def _dump_held(counts: NDArray[np.int64]) -> dict[str, int]:
    """The nonempty buckets."""
    return {str(index): int(counts[index]) for index in np.flatnonzero(counts)}


def _load_held(name: str, value: Any, now: NDArray[np.int64]) -> NDArray[np.int64]:
    result = np.zeros_like(now)
    for index, count in value.items():
        result[int(index)] = int(count)
    return result


def _dump_slots(slots: list[tuple[int, Tally]]) -> list[list[Any]]:
    return [[number, tally.dump_state()] for number, tally in slots]


def _raw(name: str, value: Any, _: Any) -> Any:
    """The value unchanged; the owner builds the tallies."""
    return value


class Delays(Stateful):
    """How late labels are: a histogram on a logarithmic scale, quantiles within 10 %."""

    _counts: Saved[Annotated[NDArray[np.int64], Converter(_dump_held, _load_held)]]

    def __init__(self) -> None:
        self._counts = np.zeros(_DELAY_BUCKETS, np.int64)

    @property
    def count(self) -> int:
        """Labels."""
        return int(self._counts.sum())

    def add(self, seconds: Floats) -> None:
        """Delays (n,) in seconds; negative delays (a clock jumped) count as 0."""
        x = seconds[np.isfinite(seconds)]
        index = np.log(np.maximum(x, _DELAY_LEAST) / _DELAY_LEAST) / math.log(_DELAY_BASE)
        clipped = np.clip(index.astype(np.int64), 0, _DELAY_BUCKETS - 1)
        self._counts += np.bincount(clipped, minlength=_DELAY_BUCKETS)

    def quantile(self, level: float) -> float | None:
        """The quantile ``level`` in seconds; None without labels."""
        total = self.count
        if not total:
            return None
        index = int(np.searchsorted(np.cumsum(self._counts), max(1, math.ceil(level * total))))
        return float(_DELAY_LEAST * _DELAY_BASE ** (index + 0.5))

    def merge(self, other: Delays) -> None:
        """Add the counts of ``other``."""
        self._counts = self._counts + other._counts


class Rolling(Stateful):
    """A tally of the last ``rows`` labels, or of the labels of the last ``seconds``; one of them.

    It consists of :data:`SLOTS` tallies, the oldest of which is dropped as a whole, so it takes the
    memory of twelve tallies whatever the traffic. A time before the window counts as its beginning:
    labels come late, and clocks jump.
    """

    _make: Config[Callable[[], Tally]]
    _rows: Config[int | None]
    _seconds: Config[float | None]
    _slots: Saved[Annotated[list[tuple[int, Tally]], Converter(_dump_slots, _raw)]]
    """(Number of the slot in time or in rows, its tally), rising."""
    _count: Saved[Count]

    def __init__(
        self, make: Callable[[], Tally], rows: int | None = None, seconds: float | None = None
    ) -> None:
        if (rows is None) == (seconds is None):
            raise ValueError("a window is of rows or of seconds: give one of them")
        if (rows is not None and rows < SLOTS) or (seconds is not None and not seconds > 0.0):
            raise ValueError(f"a window needs at least {SLOTS} rows, or some seconds")
        self._make = make
        self._rows = rows
        self._seconds = seconds
        self._slots = []
        self._count = 0

    def _restored(self) -> None:
        saved: Any = self._slots
        self._slots = []
        for number, data in saved[-SLOTS:]:
            tally = self._make()
            tally.load_state(data)
            self._slots.append((int(number), tally))

    def add(self, batch: LabelledBatch, now: float) -> None:
        """Add labels that came at ``now``, unix seconds."""
        if not len(batch):
            return
        if self._seconds is not None:
            batch.add_to(self._slot(int(now // (self._seconds / SLOTS))))
            return
        assert self._rows is not None
        size = self._rows // SLOTS
        start = 0
        while start < len(batch):
            stop = min(len(batch), start + size - self._count % size)
            part = _part(batch, slice(start, stop))
            part.add_to(self._slot(self._count // size))
            self._count += stop - start
            start = stop

    def _slot(self, number: int) -> Tally:
        if self._slots and number <= self._slots[-1][0]:
            return self._slots[-1][1]
        tally = self._make()
        self._slots.append((number, tally))
        self._forget(number)
        return tally

    def _forget(self, number: int) -> None:
        self._slots = [slot for slot in self._slots if slot[0] > number - SLOTS]

    def tally(self, now: float | None = None) -> Tally:
        """One tally of the whole window, as of ``now`` (unix seconds) for a window of seconds."""
        if now is not None and self._seconds is not None:
            self._forget(int(now // (self._seconds / SLOTS)))
        whole = self._make()
        for _, slot in self._slots:
            # Of one make, so of one kind.
            whole.merge(slot)  # type: ignore[arg-type]
        return whole


@dataclass(frozen=True, slots=True)
class MetricValue:
    """A metric's ``value`` with its interval at every moment [``low``, ``high``] (None where there
    is none), from ``rows`` labels."""

    metric: str
    value: float
    low: float | None
    high: float | None
    rows: int

    def document(self) -> dict[str, Any]:
        """As JSON; an end that is infinite is None."""
        ends = [e if e is not None and math.isfinite(e) else None for e in (self.low, self.high)]
        return {"value": self.value, "low": ends[0], "high": ends[1], "rows": self.rows}


def metric_values(tally: Tally, alpha: float = 0.05) -> dict[str, MetricValue]:
    """All metrics of a tally, each with its interval at level ``alpha``."""
    ends = intervals(tally, alpha)
    result = {}
    for metric, value in tally.metrics().items():
        low, high = ends.get(metric, (None, None))
        result[metric] = MetricValue(metric, value, low, high, tally.count)
    return result


class Metrics(Stateful):
    """All metrics of one model: since the start and over a window, coverage, and delay.

    ``make`` makes a tally; the window is of ``rows`` labels or of ``seconds``.
    """

    whole: Saved[Tally]
    window: Saved[Rolling]
    delays: Saved[Delays]
    predictions: Saved[Count]

    def __init__(
        self, make: Callable[[], Tally], rows: int | None = None, seconds: float | None = None
    ) -> None:
        self.whole = make()
        self.window = Rolling(make, rows, seconds)
        self.delays = Delays()
        self.predictions = 0

    def predicted(self, count: int) -> None:
        """Count predictions, labelled or not."""
        self.predictions += count

    def take(self, batch: LabelledBatch, now: float) -> None:
        """Add labels that came at ``now``, unix seconds."""
        batch.add_to(self.whole)
        self.window.add(batch, now)
        self.delays.add(batch.delays)

    @property
    def coverage(self) -> float | None:
        """Share of the predictions that have a label; None before the first prediction."""
        if not self.predictions:
            return None
        return min(1.0, self.delays.count / self.predictions)

    def summary(self, now: float | None = None, alpha: float = 0.05) -> dict[str, Any]:
        """As JSON: ``whole`` and ``window`` with figures by metric, ``coverage``, ``delay``."""
        window = self.window.tally(now)
        return {
            "whole": {m: f.document() for m, f in metric_values(self.whole, alpha).items()},
            "window": {m: f.document() for m, f in metric_values(window, alpha).items()},
            "coverage": self.coverage,
            "delay": {f"p{100 * q:g}": self.delays.quantile(q) for q in DELAY_QUANTILES},
        }

    def merge(self, other: Metrics) -> None:
        """Add what another replica has counted. Windows of two replicas have no common order of
        rows and are not merged."""
        self.whole.merge(other.whole)  # type: ignore[arg-type]  # of one make
        self.delays.merge(other.delays)
        self.predictions += other.predictions


def tally_for(kind: str, threshold: float | None, tolerance: float | None) -> Tally:
    """An empty tally for a kind of prediction: ``scores`` with a threshold, ``numbers`` with or
    without a tolerance, else classes."""
    if kind == "scores" and threshold is not None:
        return BinaryTally(threshold)
    return NumberTally(tolerance) if kind == "numbers" else ClassTally()


def _part(batch: LabelledBatch, rows: slice) -> LabelledBatch:
    segments = batch.segments[rows] if batch.segments is not None else None
    return LabelledBatch(
        batch.predicted[rows], batch.labels[rows], batch.started[rows], batch.delays[rows],
        batch.ids[rows], segments,
    )  # fmt: skip
