"""The SQLite file of feedback: tables, transactions, and recovery from a damaged file."""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from understudy.common.durable import lacking_bytes
from understudy.monitor.errors import StateError
from understudy.monitor.labels.tallies import SCHEMA, Tallies

log = logging.getLogger(__name__)

VERSION = 4
_WAL_BYTES = 16 * 1024 * 1024
_BUSY_SECONDS = 5.0
_VACUUM_PAGES = 4096
_SCHEMA = (
    """
CREATE TABLE IF NOT EXISTS predictions (
  request_id TEXT, arm TEXT, mirrored INTEGER, model TEXT, share REAL, started REAL, outputs TEXT,
  labelled INTEGER, experiment TEXT DEFAULT '', UNIQUE (request_id, arm, mirrored));
CREATE INDEX IF NOT EXISTS predictions_by_age ON predictions (started);
CREATE TABLE IF NOT EXISTS labels (
  request_id TEXT, row INTEGER, label TEXT, reward REAL, received REAL, at REAL, key TEXT,
  joined INTEGER, source TEXT, earlier TEXT, PRIMARY KEY (request_id, row)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS orphans_by_age ON labels (received) WHERE joined = 0;
CREATE TABLE IF NOT EXISTS joined (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, request_id TEXT, arm TEXT, mirrored INTEGER, model TEXT,
  share REAL, started REAL, outputs TEXT, row INTEGER, label TEXT, reward REAL, received REAL,
  delay REAL, experiment TEXT DEFAULT '');
"""
    + SCHEMA
)
_FROM_2 = """
BEGIN;
ALTER TABLE predictions ADD COLUMN experiment TEXT DEFAULT '';
ALTER TABLE joined ADD COLUMN experiment TEXT DEFAULT '';
PRAGMA user_version=3;
COMMIT;
"""
_FROM_3 = """
BEGIN;
ALTER TABLE labels ADD COLUMN source TEXT;
ALTER TABLE labels ADD COLUMN earlier TEXT;
PRAGMA user_version=4;
COMMIT;
"""


class FeedbackFile:
    """One connection to the file at ``path``, opened when it is first needed.

    Errors of the disk raise StateError, and the next call tries again. A damaged file is set aside
    and replaced by a new one at any time. ``last`` is the highest number that a joined pair may
    have had.
    """

    def __init__(self, path: Path, last: int) -> None:
        self.path = path
        self.last = last
        self.failures = 0
        """Number of calls that failed with an error of the disk."""
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
        """Close the file; the next call opens it again."""
        if self._db is not None:
            self._db.close()
            self._db = None

    @contextlib.contextmanager
    def guarded(self) -> Iterator[None]:
        """Turn errors of SQLite into StateError, and let the next call replace a damaged file."""
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
        """One transaction. Raises StateError after rolling back."""
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

    def lacking(self) -> int:
        """How many bytes the disk lacks of what is to be left free, and for what comes until the
        next call; 0 where there is room. Raises StateError."""
        self.open()
        try:
            return max(0, lacking_bytes(self.path.parent, _WAL_BYTES // 2))
        except OSError as error:
            raise StateError(f"{self.path}: {error}") from error

    def shrink(self, at_once: bool = False) -> None:
        """Release free pages if there are many, or ``at_once``, with the log; a few will be reused
        soon."""
        pages, free, _ = self._pages()
        if free > (0 if at_once else max(_VACUUM_PAGES, pages // 4)):
            with self.guarded():
                # Each step frees one page, and only executescript() takes all steps.
                self.open().executescript(f"PRAGMA incremental_vacuum({_VACUUM_PAGES})")
        if at_once:
            with self.guarded():
                self.open().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def _pages(self) -> tuple[int, int, int]:
        db = self.open()
        with self.guarded():
            pages, free, size = (
                int(db.execute(f"PRAGMA {name}").fetchone()[0])
                for name in ("page_count", "freelist_count", "page_size")
            )
        return pages, free, size


def _is_damage(error: sqlite3.Error) -> bool:
    """Whether an error means that the file is damaged, rather than that the disk is full."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        return False
    return code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _open_or_set_aside(path: Path, after: int) -> sqlite3.Connection:
    """Open the file at ``path``; create it if it is missing, damaged or of another version.

    Numbers of joined pairs continue above ``after``: a new file must not reuse numbers that the
    evaluation has seen. Raises StateError when a file can be neither opened nor created.
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
        raise StateError(f"{path}: cannot be opened: {error}") from error


def _set_aside(path: Path, why: object) -> None:
    """Rename a file that cannot be used, so that it is kept for inspection."""
    aside = path.with_name(path.name + ".damaged")
    log.error("cannot use %s: %s; starting with an empty file, the old one is %s", path, why, aside)
    for end in ("-wal", "-shm", ""):  # the log first: it must never be applied to another file
        with contextlib.suppress(OSError):
            os.replace(str(path) + end, str(aside) + end)


class _OtherVersionError(sqlite3.DatabaseError):
    sqlite_errorcode = sqlite3.SQLITE_NOTADB


def _open(path: Path, after: int) -> sqlite3.Connection:
    # It holds personal data; by default SQLite makes it readable for all users.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    db = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        # Must come before the first write: afterwards it would take a VACUUM.
        db.execute("PRAGMA auto_vacuum=INCREMENTAL")
        db.execute("PRAGMA journal_mode=WAL")
        # An acknowledged label must survive a crash of the machine: its sender does not repeat it.
        # It costs one sync for each batch.
        db.execute("PRAGMA synchronous=FULL")
        db.execute(f"PRAGMA journal_size_limit={_WAL_BYTES}")
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, 2, 3, VERSION):
            raise _OtherVersionError(f"version {version}, this program reads version {VERSION}")
        if version == 2:
            db.executescript(_FROM_2)
        if version in (2, 3):
            db.executescript(_FROM_3)
        db.executescript(_SCHEMA)
        if version != VERSION:
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
