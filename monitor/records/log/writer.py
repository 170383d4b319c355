"""Writes a log of segments: bounded, checked, repaired after a crash, never fatal.

What is appended is with the operating system when :meth:`SegmentLog.append` returns: it survives
the death of the process. It survives that of the machine once it is synced, which is up to
``sync_seconds`` later. A disk that is full, or gone, costs what could not be written, which is
counted; the next append tries again.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from understudy.common.durable import lacking_bytes
from understudy.monitor.errors import LogError
from understudy.monitor.records.log.frames import SEGMENT, Damage, content, pack, scan
from understudy.monitor.records.log.segments import Segment, files_in, name_of

log = logging.getLogger(__name__)

SEGMENT_BYTES = 16 * 1024 * 1024
SYNC_SECONDS = 1.0
_LOCK = "lock"
_MOST_PARTS = 512
"""That are written at once; a system may take 1,024."""


class SegmentLog:
    """The log in ``folder``, which is made; at most one process may write to it.

    ``max_bytes`` bounds all files together, ``max_age`` is in seconds: whole segments that are
    beyond either are deleted, never the one that is written to. ``sync_seconds`` of 0 syncs every
    append, None leaves it to the operating system. Raises LogError when the folder cannot be used.
    """

    def __init__(
        self,
        folder: Path,
        max_bytes: int,
        max_age: float | None = None,
        segment_bytes: int = SEGMENT_BYTES,
        sync_seconds: float | None = SYNC_SECONDS,
        compress: bool = True,
        clock: Callable[[], float] = time.time,
        first: int = 0,
    ) -> None:
        self.folder = folder
        self.max_bytes = max_bytes
        self.max_age = max_age
        self.segment_bytes = max(4096, min(segment_bytes, max_bytes // 4))
        self.sync_seconds = sync_seconds
        self.damage = Damage()
        """What was found to be damaged when the log was opened."""
        self.mark: bytes | None = None
        """The last mark that was appended."""
        self.refused = 0
        """Records that could not be written."""
        self.pruned = 0
        """Records in segments that were deleted for want of room."""
        self.expired = 0
        """Records in segments that were deleted for their age."""
        self.error: str | None = None
        """Why nothing can be written at present."""
        self.synced = 0
        """Entries before this one survive the death of the machine."""
        self.segments: deque[Segment] = deque()
        self.unread: Callable[[Segment], int] | None = None
        """How many records of a segment count as deleted; all, if None."""
        self._compress = compress
        self._clock = clock
        self._file: int | None = None
        self._opened = 0.0
        self._due = 0.0
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise LogError(f"{folder}: cannot be used: {error.strerror or error}") from error
        try:
            self._take_lock()
            self._open(first)
        except BaseException:
            os.close(self._lock)
            raise

    @property
    def end(self) -> int:
        """The index that the next entry will have."""
        return self.segments[-1].end

    @property
    def size(self) -> int:
        """Bytes of all segments."""
        return sum(segment.size for segment in self.segments)

    # Opening ------------------------------------------------------------------------------------

    def _take_lock(self) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise LogError(f"{self.folder}: another process writes to it") from error

    def _open(self, first: int) -> None:
        files = files_in(self.folder)
        for position, (base, path) in enumerate(files):
            last = position == len(files) - 1
            try:
                self.segments.append(self._survey(base, path, last))
            except OSError as error:
                raise LogError(f"{path}: cannot be read: {error.strerror or error}") from error
        if self.damage.frames:
            log.warning(
                "%s: %d damaged places (%d bytes) are left out: %s",
                self.folder,
                self.damage.frames,
                self.damage.bytes,
                ", ".join(self.damage.places),
            )
        self.mark = self._last_mark()
        if not self.segments or self.end < first:
            self._begin(max(first, self.end if self.segments else 0))
        if self.sync_seconds is not None:
            self.sync()

    def _survey(self, base: int, path: Path, last: bool) -> Segment:
        """Read through a file, and cut off the torn tail of the last one."""
        segment = Segment(path, base, base, len(SEGMENT))
        before = self.damage.torn
        file = os.open(path, os.O_RDWR if last else os.O_RDONLY)
        try:
            size = os.fstat(file).st_size
            for frame in scan(file, size, path.name, self.damage, check=last):
                segment.take(frame)
            torn = self.damage.torn - before
            if torn and last:
                log.warning("%s: a torn tail of %d bytes is cut off", path, torn)
                os.ftruncate(file, segment.size)
            if last and size < len(SEGMENT):
                os.pwrite(file, SEGMENT, 0)
        except BaseException:
            os.close(file)
            raise
        if last:
            self._file = file
            self._opened = self._clock()
        else:
            os.close(file)
        return segment

    def _last_mark(self) -> bytes | None:
        """The newest mark that can be read; every segment begins with the one in force then."""
        for segment in reversed(self.segments):
            file = os.open(segment.path, os.O_RDONLY)
            try:
                frames = scan(file, segment.size, segment.path.name, Damage(), check=False)
                for frame in reversed([frame for frame in frames if frame.marked]):
                    result = content(file, frame)
                    if result is not None:
                        return result.mark
            finally:
                os.close(file)
        return None

    def _begin(self, base: int) -> None:
        """A new segment. Raises LogError."""
        path = self.folder / name_of(base)
        fresh = Segment(path, base, base, len(SEGMENT))
        now = self._clock()
        data = SEGMENT
        if self.mark is not None:
            data += b"".join(pack([], None, base, now, now, self._compress, self.mark))
        try:
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
            try:
                _write_all(file, [data], 0)
                self._sync_folder()
            except BaseException:
                os.close(file)
                path.unlink(missing_ok=True)
                raise
        except OSError as error:
            raise LogError(f"{path}: cannot be written: {error.strerror or error}") from error
        self._close_file()
        self._file = file
        self._opened = now
        fresh.size = len(data)
        if self.segments and self.segments[-1].base == base:
            self.segments.pop()  # nothing stood in it
        self.segments.append(fresh)

    def _sync_folder(self) -> None:
        if self.sync_seconds is not None:
            folder = os.open(self.folder, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    # Writing ------------------------------------------------------------------------------------

    def append(
        self,
        entries: Sequence[bytes],
        weights: Sequence[int] | None = None,
        oldest: float | None = None,
        newest: float | None = None,
        mark: bytes | None = None,
    ) -> bool:
        """Write entries as one frame: after a crash there are all of them or none.

        ``weights`` are how many records each is counted as (one, if None), ``oldest`` and
        ``newest`` are unix times (now, if None). The last ``mark`` is kept as long as the log is.
        False when they could not be written.
        """
        now = self._clock()
        records = len(entries) if weights is None else sum(weights)
        oldest = now if oldest is None else oldest
        newest = now if newest is None else newest
        try:
            self._make_room(sum(map(len, entries)))
            active = self._writable(now)
            frame = pack(entries, weights, active.end, oldest, newest, self._compress, mark)
            size = self._write(frame)
        except (OSError, ValueError, LogError) as error:
            self.refused += records
            self._failed("written", error)
            return False
        if mark is not None:
            self.mark = mark
        active.size += size
        active.end += len(entries)
        active.records += records
        active.newest = max(active.newest, newest)
        if self.error is not None:
            log.info("%s: can be written again", self.folder)
            self.error = None
        if self.sync_seconds is not None and now >= self._due:
            self.sync()
        return True

    def _make_room(self, size: int) -> None:
        """Leave room on the disk: a log of its own accord gives up its oldest segments, a queue
        keeps what it has. Raises OSError without enough of it."""
        while (lacking := lacking_bytes(self.folder, size)) > 0:
            oldest = self.segments[0]
            if self.unread is not None or not self.delete_first():
                raise OSError(errno.ENOSPC, f"the disk is almost full ({lacking:,} bytes lack)")
            self.pruned += oldest.records

    def _failed(self, what: str, error: Exception) -> None:
        if self.error is None:
            log.error("%s: cannot be %s: %s", self.folder, what, error)
        self.error = f"{self.folder}: {getattr(error, 'strerror', None) or error}"

    def _writable(self, now: float) -> Segment:
        """The segment to write to, a new one where it is time. Raises OSError or LogError."""
        active = self.segments[-1]
        aged = (
            self.max_age is not None
            and active.records > 0
            and not 0.0 <= now - self._opened < self.max_age / 8
        )
        if self._file is None or aged or active.size >= self.segment_bytes:
            if self._file is not None and self.sync_seconds is not None:
                os.fdatasync(self._file)
            self._begin(active.end)
            self.prune(now)
        return self.segments[-1]

    def _write(self, frame: Sequence[bytes]) -> int:
        """How many bytes that were."""
        assert self._file is not None
        size = self.segments[-1].size
        try:
            return _write_all(self._file, frame, size)
        except OSError:
            try:
                os.ftruncate(self._file, size)
            except OSError:
                self._close_file()  # go on in another one
            raise

    def sync(self) -> None:
        """Wait until all that was appended survives the death of the machine."""
        if self._file is None:
            return
        try:
            os.fdatasync(self._file)
        except OSError as error:
            # What was not written by now may never be, and the next sync would not say so.
            self._failed("synced", error)
            self._close_file()
            return
        self.synced = self.end
        self._due = self._clock() + (self.sync_seconds or 0.0)

    def prune(self, now: float) -> None:
        """Delete segments that are beyond size or age; the present one only for its age."""
        active = self.segments[-1]
        if self._is_over(active, now) and active.records:
            try:
                self._begin(active.end)
            except LogError as error:
                self._failed("written", error)
        # There is to be room for the present one to become full.
        size = self.size - self.segments[-1].size + self.segment_bytes
        while len(self.segments) > 1:
            oldest = self.segments[0]
            over = self._is_over(oldest, now)
            if not over and size <= self.max_bytes:
                return
            records = self.unread(oldest) if self.unread is not None else oldest.records
            if not self.delete_first():
                return
            size -= oldest.size
            if over:
                self.expired += records
            else:
                self.pruned += records

    def _is_over(self, segment: Segment, now: float) -> bool:
        return self.max_age is not None and segment.newest < now - self.max_age

    def delete_first(self) -> bool:
        """Delete the oldest segment, whatever is in it; never the one that is written to."""
        if len(self.segments) < 2:
            return False
        try:
            self.segments[0].path.unlink(missing_ok=True)
        except OSError as error:
            log.error("%s: cannot be deleted: %s", self.segments[0].path, error)
            return False
        self.segments.popleft()
        return True

    def close(self) -> None:
        """Sync and let go of the folder."""
        if self.sync_seconds is not None:
            self.sync()
        self._close_file()
        os.close(self._lock)

    def _close_file(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _write_all(file: int, parts: Sequence[bytes], at: int) -> int:
    """How many bytes were written, which are all of them."""
    start = at
    for first in range(0, len(parts), _MOST_PARTS):
        views = [memoryview(part) for part in parts[first : first + _MOST_PARTS]]
        while views:
            written = os.pwritev(file, views, at)
            at += written
            while views and written >= len(views[0]):
                written -= len(views.pop(0))
            if written:
                views[0] = views[0][written:]
    return at - start
