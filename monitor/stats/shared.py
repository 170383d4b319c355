"""Statistics of one worker in shared memory: written by one process, read by others.

The file outlives its writer. A worker that is killed leaves its numbers behind, its successor goes
on from them, and the reader (the evaluation plane) may come and go: counters never go down and
nothing has to be sent for them to be seen.

Layout, little-endian, every number 8 bytes and aligned to 8::

    header   magic, checksum of the buckets · used bytes · incarnation · process id · generation ·
             identity
    entry    size · kind · length of key · key (JSON, padded) · numbers …

The writer publishes a new entry by raising ``used`` last, so a reader never sees half an entry.
An entry whose arm or model is gone is freed: its counts move to the entry of the same name whose
labels are :data:`OTHER`, and its place is used again. ``generation`` is odd meanwhile, and differs
afterwards: a reader that sees it change reads again. ``identity`` is that of the counts: a file
that starts from zero has another.

A number is 8 aligned bytes, stored at once on the platforms that we run on. A sketch is several
numbers, and a reader may see it between two of them: its count can then differ from the sum of its
buckets by the record that is being written; the next read is consistent.

Its writer holds a lock on the file as long as it lives: process ids mean nothing to a reader in
another container.

The blocks of the file are reserved before they are mapped for writing: storing into a page for
which the file system has no room would end the process with SIGBUS. Where that fails the numbers
are in anonymous memory.

Only the standard library is used here: workers import this module.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import mmap
import os
import struct
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from time import monotonic
from weakref import WeakSet
from zlib import crc32

from understudy.monitor.errors import StateError
from understudy.monitor.stats.buckets import (
    BUCKETS,
    CLASSIC,
    CLASSIC_EDGES,
    LOWEST_EXPONENT,
    SCALE,
)

log = logging.getLogger(__name__)

_LAYOUT = repr((CLASSIC_EDGES, SCALE, LOWEST_EXPONENT, BUCKETS)).encode()
MAGIC = int.from_bytes(b"UST3" + crc32(_LAYOUT).to_bytes(4, "little"), "little")
"""Contains a checksum of the buckets, since a file with other buckets cannot be continued."""
HEADER_WORDS = 8
WORD = 8
CAPACITY = 128 * 1024 * 1024
"""Bytes of address space: some 3,900 outcomes of models and arms. Memory is taken as needed."""
ENOUGH = 16 * 1024 * 1024
"""Bytes beyond which entries of removed arms are freed before more memory is taken."""
GROWTH = 256 * 1024
"""Bytes that are reserved at a time."""
RESERVE = 2 * 1024 * 1024
"""Bytes that only the entries with the labels :data:`OTHER` may take."""
RETENTION = 600.0
"""Seconds for which the entries of a removed arm or model are kept, if there is room: long enough
for every scraper, and for the longest window, to see their last values."""
RETRY_SECONDS = 1.0
"""Time between two attempts to reserve more memory."""

OTHER = {
    "arm": "other",
    "experiment": "other",
    "model": "other",
    "protocol": "other",
    "version": "",
}
"""Labels under which counts are added up that have no entry of their own."""

USED, INCARNATION, PID, GENERATION, IDENTITY = 1, 2, 3, 4, 5
"""Numbers of the header."""

FREE = 0
COUNTER = 1
GAUGE = 2
SKETCH = 3

SKETCH_COUNT = 0
SKETCH_SUM_NS = 1
SKETCH_MAX_NS = 2
SKETCH_CLASSIC = 3
SKETCH_BUCKETS = SKETCH_CLASSIC + CLASSIC
SKETCH_WORDS = SKETCH_BUCKETS + BUCKETS

_KINDS = (COUNTER, GAUGE, SKETCH)
_WORDS = {FREE: 0, COUNTER: 1, GAUGE: 1, SKETCH: SKETCH_WORDS}
_KEY_STEP = 8
"""Keys are padded to a multiple of this many words, so that freed places fit other names."""
IMPOSSIBLE = 1 << 62
"""No count gets that far; where the numbers start that nothing reads, and that may go down."""
_LONGEST_KEY = 4096
_SINK_WORDS = SKETCH_WORDS + 2
"""A sketch, a counter and a gauge at the end of the file, where counts go without an entry."""
_LOCK = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 1, 0)
"""``struct flock`` of the lock of a living writer: that of the first byte."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One series: ``offset`` is the index of its first number in 8-byte words."""

    kind: int
    name: str
    labels: Mapping[str, str]
    offset: int


def _key(name: str, labels: Mapping[str, str]) -> bytes:
    return json.dumps([name, dict(sorted(labels.items()))], separators=(",", ":")).encode()


def other_labels(labels: Mapping[str, str]) -> dict[str, str]:
    """The labels of the entry that takes the counts of a series without an entry."""
    return {name: OTHER.get(name, value) for name, value in labels.items()}


def has_writer(fd: int) -> bool:
    """Whether the writer of a file lives; asking for it takes no lock, which would stop a writer
    when the reader hangs."""
    found = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, _LOCK)
    (kind,) = struct.unpack_from("h", found)
    return bool(kind != fcntl.F_UNLCK)


def _used(fd: int, capacity: int) -> int | None:
    """Used bytes of the file of an earlier writer; None if it has to be replaced."""
    about = os.fstat(fd)
    if about.st_size != capacity:
        return None
    magic, used = memoryview(os.pread(fd, 2 * WORD, 0)).cast("Q")
    return used if magic == MAGIC and used <= about.st_blocks * 512 else None


@dataclass(frozen=True, slots=True)
class Place:
    """Where an entry lies, in 8-byte words: it starts at ``start``, its numbers at ``offset``."""

    kind: int
    key: bytes
    start: int
    size: int
    offset: int


def places(words: memoryview, start: int = HEADER_WORDS) -> Iterator[Place]:
    """The entries from word ``start`` on, freed ones as well; ``words`` is a view of u64.

    Raises StateError for a damaged file.
    """
    used = words[USED] // WORD
    raw = words.cast("B")
    while start < used:
        size, kind, length = words[start], words[start + 1], words[start + 2]
        if size < 4 or start + size > used or kind not in _WORDS or length > _LONGEST_KEY:
            raise StateError(f"statistics file is damaged at word {start}")
        if 3 + (length + WORD - 1) // WORD + _WORDS[kind] > size:
            raise StateError(f"statistics file is damaged at word {start}")
        begin = (start + 3) * WORD
        key = bytes(raw[begin : begin + length])
        yield Place(kind, key, start, size, start + size - _WORDS[kind])
        start += size


def walk(words: memoryview) -> Iterator[Entry]:
    """All series in ``words``, a view of u64. Raises StateError for a damaged file."""
    for place in places(words):
        if place.kind != FREE:
            name, labels = json.loads(place.key)
            yield Entry(place.kind, name, labels, place.offset)


class Hold:
    """Indices into the statistics are kept somewhere, as long as this is; see
    :meth:`SharedStats.hold`."""

    __slots__ = ("__weakref__", "forget")

    def __init__(self, forget: Callable[[int], None]) -> None:
        self.forget = forget


def _labels(key: bytes) -> dict[str, str]:
    _, labels = json.loads(key)
    if not isinstance(labels, dict):
        raise ValueError("labels must be an object")
    return labels


IsLive = Callable[[Mapping[str, str]], bool]
"""Whether labels name an arm, a model and an experiment of the current plan."""


class SharedStats:
    """The writer's end. ``words[i] += 1`` is how a counter is raised; see :meth:`counter`.

    Opening an existing file keeps counters and sketches and sets gauges to zero. A file that is
    damaged or of another layout is replaced by a new one. Neither opening nor any other method
    raises an error: whoever counts serves a client.
    """

    def __init__(self, path: Path, capacity: int = CAPACITY) -> None:
        self.path = path
        self._capacity = capacity
        self._limit = capacity - _SINK_WORDS * WORD
        self._reserve = min(RESERVE, capacity // 4)
        self._known: dict[tuple[int, bytes], int] = {}
        self._places: dict[tuple[int, bytes], int] = {}
        """Word at which an entry starts."""
        self._free: dict[int, list[int]] = {}
        """Starts of freed entries, by size in words."""
        self._retired: dict[int, dict[bytes, float]] = {kind: {} for kind in _KINDS}
        """By kind and key: when an entry was found to belong to nothing in the plan, the oldest
        first."""
        self._unchecked: dict[int, deque[bytes]] = {kind: deque() for kind in _KINDS}
        """Entries that were not looked at since the plan changed, by kind."""
        self._is_live: IsLive = lambda _: True
        self._retired_at = 0.0
        self._holds: WeakSet[Hold] = WeakSet()
        self._retry_at = 0.0
        self.room = 0
        """Changes whenever there may be room for entries again."""
        self.in_memory: str | None = None
        """Why the numbers are in anonymous memory, which nothing reads after this process."""
        self._fd, self._allocated, fresh = self._open()
        with contextlib.suppress(OSError):  # its predecessor has not ended yet
            fcntl.fcntl(self._fd, fcntl.F_OFD_SETLK, _LOCK)
        self._map = mmap.mmap(self._fd, capacity)
        self.words = memoryview(self._map).cast("Q")
        self._bytes = memoryview(self._map)
        if fresh or self.words[0] != MAGIC or not self._adopt():
            self._reset()
        self.words[INCARNATION] += 1
        self.words[PID] = os.getpid()
        sink = self._limit // WORD
        self._sinks = {SKETCH: sink, COUNTER: sink + SKETCH_WORDS, GAUGE: sink + SKETCH_WORDS + 1}
        self.words[self.sink] = IMPOSSIBLE
        self._overflowed = self.counter("statistics_overflowed")
        self._reclaimed = self.counter("statistics_reclaimed")
        self._full = self.gauge("statistics_full")

    # Memory -------------------------------------------------------------------------------------

    def _open(self) -> tuple[int, int, bool]:
        """The file with room reserved in it, how many bytes, and whether it is new."""
        try:
            return self._open_file()
        except OSError as error:
            self.in_memory = f"{self.path}: {error.strerror or error}"
            log.error("%s: the worker's statistics are in anonymous memory", self.in_memory)
        fd = os.memfd_create(self.path.name)
        os.ftruncate(fd, self._capacity)
        with contextlib.suppress(OSError):
            # Readable for others as long as this process runs.
            self.path.unlink(missing_ok=True)
            self.path.symlink_to(f"/proc/{os.getpid()}/fd/{fd}")
        return fd, self._limit, True

    def _open_file(self) -> tuple[int, int, bool]:
        flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
        with contextlib.suppress(FileNotFoundError):
            if self.path.is_symlink():
                self.path.unlink()
            fd = os.open(self.path, flags)
            try:
                used = _used(fd, self._capacity)
                if used is not None:
                    return fd, self._reserve_blocks(fd, used), False
            except BaseException:
                os.close(fd)
                raise
            # Never cut off a file that another process may have mapped.
            os.close(fd)
            self.path.unlink()
        fd = os.open(self.path, flags | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.ftruncate(fd, self._capacity)
            return fd, self._reserve_blocks(fd, 0), True
        except BaseException:
            os.close(fd)
            self.path.unlink()
            raise

    def _reserve_blocks(self, fd: int, used: int) -> int:
        """Have the file system find room for what may be stored; return up to which byte."""
        wanted = -(-(used + self._reserve + 1) // GROWTH) * GROWTH
        allocated = min(wanted, self._limit)
        os.posix_fallocate(fd, 0, allocated)
        os.posix_fallocate(fd, self._limit, self._capacity - self._limit)
        return allocated

    def _grow(self, end: int) -> bool:
        """Whether entries may go up to byte ``end``, which leaves room for :data:`RESERVE`."""
        needed = end + self._reserve
        if needed <= self._allocated:
            return True
        if needed > self._limit or monotonic() < self._retry_at:
            return False
        wanted = min(-(-needed // GROWTH) * GROWTH, self._limit)
        try:
            os.posix_fallocate(self._fd, self._allocated, wanted - self._allocated)
        except OSError as error:
            log.error("%s: cannot grow: %s", self.path, error.strerror or error)
            self._retry_at = monotonic() + RETRY_SECONDS
            return False
        self._allocated = wanted
        self.room += 1
        return True

    # Entries ------------------------------------------------------------------------------------

    @property
    def incarnation(self) -> int:
        """How many writers this file has had, this one included."""
        return self.words[INCARNATION]

    def _adopt(self) -> bool:
        words = self.words
        try:
            if not HEADER_WORDS * WORD <= words[USED] <= self._allocated or words[USED] % WORD:
                return False
            if words[GENERATION] % 2:
                words[GENERATION] += 1  # its writer died while it freed an entry
            for place in places(words):
                key = place.kind, place.key
                if place.kind == FREE:
                    self._free.setdefault(place.size, []).append(place.start)
                    continue
                if place.kind == GAUGE:
                    words[place.offset] = 0
                elif max(words[place.offset : place.offset + 2]) >= IMPOSSIBLE:
                    return False
                _labels(place.key)
                self._known[key] = place.offset
                self._places[key] = place.start
        except (StateError, ValueError, IndexError, TypeError):
            return False
        return True

    def _reset(self) -> None:
        self._known.clear()
        self._places.clear()
        self._free.clear()
        words = self.words
        words[GENERATION] += 1 + words[GENERATION] % 2
        words[USED] = HEADER_WORDS * WORD
        words[INCARNATION] = 0
        words[IDENTITY] = int.from_bytes(os.urandom(7), "little")
        words[0] = MAGIC
        words[GENERATION] += 1

    def _entry(self, kind: int, name: str, labels: Mapping[str, str]) -> int:
        key = _key(name, labels)
        known = self._known.get((kind, key))
        if known is not None:
            return known
        instead = other_labels(labels)
        is_other = instead == labels
        padded = -(-len(key) // (WORD * _KEY_STEP)) * _KEY_STEP
        size = 3 + padded + _WORDS[kind]
        start = self._place(size, kind, key, is_other) if len(key) <= _LONGEST_KEY else None
        if start is not None:
            index = start + self.words[start] - _WORDS[kind]
            self._known[kind, key] = index
            self._places[kind, key] = start
            if kind == SKETCH and not is_other:
                self.words[self._full] = 0
            return index
        if is_other or kind == GAUGE:
            return self._sinks[kind]
        self.words[self._overflowed] += 1
        self.words[self._full] = 1
        return self._entry(kind, name, instead)

    def _place(self, size: int, kind: int, key: bytes, is_other: bool) -> int | None:
        """The first word of a new entry; None without room."""
        start = self._reused(size, kind, key)
        if start is not None:
            return start
        end = self.words[USED] + size * WORD
        if is_other:
            return self._append(size, kind, key)
        if end <= ENOUGH and self._grow(end):
            return self._append(size, kind, key)
        start = self._place_of_retired(size, kind, key)
        if start is None and self._grow(end):
            start = self._append(size, kind, key)
        return start

    def _place_of_retired(self, size: int, kind: int, key: bytes) -> int | None:
        retired, unchecked = self._retired[kind], self._unchecked[kind]
        while retired or unchecked:
            if not retired:
                self._check(kind)
            elif self._reclaim(kind, next(iter(retired))):
                start = self._reused(size, kind, key)
                if start is not None:
                    return start
        return None

    @property
    def overflowed(self) -> int:
        """How many lookups found no room for an entry."""
        return self.words[self._overflowed]

    @property
    def sink(self) -> int:
        """Index of a gauge that nothing reads."""
        return self._sinks[GAUGE]

    def _append(self, size: int, kind: int, key: bytes) -> int | None:
        """A new entry at the end, as its first word; None without memory."""
        start = self.words[USED] // WORD
        if (start + size) * WORD > self._allocated:
            return None
        self._write(start, size, kind, key)
        self.words[USED] = (start + size) * WORD
        return start

    def _reused(self, size: int, kind: int, key: bytes) -> int | None:
        """The place of a freed entry, as its first word; None without a fitting one."""
        for have in range(size, size + 4 * _KEY_STEP + 1, _KEY_STEP):
            places = self._free.get(have)
            if places:
                start = places.pop()
                words = self.words
                words[GENERATION] += 1
                self._write(start, have, kind, key)
                words[GENERATION] += 1
                return start
        return None

    def _write(self, start: int, size: int, kind: int, key: bytes) -> None:
        words, raw = self.words, self._bytes
        begin = (start + 3) * WORD
        raw[begin : (start + size) * WORD] = bytes(size * WORD - 3 * WORD)
        words[start], words[start + 1], words[start + 2] = size, kind, len(key)
        raw[begin : begin + len(key)] = key

    # Entries that nothing needs any more --------------------------------------------------------

    def hold(self, forget: Callable[[int], None]) -> Hold:
        """Call ``forget`` with the index of an entry that is freed: who keeps it counts under the
        labels :data:`OTHER` from then on.

        That lasts as long as the result is kept, by an owner of the object that ``forget`` belongs
        to: a weak reference to the object itself would not do, since compiled classes have none,
        and a reference of its own to the result would keep both until the garbage is collected.
        """
        hold = Hold(forget)
        self._holds.add(hold)
        return hold

    def retire(self, is_live: IsLive) -> None:
        """Entries that belong to nothing in the plan are freed after :data:`RETENTION`, or
        earlier when others need the room."""
        self._is_live = is_live
        self._retired_at = monotonic()
        for unchecked in self._unchecked.values():
            unchecked.clear()
        for kind, key in self._known:
            self._unchecked[kind].append(key)
        self.room += 1

    def tidy(self, most: int = 64) -> None:
        """Free entries that were retired long ago; looks at ``most`` of each kind at most."""
        before = monotonic() - RETENTION
        for kind in _KINDS:
            for _ in range(min(most, len(self._unchecked[kind]))):
                self._check(kind)
            for key, since in list(islice(self._retired[kind].items(), most)):
                if since > before:
                    break
                self._reclaim(kind, key)

    def _check(self, kind: int) -> None:
        """Look at the next entry: is it retired?"""
        key = self._unchecked[kind].popleft()
        if (kind, key) in self._known and not self._belongs(kind, key):
            self._retired[kind].setdefault(key, self._retired_at)
            if not self.words[self._known[kind, key]]:
                self._reclaim(kind, key)  # it counted nothing, or is a gauge

    def _belongs(self, kind: int, key: bytes) -> bool:
        """Whether an entry belongs to the plan, to ``other``, or is a gauge in use."""
        labels = _labels(key)
        if kind == GAUGE and self.words[self._known[kind, key]]:
            return True
        return self._is_live(labels) or other_labels(labels) == labels

    def _reclaim(self, kind: int, key: bytes) -> bool:
        """Free an entry; its counts move to the entry of ``other``. False if it is needed again."""
        del self._retired[kind][key]
        if self._belongs(kind, key):
            return False
        words = self.words
        source = self._known[kind, key]
        if kind != GAUGE:
            name, labels = json.loads(key)
            target = self._entry(kind, name, other_labels(labels))
            words[GENERATION] += 1
            self._move(kind, source, target)
        else:
            words[GENERATION] += 1
        start = self._places.pop((kind, key))
        del self._known[kind, key]
        words[start + 1] = FREE
        words[GENERATION] += 1
        self._free.setdefault(words[start], []).append(start)
        words[self._reclaimed] += 1
        self.room += 1
        for hold in list(self._holds):
            hold.forget(source)
        return True

    def _move(self, kind: int, source: int, target: int) -> None:
        """Add the numbers of one entry to another."""
        words = self.words
        if kind == COUNTER:
            words[target] += words[source]
            return
        largest = max(words[target + SKETCH_MAX_NS], words[source + SKETCH_MAX_NS])
        for index, value in enumerate(words[source : source + SKETCH_WORDS].tolist()):
            if value:
                words[target + index] += value
        words[target + SKETCH_MAX_NS] = largest

    # Series -------------------------------------------------------------------------------------

    def counter(self, name: str, labels: Mapping[str, str] | None = None) -> int:
        """Index into :attr:`words` of a number that only grows."""
        return self._entry(COUNTER, name, labels or {})

    def gauge(self, name: str, labels: Mapping[str, str] | None = None) -> int:
        """Index into :attr:`words` of a number that goes both ways and dies with the worker."""
        return self._entry(GAUGE, name, labels or {})

    def sketch(self, name: str, labels: Mapping[str, str] | None = None) -> int:
        """Index into :attr:`words` of a latency sketch, for
        :func:`understudy.monitor.stats.sketch.observe`."""
        return self._entry(SKETCH, name, labels or {})

    def close(self) -> None:
        """Close the mapping; the file stays."""
        self.words.release()
        self._bytes.release()
        self._map.close()
        os.close(self._fd)
