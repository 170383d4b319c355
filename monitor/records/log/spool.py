"""A queue on disk: entries go in at one end and, in order, out at the other once acknowledged."""

from __future__ import annotations

import os
import threading
import time
import zlib
from array import array
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from struct import Struct

from understudy.monitor.errors import LogError
from understudy.monitor.records.log.frames import Damage, content, scan, weights_of
from understudy.monitor.records.log.segments import Segment
from understudy.monitor.records.log.writer import SEGMENT_BYTES, SYNC_SECONDS, SegmentLog

MOST_BYTES = 4 * 1024 * 1024
"""That are read at once."""
TAIL_BYTES = 4 * 1024 * 1024
"""Bytes of what was just written that are kept in memory, for a reader that has all before it."""
_CURSOR = Struct("<QI")
_NAME = "cursor"
_MOST_DONE = 65_536


@dataclass(frozen=True, slots=True)
class Entry:
    """``index`` counts up by one over the life of the spool; ``records`` is the entry's weight."""

    index: int
    data: bytes
    records: int


@dataclass(frozen=True, slots=True)
class _Written:
    """Entries of one append, and where the frame after it begins."""

    entries: list[Entry]
    size: int
    place: tuple[Path, int]


class Spool:
    """The spool in ``folder``, of at most ``max_bytes``: beyond it the oldest entries are dropped.

    One thread may append while another reads and acknowledges. When the process dies, reading goes
    on from the last acknowledgement; when the machine does, perhaps from an earlier one: whoever
    gets the entries must know what it has seen before. Raises LogError for a folder that cannot be
    used.
    """

    def __init__(
        self,
        folder: Path,
        max_bytes: int,
        segment_bytes: int = SEGMENT_BYTES,
        sync_seconds: float | None = SYNC_SECONDS,
        tail_bytes: int = TAIL_BYTES,
    ) -> None:
        self._most_tail = tail_bytes
        self._lock = threading.Lock()
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._file = os.open(folder / _NAME, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise LogError(f"{folder}: cannot be used: {error.strerror or error}") from error
        try:
            saved = _unpacked(os.pread(self._file, _CURSOR.size, 0))
            self._log = SegmentLog(
                folder, max_bytes, None, segment_bytes, sync_seconds, compress=False, first=saved
            )
        except BaseException:
            os.close(self._file)
            raise
        self.cursor = max(saved, self._log.segments[0].base)
        """Index of the first entry that is not acknowledged."""
        self.lost = 0
        """Entries that were found to be damaged when they were to be read."""
        self.damage = Damage()
        self._next = self.cursor
        self._place: tuple[Path, int] | None = None
        """File and byte of the frame that is read next, where that is known."""
        self._tail: deque[_Written] = deque()
        """All that is to be read next, when it was just written; it is on disk as well."""
        self._tail_bytes = 0
        self._first = self._log.segments[0].base
        """Index of what the first of the weights belongs to."""
        self._weights = array("I")
        for segment in self._log.segments:
            self._load(segment)
        self._pending = self._sum(self.cursor, self.end)
        self._log.unread = self._dropping
        self._forget()
        self._log.prune(time.time())

    # What is there ------------------------------------------------------------------------------

    @property
    def mark(self) -> bytes | None:
        """The mark of the last append that had one, also of before a crash."""
        return self._log.mark

    @property
    def end(self) -> int:
        """The index that the next entry will have."""
        return self._log.end

    @property
    def pending(self) -> int:
        """Records in entries that are not acknowledged."""
        return self._pending

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return self._log.size

    @property
    def dropped(self) -> int:
        """Records that had to go unacknowledged, for want of room."""
        return self._log.pruned

    @property
    def refused(self) -> int:
        """Records that could not be written."""
        return self._log.refused

    @property
    def error(self) -> str | None:
        """Why nothing can be written at present."""
        return self._log.error

    @property
    def synced(self) -> int:
        """Entries before this index survive the death of the machine."""
        return self._log.synced

    # In -----------------------------------------------------------------------------------------

    def append(
        self,
        entries: Sequence[bytes],
        records: Sequence[int] | None = None,
        mark: bytes | None = None,
    ) -> bool:
        """Add entries, all or none of which are there after a crash, along with ``mark``.

        ``records`` is how many each is counted as, one if None. False when they cannot be written
        now: they are counted as refused, and may be tried again.
        """
        with self._lock:
            records = [1] * len(entries) if records is None else records
            size = sum(map(len, entries))
            if not self._log.append(entries, records, mark=mark):
                return False
            end = self._log.end
            first = end - len(entries)
            # Only now: what was dropped to make room for these counted from their beginning.
            self._weights.extend(records)
            self._pending += sum(records)
            if entries and self._kept() == first and self._tail_bytes + size <= self._most_tail:
                active = self._log.segments[-1]
                added = list(map(Entry, range(first, end), entries, records))
                self._tail.append(_Written(added, size, (active.path, active.size)))
                self._tail_bytes += size
            return True

    def sync(self) -> None:
        """Wait until all that was added survives the death of the machine."""
        with self._lock:
            self._log.sync()

    # Out ----------------------------------------------------------------------------------------

    def read(self, most_bytes: int = MOST_BYTES) -> list[Entry]:
        """The next entries in order, at least one where there is any. Raises LogError."""
        with self._lock:
            entries: list[Entry] = []
            size = 0
            while self._tail and size < most_bytes:
                written = self._tail.popleft()
                self._tail_bytes -= written.size
                size += written.size
                entries += written.entries
                self._next = written.entries[-1].index + 1
                self._place = written.place
            while size < most_bytes and self._next < self._log.end:
                segment = self._segment()
                try:
                    size += self._read_from(segment, most_bytes - size, entries)
                except OSError as error:
                    raise LogError(f"{segment.path}: cannot be read: {error.strerror}") from error
            return entries

    def rewind(self) -> None:
        """Begin again with the first entry that is not acknowledged."""
        with self._lock:
            self._go_to(self.cursor)

    def acknowledge(self, index: int) -> None:
        """All entries before ``index`` are done with."""
        with self._lock:
            index = min(index, self._log.end)
            if index <= self.cursor:
                return
            self._pending -= self._sum(self.cursor, index)
            self.cursor = index
            if self._next < index:
                self._go_to(index)
            os.pwrite(self._file, _packed(index), 0)
            self._forget()

    def close(self) -> None:
        """Sync and let go of the folder."""
        with self._lock:
            self._log.close()
            os.close(self._file)

    # ---------------------------------------------------------------------------------------------

    def _kept(self) -> int:
        """Index of the first entry that is only to be had from disk, or not written yet."""
        return self._tail[-1].entries[-1].index + 1 if self._tail else self._next

    def _go_to(self, index: int) -> None:
        """Read on at another place."""
        self._next = index
        self._place = None
        self._tail.clear()
        self._tail_bytes = 0

    def _segment(self) -> Segment:
        """The one in which the next entry stands."""
        result = self._log.segments[0]
        for segment in self._log.segments:
            if segment.base > self._next:
                break
            result = segment
        return result

    def _read_from(self, segment: Segment, room: int, found: list[Entry]) -> int:
        """Bytes of the entries of a segment that were added to ``found``, from the next one on."""
        place = self._place
        start = place[1] if place is not None and place[0] == segment.path else 0
        size = 0
        file = os.open(segment.path, os.O_RDONLY)
        try:
            for frame in scan(file, segment.size, segment.path.name, self.damage, False, start):
                self._place = (segment.path, frame.end)
                if frame.index + frame.entries <= self._next or not frame.entries:
                    continue
                inside = content(file, frame)
                if inside is None:
                    self.damage.add(f"{segment.path.name}: byte {frame.start:,}", frame.end)
                    continue
                self._skip_to(frame.index)
                for number in range(self._next - frame.index, frame.entries):
                    entry = inside.entries[number]
                    found.append(Entry(frame.index + number, entry, inside.weights[number]))
                    size += len(entry)
                self._next = frame.index + frame.entries
                if size >= room:
                    return size
        finally:
            os.close(file)
        self._skip_to(segment.end)
        return size

    def _skip_to(self, index: int) -> None:
        """What was to be read before ``index`` is not to be had."""
        if index > self._next:
            self.lost += index - self._next
            self._next = index

    def _dropping(self, segment: Segment) -> int:
        """Records that nobody will get any more when a segment is deleted."""
        records = self._sum(max(self.cursor, segment.base), segment.end)
        self._pending -= records
        if self.cursor < segment.end:
            self.cursor = segment.end
        if self._next < self.cursor:
            self._go_to(self.cursor)
        return records

    def _load(self, segment: Segment) -> None:
        """The weights of the entries of a segment; none for what is damaged."""
        file = os.open(segment.path, os.O_RDONLY)
        try:
            for frame in scan(file, segment.size, segment.path.name, Damage(), False):
                self._pad(frame.index)
                self._weights.extend(weights_of(file, frame) or ())
                self._pad(frame.index + frame.entries)
        finally:
            os.close(file)
        self._pad(segment.end)

    def _pad(self, index: int) -> None:
        missing = index - self._first - len(self._weights)
        if missing > 0:
            self._weights.extend([0] * missing)

    def _sum(self, first: int, end: int) -> int:
        """Records of the entries from index ``first`` to before ``end``."""
        return sum(self._weights[max(first - self._first, 0) : max(end - self._first, 0)])

    def _forget(self) -> None:
        """Delete what is acknowledged whole."""
        done = self.cursor - self._first
        if done > max(_MOST_DONE, len(self._weights) // 2):
            del self._weights[:done]
            self._first += done
        while len(self._log.segments) > 1 and self._log.segments[0].end <= self.cursor:
            if not self._log.delete_first():
                return


def _packed(index: int) -> bytes:
    return _CURSOR.pack(index, zlib.crc32(index.to_bytes(8, "little")))


def _unpacked(data: bytes) -> int:
    """0, which is from the beginning, for what no cursor was ever written to, or only half."""
    if len(data) < _CURSOR.size:
        return 0
    index, crc = _CURSOR.unpack(data)
    return index if zlib.crc32(index.to_bytes(8, "little")) == crc else 0
