"""The history on disk: three rings of slots, each a log of checked segments in one folder.

Slots of ten seconds are kept for six hours, of a minute for two days, of fifteen minutes for thirty
days, or for less when all of them together would be larger than the limit. A slot is written when
it is over, and merged into the open slot of the next resolution; after a crash the open slots of
the coarser ones are made from the finer ones on disk, so that only the open slot of ten seconds is
lost. Rings are bounded by the number of slots, not by the clock: a clock that jumps deletes
nothing. Slots of the same time, as after a clock was set back, are merged when they are read.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from understudy.monitor.errors import LogError
from understudy.monitor.history.span import Gauge, Span, dump, load
from understudy.monitor.records.log.frames import Damage, content, scan
from understudy.monitor.records.log.segments import files_in
from understudy.monitor.records.log.writer import SegmentLog
from understudy.monitor.stats.windows import Slot

log = logging.getLogger(__name__)

FOLDER = "history"
DEFAULT_BYTES = 64 * 1024 * 1024
_MOST_PENDING = 720
"""Slots that wait for a disk that cannot be written; of more, the oldest are dropped."""
_SEGMENTS = 16
"""The oldest sixteenth of a ring is deleted at a time."""


@dataclass(frozen=True, slots=True)
class Resolution:
    """Length of a slot in seconds, and how many of them are kept."""

    name: str
    step: int
    slots: int

    @property
    def seconds(self) -> int:
        """The time that all slots span."""
        return self.step * self.slots


RESOLUTIONS = (
    Resolution("10s", 10, 2160),
    Resolution("1m", 60, 2880),
    Resolution("15m", 900, 2880),
)
GAUGES_FROM = 1
"""Gauges change slowly: they are read once for each slot of this resolution."""


@dataclass(slots=True)
class _Ring:
    resolution: Resolution
    folder: Path
    open: Span | None = None
    log: SegmentLog | None = None
    written: int = 0
    """Entries before this index are on disk; later spans are open or pending."""


class History:
    """Takes growth in the event loop, and writes it in :meth:`flush`, which may run in any thread
    and opens the files at its first call.

    ``gauges`` returns the values of the present moment.
    """

    def __init__(
        self,
        folder: Path,
        max_bytes: int = DEFAULT_BYTES,
        gauges: Callable[[], Mapping[Gauge, float]] = dict,
    ) -> None:
        self.max_bytes = max_bytes
        self.gauges = gauges
        self.dropped = 0
        """Slots that could not be written."""
        self.error: str | None = None
        """Why the history cannot be written at present."""
        self._folder = folder
        self._rings = [_Ring(one, folder / one.name) for one in RESOLUTIONS]
        self._pending: deque[tuple[int, Span]] = deque()
        self._lock = threading.Lock()
        """Of the open and the pending spans."""
        self._disk = threading.Lock()
        """Of the logs; a reader does not take it."""
        self._restored = False

    # Taking -------------------------------------------------------------------------------------

    def take(self, slot: Slot | None, now: float) -> None:
        """Add what has grown until ``now``, in unix seconds."""
        if slot is None or not 0.0 <= now < 1e11:
            return
        with self._lock:
            self._advance(0, now)
            span = self._rings[0].open
            assert span is not None
            span.observe(slot)

    def _advance(self, index: int, now: float) -> None:
        """Close the open slot of a resolution if ``now`` is in another one."""
        ring = self._rings[index]
        start = int(now // ring.resolution.step) * ring.resolution.step
        if ring.open is not None and ring.open.start != start:
            self._close(index)
        if ring.open is None:
            ring.open = Span(start)

    def _close(self, index: int) -> None:
        ring = self._rings[index]
        span, ring.open = ring.open, None
        if span is None:
            return
        if index == GAUGES_FROM and self._restored:
            span.gauges.update(self._read_gauges())
        if index + 1 < len(self._rings):
            # Before it waits to be written: an entry of the coarser resolution holds exactly what
            # is written before it. By the slot's own time, since a tick may be late.
            self._advance(index + 1, span.start)
            coarser = self._rings[index + 1].open
            assert coarser is not None
            coarser.add(span)
        self._pending.append((index, span))

    def _read_gauges(self) -> Mapping[Gauge, float]:
        try:
            return self.gauges()
        except Exception:
            log.exception("the history could not read what is watched")
            return {}

    # Writing ------------------------------------------------------------------------------------

    @property
    def pending(self) -> int:
        """Slots that are over and not written yet."""
        return len(self._pending)

    def flush(self) -> None:
        """Write the slots that are over. Never raises: a disk that cannot be written is shown in
        ``error``."""
        with self._disk:
            if not self._open():
                self._drop(_MOST_PENDING)
                return
            while True:
                with self._lock:
                    if not self._pending:
                        return
                    index, span = self._pending[0]
                if not self._write(index, span):
                    self._drop(_MOST_PENDING)
                    return
                with self._lock:
                    self._pending.popleft()
                    self._note(index)

    def _note(self, index: int) -> None:
        ring = self._rings[index]
        if ring.log is not None:
            ring.written = ring.log.end

    def _write(self, index: int, span: Span) -> bool:
        ring = self._rings[index]
        assert ring.log is not None
        finer = self._rings[index - 1].log if index else None
        through = finer.end if finer is not None else 0
        ends = span.start + ring.resolution.step
        if not ring.log.append([dump(span, through)], oldest=float(span.start), newest=float(ends)):
            self.error = ring.log.error
            return False
        self.error = None
        segments = ring.log.segments
        while len(segments) > 1 and ring.log.end - segments[1].base >= ring.resolution.slots:
            if not ring.log.delete_first():
                break
        return True

    def _drop(self, most: int) -> None:
        with self._lock:
            while len(self._pending) > most:
                self._pending.popleft()
                self.dropped += 1

    def _open(self) -> bool:
        """Open the logs that are not open, and make the open slots from what is on disk."""
        share = self.max_bytes // len(self._rings)
        try:
            for index, ring in enumerate(self._rings):
                if ring.log is None:
                    ring.log = SegmentLog(ring.folder, share, segment_bytes=share // _SEGMENTS)
                    self._note(index)
        except (LogError, OSError) as error:
            if self.error is None:
                log.error("history: %s", error)
            self.error = f"history: {error}"
            return False
        if not self._restored:
            self._restore()
        return True

    def _restore(self) -> None:
        """Make the open slots of the coarser resolutions from the entries of the finer ones that
        they do not have yet, the coarsest first."""
        with self._lock:
            # What came in before the disk could be used is newer: it follows.
            waiting, self._pending = self._pending, deque()
            opened = [ring.open for ring in self._rings]
            for ring in self._rings:
                ring.open = None
            for index in range(len(self._rings) - 1, 0, -1):
                ring, finer = self._rings[index], self._rings[index - 1]
                through = 0
                for _, _, last in _entries(ring.folder, max(0, ring.written - 1)):
                    through = last
                for _, span, _ in _entries(finer.folder, through, before=finer.written):
                    self._advance(index, span.start)
                    assert ring.open is not None
                    ring.open.add(span)
            self._restored = True
            for index, span in waiting:
                if index == 0:
                    self._rings[0].open = span
                    self._close(0)
            self._rings[0].open = opened[0]

    def configure(self, max_bytes: int) -> None:
        """Apply another limit."""
        with self._disk:
            self.max_bytes = max_bytes
            for ring in self._rings:
                if ring.log is not None:
                    ring.log.max_bytes = max_bytes // len(self._rings)

    def close(self) -> None:
        """Write everything, the open slot of ten seconds too, and let go of the folder."""
        with self._lock:
            self._close(0)
        self.flush()
        with self._disk:
            for ring in self._rings:
                if ring.log is not None:
                    ring.log.close()
                    ring.log = None

    # Reading ------------------------------------------------------------------------------------

    def oldest(self, index: int) -> float | None:
        """Unix time of the oldest slot of a resolution that is kept; None without one."""
        ring = self._rings[index]
        starts: list[float] = []
        for _, path in _files(ring.folder):
            first = _first(path)
            if first is not None:
                starts.append(first)
                break
        with self._lock:
            starts += [float(span.start) for one, span in self._pending if one == index]
            starts += [float(ring.open.start)] if ring.open is not None else []
        return min(starts, default=None)

    def spans(self, index: int, since: float, until: float) -> list[Span]:
        """Slots of a resolution that touch the time from ``since`` to ``until``, in the order in
        which they were observed; the last one may still be open."""
        ring = self._rings[index]
        step = ring.resolution.step
        with self._lock:
            before = ring.written
            found = [span for one, span in self._pending if one == index]
            parts = [one.open for one in self._rings[: index + 1] if one.open is not None]
            found += [_copy(span, step) for span in reversed(parts)]
        entries = _entries(ring.folder, 0, since, until, before)
        found = [*(span for _, span, _ in entries), *found]
        return [span for span in found if span.start < until and span.start + step > since]


def _copy(span: Span, step: int) -> Span:
    """A span that does not change any more, at a slot of ``step`` seconds."""
    result = Span(span.start // step * step)
    result.add(span)
    return result


def _files(folder: Path) -> list[tuple[int, Path]]:
    try:
        return files_in(folder)
    except LogError:
        return []


def _first(path: Path) -> float | None:
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        size = os.fstat(file).st_size
        return next((f.oldest for f in scan(file, size, "", Damage(), check=False)), None)
    finally:
        os.close(file)


def _entries(
    folder: Path,
    first: int,
    since: float = float("-inf"),
    until: float = float("inf"),
    before: int | None = None,
) -> Iterator[tuple[int, Span, int]]:
    """Index, span and ``through`` of the entries from index ``first`` on and ``before`` another
    one, in their order. What cannot be read is left out."""
    files = _files(folder)
    for number, (_, path) in enumerate(files):
        if number + 1 < len(files) and files[number + 1][0] <= first:
            continue
        try:
            file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            continue  # deleted meanwhile
        try:
            size = os.fstat(file).st_size
            for frame in scan(file, size, path.name, Damage(), check=False):
                if frame.index < first or (before is not None and frame.index >= before):
                    continue
                if frame.oldest >= until or frame.newest <= since:
                    continue
                found = content(file, frame)
                for offset, entry in enumerate(found.entries if found is not None else ()):
                    try:
                        span, through = load(entry)
                    except (ValueError, KeyError, TypeError):
                        continue
                    yield frame.index + offset, span, through
        except OSError as error:
            log.warning("%s: cannot be read: %s", path, error)
        finally:
            os.close(file)
