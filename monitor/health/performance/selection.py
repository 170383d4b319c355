"""Do labels depend on what was predicted? Checked before performance is judged by them.

Predictions are counted in cohorts by their time, labels in the cohort of their prediction. If
whether a label arrives, and when, does not depend on the prediction, then the next label of a
cohort is as likely one of any of its predictions that have none. So the probability that it is one
above a cut (the threshold, the median; or of one class) is known exactly, whatever the mix of the
predictions and however late labels are: a sequential form of Fisher's exact test of the two-by-two
table, labelled or not by above or below. The bets are on odds that differ by a factor (Wallenius
1963), against the null that they differ by at most :data:`MARGIN`, by the Shiryaev-Roberts
recursion, so that a false alarm comes on average once in ``run_length`` labels.

A difference that is only one of delay ends when all labels are there: cohorts old enough show
whether coverage is the same on both sides. The same cohorts show whether coverage has fallen.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from understudy.common.arrays import quantile
from understudy.common.units import percent
from understudy.monitor.detectors.edetector import log_sum
from understudy.monitor.detectors.packed import Logs
from understudy.monitor.health.performance.intervals import share
from understudy.shadow.state import Config, Converter, Count, FieldError, Saved, Stateful

Floats = NDArray[np.float64]
Groups = NDArray[np.intp]
ASSUMPTION = "assumes that whether a label arrives does not depend on the outcome"
"""Printed beside every figure that labels give."""
MARGIN = 1.25
"""Ratio of odds that does not matter."""
ODDS = (1.6, 2.5, 5.0, 20.0)
"""Ratios of odds that are bet on, in both directions."""
_SAMPLE = 256
"""Predictions that decide where the median is."""
_COHORT = 256
_MOST_COHORTS = 256
_MOST_CLASSES = 10
_EQUAL = 0.8
"""Ratio of two coverages from which on they are the same."""
_SETTLED = 1024
"""Predictions of the cohorts that a coverage is measured on."""
_FEWEST = 50
"""Fewest of them on either side of a cut."""
_FELL = 0.5
"""Part of the usual coverage below which it has fallen."""


@dataclass(frozen=True, slots=True)
class Selective:
    """Why labels are not a fair sample: ``reason`` is ``selective`` or ``coverage``."""

    reason: str
    words: str


@dataclass(slots=True)
class _Cohort:
    start: float
    predictions: Floats
    labels: Floats


def _dump_cohorts(cohorts: list[_Cohort]) -> list[Any]:
    return [
        [one.start, one.predictions.astype(int).tolist(), one.labels.astype(int).tolist()]
        for one in cohorts
    ]


def _load_cohorts(name: str, value: Any, _: Any) -> list[_Cohort]:
    if not isinstance(value, list) or len(value) > _MOST_COHORTS:
        raise FieldError(name, f"must be a list of at most {_MOST_COHORTS} cohorts")
    return [
        _Cohort(float(start), np.array(predictions, np.float64), np.array(labels, np.float64))
        for start, predictions, labels in value
    ]


_Sample = Annotated[
    list[tuple[float, float]],
    Converter(
        lambda pairs: [list(pair) for pair in pairs],
        lambda name, value, now: [(float(a), float(b)) for a, b in value],
    ),
]


class LabelSelection(Stateful):
    """``classes``: predictions are texts, else numbers, cut at ``threshold`` (where there is one)
    and at their median. ``horizon`` in seconds is the longest delay of a label."""

    classes: Config[bool]
    threshold: Config[float | None]
    horizon: Config[float]
    hidden: Config[bool]
    """Whether predicted values must not be shown."""
    log_run_length: Config[float]
    labels: Saved[Count]
    """Labels of predictions that are still in a cohort."""
    edges: Saved[list[float]]
    names: Saved[list[str]]
    _sample: Saved[_Sample]
    _cohorts: Saved[Annotated[list[_Cohort], Converter(_dump_cohorts, _load_cohorts)]]
    _size: Saved[Count]
    """Predictions of a cohort."""
    _newest: Saved[float]
    _log_m: Saved[Logs]
    _crossed: Saved[int]
    """The cut at which labels were found to be selective; -1: none."""
    usual: Saved[float]
    """Coverage when labels began; 0 before it is known."""
    _first: Saved[float]
    """Time of the first prediction that got a label."""

    def __init__(
        self,
        classes: bool,
        threshold: float | None,
        horizon: float,
        run_length: float,
        hidden: bool = False,
    ) -> None:
        self.hidden = hidden
        self.classes = classes
        self.threshold = threshold
        self.horizon = horizon
        self.log_run_length = math.log(run_length)
        self.labels = 0
        self.edges = []
        self.names = []
        self._sample = []
        self._cohorts = []
        self._size = _COHORT
        self._newest = 0.0
        self._log_m = np.full((_MOST_CLASSES if classes else 2) * 2 * len(ODDS), -np.inf)
        self._crossed = -1
        self.usual = 0.0
        self._first = 0.0

    @property
    def active(self) -> bool:
        """Whether predictions are counted."""
        return bool(self._sample or self._cohorts)

    # Predictions --------------------------------------------------------------------------------

    def predicted(self, values: Floats | Sequence[str], times: Floats) -> None:
        """Count predictions, numbers (n,) or texts, made at unix times (n,); what is not finite, or
        empty, is left out."""
        if not self.classes:
            numbers = np.asarray(values, np.float64)
            here = np.isfinite(numbers)
            numbers, times = numbers[here], times[here]
            if not self.edges:
                self._sample += zip(numbers.tolist(), times.tolist(), strict=True)
                if len(self._sample) < _SAMPLE:
                    return
                drawn, self._sample = np.array(self._sample), []
                cuts = {quantile(drawn[:, 0], 0.5), self.threshold}
                self.edges = sorted(cut for cut in cuts if cut is not None)
                numbers, times = drawn[:, 0], drawn[:, 1]
            self._count(np.searchsorted(self.edges, numbers, "left"), times)
            return
        known = [(str(v), t) for v, t in zip(values, times.tolist(), strict=True) if v]
        groups = np.array([self._group(name, True) for name, _ in known], np.intp)
        self._count(groups, np.array([t for _, t in known]))

    def _group(self, name: str, new: bool) -> int:
        if name in self.names:
            return self.names.index(name)
        if new and len(self.names) < _MOST_CLASSES:
            self.names.append(name)
            return len(self.names) - 1
        return _MOST_CLASSES

    def _count(self, groups: Groups, times: Floats) -> None:
        begin = 0
        while begin < len(groups):
            cohort = self._open(float(times[begin]))
            free = max(1, self._size - int(cohort.predictions.sum()))
            end = min(len(groups), begin + free)
            cohort.predictions += np.bincount(groups[begin:end], minlength=len(cohort.predictions))
            begin = end
        if len(times):
            self._newest = max(self._newest, float(times.max()))

    def _open(self, at: float) -> _Cohort:
        last = self._cohorts[-1] if self._cohorts else None
        # Of one time are one cohort, since a label knows its prediction by the time.
        if last is not None and (last.predictions.sum() < self._size or at <= last.start):
            return last
        if len(self._cohorts) >= _MOST_COHORTS:
            self._tidy()
        width = _MOST_CLASSES + 1 if self.classes else len(self.edges) + 1
        self._cohorts.append(_Cohort(at, np.zeros(width), np.zeros(width)))
        return self._cohorts[-1]

    def _tidy(self) -> None:
        """Drop cohorts that no longer get labels; where all may, merge them in pairs."""
        limit = self._newest - self.horizon
        gone = bisect_right([one.start for one in self._cohorts], limit) - 1
        if gone > 0:
            del self._cohorts[:gone]
            return
        merged = []
        for one, other in zip(self._cohorts[::2], self._cohorts[1::2], strict=True):
            predictions = one.predictions + other.predictions
            merged.append(_Cohort(one.start, predictions, one.labels + other.labels))
        self._cohorts = merged
        self._size *= 2

    # Labels -------------------------------------------------------------------------------------

    def labelled(self, values: Floats | Sequence[str], times: Floats) -> None:
        """Count labels in the order in which they came, by what was predicted, (n,), and when."""
        if not self._cohorts:
            return
        if self.classes:
            groups = np.array([self._group(str(v), False) for v in values], np.intp)
            cuts = max(1, len(self.names))
        else:
            groups = np.searchsorted(self.edges, np.asarray(values, np.float64), "left")
            cuts = len(self.edges)
        starts = [one.start for one in self._cohorts]
        for group, at in zip(groups.tolist(), times.tolist(), strict=True):
            index = bisect_right(starts, at) - 1
            if index < 0:
                continue
            cohort = self._cohorts[index]
            self._bet(cohort, group, cuts)
            cohort.labels[group] += 1.0
            self.labels += 1
            if not self._first:
                self._first = at

    def _bet(self, cohort: _Cohort, group: int, cuts: int) -> None:
        left = np.maximum(cohort.predictions - cohort.labels, 0.0)
        total = float(left.sum())
        for cut in range(cuts):
            side = float(left[cut] if self.classes else left[cut + 1 :].sum())
            if not 0.0 < side < total:
                continue
            inside = group == cut if self.classes else group > cut
            p = side / total
            logs = np.concatenate([_log_bets(p, inside), _log_bets(1.0 - p, not inside)])
            part = slice(cut * len(logs), (cut + 1) * len(logs))
            self._log_m[part] = logs + np.logaddexp(0.0, self._log_m[part])
        mixed = float(log_sum(self._log_m)) - math.log(cuts * 2 * len(ODDS))
        if self._crossed < 0 and mixed >= self.log_run_length:
            self._crossed = int(np.argmax(self._log_m)) // (2 * len(ODDS))

    # What follows -------------------------------------------------------------------------------

    def _settled(
        self, delay: float | None, cut: int | None, since: float = 0.0
    ) -> tuple[Floats, Floats] | None:
        """Predictions and labels by group, of the newest cohorts that are older than ``delay`` and
        began at ``since`` or later; None where these are too few."""
        if delay is None:
            return None
        limit = self._newest - delay
        predictions = labels = None
        for index in range(len(self._cohorts) - 2, -1, -1):
            one = self._cohorts[index]
            if self._cohorts[index + 1].start > limit:
                continue
            if one.start < since:
                return None
            if predictions is None or labels is None:
                predictions, labels = one.predictions.copy(), one.labels.copy()
            else:
                predictions += one.predictions
                labels += one.labels
            if predictions.sum() < _SETTLED:
                continue
            if cut is None or min(self._sides(predictions, cut)) >= _FEWEST:
                return predictions, labels
        return None

    def _sides(self, counts: Floats, cut: int) -> tuple[float, float]:
        inside = float(counts[cut] if self.classes else counts[cut + 1 :].sum())
        return inside, float(counts.sum()) - inside

    def _rates(self, delay: float | None) -> tuple[float, float] | None:
        """Coverage on both sides of the cut that was found, of cohorts old enough."""
        settled = self._settled(delay, self._crossed)
        if settled is None:
            return None
        many, known = (self._sides(one, self._crossed) for one in settled)
        return known[0] / many[0], known[1] / many[1]

    def problem(self, delay: float | None) -> Selective | None:
        """Why labels are not to be judged by; None where nothing speaks against it. ``delay`` in
        seconds is that of most labels: cohorts older than it should have theirs."""
        if self._crossed >= 0:
            rates = self._rates(delay)
            if rates is None or not min(rates) >= _EQUAL * max(rates) > 0.0:
                return Selective("selective", self._words(rates))
            # Only the delay differs, or it is over.
            self._crossed = -1
            self._log_m.fill(-np.inf)
        return self._fallen(delay)

    def _words(self, rates: tuple[float, float] | None) -> str:
        if self.classes:
            name = "one class" if self.hidden else self.names[self._crossed]
            sides = f"predictions of {name}", "of the others"
        else:
            edge = self.edges[self._crossed]
            cut = f"{edge:.4g}" if not self.hidden or edge == self.threshold else "the median"
            sides = f"predictions above {cut}", "of the others"
        if rates is None:
            inside, outside = (
                sum(self._sides(one.labels, self._crossed)[side] for one in self._cohorts)
                / max(1.0, sum(self._sides(one.predictions, self._crossed)[side]
                               for one in self._cohorts))
                for side in (0, 1)
            )  # fmt: skip
            rates = inside, outside
        return (
            f"labels depend on the prediction: {percent(rates[0], 3)} of the {sides[0]} have one "
            f"and {percent(rates[1], 3)} {sides[1]}"
        )

    def _fallen(self, delay: float | None) -> Selective | None:
        if not self.labels:
            return None
        settled = self._settled(delay, None, 0.0 if self.usual else self._first)
        if settled is None:
            return None
        predictions, labels = (float(one.sum()) for one in settled)
        if not self.usual:
            self.usual = min(1.0, labels / predictions)
            return None
        _, high = share(min(labels, predictions), predictions, 0.05)
        if high >= _FELL * self.usual:
            return None
        return Selective(
            "coverage",
            f"labels are missing: {percent(labels / predictions, 3)} of the predictions have one, "
            f"where {percent(self.usual, 3)} had one before",
        )

    def summary(self) -> dict[str, Any]:
        """As JSON."""
        many = sum(float(one.predictions.sum()) for one in self._cohorts)
        known = sum(float(one.labels.sum()) for one in self._cohorts)
        return {
            "coverage": known / many if many else None,
            "usual_coverage": self.usual or None,
            "statistic": self.statistic,
        }

    @property
    def statistic(self) -> float:
        """Log of the mixture over the log of its threshold: selective at 1."""
        mixed = float(log_sum(self._log_m)) - math.log(len(self._log_m))
        return max(0.0, mixed / self.log_run_length) if math.isfinite(mixed) else 0.0


def _log_bets(p: float, inside: bool) -> Floats:
    """Logs of the bets, one for each of :data:`ODDS`, on a side whose share of what is left is
    ``p``, against a null that allows odds of :data:`MARGIN`."""
    odds = np.array(ODDS) * p / (1.0 - p)
    null = MARGIN * p / (1.0 - p)
    if inside:
        result: Floats = np.log(odds / (1.0 + odds)) - math.log(null / (1.0 + null))
        return result
    other: Floats = math.log1p(null) - np.log1p(odds)
    return other
