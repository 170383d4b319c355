"""Who moved which rollout, when and why: an append-only log, one JSON object a line.

Each line holds the SHA-256 of the line before, so that a line that is changed or taken out later
shows. A line is written in one call and synced; what a crash left of one is cut off at the next
start.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

_NOTHING = "0" * 64
MOST_SHOWN = 1000


class AuditLog:
    """Appends to ``path``; the file appears with the first line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seq = 0
        self._hash = _NOTHING
        self._known: set[tuple[str, str, int]] = set()
        self._mend()

    def _mend(self) -> None:
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return
        whole = data[: data.rfind(b"\n") + 1]
        if len(whole) < len(data):
            log.warning(
                "%s: %d bytes of a torn line are cut off", self.path, len(data) - len(whole)
            )
            os.truncate(self.path, len(whole))
        for line in whole.splitlines():
            self._seq += 1
            self._hash = sha256(line).hexdigest()
            try:
                self._known.add(_key(json.loads(line)))
            except (ValueError, KeyError, TypeError):
                log.error("%s: line %d cannot be read; it is left as it is", self.path, self._seq)

    def catch_up(self, events: Iterable[Mapping[str, Any]]) -> None:
        """Append those events that are not in the log yet. Raises OSError; then call it again."""
        for event in events:
            if _key(event) not in self._known:
                self._append(event)

    def _append(self, event: Mapping[str, Any]) -> None:
        line = json.dumps({"seq": self._seq + 1, "before": self._hash, **event}).encode()
        fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            size = os.fstat(fd).st_size
            try:
                view = memoryview(line + b"\n")
                while view:
                    view = view[os.write(fd, view) :]
                os.fsync(fd)
            except OSError:
                os.ftruncate(fd, size)
                raise
        finally:
            os.close(fd)
        self._seq += 1
        self._hash = sha256(line).hexdigest()
        self._known.add(_key(event))

    def read(self, experiment: str | None = None, limit: int = MOST_SHOWN) -> list[dict[str, Any]]:
        """The last ``limit`` entries, of one experiment or of all, oldest first."""
        found: list[dict[str, Any]] = []
        try:
            lines = self.path.read_bytes().splitlines()
        except FileNotFoundError:
            return []
        for line in lines:
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if experiment is None or entry.get("experiment") == experiment:
                found.append(entry)
        return found[-limit:]

    def verify(self) -> int | None:
        """The number of the first line that was changed, or stands behind one that was taken out;
        None when the log is whole."""
        before = _NOTHING
        try:
            lines = self.path.read_bytes().splitlines()
        except FileNotFoundError:
            return None
        for number, line in enumerate(lines, start=1):
            try:
                entry = json.loads(line)
            except ValueError:
                return number
            if not isinstance(entry, dict) or entry.get("before") != before:
                return number
            if entry.get("seq") != number:
                return number
            before = sha256(line).hexdigest()
        return None


def _key(event: Mapping[str, Any]) -> tuple[str, str, int]:
    """What an event is known by: a rollout's version grows with each."""
    return (
        f"{event['experiment']}/{event['challenger']}",
        f"{event['kind']}@{event['at']}",
        int(event["version"]),
    )
