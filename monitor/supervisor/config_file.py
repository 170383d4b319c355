"""Notices that the configuration file has changed, also where no notification of it arrives.

It is polled, which works on every file system: network mounts, the symlink ``..data`` that
Kubernetes swaps when a ConfigMap changes, a file that an editor replaces, and one that is written
in place.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

from understudy.monitor.config.model import Config

POLL_SECONDS = 2.0
"""Time between two looks at the files. A change is reported once two looks in a row agree, so that
a file is not read while it is written."""
_MOST_BYTES = 16 * 1024 * 1024
"""Bytes of the configuration file that are compared; of what follows, size and time."""

Status: TypeAlias = tuple[int, ...] | None
Content: TypeAlias = tuple[str | None, Status]


def _digest(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return hashlib.sha256(file.read(_MOST_BYTES)).hexdigest()
    except OSError:
        return None


def _status(name: str | Path) -> Status:
    """Of the file behind any links; None if it cannot be found."""
    try:
        found = os.stat(name)
    except OSError:
        return None
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


def _named(config: Config) -> Iterator[str]:
    """The files that a reload reads; those of TLS are followed by the workers."""
    yield from (model.baseline for model in config.models if model.baseline is not None)
    if config.validation is not None:
        yield config.validation.cases
    for upstream in (config.champion, *config.challengers):
        yield from (one.file for one in upstream.headers.values() if one.file is not None)


class ConfigFile:
    """The configuration file, and those that it names: what was read of them, and what is there."""

    def __init__(self, path: Path, poll_seconds: float = POLL_SECONDS) -> None:
        self._path = path
        self._poll_seconds = poll_seconds
        self._read: tuple[object, ...] = ()

    def content(self) -> Content:
        """Equal as long as the file is."""
        return _digest(self._path), _status(self._path)

    def was_read(self, content: Content, active: Config) -> None:
        """The file was read when it had this content, and led to ``active`` or was rejected."""
        self._read = (content, *map(_status, _named(active)))

    async def follow(self, active: Callable[[], Config], changed: Callable[[], None]) -> None:
        """Call ``changed`` after each change, as long as the configuration says ``watch``."""
        before = self._read
        while True:
            await asyncio.sleep(self._poll_seconds)
            config = active()
            if config.reload != "watch":
                continue
            # In a thread: a network mount may hang.
            content = await asyncio.to_thread(self.content)
            now = (content, *map(_status, _named(config)))
            if now == before and now != self._read:
                changed()
            before = now
