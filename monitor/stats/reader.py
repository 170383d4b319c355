"""Reads the shared statistics of all workers and adds them up.

The files are read with ``pread`` and not mapped: a worker may truncate and recreate a damaged file,
and accessing a mapped page beyond the end of a file kills the process. Only the used part is read,
a few hundred kilobytes.

Counts of a replaced file are carried over, so totals never decrease during the life of a reader.
"""

from __future__ import annotations

import json
import logging
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from understudy.monitor.errors import StateError
from understudy.monitor.stats.distribution import Words
from understudy.monitor.stats.shared import (
    CAPACITY,
    COUNTER,
    FREE,
    GAUGE,
    GENERATION,
    HEADER_WORDS,
    IDENTITY,
    IMPOSSIBLE,
    MAGIC,
    PID,
    SKETCH,
    SKETCH_MAX_NS,
    SKETCH_WORDS,
    USED,
    WORD,
    has_writer,
    other_labels,
    places,
)

log = logging.getLogger(__name__)

Labels = tuple[tuple[str, str], ...]
"""Label names and values, sorted by name."""
Series = tuple[str, Labels]
"""Name and labels of one series."""

_NAME = re.compile(r"worker-(\d+)\.stats")
_HEADER_BYTES = HEADER_WORDS * WORD
_ATTEMPTS = 20
_PAUSE_SECONDS = 0.0005


def labels_of(labels: Mapping[str, str]) -> Labels:
    """The hashable form of a label set."""
    return tuple(sorted(labels.items()))


@dataclass(slots=True)
class Snapshot:
    """Totals over all workers at one moment.

    ``time`` is monotonic seconds. A sketch is an array of ``SKETCH_WORDS`` u64. Gauges are kept per
    worker slot, because some add up (requests in flight) and some do not (state of a breaker).
    """

    time: float
    counters: dict[Series, int] = field(default_factory=dict)
    """Over all runs, where earlier ones are known."""
    gauges: dict[Series, dict[int, int]] = field(default_factory=dict)
    sketches: dict[Series, Words] = field(default_factory=dict)
    """Of the present run."""
    earlier_sketches: dict[Series, Words] = field(default_factory=dict)
    """Of earlier runs."""
    slots: dict[int, int] = field(default_factory=dict)
    """Process id by slot, of the workers that are alive."""

    def add(self, other: Snapshot) -> None:
        """Add the counters and sketches of another one."""
        for series, value in other.counters.items():
            self.counters[series] = self.counters.get(series, 0) + value
        for series, words in other.sketches.items():
            add_sketch(self.sketches, series, words)

    def total_sketches(self, name: str) -> dict[Labels, Words]:
        """Sketches of one name by label set, over all runs."""
        found = self.sketches_named(name)
        for (other, labels), words in self.earlier_sketches.items():
            if other == name:
                mine = found.get(labels)
                found[labels] = words if mine is None else merged_sketch(mine, words)
        return found

    def counter(self, name: str, **labels: str) -> int:
        """Sum of the counters ``name`` whose labels include the given ones."""
        wanted = set(labels.items())
        return sum(
            value
            for (other, have), value in self.counters.items()
            if other == name and wanted <= set(have)
        )

    def counters_named(self, name: str) -> dict[Labels, int]:
        """Counters of one name by label set."""
        return {labels: value for (n, labels), value in self.counters.items() if n == name}

    def gauges_named(self, name: str) -> dict[Labels, dict[int, int]]:
        """Gauges of one name by label set, each as value by worker slot."""
        return {labels: value for (n, labels), value in self.gauges.items() if n == name}

    def gauge(self, name: str) -> int:
        """Sum of a gauge over all label sets and workers."""
        return sum(sum(by_slot.values()) for by_slot in self.gauges_named(name).values())

    def sketches_named(self, name: str) -> dict[Labels, Words]:
        """Sketches of one name by label set."""
        return {labels: words for (n, labels), words in self.sketches.items() if n == name}


class WorkerFile:
    """One worker's file: the numbers last read, and the positions of its series."""

    def __init__(self, path: Path, slot: int) -> None:
        self.path = path
        self.slot = slot
        self.words: Words = np.zeros(HEADER_WORDS, np.uint64)
        self.entries: list[tuple[int, Series, int]] = []
        self.pid = 0
        self.usable = False
        self.alive = False
        """Whether its writer lives."""
        self._parsed = HEADER_WORDS
        self._named: dict[bytes, Series] = {}
        """What the keys mean, since there are thousands, and they are read every second."""
        self._identity = self._generation = 0
        self._complained = False

    def refresh(self, carried: Snapshot) -> None:
        """Read the file again; counts of a replaced file are added to ``carried``.

        A file that cannot be read, or is damaged, leaves the last good values in place.
        """
        self.alive = False
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return
        try:
            self.alive = has_writer(fd)
            self._read(fd, carried)
            self._complained = False
        except (StateError, ValueError, IndexError, TypeError, AttributeError, OSError) as error:
            if not self._complained:
                log.warning("%s: not read, the last good values stay: %s", self.path, error)
                self._complained = True
        finally:
            os.close(fd)

    def _read(self, fd: int, carried: Snapshot) -> None:
        for _ in range(_ATTEMPTS):
            header = _header(fd)
            if header is None:
                return  # being created: the next read decides
            words = _whole(fd, int(header[USED]))
            after = _header(fd)
            generation = int(header[GENERATION])
            if after is not None and generation == int(after[GENERATION]) and not generation % 2:
                self._take(words, carried)
                return
            time.sleep(_PAUSE_SECONDS)  # the worker is freeing an entry

    def _take(self, words: Words, carried: Snapshot) -> None:
        """Use what was read. Raises StateError, and changes nothing, for a damaged file."""
        identity = int(words[IDENTITY])
        generation = int(words[GENERATION])
        same = (identity, generation) == (self._identity, self._generation)
        entries = list(self.entries) if same else []
        named: dict[bytes, Series] = dict(self._named) if same else {}
        for place in places(words.data, self._parsed if same else HEADER_WORDS):
            if place.kind != FREE:
                series = named[place.key] = self._named.get(place.key) or _series(place.key)
                entries.append((place.kind, series, place.offset))
        counts = [offset for kind, _, offset in entries if kind != GAUGE]
        if np.any(words[counts] >= IMPOSSIBLE):
            raise StateError("a count that is not possible")
        if self.usable and identity != self._identity:
            log.warning("%s: replaced; its counts so far are kept", self.path)
            self.add_to(carried, alive=False)
        self.words, self.entries, self._parsed = words, entries, len(words)
        self._named = named
        self._identity, self._generation = identity, generation
        self.pid = int(words[PID])
        self.usable = True

    def add_to(self, total: Snapshot, alive: bool) -> None:
        """Add this file's numbers to ``total``; gauges only of a worker that is ``alive``."""
        words = self.words
        for kind, series, offset in self.entries:
            if kind == COUNTER:
                total.counters[series] = total.counters.get(series, 0) + int(words[offset])
            elif kind == SKETCH:
                add_sketch(total.sketches, series, words[offset : offset + SKETCH_WORDS])
            elif kind == GAUGE and alive:
                total.gauges.setdefault(series, {})[self.slot] = int(words[offset])


def _series(key: bytes) -> Series:
    name, labels = json.loads(key)
    return name, labels_of(labels)


def _header(fd: int) -> Words | None:
    raw = os.pread(fd, _HEADER_BYTES, 0)
    if len(raw) < _HEADER_BYTES:
        return None
    header = np.frombuffer(raw, np.uint64)
    if int(header[0]) != MAGIC:
        return None
    used = int(header[USED])
    if used % WORD or not _HEADER_BYTES <= used <= CAPACITY:
        raise StateError(f"{used} used bytes are not possible")
    return header


def _whole(fd: int, used: int) -> Words:
    """The used part of a file."""
    words = np.empty(used // WORD, np.uint64)
    view = words.data.cast("B")
    done = 0
    while done < used:
        got = os.preadv(fd, [view[done:]], done)
        if got == 0:
            raise StateError(f"cut off at byte {done} of {used}")
        done += got
    words[USED] = used  # the worker may have added a series since the header was read
    return words


def other_series(series: Series) -> Series:
    """The series that takes the counts of one without an entry."""
    name, labels = series
    return name, labels_of(other_labels(dict(labels)))


def add_sketch(sketches: dict[Series, Words], series: Series, words: Words) -> None:
    """Merge the numbers of a sketch into ``sketches[series]``."""
    known = sketches.get(series)
    sketches[series] = words.copy() if known is None else merged_sketch(known, words)


def merged_sketch(one: Words, other: Words) -> Words:
    """The numbers of both together, as a new array."""
    result = one + other
    result[SKETCH_MAX_NS] = max(one[SKETCH_MAX_NS], other[SKETCH_MAX_NS])
    return result


class StatsReader:
    """Sums the files ``worker-*.stats`` of a run directory; files may come and go."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self._files: dict[Path, WorkerFile] = {}
        self._carried = Snapshot(0.0)
        self._freed: set[Series] = set()
        self._counters: dict[Series, int] = {}
        self._counts: dict[Series, int] = {}

    def read(self) -> Snapshot:
        """Totals now. Never raises because of what a file holds."""
        try:
            names = os.listdir(self.run_dir)
        except OSError:
            names = []
        for name in names:
            match = _NAME.fullmatch(name)
            path = self.run_dir / name
            if match and path not in self._files:
                self._files[path] = WorkerFile(path, int(match[1]))
        total = Snapshot(time.monotonic())
        for file in self._files.values():
            file.refresh(self._carried)
            if file.usable:
                if file.alive:
                    total.slots[file.slot] = file.pid
                file.add_to(total, file.alive)
        total.add(self._carried)
        self._hide_freed(total)
        return total

    def _hide_freed(self, total: Snapshot) -> None:
        """Count a series as ``other`` once one of the workers has freed its entry: it is that of a
        removed arm, and a counter never goes down."""
        for series, value in self._counters.items():
            if total.counters.get(series, 0) < value:
                self._freed.add(series)
        for series, count in self._counts.items():
            words = total.sketches.get(series)
            if words is None or int(words[0]) < count:
                self._freed.add(series)
        self._freed.intersection_update((*total.counters, *total.sketches))
        for series in self._freed:
            other = other_series(series)
            if other == series:
                continue
            if series in total.counters:
                left = total.counters.pop(series)
                total.counters[other] = total.counters.get(other, 0) + left
            if series in total.sketches:
                add_sketch(total.sketches, other, total.sketches.pop(series))
        self._counters = dict(total.counters)
        self._counts = {series: int(words[0]) for series, words in total.sketches.items()}
