"""The time of the day and of the week as a part of the baseline.

A series that is higher by day than by night is not drifting each morning. A profile holds the mean
of each hour, and of each hour of each weekday, over the hours that exist: an office has nine of
them. It is subtracted before the charts. What counts is how often an hour has come, not how many
rows it had: rows of one hour are alike. Means of few visits are drawn towards the next coarser one
by as much as chance explains them (James & Stein 1961; Morris, JASA 78, 1983), so that a series
without a cycle loses nothing.

Live rows go on learning the shape of the week (:class:`LiveSeasons`), in such a way that a drift
does not become a part of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from understudy.common.arrays import quantile
from understudy.monitor.detectors.dependence import Memory, block_sums
from understudy.monitor.detectors.packed import Packed, pack, pack_steps, unpack, unpack_steps
from understudy.shadow.state import Config, Converter, Count, Derived, Saved, Stateful

Floats = NDArray[np.float64]
HOURS = 24
CELLS = 7 * HOURS
_HOUR_SECONDS = 3600.0
_EPOCH_WEEKDAY = 3
"""1 January 1970 was a Thursday; Monday is 0."""
_LEAST_VARIANCE = 1e-9
_MOST_HOURS = 0.8
"""Share of the hours of a day, among those that exist, which have to come twice."""
_PLAUSIBLE = 3.0
"""Standard errors of the baseline's means by which live rows may move them."""
_STEP = 2.0**-10
_DAY = 24
"""Hours by which a row is so late that time has begun again."""


def hour_of_week(times: Floats) -> NDArray[np.int64]:
    """Cells 0 … 167, Monday at 0:00 UTC is 0, of unix times (n,)."""
    return _cells(_hours(times))


def _hours(times: Floats) -> NDArray[np.int64]:
    return np.floor_divide(times, _HOUR_SECONDS).astype(np.int64)


def _cells(hours: NDArray[np.int64]) -> NDArray[np.int64]:
    cells: NDArray[np.int64] = (hours + _EPOCH_WEEKDAY * HOURS) % CELLS
    return cells


class Profile:
    """``means`` (168, S) are subtracted, and the rest divided by ``scale`` (S,). ``errors``
    (168, S) are the standard errors of the means, infinite for an hour that did not exist;
    ``memories`` say how the rows of each series depend on each other without the cycle."""

    def __init__(
        self,
        means: Floats,
        scale: Floats,
        errors: Floats | None = None,
        memories: Sequence[Memory] = (),
    ) -> None:
        if means.ndim != 2 or len(means) != CELLS:
            raise ValueError(f"a profile has shape ({CELLS}, series), not {means.shape}")
        self.means = means
        self.scale = scale
        self.errors = np.zeros_like(means) if errors is None else errors
        self.memories = list(memories) or [Memory()] * means.shape[1]

    def subtract(self, x: Floats, times: Floats) -> Floats:
        """Rows (n, S) at unix times (n,), without what their hour explains; NaN stays NaN."""
        result: Floats = (x - self.means[hour_of_week(times)]) / self.scale
        return result

    def of(self, series: Sequence[int]) -> Profile:
        """Of some of the series."""
        chosen = list(series)
        memories = [self.memories[number] for number in chosen]
        return Profile(self.means[:, chosen], self.scale[chosen], self.errors[:, chosen], memories)

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
            "errors": pack(self.errors),
            "memories": [memory.to_dict() for memory in self.memories],
        }

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> Profile:
        """Undo :meth:`to_dict`. Raises KeyError, TypeError or ValueError."""
        scale = np.array(state["scale"], np.float64)
        shape = (CELLS, len(scale))
        means = unpack(state["means"], shape)
        if "memories" not in state:  # of an earlier version
            wide = [max(1.0, float(one)) for one in state["inflation"]]
            return cls(means, scale, None, [Memory(long_run=one) for one in wide])
        memories = [Memory.from_dict(one) for one in state["memories"]]
        if len(memories) != len(scale):
            raise ValueError(f"memories must be of {len(scale)} series")
        return cls(means, scale, unpack(state["errors"], shape), memories)


def _shape(
    raw: Floats, counts: Floats, visits: Floats, within: Floats
) -> tuple[Floats, Floats, float]:
    """Means (168, S) of hours of the week less that of all rows, and their standard errors.

    Of the ``raw`` means (168, S) of ``counts`` rows in so many ``visits`` (168,) of each hour;
    ``within`` (S,) are the squared deviations of visits from the mean of their hour, times their
    rows, summed. Also the mean of 1 / visits, of the hours that are told apart. All 0 where too
    little has come twice.
    """
    flat = np.zeros_like(raw)
    counts = np.broadcast_to(counts, raw.shape)
    by_hour = visits.reshape(7, HOURS).sum(axis=0)
    existing = by_hour > 0.0
    twice = int((by_hour >= 2.0).sum())
    if twice < 2 or twice < _MOST_HOURS * int(existing.sum()):
        return flat, np.full_like(raw, np.inf), 0.0
    sums = raw * counts
    grand = sums.sum(axis=0) / np.maximum(counts.sum(axis=0), 1.0)
    hour_counts = counts.reshape(7, HOURS, -1).sum(axis=0)
    of_hours = sums.reshape(7, HOURS, -1).sum(axis=0) / np.maximum(hour_counts, 1.0)
    weekdays = (counts * (raw - np.tile(of_hours, (7, 1))) ** 2).sum(axis=0)
    noise = _noise(within + weekdays, by_hour)
    means = np.tile(_drawn(of_hours - grand, hour_counts, noise), (7, 1))
    seen, rows = by_hour[existing], np.tile(hour_counts, (7, 1))
    # Weekdays tell themselves apart only from a second week on.
    cells = visits[visits > 0.0]
    if quantile(cells, 0.5) >= 2.0:
        noise = _noise(within, visits)
        means = means + _drawn(np.where(counts > 0.0, raw - grand - means, 0.0), counts, noise)
        seen, rows = cells, counts
    errors = np.where(rows > 0.0, np.sqrt(noise / np.maximum(rows, 1.0)), np.inf)
    return means, errors, float(np.mean(1.0 / seen))


def _noise(within: Floats, visits: Floats) -> Floats:
    """Variance of a row, (S,), as that of the visits of the same hour says it: with it the mean of
    an hour is as uncertain as it is, however alike the rows of a visit are."""
    free = float(np.maximum(visits - 1.0, 0.0).sum())
    noise: Floats = within / max(free, 1.0)
    return np.where(noise > _LEAST_VARIANCE, noise, 1.0)


class ProfileBuilder:
    """Learns a profile of S series from a baseline in the order of its rows, in bounded memory."""

    def __init__(self, series: int) -> None:
        self.series = series
        shape = (CELLS, series)
        self._counts: Floats = np.zeros(shape)
        self._sums: Floats = np.zeros(shape)
        self._total: Floats = np.zeros(series)
        """Of squares."""
        self._visits: Floats = np.zeros(CELLS)
        """How often the hour has come, each time with some rows."""
        self._within: Floats = np.zeros(series)
        self._open: Floats = np.zeros((2, series))
        """Sums and counts of the visit that has not ended."""
        self._hour: int | None = None
        self.mistaken = 0.0
        """Mean of 1 / visits of the hours that the profile tells apart."""

    def add(self, x: Floats, times: Floats) -> None:
        """Rows (n, S) at unix times (n,); NaN and infinities say nothing."""
        if not len(x):
            return
        hours = _hours(times)
        here = np.isfinite(x)
        values = np.where(here, x, 0.0)
        self._total += (values**2).sum(axis=0)
        cuts = np.concatenate([[0], np.flatnonzero(np.diff(hours) != 0) + 1])
        sums = np.add.reduceat(values, cuts, axis=0)
        counts = np.add.reduceat(here, cuts, axis=0, dtype=np.float64)
        for index, cut in enumerate(cuts.tolist()):
            hour = int(hours[cut])
            if hour != self._hour:
                self._close()
                self._hour = hour
            self._open += np.stack([sums[index], counts[index]])

    def _close(self) -> None:
        if self._hour is None:
            return
        cell = (self._hour + _EPOCH_WEEKDAY * HOURS) % CELLS
        sums, counts = self._open
        before = self._sums[cell] / np.maximum(self._counts[cell], 1.0)
        apart = sums / np.maximum(counts, 1.0) - before
        both = np.maximum(self._counts[cell] + counts, 1.0)
        self._within += apart**2 * self._counts[cell] * counts / both
        self._sums[cell] += sums
        self._counts[cell] += counts
        self._visits[cell] += 1.0
        self._open = np.zeros_like(self._open)
        self._hour = None

    def finish(self) -> Profile:
        """The profile. Series without a value have means of 0 and a scale of 1; all have means of 0
        where most hours of the day, among those that exist, have come only once."""
        self._close()
        counts, sums = self._counts, self._sums
        total = np.maximum(counts.sum(axis=0), 1.0)
        grand = sums.sum(axis=0) / total
        raw = sums / np.maximum(counts, 1.0)
        shape, errors, self.mistaken = _shape(raw, counts, self._visits, self._within)
        means = grand + shape
        remaining = (self._total - (2.0 * means * sums - counts * means**2).sum(axis=0)) / total
        scale = np.sqrt(np.where(remaining > _LEAST_VARIANCE, remaining, 1.0))
        return Profile(means, scale, errors / scale)


def _dump_means(means: Floats) -> str:
    """To a thousandth of a standard deviation, which is below the error of an hour's mean."""
    return pack_steps(means, _STEP)


def _load_means(name: str, value: Any, now: Floats) -> Floats:
    return unpack_steps(value, now.shape, _STEP)


class LiveSeasons(Stateful):
    """The shape of the week of S series, learned from live rows that a baseline's profile, if there
    is one, has been subtracted from.

    Only the shape is learned: the offsets of all hours add up to 0, weighted by their rows, so that
    a change of the level is not a part of it. An hour counts once it has ended, and is drawn
    towards the mean of all by as much as chance explains it. Where the baseline knows an hour, its
    mean moves by three standard errors at most: ``errors`` (168, S) are those of the baseline,
    infinite where it does not know the hour."""

    series: Config[int]
    _most: Config[Floats]
    _means: Saved[Annotated[Floats, Converter(_dump_means, _load_means)]]
    _counts: Saved[Packed]
    _visits: Saved[Packed]
    _within: Saved[Packed]
    _open: Saved[Packed]
    _rows: Saved[Count]
    """Of the hour that has not ended."""
    _hour: Saved[int]
    """Hours since 1970; -1 before the first row."""
    _stale: Derived[bool]
    """Whether an hour has ended since the shape was worked out."""
    offsets: Derived[Floats]
    """What is subtracted, (168, S)."""
    _shaped: Derived[bool]
    """Whether any of them is not 0."""

    def __init__(self, errors: Floats) -> None:
        self.series = errors.shape[1]
        self._most = _PLAUSIBLE * errors
        self._means = np.zeros((CELLS, self.series))
        self._counts = np.zeros(CELLS)
        self._visits = np.zeros(CELLS)
        self._within = np.zeros(self.series)
        self._open = np.zeros(self.series)
        self._rows = 0
        self._hour = -1
        self._stale = False
        self.offsets = np.zeros((CELLS, self.series))
        self._shaped = False

    def _restored(self) -> None:
        self._refresh()

    @property
    def learned(self) -> NDArray[np.bool_]:
        """Series with a shape, (S,)."""
        result: NDArray[np.bool_] = (self.offsets != 0.0).any(axis=0)
        return result

    def update(self, x: Floats, times: Floats) -> Floats:
        """Rows (n, S) at unix times (n,) less what was learned before them; NaN stays NaN. Where
        nothing was learned, the same array."""
        if self._stale:
            self._refresh()
        first, last = _hours(times.min()), _hours(times.max())
        if first == last:
            if not self._hour - _DAY < first < self._hour:
                self._add(int(first), block_sums(x, [0])[0], len(x))
            return x - self.offsets[_cells(first)] if self._shaped else x
        hours = _hours(times)
        result: Floats = x - self.offsets[_cells(hours)] if self._shaped else x
        self._learn(x, hours)
        return result

    def _learn(self, x: Floats, hours: NDArray[np.int64]) -> None:
        # Rows that are late, but not by a day, belong to an hour that has ended.
        newest = np.maximum.accumulate(np.maximum(hours, self._hour))
        late = (hours < newest) & (hours > newest - _DAY)
        if late.any():
            x, hours = x[~late], hours[~late]
            if not len(x):
                return
        cuts = np.concatenate([[0], np.flatnonzero(np.diff(hours) != 0) + 1])
        sums = block_sums(x, cuts)
        lengths = np.diff([*cuts.tolist(), len(x)]).tolist()
        for index, cut in enumerate(cuts.tolist()):
            self._add(int(hours[cut]), sums[index], lengths[index])

    def _add(self, hour: int, sums: Floats, rows: int) -> None:
        """Add rows of one hour."""
        if hour != self._hour:
            self._close()
            self._hour = hour
        self._open = self._open + sums
        self._rows += rows

    def _close(self) -> None:
        if not self._rows:
            return
        cell = (self._hour + _EPOCH_WEEKDAY * HOURS) % CELLS
        apart = self._open / self._rows - self._means[cell]
        share = self._rows / (self._counts[cell] + self._rows)
        self._within += apart**2 * self._counts[cell] * share
        self._means[cell] += apart * share
        self._counts[cell] += self._rows
        self._visits[cell] += 1.0
        self._open = np.zeros(self.series)
        self._rows = 0
        self._stale = True

    def _refresh(self) -> None:
        self._stale = False
        counts = self._counts[:, None]
        total = float(self._counts.sum())
        if not total:
            return
        means, _, _ = _shape(self._means, counts, self._visits, self._within)
        means = np.clip(means, -self._most, self._most)
        means = np.where(means.any(axis=0), means - (means * counts).sum(axis=0) / total, 0.0)
        self.offsets = np.where(counts > 0.0, means, 0.0)
        self._shaped = bool(self.offsets.any())


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
