"""The SQLite file of feedback: its tables, its transactions, and what happens when it is broken."""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from understudy.monitor.errors import StateError
from understudy.monitor.labels.tallies import SCHEMA, Tallies

log = logging.getLogger(__name__)

VERSION = 2
_WAL_BYTES = 16 * 1024 * 1024
_BUSY_SECONDS = 5.0
_VACUUM_PAGES = 4096
_SCHEMA = (
    """
CREATE TABLE IF NOT EXISTS predictions (
  request_id TEXT, arm TEXT, mirrored INTEGER, model TEXT, share REAL, started REAL, outputs TEXT,
  labelled INTEGER, UNIQUE (request_id, arm, mirrored));
CREATE INDEX IF NOT EXISTS predictions_by_age ON predictions (started);
CREATE TABLE IF NOT EXISTS labels (
  request_id TEXT, row INTEGER, label TEXT, reward REAL, received REAL, at REAL, key TEXT,
  joined INTEGER, PRIMARY KEY (request_id, row)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS orphans_by_age ON labels (received) WHERE joined = 0;
CREATE TABLE IF NOT EXISTS joined (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, request_id TEXT, arm TEXT, mirrored INTEGER, model TEXT,
  share REAL, started REAL, outputs TEXT, row INTEGER, label TEXT, reward REAL, received REAL,
  delay REAL);
"""
    + SCHEMA
)


class FeedbackFile:
    """One connection to the file at ``path``, opened when it is first needed.

    What can be wrong with the disk is a StateError of the call, and the next call tries again. A
    damaged file is set aside and a new one begun, also in the middle of the work. ``last`` is the
    highest number that a joined pair may have had.
    """

    def __init__(self, path: Path, last: int) -> None:
        self.path = path
        self.last = last
        self.failures = 0
        """Calls that the disk refused."""
        self.tallies = Tallies()
        self._db: sqlite3.Connection | None = None

    def open(self) -> sqlite3.Connection:
        """The connection. Raises StateError."""
        if self._db is None:
            try:
                db = _open_or_set_aside(self.path, self.last)
            except StateError:
                self.failures += 1
                raise
            self._db = db
            with self.guarded():
                self.tallies.load(db)
        return self._db

    def close(self) -> None:
        """Close the file; the next call would open it again."""
        if self._db is not None:
            self._db.close()
            self._db = None

    @contextlib.contextmanager
    def guarded(self) -> Iterator[None]:
        """Let errors of SQLite be a StateError, and a damaged file be replaced by the next call."""
        try:
            yield
        except sqlite3.Error as error:
            self.failures += 1
            if _is_damage(error):
                self.close()
                _set_aside(self.path, error)
            raise StateError(f"{self.path}: {error}") from error

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing. Raises StateError, and then nothing has happened."""
        db = self.open()
        done = False
        with self.guarded():
            try:
                db.execute("BEGIN IMMEDIATE")
                yield db
                self.tallies.write(db)
                db.execute("COMMIT")
                done = True
            finally:
                self.tallies.end(done)
                if not done:
                    with contextlib.suppress(sqlite3.Error):
                        db.execute("ROLLBACK")

    def size(self) -> int:
        """Bytes in use. Raises StateError."""
        pages, free, size = self._pages()
        return (pages - free) * size

    def shrink(self) -> None:
        """Give free pages back when they are many; few will be used again soon."""
        pages, free, _ = self._pages()
        if free > max(_VACUUM_PAGES, pages // 4):
            with self.guarded():
                # Each step frees one page, and only executescript() takes all steps.
                self.open().executescript(f"PRAGMA incremental_vacuum({_VACUUM_PAGES})")

    def _pages(self) -> tuple[int, int, int]:
        db = self.open()
        with self.guarded():
            pages, free, size = (
                int(db.execute(f"PRAGMA {name}").fetchone()[0])
                for name in ("page_count", "freelist_count", "page_size")
            )
        return pages, free, size


def _is_damage(error: sqlite3.Error) -> bool:
    """Whether an error says that the file itself is broken, and not that there is no room."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        return False
    return code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _open_or_set_aside(path: Path, after: int) -> sqlite3.Connection:
    """The file at ``path``, made anew where it is missing, damaged or of another version.

    Numbers of joined pairs go on above ``after``: a new file must not give those again that the
    evaluation has had. Raises StateError when there is no way to have a file.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            return _open(path, after)
        except sqlite3.Error as error:
            if not _is_damage(error):
                raise
            _set_aside(path, error)
            return _open(path, after)
    except (sqlite3.Error, OSError) as error:
        raise StateError(f"{path}: cannot be used: {error}") from error


def _set_aside(path: Path, why: object) -> None:
    """Rename a file that cannot be used, so that it is neither lost nor in the way."""
    aside = path.with_name(path.name + ".damaged")
    log.error("%s: %s; starting anew, the file is kept as %s", path, why, aside)
    for end in ("-wal", "-shm", ""):  # the log first: it must never meet another file
        with contextlib.suppress(OSError):
            os.replace(str(path) + end, str(aside) + end)


class _OtherVersionError(sqlite3.DatabaseError):
    sqlite_errorcode = sqlite3.SQLITE_NOTADB


def _open(path: Path, after: int) -> sqlite3.Connection:
    # What lies in it is of people; SQLite itself would let everybody read it.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    db = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        # Before anything is written: afterwards it would take a VACUUM.
        db.execute("PRAGMA auto_vacuum=INCREMENTAL")
        db.execute("PRAGMA journal_mode=WAL")
        # A label that was acknowledged survives a crash of the machine too: its sender will not
        # send it again. It costs one sync for each batch.
        db.execute("PRAGMA synchronous=FULL")
        db.execute(f"PRAGMA journal_size_limit={_WAL_BYTES}")
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, VERSION):
            raise _OtherVersionError(f"version {version}, this program reads version {VERSION}")
        db.executescript(_SCHEMA)
        if not version:
            db.execute(f"PRAGMA user_version={VERSION}")
        last = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'joined'").fetchone()
        if last is None:
            db.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('joined', ?)", (after,))
        elif last[0] < after:
            db.execute("UPDATE sqlite_sequence SET seq = ? WHERE name = 'joined'", (after,))
    except sqlite3.Error:
        db.close()
        raise
    return db
