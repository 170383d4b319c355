"""The folder of one run, ``<state_dir>/run``: plan, configuration, sockets, shared statistics.

A lock beside it keeps a second service out of the same ``state_dir``.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from pathlib import Path
from typing import Any

from understudy.monitor.errors import StateError

LONGEST_SOCKET_PATH = 107
"""Bytes of a path that a Unix socket can be bound to on Linux."""


class StateDirError(StateError):
    """The state directory cannot be used, so that the service does not start."""

    exit_code = 2


class RunDirectory:
    """Holds the lock from :meth:`open` until :meth:`close` or the end of the process."""

    def __init__(self, state_dir: Path) -> None:
        self.state_dir = state_dir
        self.path = state_dir / "run"
        self.plan = self.path / "plan.json"
        self.config = self.path / "config.json"
        self._lock: int | None = None

    def open(self) -> None:
        """Take the lock and make the folder anew. Raises StateDirError."""
        if len(os.fsencode(self.path / "records.sock")) > LONGEST_SOCKET_PATH:
            raise StateDirError(
                f"state_dir: the path {self.state_dir} is too long for a Unix socket in it"
            )
        try:
            self.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = os.open(self.state_dir / "lock", os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if self.path.exists():
                shutil.rmtree(self.path)
            self.path.mkdir(mode=0o700)
        except BlockingIOError as error:
            self.close()
            raise StateDirError(
                f"state_dir: {self.state_dir} is in use by another understudy; give this one its "
                "own state_dir"
            ) from error
        except OSError as error:
            self.close()
            raise StateDirError(
                f"state_dir: {self.state_dir} cannot be used: {error.strerror}"
            ) from error

    def write(self, plan: dict[str, Any], config: dict[str, Any] | None = None) -> None:
        """Replace the files; who reads one sees the old one or the new one, whole. Without a
        configuration only the plan is new.

        Raises StateDirError and leaves the old ones when there is no room.
        """
        files = {self.plan: plan} if config is None else {self.plan: plan, self.config: config}
        try:
            for path, data in files.items():
                path.with_suffix(".tmp").write_text(json.dumps(data), encoding="utf-8")
            for path in files:
                path.with_suffix(".tmp").replace(path)
        except OSError as error:
            raise StateDirError(
                f"state_dir: {self.path} cannot be written: {error.strerror}"
            ) from error

    def close(self) -> None:
        """Let go of the lock; the files stay, for whoever wants to see what was."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
