"""Who moved which rollout, when and why: an append-only log, one JSON object a line.

Each line holds the SHA-256 of the line before, so that a line that is changed, put in or taken out
shows, as long as somebody did not write everything behind it anew: whoever must be sure keeps the
last hash elsewhere. A line is written in one call and synced; what a crash left of one is cut off
at the next start, which the log says as well.

The log is ``audit.jsonl``. When it is full it becomes ``audit.1.jsonl``, that one ``audit.2.jsonl``
and so on, up to a limit, and the chain goes on; the first line of the new file says which line is
the oldest that was kept, so that files that are missing show.
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

log = logging.getLogger(__name__)

_NOTHING = "0" * 64
_OURS = frozenset(("seq", "before", "time"))
MOST_SHOWN = 1000
FILE_BYTES = 1 << 20
FILES = 8
"""How many full files are kept beside the one that is written."""


class AuditLog:
    """Appends to ``path``; the file appears with the first line.

    One process writes. ``file_bytes`` is about how long a file gets, ``files`` how many older ones
    are kept.
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

        ``time`` (RFC 3339, UTC) is that of ``event["at"]``, in unix seconds, or now. Raises OSError
        when it could not be written, of which nothing is left then; ValueError for an event that is
        no JSON or that has names of the log's own.
        """
        if _OURS & event.keys():
            raise ValueError(f"an event must not have {', '.join(sorted(_OURS & event.keys()))}")
        stamp = event.get("at")
        now = datetime.now(UTC) if stamp is None else datetime.fromtimestamp(float(stamp), UTC)
        json.dumps(event, allow_nan=False)
        if not self._whole():
            self._open((self._seq, self._hash))
        if not self._whole():
            raise OSError(errno.EIO, "a torn line could not be cut off", str(self.path))
        if self._size >= self._file_bytes:
            self._rotate()
        self._begin_file()
        return self._write(event, now)

    def catch_up(self, events: Iterable[Mapping[str, Any]]) -> None:
        """Append those events that are not in the log yet. Raises OSError; then call it again."""
        for event in events:
            if _key(event) not in self._known:
                self.append(event)

    def _write(self, event: Mapping[str, Any], now: datetime) -> int:
        head = {"seq": self._seq + 1, "before": self._hash, "time": _rfc3339(now)}
        line = json.dumps({**head, **event}, allow_nan=False).encode()
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        fd = os.open(self.path, flags, 0o600)
        try:
            size = os.fstat(fd).st_size
            try:
                view = memoryview(line + b"\n")
                while view:  # Once, unless the disk is full: then the second call says so.
                    view = view[os.write(fd, view) :]
                os.fsync(fd)
            except OSError:
                os.ftruncate(fd, size)
                raise
        finally:
            os.close(fd)
        if size == 0:
            self._sync_folder()
        self._took(line, event)
        self._size = size + len(line) + 1
        return self._seq

    def _rotate(self) -> None:
        """Make room: into the first gap that there is, else over the oldest file.

        Renamed from the oldest on, a crash in between leaves a gap, never two files of one name.
        """
        gaps = (n for n in range(1, self._files) if not self._older(n).exists())
        for number in range(next(gaps, self._files), 1, -1):
            os.replace(self._older(number - 1), self._older(number))
        if self.path.exists():
            os.replace(self.path, self._older(1))
        self._sync_folder()
        self._size = 0

    def _begin_file(self) -> None:
        """The first line of a file behind others says from where on they were kept."""
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
        """Read what there is; ``last`` is the number and the hash of the line that was the last."""
        self._seq = 0
        self._hash = _NOTHING
        self._size = 0
        self._known: set[tuple[str, str, int]] = set()
        notes: list[str] = []
        cut = self._cut_off()
        if cut:
            notes.append(f"{cut} bytes of a torn line were cut off")
        for number, line in enumerate(self._lines(), start=1):
            entry = _entry(line)
            if entry is None:
                log.error("%s: line %d cannot be read; it is left as it is", self.path, number)
            self._took(line, entry or {}, (entry or {}).get("seq"))
        if last is not None and last != (self._seq, self._hash):
            notes.append(f"line {last[0]} was the last one, now it is another, {self._seq}")
        for note in notes:
            log.warning("%s: %s", self.path, note)
        if not self._whole():
            return
        try:
            numbers = [n for n in range(1, self._files + 1) if self._older(n).exists()]
            if len(numbers) < max(numbers, default=0):
                self._rotate()  # A crash came in between.
            self._begin_file()
            for note in notes:
                event = {"kind": "mended", "who": "understudy", "why": note}
                self._write(event, datetime.now(UTC))
        except OSError as error:
            log.error("%s: cannot be written: %s", self.path, error)

    def _cut_off(self) -> int:
        """Cut a last line without an end off; how many bytes it had."""
        try:
            data = self.path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return 0  # where there is no folder yet, appending says so
        self._size = data.rfind(b"\n") + 1
        if self._size < len(data):
            try:
                os.truncate(self.path, self._size)
            except OSError as error:
                # Nothing is appended until it can be done.
                log.error("%s: a torn line cannot be cut off: %s", self.path, error)
                return 0
        return len(data) - self._size

    def _took(self, line: bytes, event: Mapping[str, Any], seq: object = None) -> None:
        self._seq = seq if isinstance(seq, int) else self._seq + 1
        self._hash = sha256(line).hexdigest()
        try:
            self._known.add(_key(event))
        except (ValueError, KeyError, TypeError):
            pass  # One of the log's own.

    def _whole(self) -> bool:
        """Whether the file is as it was left."""
        try:
            return self.path.stat().st_size == self._size
        except (FileNotFoundError, NotADirectoryError):
            return self._size == 0

    # Reading ------------------------------------------------------------------------------------

    def read(self, experiment: str | None = None, limit: int = MOST_SHOWN) -> list[dict[str, Any]]:
        """The last ``limit`` entries, of one experiment or of all, oldest first."""
        found: list[dict[str, Any]] = []
        for path in reversed(self._paths()):
            for line in reversed(_whole_lines(path)):
                if len(found) >= limit:
                    return found[::-1]
                entry = _entry(line)
                if entry is not None and experiment in (None, entry.get("experiment")):
                    found.append(entry)
        return found[::-1]

    def verify(self) -> int | None:
        """The number of the first line that was changed, or stands where one was taken out or put
        in; None when the log is whole, up to the last line that this object knows of."""
        expected = 1
        before: object = _NOTHING
        oldest: tuple[object, object] = (1, _NOTHING)
        first: tuple[object, object] | None = None
        for line in self._lines():
            entry = _entry(line) or {}
            seq, said = entry.get("seq"), entry.get("before")
            if first is None:
                first = (seq, said)
                expected, before = seq if isinstance(seq, int) else 1, said
            if not isinstance(seq, int) or seq != expected or said != before:
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
        """The files that there are, the oldest first."""
        older = [self._older(number) for number in range(self._files, 0, -1)]
        return [path for path in (*older, self.path) if path.exists()]

    def _older(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.stem}.{number}{self.path.suffix}")


def _whole_lines(path: Path) -> list[bytes]:
    """Without what stands behind the last end of a line."""
    try:
        return path.read_bytes().split(b"\n")[:-1]
    except (FileNotFoundError, NotADirectoryError):
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
    """What an event is known by: a rollout's version grows with each."""
    return (
        f"{event['experiment']}/{event['challenger']}",
        f"{event['kind']}@{event['at']}",
        int(event["version"]),
    )
