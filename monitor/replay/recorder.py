"""Writes what flows through the evaluation plane into a log that can be replayed."""

from __future__ import annotations

import logging
import os
from collections import deque
from pathlib import Path

from monitor.config.model import Config
from monitor.feedback.labels import Label
from monitor.record import Record
from monitor.replay.lines import label_line, names_line, record_line
from monitor.transport.server import Names

log = logging.getLogger(__name__)

MOST_WAITING = 16 * 1024 * 1024
"""Bytes that may wait for the disk; what finds no room is dropped and counted."""


def recorder_of(config: Config, before: Recorder | None = None) -> Recorder | None:
    """The recorder that a configuration asks for: the one ``before``, if it writes to that file."""
    wanted = config.records.log
    if wanted is None:
        if before is not None:
            before.flush()
        return None
    path = Path(wanted.path)
    if before is not None and before.path == path:
        before.max_bytes, before.keep = wanted.max_size, wanted.keep
        return before
    return Recorder(path, wanted.max_size, wanted.keep)


class Recorder:
    """Appends to ``path``; at ``max_bytes`` the file becomes ``path.1`` and so on, ``keep`` files
    in all. Adding never waits: :meth:`flush` writes, in whatever thread."""

    def __init__(self, path: Path, max_bytes: int, keep: int) -> None:
        self.path = path
        self.max_bytes = max_bytes
        self.keep = keep
        self.dropped = 0
        self.written = 0
        self.error: str | None = None
        """Why the file cannot be written at present."""
        self._names: Names | None = None
        self._waiting: deque[bytes] = deque()
        self._bytes = 0

    def add(self, names: Names, record: Record) -> None:
        """One exchange."""
        if names is not self._names and names != self._names:
            self._put(names_line(names))
        self._names = names
        self._put(record_line(record))

    def add_label(self, label: Label, received: float) -> None:
        """Feedback that was taken at unix time ``received``."""
        self._put(label_line(label, received))

    def _put(self, line: bytes) -> None:
        if self._bytes + len(line) > MOST_WAITING:
            self.dropped += 1
            return
        self._waiting.append(line)
        self._bytes += len(line) + 1

    def flush(self) -> None:
        """Write what waits. Trouble is logged once, shown, and tried again."""
        lines: list[bytes] = []
        while self._waiting:
            lines.append(self._waiting.popleft())
        if not lines:
            return
        data = b"\n".join(lines) + b"\n"
        self._bytes = max(0, self._bytes - len(data))
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self.path.exists() and self.path.stat().st_size + len(data) > self.max_bytes:
                self._rotate()
                if self._names is not None:
                    data = names_line(self._names) + b"\n" + data
            with self.path.open("ab") as file:
                file.write(data)
        except OSError as error:
            if self.error is None:
                log.error("%s: cannot be written: %s", self.path, error)
            self.error = f"{self.path}: {error.strerror or error}"
            self.dropped += len(lines)
            # What follows would not know its names.
            self._names = None
            return
        self.error = None
        self.written += len(lines)

    def _rotate(self) -> None:
        for number in range(self.keep - 1, 0, -1):
            older = self._numbered(number)
            if older.exists():
                if number == self.keep - 1:
                    older.unlink()
                else:
                    os.replace(older, self._numbered(number + 1))
        if self.keep > 1:
            os.replace(self.path, self._numbered(1))
        else:
            self.path.unlink()

    def _numbered(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}")
