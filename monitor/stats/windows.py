"""Rolling windows over cumulative statistics.

A snapshot is compared with the one before it, and the difference is kept as a sparse slot: only the
buckets that grew. Fresh slots are kept one by one; older ones are merged into slots of about five
seconds. So memory is bounded by the number of series and by what they saw in the longest window,
and a window is the sum of the slots within it.

The length of a window is what its slots really cover: rates stay right when a tick comes late.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from understudy.monitor.stats.buckets import BUCKETS, bucket_of
from understudy.monitor.stats.distribution import MIDDLES, Distribution, Words
from understudy.monitor.stats.reader import (
    Labels,
    Series,
    Snapshot,
    add_sketch,
    merged_sketch,
    other_series,
)
from understudy.monitor.stats.shared import (
    SKETCH_BUCKETS,
    SKETCH_MAX_NS,
    SKETCH_SUM_NS,
)

WINDOWS = (10.0, 60.0, 300.0)
"""Lengths of the reported windows, in seconds."""
WINDOW_NAMES = ("10s", "1m", "5m")
FINE_SLOTS = 15
MERGED = 5
"""How many of the oldest fine slots become one coarse slot."""


@dataclass(slots=True)
class Delta:
    """Growth of one sketch: bucket numbers, counts, nanoseconds, and the largest value or 0."""

    buckets: NDArray[np.uint16]
    counts: NDArray[np.int64]
    sum_ns: int
    max_ns: int


@dataclass(slots=True)
class Slot:
    """Growth of all series between two moments (monotonic seconds)."""

    start: float
    end: float
    sketches: dict[Series, Delta] = field(default_factory=dict)
    counters: dict[Series, int] = field(default_factory=dict)


def _delta(old: Words | None, new: Words) -> Delta | None:
    fresh = new[SKETCH_BUCKETS:].astype(np.int64)
    sum_ns, max_ns = int(new[SKETCH_SUM_NS]), int(new[SKETCH_MAX_NS])
    if old is not None:
        fresh -= old[SKETCH_BUCKETS:].astype(np.int64)
        sum_ns -= int(old[SKETCH_SUM_NS])
        if max_ns <= int(old[SKETCH_MAX_NS]):
            max_ns = 0  # the record is older than this slot
    changed = np.flatnonzero(fresh)
    if not len(changed):
        return None
    return Delta(changed.astype(np.uint16), fresh[changed], sum_ns, max_ns)


def total_of(deltas: Sequence[Delta]) -> Distribution:
    """The distribution of all growth together."""
    if not deltas:
        return Distribution()
    buckets = np.concatenate([delta.buckets for delta in deltas])
    weights = np.concatenate([delta.counts for delta in deltas])
    # Sums of counts below 2^53 are exact in float64.
    counts = np.bincount(buckets, weights, BUCKETS).astype(np.int64)
    np.maximum(counts, 0, out=counts)
    sum_ns = max(0, sum(delta.sum_ns for delta in deltas))
    max_ns = max(delta.max_ns for delta in deltas)
    filled = np.flatnonzero(counts)
    if len(filled):
        top = int(filled[-1])
        if max_ns == 0 or bucket_of(max_ns / 1e9) < top:
            max_ns = int(MIDDLES[top] * 1e9)
    return Distribution(counts, sum_ns, max_ns)


def merged_delta(deltas: Sequence[Delta]) -> Delta:
    """The growth of several, one or more, as one."""
    if len(deltas) == 1:
        return deltas[0]
    buckets = np.concatenate([delta.buckets for delta in deltas])
    weights = np.concatenate([delta.counts for delta in deltas])
    unique, where = np.unique(buckets, return_inverse=True)
    return Delta(
        unique,
        np.bincount(where, weights, len(unique)).astype(np.int64),
        sum(delta.sum_ns for delta in deltas),
        max(delta.max_ns for delta in deltas),
    )


def _merge(slots: list[Slot]) -> Slot:
    merged = Slot(slots[0].start, slots[-1].end)
    parts: dict[Series, list[Delta]] = {}
    for slot in slots:
        for series, delta in slot.sketches.items():
            parts.setdefault(series, []).append(delta)
        for series, grown in slot.counters.items():
            merged.counters[series] = merged.counters.get(series, 0) + grown
    for series, deltas in parts.items():
        merged.sketches[series] = merged_delta(deltas)
    return merged


def _moved(before: Snapshot, now: Snapshot) -> Snapshot:
    """What was counted in series that are gone, by the series of ``other`` that has it now."""
    result = Snapshot(before.time)
    for series, value in before.counters.items():
        if series not in now.counters:
            other = other_series(series)
            result.counters[other] = result.counters.get(other, 0) + value
    for series, words in before.sketches.items():
        if series not in now.sketches:
            add_sketch(result.sketches, other_series(series), words)
    return result


class Windows:
    """Differences of snapshots over the last ``longest`` seconds."""

    def __init__(self, longest: float = WINDOWS[-1]) -> None:
        self.longest = longest
        self.latest: Snapshot | None = None
        self._fine: deque[Slot] = deque()
        self._coarse: deque[Slot] = deque()

    def add(self, snapshot: Snapshot) -> Slot | None:
        """Take the next snapshot, and return what has grown since the one before. Counts in the
        first one are older than every window: it returns None."""
        before = self.latest
        self.latest = snapshot
        if before is None:
            return None
        slot = Slot(before.time, snapshot.time)
        moved = _moved(before, snapshot)
        for series, words in snapshot.sketches.items():
            old = before.sketches.get(series)
            added = moved.sketches.get(series)
            if added is not None:
                old = added if old is None else merged_sketch(old, added)
            if old is not None and np.array_equal(old, words):
                continue  # of a service with many series, most rest
            delta = _delta(old, words)
            if delta is not None:
                slot.sketches[series] = delta
        for series, value in snapshot.counters.items():
            grown = value - before.counters.get(series, 0) - moved.counters.get(series, 0)
            if grown:
                slot.counters[series] = grown
        self._fine.append(slot)
        if len(self._fine) > FINE_SLOTS:
            self._coarse.append(_merge([self._fine.popleft() for _ in range(MERGED)]))
        while self._coarse and self._coarse[0].end <= snapshot.time - self.longest:
            self._coarse.popleft()
        return slot

    def copy(self) -> Windows:
        """The windows of this moment, for another thread."""
        result = Windows(self.longest)
        result.latest = self.latest
        result._fine.extend(self._fine)
        result._coarse.extend(self._coarse)
        return result

    def _within(self, seconds: float) -> list[Slot]:
        """Slots whose middle is within the last ``seconds``; at least the newest one."""
        chosen: list[Slot] = []
        for part in (self._fine, self._coarse):
            for slot in reversed(part):
                age = self._fine[-1].end - (slot.start + slot.end) / 2
                if chosen and age > seconds:
                    return chosen
                chosen.append(slot)
        return chosen

    def covered(self, seconds: float) -> float:
        """The number of seconds that the slots of a window really span; 0 before the first."""
        slots = self._within(seconds)
        return slots[0].end - slots[-1].start if slots else 0.0

    def sketches(self, name: str, seconds: float) -> dict[Labels, Distribution]:
        """By label set, the distribution of the sketch ``name`` in the window."""
        parts: dict[Labels, list[Delta]] = {}
        for slot in self._within(seconds):
            for (other, labels), delta in slot.sketches.items():
                if other == name:
                    parts.setdefault(labels, []).append(delta)
        return {labels: total_of(deltas) for labels, deltas in parts.items()}

    def counters(self, name: str, seconds: float) -> dict[Labels, int]:
        """By label set, the increase of the counter ``name`` in the window."""
        grown: dict[Labels, int] = {}
        for slot in self._within(seconds):
            for (other, labels), value in slot.counters.items():
                if other == name:
                    grown[labels] = grown.get(labels, 0) + value
        return grown


def since_start(snapshot: Snapshot, name: str) -> dict[Labels, Distribution]:
    """By label set, all values of the sketch ``name`` since the start."""
    return {
        labels: Distribution.from_words(words)
        for labels, words in snapshot.sketches_named(name).items()
    }


def group(
    distributions: dict[Labels, Distribution], by: Iterable[str]
) -> dict[tuple[str, ...], Distribution]:
    """Merge the distributions whose labels ``by`` are equal; a missing label counts as empty."""
    names = tuple(by)
    merged: dict[tuple[str, ...], Distribution] = {}
    for labels, distribution in distributions.items():
        have = dict(labels)
        key = tuple(have.get(name, "") for name in names)
        if key in merged:
            merged[key].add(distribution)
        else:
            merged[key] = distribution.merge(Distribution())
    return merged
