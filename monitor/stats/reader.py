"""Reads the shared statistics of all workers and adds them up.

The files are read with ``pread`` and not mapped: a worker may truncate and recreate a damaged file,
and accessing a mapped page beyond the end of a file kills the process. Only the used part is read,
a few hundred kilobytes.

Counts of a replaced file are carried over, so totals never decrease during the life of a reader.
"""

from __future__ import annotations

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
    GAUGE,
    HEADER_WORDS,
    MAGIC,
    SKETCH,
    SKETCH_MAX_NS,
    SKETCH_WORDS,
    WORD,
    walk,
)

log = logging.getLogger(__name__)

Labels = tuple[tuple[str, str], ...]
"""Label names and values, sorted by name."""
Series = tuple[str, Labels]
"""Name and labels of one series."""

_NAME = re.compile(r"worker-(\d+)\.stats")
_HEADER_BYTES = HEADER_WORDS * WORD


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
    gauges: dict[Series, dict[int, int]] = field(default_factory=dict)
    sketches: dict[Series, Words] = field(default_factory=dict)
    slots: dict[int, int] = field(default_factory=dict)
    """Process id by slot, of the workers that are alive."""

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


class _File:
    """One worker's file: the numbers last read, and the positions of its series."""

    def __init__(self, path: Path, slot: int) -> None:
        self.path = path
        self.slot = slot
        self.words: Words = np.zeros(HEADER_WORDS, np.uint64)
        self.entries: list[tuple[int, Series, int]] = []
        self.pid = 0
        self.usable = False
        self._parsed = HEADER_WORDS
        self._structure = np.arange(0)
        self._identity = (0, 0, 0)
        self._complained = False

    def refresh(self, carried: Snapshot) -> None:
        """Read the file again; counts of a replaced file are added to ``carried``.

        A file that cannot be read, or is damaged, leaves the last good values in place.
        """
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return
        try:
            self._read(fd, carried)
            self._complained = False
        except (StateError, ValueError, IndexError, OSError) as error:
            if not self._complained:
                log.warning("%s: not read, the last good values stay: %s", self.path, error)
                self._complained = True
        finally:
            os.close(fd)

    def _read(self, fd: int, carried: Snapshot) -> None:
        inode = os.fstat(fd).st_ino
        raw = os.pread(fd, _HEADER_BYTES, 0)
        if len(raw) < _HEADER_BYTES:
            return  # being created or truncated: the next read decides
        header = np.frombuffer(raw, np.uint64)
        used = int(header[1])
        if int(header[0]) != MAGIC:
            return
        if used % WORD or not _HEADER_BYTES <= used <= CAPACITY:
            raise StateError(f"{used} used bytes are not possible")
        words = np.empty(used // WORD, np.uint64)
        view = words.data.cast("B")
        done = 0
        while done < used:
            got = os.preadv(fd, [view[done:]], done)
            if got == 0:
                raise StateError(f"cut off at byte {done} of {used}")
            done += got
        words[1] = used  # the worker may have added a series since the header was read
        identity = (inode, int(header[2]), int(header[3]))
        same_file = inode == self._identity[0] and self._same_series(words)
        entries = list(self.entries) if same_file else []
        structure = [self._structure] if same_file else []
        position = self._parsed if same_file else HEADER_WORDS
        for entry, following in walk(words.data, position):
            entries.append((entry.kind, (entry.name, labels_of(entry.labels)), entry.offset))
            structure.append(np.arange(position, entry.offset))
            position = following
        if self.usable and not (
            same_file and (identity == self._identity or not self._went_down(words))
        ):
            log.warning("%s: replaced; its counts so far are kept", self.path)
            self.add_to(carried, alive=False)
        if len(structure) > 1:
            self._structure = np.concatenate(structure)
        self.words, self.entries, self._parsed = words, entries, position
        self._identity = identity
        self.pid = int(header[3])
        self.usable = True

    def _same_series(self, words: Words) -> bool:
        """Whether the series known so far are still where they were: a file only ever grows."""
        where = self._structure
        return len(words) >= len(self.words) and np.array_equal(words[where], self.words[where])

    def _went_down(self, words: Words) -> bool:
        return any(
            words[offset] < self.words[offset] for kind, _, offset in self.entries if kind != GAUGE
        )

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


def add_sketch(sketches: dict[Series, Words], series: Series, words: Words) -> None:
    """Merge the numbers of a sketch into ``sketches[series]``, in place."""
    known = sketches.get(series)
    if known is None:
        sketches[series] = words.copy()
        return
    largest = max(known[SKETCH_MAX_NS], words[SKETCH_MAX_NS])
    known += words
    known[SKETCH_MAX_NS] = largest


def _alive(pid: int) -> bool:
    return pid > 0 and os.path.exists(f"/proc/{pid}")


class StatsReader:
    """Sums the files ``worker-*.stats`` of a run directory; files may come and go."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self._files: dict[Path, _File] = {}
        self._carried = Snapshot(0.0)

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
                self._files[path] = _File(path, int(match[1]))
        total = Snapshot(time.monotonic())
        total.counters.update(self._carried.counters)
        for series, words in self._carried.sketches.items():
            total.sketches[series] = words.copy()
        for file in self._files.values():
            carried = Snapshot(0.0)
            file.refresh(carried)
            self._carry(carried, total)
            if file.usable:
                alive = _alive(file.pid)
                if alive:
                    total.slots[file.slot] = file.pid
                file.add_to(total, alive)
        return total

    def _carry(self, carried: Snapshot, total: Snapshot) -> None:
        for series, value in carried.counters.items():
            self._carried.counters[series] = self._carried.counters.get(series, 0) + value
            total.counters[series] = total.counters.get(series, 0) + value
        for series, words in carried.sketches.items():
            add_sketch(self._carried.sketches, series, words)
            add_sketch(total.sketches, series, words)
