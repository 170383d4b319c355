"""Coarse counts of the last rows: the distribution of recent values in a few bytes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from understudy.monitor.baseline.encoder import MISSING, WIDTH, Encoder
from understudy.monitor.baseline.model import CategoryProfile, NumericProfile
from understudy.monitor.baseline.profiles import HASHED, group_of
from understudy.monitor.detectors.packed import PackedWhole
from understudy.shadow.state import Config, Count, Saved, Stateful

GROUPS = 32
"""Groups of neighbouring buckets that hold about the same share of the baseline each."""
OTHER = "other categories"
UNSEEN = "categories that are not in the baseline"
_HASHED = 8
"""Groups of the categories without a separate one, by the hash of their names."""
_ABSENT = GROUPS
_SLOTS = GROUPS + 1


class Window(Stateful):
    """Counts of the last ``rows`` to ``2 * rows`` rows, by series and group.

    Two slots alternate, so that no single rows are stored.
    """

    _encoder: Config[Encoder]
    limit: Config[int]
    groups: Config[NDArray[np.int64]]
    uppers: Config[list[list[float]]]
    """Upper ends of the groups of a numeric series; empty for categories."""
    labels: Config[list[list[str]]]
    """Names of the groups of a categorical series; empty for numbers. The groups of several
    categories are called :data:`OTHER`, and that of those which the baseline does not know
    :data:`UNSEEN`."""
    _named: Config[list[int]]
    """Groups that are a single category, the first ones."""
    baseline: Config[NDArray[np.float64]]
    _now: Saved[PackedWhole]
    _before: Saved[PackedWhole]
    _rows: Saved[Count]
    _codes: Config[NDArray[np.int64]]
    """The first code of each series, among those of all."""
    _slots: Config[NDArray[np.int64]]
    """The place in the counts for each code of each series."""

    def __init__(self, encoder: Encoder, rows: int) -> None:
        self._encoder = encoder
        self.limit = rows
        series = len(encoder.series)
        self.groups = np.full((series, WIDTH), _ABSENT, np.int64)
        self.uppers = []
        self.labels = []
        self._named = []
        for number, profile in enumerate(encoder.profiles):
            if isinstance(profile, CategoryProfile):
                groups, names, more = _of_categories(profile)
            else:
                groups, names, more = _grouped(encoder.counts[number]), [], []
            self.groups[number, :MISSING] = groups
            self.uppers.append(_uppers(profile, groups))
            self.labels.append([*names, *more])
            self._named.append(len(names))
        self.baseline = np.zeros((series, GROUPS))
        for number in range(series):
            self.baseline[number] = np.bincount(
                self.groups[number, :MISSING],
                weights=encoder.counts[number],
                minlength=GROUPS,
            )
        self._now = np.zeros((series, _SLOTS), np.int64)
        self._before = self._now.copy()
        self._rows = 0
        indices = np.arange(series, dtype=np.int64)
        self._codes = indices * WIDTH
        self._slots = (self.groups + indices[:, None] * _SLOTS).ravel()

    def add(self, codes: NDArray[np.int64]) -> None:
        """Add the codes (n, S) of a batch."""
        slots = self._slots[codes + self._codes]
        flat = np.bincount(slots.ravel(), minlength=self._now.size)
        self._now += flat.reshape(self._now.shape)
        self._rows += len(codes)
        if self._rows >= self.limit:
            self._before = self._now
            self._now = np.zeros_like(self._now)
            self._rows = 0

    def counts(self) -> NDArray[np.int64]:
        """Counts by group, of shape (S, GROUPS), without missing values."""
        both: NDArray[np.int64] = (self._now + self._before)[:, :GROUPS]
        return both

    def missing(self) -> NDArray[np.int64]:
        """Missing values by series, of shape (S,)."""
        both: NDArray[np.int64] = (self._now + self._before)[:, _ABSENT]
        return both

    def middle(self, series: int) -> tuple[float, float] | None:
        """Medians of the baseline and of the window, to a group's width; None for categories and
        for an empty window."""
        uppers = self.uppers[series]
        counts = self.counts()[series]
        if not uppers or not counts.sum():
            return None
        return _median(uppers, self.baseline[series]), _median(uppers, counts)

    def commonest(self, series: int) -> tuple[int, float, float] | None:
        """The group of categories whose share has changed most, with its shares in the baseline and
        now; None for numbers, and for an empty window."""
        counts = self.counts()[series].astype(np.float64)
        if not self.labels[series] or not counts.sum():
            return None
        before = self.baseline[series] / max(self.baseline[series].sum(), 1.0)
        now = counts / counts.sum()
        index = int(np.argmax(np.abs(now - before)))
        return index, float(before[index]), float(now[index])

    def phrase(self, series: int, group: int, *, hidden: bool = False) -> str:
        """What a group of a categorical series is called in a sentence; ``hidden``: without the
        name of a category."""
        labels = self.labels[series]
        if group < self._named[series]:
            return "a category" if hidden else repr(labels[group])
        return labels[group] if group < len(labels) else UNSEEN

    def clear(self) -> None:
        """Delete all counts."""
        self._now[:] = 0
        self._before[:] = 0
        self._rows = 0


def _grouped(counts: NDArray[np.float64]) -> NDArray[np.int64]:
    """Group of each bucket."""
    nonempty = np.flatnonzero(counts)
    if len(nonempty) <= GROUPS:
        # Each nonempty bucket is a group; an empty one joins the next.
        groups = np.searchsorted(nonempty, np.arange(len(counts)))
        return np.minimum(groups, max(0, len(nonempty) - 1)).astype(np.int64)
    total = counts.sum()
    middle = np.cumsum(counts) - counts / 2.0
    indices: NDArray[np.int64] = np.minimum((middle / total * GROUPS).astype(np.int64), GROUPS - 1)
    return indices


def _uppers(profile: NumericProfile | CategoryProfile, groups: NDArray[np.int64]) -> list[float]:
    if isinstance(profile, CategoryProfile):
        return []
    ends = [*profile.edges.tolist(), profile.maximum]
    uppers: dict[int, float] = {}
    for bucket, end in enumerate(ends):
        uppers[int(groups[bucket])] = end
    return [uppers[group] for group in sorted(uppers)]


def _of_categories(profile: CategoryProfile) -> tuple[NDArray[np.int64], list[str], list[str]]:
    """Group of each code; the names of groups that are a single category, and of those behind.

    The frequent ones have a group each. The others share some by the hash of their names, in the
    baseline and live alike. What is known to be unseen has a group that nothing else is in.
    """
    ranked = sorted(profile.counts.items(), key=lambda item: (-item[1], item[0]))
    names = [name for name, _ in ranked]
    most = GROUPS - 1
    if len(names) > most or not profile.complete:
        most = GROUPS - 1 - _HASHED
    own = names[:most]
    groups = np.full(MISSING, min(len(own), GROUPS - 1), np.int64)
    groups[: len(own)] = np.arange(len(own))
    spread = 0
    if len(names) > most or not profile.complete:
        spread = min(_HASHED, len(profile.groups) or _HASHED)
        for code, name in enumerate(names[most:], most):
            groups[code] = len(own) + group_of(name, len(profile.groups) or HASHED) % spread
        for code in range(len(profile.groups)):
            groups[len(names) + code] = len(own) + code % spread
    if profile.complete:
        groups[len(names) :] = len(own) + spread
        return groups, own, [*[OTHER] * spread, UNSEEN]
    return groups, own, [OTHER] * spread


def _median(uppers: list[float], counts: NDArray[Any]) -> float:
    index = int(np.searchsorted(np.cumsum(counts), counts.sum() / 2.0))
    return float(uppers[min(index, len(uppers) - 1)])
