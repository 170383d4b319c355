"""The audit log: who changed which rollout, when and why. Append-only, one JSON object per line.

Each line holds the SHA-256 of the line before, so that changed, inserted and removed lines are
detected, unless all lines after them were rewritten too: to detect that, keep a copy of the last
hash elsewhere. A line is written in one call and synced; a partial line after a crash is cut off at
the next start, and the log records that.

The log is ``audit.jsonl``. When it is full it becomes ``audit.1.jsonl``, that one ``audit.2.jsonl``
and so on, up to a limit, and the chain continues. The first line of a new file names the oldest
line that was kept, so that missing files are detected.
"""

from __future__ import annotations

import errno
import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from understudy.common.durable import read_file

log = logging.getLogger(__name__)

_FIRST_HASH = "0" * 64
_RESERVED = frozenset(("seq", "before", "time"))
MAX_SHOWN = 1000
FILE_BYTES = 1 << 20
FILES = 8
"""Number of full files kept beside the current one."""


class AuditLog:
    """Appends to ``path``; the file appears with the first line.

    Only one process may write. ``file_bytes`` is the approximate maximum size of a file, ``files``
    the number of older files kept.
    """

    def __init__(self, path: Path, file_bytes: int = FILE_BYTES, files: int = FILES) -> None:
        if file_bytes < 1 or files < 1:
            raise ValueError("an audit log needs room for a line and for an older file")
        self.path = path
        self._file_bytes = file_bytes
        self._files = files
        self._open()

    # Writing ------------------------------------------------------------------------------------

    def append(self, event: Mapping[str, Any]) -> int:
        """Write ``event`` and return the number of its line, once it is on disk.

        ``time`` (RFC 3339, UTC) is ``event["at"]``, in unix seconds, or now. Raises OSError when it
        cannot be written, and then leaves no partial line; ValueError for an event that is not
        JSON or has reserved keys.
        """
        if _RESERVED & event.keys():
            raise ValueError(
                f"an event must not have {', '.join(sorted(_RESERVED & event.keys()))}"
            )
        at = event.get("at")
        now = datetime.now(UTC) if at is None else datetime.fromtimestamp(float(at), UTC)
        json.dumps(event, allow_nan=False)
        if not self._is_unchanged():
            self._open((self._seq, self._hash))
        if not self._is_unchanged():
            raise OSError(errno.EIO, "a partial line could not be cut off", str(self.path))
        if self._size >= self._file_bytes:
            self._rotate()
        self._begin_file()
        return self._write(event, now)

    def catch_up(self, events: Iterable[Mapping[str, Any]]) -> None:
        """Append the events that are not in the log yet. Raises OSError; then call it again."""
        for event in events:
            if _key(event) not in self._known:
                self.append(event)

    def _write(self, event: Mapping[str, Any], now: datetime) -> int:
        head = {"seq": self._seq + 1, "before": self._hash, "time": _rfc3339(now)}
        line = json.dumps({**head, **event}, allow_nan=False).encode()
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(self.path, flags, 0o600)
        try:
            size = os.fstat(fd).st_size
            try:
                view = memoryview(line + b"\n")
                while view:  # One call, unless the disk is full: then the second call fails.
                    view = view[os.write(fd, view) :]
                os.fsync(fd)
            except OSError:
                os.ftruncate(fd, size)
                raise
        finally:
            os.close(fd)
        if size == 0:
            self._sync_folder()
        self._update(line, event)
        self._size = size + len(line) + 1
        return self._seq

    def _rotate(self) -> None:
        """Rename the files: into the first gap, otherwise over the oldest file.

        Renaming starts at the oldest, so a crash in between leaves a gap and never loses a file.
        """
        gaps = (n for n in range(1, self._files) if not self._rotated_path(n).exists())
        for number in range(next(gaps, self._files), 1, -1):
            os.replace(self._rotated_path(number - 1), self._rotated_path(number))
        if self.path.exists():
            os.replace(self.path, self._rotated_path(1))
        self._sync_folder()
        self._size = 0

    def _begin_file(self) -> None:
        """Write the first line of a rotated log: it names the oldest line kept."""
        if self._size or not self._seq:
            return
        first = _entry(next(self._lines(), b"")) or {}
        line = {
            "kind": "continued",
            "who": "understudy",
            "why": "the file before it was full",
            "oldest": first.get("seq"),
            "oldest_before": first.get("before"),
        }
        self._write(line, datetime.now(UTC))

    def _sync_folder(self) -> None:
        fd = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    # Opening ------------------------------------------------------------------------------------

    def _open(self, last: tuple[int, str] | None = None) -> None:
        """Read the log; ``last`` is the expected number and hash of its last line."""
        self._seq = 0
        self._hash = _FIRST_HASH
        self._size = 0
        self._known: set[tuple[str, str, int]] = set()
        notes: list[str] = []
        cut = self._cut_off()
        if cut:
            notes.append(f"{cut} bytes of a partial line were cut off")
        for number, line in enumerate(self._lines(), start=1):
            entry = _entry(line)
            if entry is None:
                log.error("%s: line %d cannot be read; it stays unchanged", self.path, number)
            self._update(line, entry or {}, (entry or {}).get("seq"))
        if last is not None and last != (self._seq, self._hash):
            notes.append(
                f"the last line was {last[0]}, now it is {self._seq}: the file was changed"
            )
        for note in notes:
            log.warning("%s: %s", self.path, note)
        if not self._is_unchanged():
            return
        try:
            numbers = [n for n in range(1, self._files + 1) if self._rotated_path(n).exists()]
            if len(numbers) < max(numbers, default=0):
                self._rotate()  # A crash interrupted a rotation.
            self._begin_file()
            for note in notes:
                event = {"kind": "mended", "who": "understudy", "why": note}
                self._write(event, datetime.now(UTC))
        except OSError as error:
            log.error("%s: cannot be written: %s", self.path, error)

    def _cut_off(self) -> int:
        """Cut off a last line that has no line end; return its bytes."""
        try:
            data = read_file(self.path)
        except (FileNotFoundError, NotADirectoryError):
            return 0  # a missing folder is reported by append
        except OSError as error:
            log.error("%s: cannot be read: %s", self.path, error)
            return 0
        self._size = data.rfind(b"\n") + 1
        if self._size < len(data):
            try:
                os.truncate(self.path, self._size)
            except OSError as error:
                # Nothing is appended until this succeeds.
                log.error("%s: a partial line cannot be cut off: %s", self.path, error)
                return 0
        return len(data) - self._size

    def _update(self, line: bytes, event: Mapping[str, Any], seq: object = None) -> None:
        self._seq = seq if isinstance(seq, int) else self._seq + 1
        self._hash = sha256(line).hexdigest()
        try:
            self._known.add(_key(event))
        except (ValueError, KeyError, TypeError):
            pass  # Written by the log itself.

    def _is_unchanged(self) -> bool:
        """Whether the file has the size that this process left."""
        try:
            return self.path.stat().st_size == self._size
        except OSError:
            return self._size == 0

    # Reading ------------------------------------------------------------------------------------

    def read(self, experiment: str | None = None, limit: int = MAX_SHOWN) -> list[dict[str, Any]]:
        """The last ``limit`` entries, of one experiment or of all, oldest first."""
        entries: list[dict[str, Any]] = []
        for path in reversed(self._paths()):
            for line in reversed(_whole_lines(path)):
                if len(entries) >= limit:
                    return entries[::-1]
                entry = _entry(line)
                if entry is not None and experiment in (None, entry.get("experiment")):
                    entries.append(entry)
        return entries[::-1]

    def entries(self, newest_first: bool = False) -> Iterator[dict[str, Any]]:
        """All entries in order, one file at a time; lines that cannot be read are left out."""
        paths = self._paths()
        for path in reversed(paths) if newest_first else paths:
            lines = _whole_lines(path)
            for line in reversed(lines) if newest_first else lines:
                entry = _entry(line)
                if entry is not None:
                    yield entry

    def expire(self, before: float) -> int:
        """Delete full files whose last line was written before that unix time, the oldest first;
        return how many."""
        deleted = 0
        for path in self._paths()[:-1]:
            try:
                if path == self.path or path.stat().st_mtime >= before:
                    break
                path.unlink()
            except OSError as error:
                log.error("%s: cannot be deleted: %s", path, error)
                break
            deleted += 1
        return deleted

    def verify(self) -> int | None:
        """The number of the first line that was changed, or that follows a removed or inserted one;
        None if the log is intact up to the last line that this object knows."""
        expected = 1
        before: object = _FIRST_HASH
        oldest: tuple[object, object] = (1, _FIRST_HASH)
        first: tuple[object, object] | None = None
        for line in self._lines():
            entry = _entry(line) or {}
            seq, previous = entry.get("seq"), entry.get("before")
            if first is None:
                first = (seq, previous)
                expected, before = seq if isinstance(seq, int) else 1, previous
            if not isinstance(seq, int) or seq != expected or previous != before:
                return expected
            if entry.get("kind") == "continued":
                oldest = (entry.get("oldest"), entry.get("oldest_before"))
            expected, before = seq + 1, sha256(line).hexdigest()
        if first is not None and first != oldest:
            return first[0] if isinstance(first[0], int) else 1
        return None if (expected, before) == (self._seq + 1, self._hash) else expected

    def _lines(self) -> Iterator[bytes]:
        for path in self._paths():
            yield from _whole_lines(path)

    def _paths(self) -> list[Path]:
        """The existing files, oldest first."""
        older = [self._rotated_path(number) for number in range(self._files, 0, -1)]
        return [path for path in (*older, self.path) if path.exists()]

    def _rotated_path(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.stem}.{number}{self.path.suffix}")


def _whole_lines(path: Path) -> list[bytes]:
    """The lines of a file, without a partial last line."""
    try:
        return read_file(path).split(b"\n")[:-1]
    except OSError:
        return []


def _entry(line: bytes) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None


def _rfc3339(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _key(event: Mapping[str, Any]) -> tuple[str, str, int]:
    """Identifies an event; a rollout's version grows with each."""
    return (
        f"{event['experiment']}/{event['challenger']}",
        f"{event['kind']}@{event['at']}",
        int(event["version"]),
    )
