"""The files of a log: ``<index of the first entry>.useg`` in one folder, read without a writer."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from understudy.common.unreadable import why_unreadable
from understudy.monitor.errors import LogError
from understudy.monitor.records.log.frames import Content, Damage, Frame, content, scan

SUFFIX = ".useg"


@dataclass(slots=True)
class Segment:
    """What is known of one file. ``base`` is the index of its first entry, ``end`` that after its
    last one; ``size`` its bytes as far as they are good; ``newest`` the unix time of its last
    record, minus infinity where there is none."""

    path: Path
    base: int
    end: int
    size: int = 0
    records: int = 0
    newest: float = float("-inf")

    def take(self, frame: Frame) -> None:
        """A frame that stands in it."""
        self.size = max(self.size, frame.end)
        self.end = max(self.end, frame.index + frame.entries)
        self.records += frame.records
        if frame.entries:
            self.newest = max(self.newest, frame.newest)


@dataclass(frozen=True, slots=True)
class Read:
    """A frame with its content."""

    frame: Frame
    content: Content
    path: Path


def name_of(base: int) -> str:
    """The name of the file whose first entry is number ``base``."""
    return f"{base:020d}{SUFFIX}"


def files_in(folder: Path) -> list[tuple[int, Path]]:
    """Segments by the index of their first entry. Raises LogError."""
    files: list[tuple[int, Path]] = []
    try:
        for path in folder.iterdir():
            if path.suffix == SUFFIX and path.stem.isdecimal():
                files.append((int(path.stem), path))
    except OSError as error:
        raise LogError(f"{folder}: cannot be read: {why_unreadable(folder, error)}") from error
    return sorted(files)


def is_log(path: Path) -> bool:
    """Whether there is a log of segments in this folder."""
    return path.is_dir() and any(True for _ in path.glob(f"*{SUFFIX}"))


def read(
    folder: Path,
    damage: Damage | None = None,
    since: float = float("-inf"),
    until: float = float("inf"),
) -> Iterator[Read]:
    """All frames of a log that may hold what happened from ``since`` to ``until``, oldest first.

    A log may be read while it is written. Damaged frames are left out and added to ``damage``, as
    is the tail of the last file, which the writer may still be at. Raises LogError for a folder or
    a file that cannot be read.
    """
    damage = Damage() if damage is None else damage
    for _, path in files_in(folder):
        try:
            file = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            continue  # its time was over
        except OSError as error:
            raise LogError(f"{path}: cannot be read: {error.strerror or error}") from error
        try:
            size = os.fstat(file).st_size
            for frame in scan(file, size, path.name, damage, check=False):
                if frame.oldest > until or frame.newest < since:
                    continue
                result = content(file, frame)
                if result is None:
                    damage.add(f"{path.name}: byte {frame.start:,}", frame.end - frame.start)
                    continue
                yield Read(frame, result, path)
        except OSError as error:
            raise LogError(f"{path}: cannot be read: {error.strerror or error}") from error
        finally:
            os.close(file)
