"""Writes what flows through the evaluation plane into a log that can be replayed."""

from __future__ import annotations

import logging
import threading
from collections import deque
from pathlib import Path

from understudy.monitor.archive.lines import label_line, names_line, record_line
from understudy.monitor.config.model import Config, RecordLog
from understudy.monitor.errors import LogError
from understudy.monitor.labels.label import Label
from understudy.monitor.records.handoff import Names
from understudy.monitor.records.log import SegmentLog
from understudy.monitor.records.record import Record

log = logging.getLogger(__name__)

MOST_WAITING = 16 * 1024 * 1024
"""Bytes that may wait for the disk; what finds no room is dropped and counted."""
FRAME_BYTES = 1024 * 1024
"""Bytes of lines that are written, and have to be read, at once."""


def recorder_of(config: Config, before: Recorder | None = None) -> Recorder | None:
    """The recorder that a configuration asks for: the one ``before``, if it stays as it is."""
    wanted = config.records.log
    if before is not None:
        if wanted is not None and before.declared == wanted:
            return before
        before.close()
    return Recorder(wanted) if wanted is not None else None


class Recorder:
    """Appends to a log of segments. Adding never waits: :meth:`flush` writes, in any thread.

    An entry is a line of :mod:`understudy.monitor.archive.lines`. Each frame begins with the names
    that its records go by, so that it can be read whatever is damaged before it.
    """

    def __init__(self, declared: RecordLog) -> None:
        self.declared = declared
        self.path = Path(declared.path)
        self.dropped = 0
        """Records and labels that are not in the log, for want of room or of a disk."""
        self.written = 0
        self.error: str | None = None
        """Why nothing can be written at present."""
        self._names: Names | None = None
        self._waiting: deque[tuple[bytes, int, float]] = deque()
        """Lines, with the records that they count as (-1 for names) and the time that they tell."""
        self._put_bytes = self._taken_bytes = 0
        """Two counts, since two threads count."""
        self._log: SegmentLog | None = None
        self._head = b""
        """The names that hold at the first line that waits."""
        self._lock = threading.Lock()

    def add(self, names: Names, record: Record) -> None:
        """One exchange."""
        if names is not self._names and names != self._names:
            self._put(names_line(names), -1, 0.0)
        self._names = names
        self._put(record_line(record), 1, record.started)

    def add_label(self, label: Label, received: float) -> None:
        """Feedback that was taken at unix time ``received``."""
        self._put(label_line(label, received), 0, received)

    def _put(self, line: bytes, counted: int, at: float) -> None:
        # Names are few, and without them nothing that follows could be read.
        if counted >= 0 and self._put_bytes - self._taken_bytes + len(line) > MOST_WAITING:
            self.dropped += 1
            return
        self._waiting.append((line, counted, at))
        self._put_bytes += len(line)

    def flush(self) -> None:
        """Write what waits. Trouble is logged once, shown, and tried again with the next."""
        with self._lock:
            waiting = self._waiting
            while waiting:
                lines = [self._head] if self._head else []
                weights = [0] * len(lines)
                times: list[float] = []
                size = 0
                while waiting and size < FRAME_BYTES:
                    line, counted, at = waiting.popleft()
                    size += len(line)
                    if counted < 0:
                        self._head = line
                        if lines and not times:
                            lines.clear()
                            weights.clear()
                    else:
                        times.append(at)
                    lines.append(line)
                    weights.append(max(counted, 0))
                self._taken_bytes += size
                if times:
                    self._write(lines, weights, times)
            if self._log is not None and self._log.synced < self._log.end:
                self._log.sync()

    def _write(self, lines: list[bytes], weights: list[int], times: list[float]) -> None:
        try:
            log_ = self._open()
        except LogError as error:
            if self.error is None:
                log.error("the log of records cannot be written: %s", error)
            self.error = str(error)
            self.dropped += len(times)
            return
        if log_.append(lines, weights, min(times), max(times)):
            self.written += len(times)
        else:
            self.dropped += len(times)
        self.error = log_.error

    def _open(self) -> SegmentLog:
        if self._log is None:
            if self.path.is_file():
                raise LogError(
                    f"{self.path} is a file, as earlier versions wrote them: give a folder as "
                    "records.log.path; `understudy replay` reads both"
                )
            size, keep = self.declared.max_size, self.declared.keep
            self._log = SegmentLog(self.path, size * keep, self.declared.max_age, size)
        return self._log

    def tidy(self, now: float) -> None:
        """Delete what is too old, also while nothing is written; ``now`` is unix seconds."""
        with self._lock:
            if self._log is not None:
                self._log.prune(now)

    def close(self) -> None:
        """Write what waits, and let go of the folder."""
        self.flush()
        with self._lock:
            if self._log is not None:
                self._log.close()
                self._log = None
