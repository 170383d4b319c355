"""Writes records and labels to the record log, which can be replayed."""

from __future__ import annotations

import logging
import threading
from collections import deque
from pathlib import Path

from understudy.monitor.archive.lines import label_line, names_line, record_line
from understudy.monitor.archive.repeats import record_id
from understudy.monitor.config.model import Config, RecordLog
from understudy.monitor.errors import LogError
from understudy.monitor.labels.label import Label
from understudy.monitor.records.handoff import Names
from understudy.monitor.records.log import SegmentLog
from understudy.monitor.records.record import Record

log = logging.getLogger(__name__)

MAX_WAITING_BYTES = 16 * 1024 * 1024
"""Bytes that may wait for the disk; beyond it records are dropped and counted."""
FRAME_BYTES = 1024 * 1024
"""Bytes of lines in one frame, which is written and read as a whole."""


def recorder_of(config: Config, current: Recorder | None = None) -> Recorder | None:
    """The recorder of a configuration: ``current`` if its settings are unchanged; None if off."""
    declared_log = config.records.log
    if current is not None:
        if declared_log is not None and current.declared == declared_log:
            return current
        current.close()
    return Recorder(declared_log) if declared_log is not None else None


class Recorder:
    """Appends to a log of segments. Adding never waits: :meth:`flush` writes, in any thread.

    An entry is a line of :mod:`understudy.monitor.archive.lines`. Each frame begins with the names
    that its records index, so that it can be read even if frames before it are damaged.
    """

    def __init__(self, declared: RecordLog) -> None:
        self.declared = declared
        self.path = Path(declared.path)
        self.dropped = 0
        """Number of records and labels lost: too many were waiting, or the disk failed."""
        self.written = 0
        self.error: str | None = None
        """Why the log cannot be written; None if it can."""
        self._names: Names | None = None
        self._waiting: deque[tuple[bytes, int, float]] = deque()
        """(line, number of records, unix time); the number is -1 for names."""
        self._enqueued_bytes = self._dequeued_bytes = 0
        """Two counters, each changed by one thread only."""
        self._log: SegmentLog | None = None
        self._names_line = b""
        """The names line that applies to the first waiting line."""
        self._lock = threading.Lock()

    def add(self, names: Names, record: Record, batch: str = "", index: int = 0) -> None:
        """Add an exchange: number ``index`` of the batch with this id, empty if it has none."""
        if names is not self._names and names != self._names:
            self._enqueue(names_line(names), -1, 0.0)
        self._names = names
        identity = record_id(batch, index, names.arm(record.arm), record)
        self._enqueue(record_line(record, identity), 1, record.started)

    def add_label(self, label: Label, received: float) -> None:
        """Add a label that was received at unix time ``received``."""
        self._enqueue(label_line(label, received), 0, received)

    def _enqueue(self, line: bytes, records: int, at: float) -> None:
        # Never drop names: the records after them could not be read.
        if (
            records >= 0
            and self._enqueued_bytes - self._dequeued_bytes + len(line) > MAX_WAITING_BYTES
        ):
            self.dropped += 1
            return
        self._waiting.append((line, records, at))
        self._enqueued_bytes += len(line)

    def flush(self) -> None:
        """Write waiting lines. An error is logged once; the next flush tries again."""
        with self._lock:
            waiting = self._waiting
            while waiting:
                lines = [self._names_line] if self._names_line else []
                weights = [0] * len(lines)
                times: list[float] = []
                size = 0
                while waiting and size < FRAME_BYTES:
                    line, records, at = waiting.popleft()
                    size += len(line)
                    if records < 0:
                        self._names_line = line
                        if lines and not times:
                            lines.clear()
                            weights.clear()
                    else:
                        times.append(at)
                    lines.append(line)
                    weights.append(max(records, 0))
                self._dequeued_bytes += size
                if times:
                    self._write(lines, weights, times)
            if self._log is not None and self._log.synced < self._log.end:
                self._log.sync()

    def _write(self, lines: list[bytes], weights: list[int], times: list[float]) -> None:
        try:
            log_ = self._open()
        except LogError as error:
            if self.error is None:
                log.error("record log cannot be written: %s", error)
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
                    f"{self.path} is a file of an earlier version: set records.log.path to a "
                    "folder; `understudy replay` reads both"
                )
            size, keep = self.declared.max_size, self.declared.keep
            self._log = SegmentLog(self.path, size * keep, self.declared.max_age, size)
        return self._log

    def tidy(self, now: float) -> None:
        """Delete segments that are too old; ``now`` is unix seconds."""
        with self._lock:
            if self._log is not None:
                self._log.prune(now)

    def close(self) -> None:
        """Write waiting lines and close the log."""
        self.flush()
        with self._lock:
            if self._log is not None:
                self._log.close()
                self._log = None
