"""Reads the lines of a record log: a folder of segments, or files of JSON lines.

Earlier versions wrote files: ``log``, and the older ``log.1``, ``log.2`` …
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from understudy.common.files import FileError, lines
from understudy.common.unreadable import why_unreadable
from understudy.monitor.errors import ReplayError
from understudy.monitor.records.log import Damage, is_log, read


@dataclass(frozen=True, slots=True)
class Line:
    """``where`` names the file and line, for messages; ``size`` is the bytes read for it."""

    where: str
    size: int
    data: bytes


@dataclass(slots=True)
class RecordLogFiles:
    """The log at ``path``. ``damage`` is updated while lines are read."""

    path: Path
    files: list[Path]
    segments: bool
    damage: Damage = field(default_factory=Damage)

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(file.stat().st_size for file in self.files if file.exists())

    def lines(self, since: float = float("-inf"), until: float = float("inf")) -> Iterator[Line]:
        """All lines, oldest first. Frames entirely outside ``since`` to ``until`` (unix seconds)
        may be skipped. Raises ReplayError or LogError for a log that cannot be read."""
        if self.segments:
            for frame in read(self.path, self.damage, since, until):
                content, name = frame.content, frame.path.name
                size = (frame.frame.end - frame.frame.start) // max(1, len(content.entries))
                for number, data in enumerate(content.entries):
                    yield Line(f"{name}: entry {frame.frame.index + number:,}", size, data)
            return
        for file in self.files:
            yield from _file_lines(file)


def open_log(path: Path) -> RecordLogFiles:
    """Open the log at ``path``. Raises ReplayError if there is none."""
    if path.is_dir():
        if not is_log(path):
            raise ReplayError(f"{path}: there is no log of records in this folder")
        return RecordLogFiles(path, sorted(path.glob("*.useg")), True)
    try:
        path.stat()
    except OSError as error:
        raise ReplayError(f"{path}: cannot be read: {why_unreadable(path, error)}") from error
    parts = []
    for part in path.parent.glob(f"{path.name}.*"):
        suffix = part.name[len(path.name) + 1 :]
        if suffix.isdecimal():
            parts.append((int(suffix), part))
    return RecordLogFiles(path, [part for _, part in sorted(parts, reverse=True)] + [path], False)


def _file_lines(path: Path) -> Iterator[Line]:
    try:
        for number, line in lines(path):
            yield Line(f"{path}: line {number}", len(line), line)
    except FileError as error:
        raise ReplayError(str(error)) from error
