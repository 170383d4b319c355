"""Statistics of one worker in a memory-mapped file: written by one process, read by others.

The file outlives its writer. A worker that is killed leaves its numbers behind, its successor goes
on from them, and the reader (the evaluation plane) may come and go: counters never go down and
nothing has to be sent for them to be seen.

Layout, little-endian, every number 8 bytes and aligned to 8::

    header   magic, checksum of the buckets · used bytes · incarnation · process id
    entry    size · kind · length of key · key (JSON, padded) · numbers …

The writer publishes a new entry by raising ``used`` last, so a reader never sees half an entry.
A number is 8 aligned bytes, stored at once on the platforms that we run on. A sketch is several
numbers, and a reader may see it between two of them: its count can then differ from the sum of its
buckets by the record that is being written; the next read is consistent.

Only the standard library is used here: workers import this module.
"""

from __future__ import annotations

import json
import mmap
import os
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import ceil, log2
from pathlib import Path
from zlib import crc32

from understudy.monitor.errors import StateError
from understudy.monitor.stats.buckets import (
    BUCKETS,
    CLASSIC,
    CLASSIC_EDGES,
    LOWEST_EXPONENT,
    OFFSET,
    SCALE,
)

_LAYOUT = repr((CLASSIC_EDGES, SCALE, LOWEST_EXPONENT, BUCKETS)).encode()
MAGIC = int.from_bytes(b"UST2" + crc32(_LAYOUT).to_bytes(4, "little"), "little")
"""Contains a checksum of the buckets, since a file with other buckets cannot be continued."""
HEADER_WORDS = 8
WORD = 8
CAPACITY = 32 * 1024 * 1024
"""Bytes of address space; the file is sparse, only what is used takes memory."""

COUNTER = 1
GAUGE = 2
SKETCH = 3

SKETCH_COUNT = 0
SKETCH_SUM_NS = 1
SKETCH_MAX_NS = 2
SKETCH_CLASSIC = 3
SKETCH_BUCKETS = SKETCH_CLASSIC + CLASSIC
SKETCH_WORDS = SKETCH_BUCKETS + BUCKETS

_WORDS = {COUNTER: 1, GAUGE: 1, SKETCH: SKETCH_WORDS}
_LOWEST_NS = int(1e9 * 2.0**LOWEST_EXPONENT)
_EDGES_NS = tuple(int(edge * 1e9) for edge in CLASSIC_EDGES)
_SHIFT = OFFSET - log2(1e9) * SCALE


@dataclass(frozen=True, slots=True)
class Entry:
    """One series: ``offset`` is the index of its first number in 8-byte words."""

    kind: int
    name: str
    labels: Mapping[str, str]
    offset: int


def _key(name: str, labels: Mapping[str, str]) -> bytes:
    return json.dumps([name, dict(sorted(labels.items()))], separators=(",", ":")).encode()


def walk(words: memoryview, start: int = HEADER_WORDS) -> Iterator[tuple[Entry, int]]:
    """Yield ``(entry, next position)`` from word ``start`` on; ``words`` is a view of u64."""
    used = words[1] // WORD
    raw = words.cast("B")
    while start < used:
        size, kind, key_length = words[start], words[start + 1], words[start + 2]
        if size < 4 or start + size > used or kind not in _WORDS or key_length > 4096:
            raise StateError(f"statistics file is damaged at word {start}")
        begin = (start + 3) * WORD
        name, labels = json.loads(bytes(raw[begin : begin + key_length]))
        yield Entry(kind, name, labels, start + size - _WORDS[kind]), start + size
        start += size


class SharedStats:
    """The writer's end. ``words[i] += 1`` is how a counter is raised; see :meth:`counter`.

    Opening an existing file keeps counters and sketches and sets gauges to zero. A file that is
    damaged or of another layout is replaced.
    """

    def __init__(self, path: Path, capacity: int = CAPACITY) -> None:
        self.path = path
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fresh = os.fstat(fd).st_size != capacity
                if fresh:
                    os.ftruncate(fd, 0)
                    os.ftruncate(fd, capacity)
                self._map = mmap.mmap(fd, capacity)
            finally:
                os.close(fd)
        except OSError as error:
            raise StateError(f"{path}: cannot map the statistics file: {error}") from error
        self.words = memoryview(self._map).cast("Q")
        self._bytes = memoryview(self._map)
        self._known: dict[tuple[int, bytes], int] = {}
        if fresh or self.words[0] != MAGIC or not self._adopt():
            self._reset()
        self.words[2] += 1
        self.words[3] = os.getpid()

    @property
    def incarnation(self) -> int:
        """How many writers this file has had, this one included."""
        return self.words[2]

    def _adopt(self) -> bool:
        try:
            for entry, _ in walk(self.words):
                self._known[entry.kind, _key(entry.name, entry.labels)] = entry.offset
                if entry.kind == GAUGE:
                    self.words[entry.offset] = 0
        except (StateError, ValueError, IndexError):
            return False
        return True

    def _reset(self) -> None:
        self._known.clear()
        self.words[1] = HEADER_WORDS * WORD
        self.words[2] = 0
        self.words[0] = MAGIC

    def _entry(self, kind: int, name: str, labels: Mapping[str, str]) -> int:
        key = _key(name, labels)
        known = self._known.get((kind, key))
        if known is not None:
            return known
        start = self.words[1] // WORD
        size = 3 + (len(key) + WORD - 1) // WORD + _WORDS[kind]
        if (start + size) * WORD > len(self._bytes):
            raise StateError(f"{self.path}: no room for another series")
        data = start + size - _WORDS[kind]
        self.words[start], self.words[start + 1], self.words[start + 2] = size, kind, len(key)
        self._bytes[(start + 3) * WORD : (start + 3) * WORD + len(key)] = key
        for i in range(data, start + size):
            self.words[i] = 0
        self.words[1] = (start + size) * WORD
        self._known[kind, key] = data
        return data

    def counter(self, name: str, labels: Mapping[str, str] | None = None) -> int:
        """Index into :attr:`words` of a number that only grows."""
        return self._entry(COUNTER, name, labels or {})

    def gauge(self, name: str, labels: Mapping[str, str] | None = None) -> int:
        """Index into :attr:`words` of a number that goes both ways and dies with the worker."""
        return self._entry(GAUGE, name, labels or {})

    def sketch(self, name: str, labels: Mapping[str, str] | None = None) -> int:
        """Index into :attr:`words` of a latency sketch, for :func:`observe`."""
        return self._entry(SKETCH, name, labels or {})

    def close(self) -> None:
        """Close the mapping; the file stays."""
        self.words.release()
        self._bytes.release()
        self._map.close()


def observe(words: memoryview, sketch: int, nanoseconds: int) -> None:
    """Add a duration to the sketch at index ``sketch``. About half a microsecond."""
    if nanoseconds > _LOWEST_NS:
        index = ceil(log2(nanoseconds) * SCALE + _SHIFT)
        if index >= BUCKETS:
            index = BUCKETS - 1
    else:
        index = 0
        if nanoseconds < 0:
            nanoseconds = 0
    words[sketch] += 1
    words[sketch + 1] += nanoseconds
    if nanoseconds > words[sketch + 2]:
        words[sketch + 2] = nanoseconds
    words[sketch + 3 + bisect_left(_EDGES_NS, nanoseconds)] += 1
    words[sketch + SKETCH_BUCKETS + index] += 1
