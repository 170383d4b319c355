"""The current rows, counted as the reference was: the same kinds, edges and categories."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from understudy.monitor.baseline.builder import tally
from understudy.monitor.baseline.counting import Categories, Numbers
from understudy.monitor.baseline.kinds import expand, infer
from understudy.monitor.baseline.labelled import Labelled
from understudy.monitor.baseline.model import Baseline, Column
from understudy.monitor.baseline.profiles import MOST_EDGES, NumericProfile
from understudy.monitor.baseline.scores import normal_scores, spread_scores
from understudy.monitor.evidence.columns import floats_of

Floats = NDArray[np.float64]
_THINNED = 1 << 14


class Thinned:
    """Every value at first, then every second one, every fourth one …: at most 16,384 values,
    evenly spread over all rows, for quantiles."""

    def __init__(self) -> None:
        self._parts: list[Floats] = []
        self._step = 1
        self._next = 0
        """How many values to leave out before the next one that is kept."""
        self._held = 0

    def add(self, values: Floats) -> None:
        """Finite values, in the order of the rows."""
        taken = values[self._next :: self._step]
        self._next = (self._next - len(values)) % self._step
        self._parts.append(taken)
        self._held += len(taken)
        while self._held > _THINNED:
            last = self._held - 1
            held = np.concatenate(self._parts)[::2]
            # The next value to keep continues the wider grid.
            self._next += self._step if last % 2 == 0 else 0
            self._step *= 2
            self._parts, self._held = [held], len(held)

    def quantiles(self, at: Sequence[float]) -> list[float] | None:
        """Quantiles of all values; None without any."""
        values = np.concatenate(self._parts) if self._parts else np.zeros(0)
        if not len(values):
            return None
        return [float(v) for v in np.quantile(values, at, method="inverted_cdf")]

    def share_outside(self, low: float, high: float) -> float:
        """Share of the values below ``low`` or above ``high``; 0 without any."""
        out = sum(int(((part < low) | (part > high)).sum()) for part in self._parts)
        return out / self._held if self._held else 0.0

    def histogram(self, edges: Floats) -> Floats:
        """Shares of the values up to each edge, and above the last one."""
        counts = np.zeros(len(edges) + 1)
        for part in self._parts:
            counts += np.bincount(edges.searchsorted(part), minlength=len(counts))
        return counts / max(self._held, 1)

    def few(self, most: int) -> dict[float, int] | None:
        """Counts of the different values that were kept, where there are at most ``most``."""
        if not self._held:
            return None
        values, counts = np.unique(np.concatenate(self._parts), return_counts=True)
        if len(values) > most:
            return None
        return dict(zip(values.tolist(), counts.tolist(), strict=True))


class Current:
    """Counts tables of rows as ``baseline`` counted its own; ``columns`` has the result by name,
    with ``thinned`` values of its numeric series. ``added`` are columns that the baseline does not
    have, and ``kinds`` what the cells of each column look like now."""

    def __init__(self, baseline: Baseline) -> None:
        self.columns = {
            name: replace(column, rows=0, missing=0, nan=0, infinite=0, mistyped=0)
            for name, column in baseline.columns.items()
        }
        self.added: dict[str, None] = {}
        self.kinds: dict[str, str] = {}
        self.thinned: dict[str, Thinned] = {}
        self._seen = dict.fromkeys(self.columns, 0)
        self._counters: dict[str, Numbers | Categories] = {}
        for column in baseline.columns.values():
            for name, profile in column.series.items():
                if isinstance(profile, NumericProfile):
                    self._counters[name] = _numbers(profile)
                    self.thinned[name] = Thinned()
                else:
                    self._counters[name] = Categories.like(profile)
        self._labelled = Labelled.like(baseline)

    def add(self, cells: Mapping[str, Sequence[Any]], times: Sequence[float] | None) -> None:
        """Rows as columns of cells; ``times`` in unix seconds."""
        rows = len(next(iter(cells.values())))
        moments = np.array(times, np.float64) if times is not None else None
        self.added |= dict.fromkeys(name for name in cells if name not in self.columns)
        for name, column in self.columns.items():
            column.rows += rows
            have = cells.get(name)
            if have is None:
                column.missing += rows
                continue
            self.kinds.setdefault(name, infer(have))
            tally(column, have, *floats_of(have))
            for series, values in expand(column, have, moments).items():
                counter = self._counters.get(series)
                if isinstance(counter, Numbers) and not isinstance(values, list):
                    counter.add(values)
                    self.thinned[series].add(values[np.isfinite(values)])
                elif isinstance(counter, Categories) and isinstance(values, list):
                    counter.add(values)
        if self._labelled is not None:
            self._labelled.add(cells)

    def finish(self) -> dict[str, Column]:
        """The columns with the profiles of their series."""
        for column in self.columns.values():
            column.series = {name: self._counters[name].profile() for name in column.series}
        return self.columns

    def performance(self) -> dict[str, Any] | None:
        """As :attr:`Baseline.performance`; None without labels or predictions."""
        return self._labelled.performance() if self._labelled is not None else None


def _numbers(profile: NumericProfile) -> Numbers:
    scores = np.zeros((2, len(profile.counts)))
    if profile.count:
        shares = profile.counts / profile.count
        scores[0] = normal_scores(shares)
        scores[1] = spread_scores(scores[0], shares)
    return Numbers(profile.edges, scores)


def quantile_of(profile: NumericProfile, at: float) -> float:
    """A quantile by a histogram; NaN for an empty one."""
    if not profile.count:
        return math.nan
    ends = np.concatenate([[profile.minimum], profile.edges, [profile.maximum]])
    sums = np.concatenate([[0.0], np.cumsum(profile.counts)]) / profile.count
    bucket = min(int(np.searchsorted(sums[1:], at - 1e-12)), len(ends) - 2)
    low, high = float(ends[bucket]), float(ends[bucket + 1])
    if profile.whole or len(profile.edges) < MOST_EDGES - 5:
        return high  # few values: that of the bucket
    part = (at - sums[bucket]) / max(float(sums[bucket + 1] - sums[bucket]), 1e-300)
    return low + (high - low) * float(part)
