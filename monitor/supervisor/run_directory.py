"""The folder of one run: plan, configuration, sockets, shared statistics.

It is in memory (:data:`MEMORY`) where that is possible: what serves clients must not depend on the
disk of the state folder, which may be slow, full, read-only or gone. ``<state_dir>/run`` is a link
to it. A lock in the state folder keeps a second service out.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import logging
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any

from understudy.monitor.errors import StateError

log = logging.getLogger(__name__)

LONGEST_SOCKET_PATH = 107
"""Bytes of a path that a Unix socket can be bound to on Linux."""
MEMORY = Path("/dev/shm")  # noqa: S108  # folders in it are new, and only for this user
"""A folder in memory on every Linux."""
LEAST_BYTES = 4 << 20
"""Room that a run folder must have."""
NOTHING_KEPT = frozenset(
    (errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ENODEV)
)
"""Faults of the disk of the state folder: the service starts, and keeps nothing."""
RUN_ID = "run_id"
"""File with the name of the run."""
EVALUATION_SOCKET = "evaluation.sock"
_PREFIX = "understudy"
_OWNER = "state_dir"
_STATISTICS = "worker-*.stats"


class StateDirError(StateError):
    """The state directory cannot be used, so that the service does not start."""

    exit_code = 2


class RunDirectory:
    """Holds the locks from :meth:`open` until :meth:`close` or the end of the process.

    ``problem`` is why the state folder cannot be written, or None; :attr:`path` is known once the
    folder is open.
    """

    def __init__(self, state_dir: Path, memory: Path = MEMORY) -> None:
        self.state_dir = state_dir
        self.problem: str | None = None
        self.path = state_dir / "run"
        self._memory = memory
        self._lock: int | None = None
        self._folder: int | None = None

    @property
    def plan(self) -> Path:
        """The plan of the workers."""
        return self.path / "plan.json"

    @property
    def evaluation(self) -> Path:
        """The socket to which the evaluation plane of another container connects."""
        return self.path / EVALUATION_SOCKET

    @property
    def config(self) -> Path:
        """The validated configuration, for the evaluation plane."""
        return self.path / "config.json"

    def open(self, run: str = "") -> None:
        """Take the locks and make the folder of the run with this name. Raises StateDirError."""
        try:
            self._open_state()
            self._open_run(run)
        except BaseException:
            self.close()
            raise

    # The state folder ---------------------------------------------------------------------------

    def _open_state(self) -> None:
        try:
            self.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._refuse_shared()
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            self._lock = os.open(self.state_dir / "lock", flags, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._set_links_aside()
        except BlockingIOError as error:
            raise self._in_use() from error
        except OSError as error:
            text = f"state_dir: {self.state_dir} cannot be used: {error.strerror}"
            if error.errno not in NOTHING_KEPT:
                raise StateDirError(text) from error
            self.problem = f"{text}; nothing outlives a restart"
            log.error("%s", self.problem)

    def _refuse_shared(self) -> None:
        """Raise StateDirError for a folder in which every user may replace files. A volume of its
        own, as in a container, is as private as the container."""
        mode = self.state_dir.stat().st_mode
        if not mode & stat.S_IWOTH:
            return
        if os.path.ismount(self.state_dir) and not mode & stat.S_ISVTX:
            return
        raise StateDirError(
            f"state_dir: every user may write to {self.state_dir}: run `chmod o-w` on it, or give "
            "another folder"
        )

    def _set_links_aside(self) -> None:
        """Rename symbolic links that stand where files of ours belong."""
        for entry in os.scandir(self.state_dir):
            if entry.is_symlink() and entry.name != "run" and not entry.is_dir():
                aside = f"{entry.path}.damaged"
                log.error("%s is a symbolic link: not followed, kept as %s", entry.path, aside)
                os.replace(entry.path, aside)

    # The folder of the run ----------------------------------------------------------------------

    def _open_run(self, run: str) -> None:
        why = ""
        for path in self.candidates():
            if len(os.fsencode(path / "records.sock")) > LONGEST_SOCKET_PATH:
                why = f"the path {path} is too long for a Unix socket in it"
                continue
            try:
                self._make(path, run)
            except BlockingIOError as error:
                raise self._in_use() from error
            except OSError as error:
                why = f"{path} cannot be used: {error.strerror}"
                log.warning("run folder: %s", why)
                continue
            self.path = path
            self._link()
            self._remove_abandoned()
            return
        raise StateDirError(f"state_dir: no folder for sockets and statistics: {why}")

    def candidates(self) -> Iterator[Path]:
        """Folders for the run, the best first."""
        name = _name_of(self.state_dir)
        yield self._memory / name
        if self.problem is None:
            yield self.state_dir / "run"
        yield Path(tempfile.gettempdir()) / name

    def _make(self, path: Path, run: str) -> None:
        """Make the folder, or empty the one of an earlier run but for its statistics."""
        if path.is_symlink():
            path.unlink()
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=0o700)
        about = path.lstat()
        if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.geteuid():
            raise OSError(errno.EPERM, "it belongs to another user", str(path))
        path.chmod(0o700)
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _keep_statistics(path)
            _has_room(path)
            (path / _OWNER).write_text(str(self.state_dir.absolute()), encoding="utf-8")
            (path / RUN_ID).write_text(run, encoding="utf-8")
        except BaseException:
            os.close(folder)
            raise
        self._folder = folder

    def _link(self) -> None:
        """Have ``<state_dir>/run`` lead to the folder, for people."""
        link = self.state_dir / "run"
        if link == self.path:
            return
        try:
            if link.is_dir() and not link.is_symlink():
                shutil.rmtree(link)
            link.unlink(missing_ok=True)
            link.symlink_to(self.path)
        except OSError as error:
            log.debug("%s: %s", link, error)

    def _remove_abandoned(self) -> None:
        """Remove folders in memory whose state folder is gone."""
        for path in self._memory.glob(f"{_PREFIX}-{os.geteuid()}-*"):
            with contextlib.suppress(OSError):
                owner = Path((path / _OWNER).read_text(encoding="utf-8"))
                if path == self.path or path.is_symlink() or path.name == _name_of(owner):
                    continue
                folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
                try:
                    fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(path)
                finally:
                    os.close(folder)

    def _in_use(self) -> StateDirError:
        return StateDirError(
            f"state_dir: {self.state_dir} is in use by another understudy; give this one its "
            "own state_dir"
        )

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
        """Let go of the locks. The folder is removed unless it has statistics that are not on disk;
        after a crash the next run removes it."""
        if self._folder is not None:
            if not any(self.path.glob("*.stats")):
                shutil.rmtree(self.path, ignore_errors=True)
                with contextlib.suppress(OSError):
                    if (self.state_dir / "run").is_symlink():
                        (self.state_dir / "run").unlink()
            os.close(self._folder)
            self._folder = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _name_of(state_dir: Path) -> str:
    """Name of the run folder: that of one folder on one disk, and of one user."""
    try:
        about = state_dir.stat()
        identity = f"{about.st_dev}:{about.st_ino}:{state_dir.resolve()}"
    except OSError:
        identity = str(state_dir.absolute())
    name = blake2b(identity.encode(), digest_size=8).hexdigest()
    return f"{_PREFIX}-{os.geteuid()}-{name}"


def _keep_statistics(path: Path) -> None:
    """Empty a folder of an earlier run. Its statistics get the name of that run."""
    try:
        run = (path / RUN_ID).read_text(encoding="utf-8")
    except OSError:
        run = ""
    for file in path.glob(_STATISTICS):
        slot = file.stem.removeprefix("worker-")
        if run.isalnum() and slot.isdecimal() and not file.is_symlink():
            file.replace(path / f"earlier-{run}-{slot}.stats")
    for file in path.iterdir():
        if file.suffix == ".stats" and file.name.startswith("earlier-"):
            continue
        if file.is_dir() and not file.is_symlink():
            shutil.rmtree(file)
        else:
            file.unlink()


def _has_room(path: Path) -> None:
    """Raise OSError for a folder without room for plans and statistics."""
    probe = path / "probe"
    fd = os.open(probe, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(fd, 0, LEAST_BYTES)
    finally:
        os.close(fd)
        probe.unlink()
