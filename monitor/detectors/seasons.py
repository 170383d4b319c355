"""The time of the day and of the week as a part of the baseline.

A series that is higher by day than by night is not drifting each morning. A profile holds the mean
of each hour, and of each hour of each weekday, and is subtracted before the charts. Means of few
rows are drawn towards the next coarser one by as much as chance explains them (James & Stein 1961;
Morris, JASA 78, 1983), so that a series without a cycle loses nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from understudy.monitor.detectors.packed import pack, unpack

Floats = NDArray[np.float64]
HOURS = 24
CELLS = 7 * HOURS
_HOUR_SECONDS = 3600.0
_EPOCH_WEEKDAY = 3
"""1 January 1970 was a Thursday; Monday is 0."""
_LEAST_VARIANCE = 1e-9
_STRONGEST = 0.98
_MOST_HOURS = 20


def hour_of_week(times: Floats) -> NDArray[np.int64]:
    """Cells 0 … 167, Monday at 0:00 UTC is 0, of unix times (n,)."""
    hours = np.floor_divide(times, _HOUR_SECONDS).astype(np.int64)
    cells: NDArray[np.int64] = (hours + _EPOCH_WEEKDAY * HOURS) % CELLS
    return cells


class Profile:
    """``means`` (168, S) are subtracted, and the rest divided by ``scale`` (S,); ``inflation`` (S,)
    is that of what remains: its memory, and the error of the means, which stay the same for each
    hour. It belongs into ``CusumUnion(inflation=...)``."""

    def __init__(self, means: Floats, scale: Floats, inflation: Floats) -> None:
        if means.ndim != 2 or len(means) != CELLS:
            raise ValueError(f"a profile has shape ({CELLS}, series), not {means.shape}")
        self.means = means
        self.scale = scale
        self.inflation = inflation

    def subtract(self, x: Floats, times: Floats) -> Floats:
        """Rows (n, S) at unix times (n,), without what their hour explains; NaN stays NaN."""
        result: Floats = (x - self.means[hour_of_week(times)]) / self.scale
        return result

    @property
    def strength(self) -> Floats:
        """Share of the variance that the hours explain, (S,), all hours alike."""
        between = self.means.var(axis=0)
        share: Floats = between / np.maximum(between + self.scale**2, _LEAST_VARIANCE)
        return share

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "means": pack(self.means),
            "scale": self.scale.tolist(),
            "inflation": self.inflation.tolist(),
        }

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> Profile:
        """Undo :meth:`to_dict`. Raises KeyError, TypeError or ValueError."""
        scale = np.array(state["scale"], np.float64)
        inflation = np.array(state["inflation"], np.float64).reshape(scale.shape)
        return cls(unpack(state["means"], (CELLS, len(scale))), scale, inflation)


class ProfileBuilder:
    """Learns a profile of S series from a baseline in the order of its rows, in bounded memory."""

    def __init__(self, series: int) -> None:
        self.series = series
        shape = (CELLS, series)
        self._counts: Floats = np.zeros(shape)
        self._sums: Floats = np.zeros(shape)
        self._squares: Floats = np.zeros(shape)
        self._pairs: Floats = np.zeros(shape)
        """Of neighbours in the same cell: how many, sums of both, and of their products."""
        self._both: Floats = np.zeros(shape)
        self._products: Floats = np.zeros(shape)
        self._visits: Floats = np.zeros(CELLS)
        """How often the hour has come, each time with some rows."""
        self._last: Floats | None = None
        self._last_hour = -1

    def add(self, x: Floats, times: Floats) -> None:
        """Rows (n, S) at unix times (n,); NaN and infinities say nothing."""
        if not len(x):
            return
        cells = hour_of_week(times)
        x = np.where(np.isfinite(x), x, np.nan)
        gone = np.isnan(x)
        values = np.where(gone, 0.0, x)
        np.add.at(self._counts, cells, ~gone)
        np.add.at(self._sums, cells, values)
        np.add.at(self._squares, cells, values**2)
        hours = np.floor_divide(times, _HOUR_SECONDS).astype(np.int64)
        if self._last is not None:
            x = np.vstack([self._last, x])
            hours = np.concatenate([[self._last_hour], hours])
        else:
            self._visits[cells[0]] += 1.0
        fresh = np.flatnonzero(np.diff(hours) != 0) + 1
        np.add.at(self._visits, cells[fresh - (len(hours) - len(cells))], 1.0)
        same = np.flatnonzero(np.diff(hours) == 0)
        of = (hours[same] + _EPOCH_WEEKDAY * HOURS) % CELLS
        products = x[same] * x[same + 1]
        held = ~np.isnan(products)
        np.add.at(self._pairs, of, held)
        np.add.at(self._both, of, np.where(held, x[same] + x[same + 1], 0.0))
        np.add.at(self._products, of, np.where(held, products, 0.0))
        self._last, self._last_hour = x[-1:].copy(), int(hours[-1])

    def enough(self) -> bool:
        """Whether most hours of the day have come at least twice, without which a cycle cannot be
        told from a drift."""
        visits = self._visits.reshape(7, HOURS).sum(axis=0)
        return int(np.count_nonzero(visits >= 2.0)) >= _MOST_HOURS

    def finish(self) -> Profile:
        """The profile. Series without a value have means of 0 and a scale of 1."""
        counts, sums = self._counts, self._sums
        total = np.maximum(counts.sum(axis=0), 1.0)
        grand = sums.sum(axis=0) / total
        raw = sums / np.maximum(counts, 1.0)
        within = (self._squares.sum(axis=0) - (sums * raw).sum(axis=0)) / total
        noise = np.where(within > _LEAST_VARIANCE, within, 1.0)
        # What is left of memory, once each cell has its own mean.
        centred = self._products - raw * self._both + self._pairs * raw**2
        pairs = np.maximum(self._pairs.sum(axis=0), 1.0)
        phi = centred.sum(axis=0) / pairs / noise
        error = np.sqrt(np.clip(1.0 - phi**2, 0.0, 1.0) / pairs)
        phi = np.where(phi > 1.645 / np.sqrt(pairs), np.minimum(phi + error, _STRONGEST), 0.0)
        memory = (1.0 + phi) / (1.0 - phi)
        per_hour = counts.reshape(7, HOURS, self.series)
        hour_counts = per_hour.sum(axis=0)
        hour_means = sums.reshape(7, HOURS, self.series).sum(axis=0) / np.maximum(hour_counts, 1.0)
        of_hours = grand + _drawn(hour_means - grand, hour_counts, noise * memory)
        # Weekdays tell themselves apart only from a second week on.
        means = np.tile(of_hours, (7, 1))
        seen = self._visits[self._visits > 0.0]
        if len(seen) and float(np.median(seen)) >= 2.0:
            means = means + _drawn(raw - means, counts, noise * memory)
        spread = np.where(counts > 0.0, raw - means, 0.0)
        remaining = within + (counts * spread**2).sum(axis=0) / total
        scale = np.sqrt(np.where(remaining > _LEAST_VARIANCE, remaining, 1.0))
        used = np.abs(means - grand).max(axis=0, initial=0.0) > 0.0
        visits = self._visits.reshape(7, HOURS).sum(axis=0)
        known = visits[visits > 0.0]
        mistaken = float(np.mean(1.0 / known)) if len(known) else 0.0
        return Profile(means, scale, memory * np.where(used, 1.0 + mistaken, 1.0))


def _drawn(deviations: Floats, counts: Floats, noise: Floats) -> Floats:
    """Deviations (cells, S) of means of so many rows, drawn towards 0 by as much as the ``noise``
    (S,) of a row explains them."""
    chance = noise / np.maximum(counts, 1.0)
    held = counts > 0.0
    weight = np.where(held, counts, 0.0)
    total = np.maximum(weight.sum(axis=0), 1.0)
    result = (weight * deviations**2).sum(axis=0) / total
    by_chance = (weight * chance).sum(axis=0) / total
    cells = np.maximum(held.sum(axis=0), 1)
    # Less than chance with two standard errors explains is not a cycle.
    real = np.where(
        result > by_chance * (1.0 + 2.0 * np.sqrt(2.0 / cells)), result - by_chance, 0.0
    )
    share = real / np.where(real + chance > 0.0, real + chance, 1.0)
    drawn: Floats = np.where(held, share * deviations, 0.0)
    return drawn
