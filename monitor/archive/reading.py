"""The lines of a record log, whether it is a folder of segments or files of JSON lines.

Files are what earlier versions wrote: ``log``, and before it ``log.1``, ``log.2`` …
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from understudy.common.files import FileError, lines
from understudy.monitor.errors import ReplayError
from understudy.monitor.records.log import Damage, is_log, read


@dataclass(frozen=True, slots=True)
class Line:
    """``where`` names file and place for people; ``size`` is what was read for it, in bytes."""

    where: str
    size: int
    data: bytes


@dataclass(slots=True)
class RecordLogFiles:
    """What is at ``path``. ``damage`` grows while the lines are read."""

    path: Path
    files: list[Path]
    segments: bool
    damage: Damage = field(default_factory=Damage)

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(file.stat().st_size for file in self.files if file.exists())

    def lines(self, since: float = float("-inf"), until: float = float("inf")) -> Iterator[Line]:
        """All lines, oldest first; those of stretches that lie outside of the times may be left
        out. Raises ReplayError or LogError for what cannot be read at all."""
        if self.segments:
            for one in read(self.path, self.damage, since, until):
                content, name = one.content, one.path.name
                size = (one.frame.end - one.frame.start) // max(1, len(content.entries))
                for number, data in enumerate(content.entries):
                    yield Line(f"{name}: entry {one.frame.index + number:,}", size, data)
            return
        for file in self.files:
            yield from _of_file(file)


def open_log(path: Path) -> RecordLogFiles:
    """The log at ``path``. Raises ReplayError when there is none."""
    if path.is_dir():
        if not is_log(path):
            raise ReplayError(f"{path}: there is no log of records in this folder")
        return RecordLogFiles(path, sorted(path.glob("*.useg")), True)
    if not path.exists():
        raise ReplayError(f"{path}: there is no such file or folder")
    parts = []
    for part in path.parent.glob(f"{path.name}.*"):
        suffix = part.name[len(path.name) + 1 :]
        if suffix.isdecimal():
            parts.append((int(suffix), part))
    return RecordLogFiles(path, [part for _, part in sorted(parts, reverse=True)] + [path], False)


def _of_file(path: Path) -> Iterator[Line]:
    try:
        for number, line in lines(path):
            yield Line(f"{path}: line {number}", len(line), line)
    except FileError as error:
        raise ReplayError(str(error)) from error
