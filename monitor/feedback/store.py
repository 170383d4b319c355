"""Predictions wait for their labels, and labels for their predictions, in one SQLite file.

The file is in WAL mode with full synchronisation: a label that was acknowledged survives a crash of
the process and of the machine. Every joined pair gets a rising number, and stays until who
evaluates says that it is part of a saved state; so each is evaluated exactly once, whatever is
killed in between. Nothing here is asynchronous: one thread calls it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson

from monitor.errors import StateError
from monitor.feedback.labels import Label

log = logging.getLogger(__name__)

FILE_NAME = "feedback.sqlite"
_VERSION = 1
_LONGEST_OUTPUTS = 4096
_PURGED_AT_ONCE = 5_000
_SCHEMA = """
CREATE TABLE IF NOT EXISTS predictions (
  request_id TEXT, arm TEXT, mirrored INTEGER, model TEXT, share REAL, started REAL, outputs TEXT,
  PRIMARY KEY (request_id, arm, mirrored)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS predictions_by_age ON predictions (started);
CREATE TABLE IF NOT EXISTS labels (
  request_id TEXT, row INTEGER, label TEXT, reward REAL, received REAL, joined INTEGER,
  PRIMARY KEY (request_id, row)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS labels_by_age ON labels (received);
CREATE TABLE IF NOT EXISTS joined (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, request_id TEXT, arm TEXT, mirrored INTEGER, model TEXT,
  share REAL, started REAL, outputs TEXT, row INTEGER, label TEXT, reward REAL, received REAL);
"""
OUTCOMES = ("joined", "duplicate", "conflict", "orphan", "late")


@dataclass(frozen=True, slots=True)
class Prediction:
    """``outputs`` are the columns of the decoded answer; ``share`` is the challenger's at the time
    of its assignment, 0 outside of a split; ``started`` is unix time."""

    request_id: str
    arm: str
    mirrored: bool
    model: str
    share: float
    started: float
    outputs: dict[str, list[object]]


@dataclass(frozen=True, slots=True)
class Joined:
    """A prediction with its label: ``outputs`` are those of the label's row."""

    seq: int
    request_id: str
    arm: str
    mirrored: bool
    model: str
    share: float
    started: float
    outputs: dict[str, object]
    row: int
    label: object
    reward: float | None
    received: float


class FeedbackStore:
    """``horizon`` in seconds: how long predictions and labels wait; ``max_bytes`` bounds the file.

    ``counts`` are labels by outcome, ``purged`` what had to go before it was joined, by reason;
    both since this process began. Raises StateError when the folder cannot be used; a file that is
    damaged is set aside.
    """

    def __init__(self, state_dir: Path, horizon: float, max_bytes: int) -> None:
        self.path = state_dir / FILE_NAME
        self.horizon = horizon
        self.max_bytes = max_bytes
        self.counts: Counter[str] = Counter()
        self.purged: Counter[str] = Counter()
        try:
            state_dir.mkdir(parents=True, exist_ok=True)
            self._db = self._open()
        except (
            sqlite3.OperationalError
        ) as error:  # no room, no right: nothing is wrong with the file
            raise StateError(f"{self.path}: cannot be used: {error}") from error
        except sqlite3.DatabaseError as error:
            aside = self.path.with_name(FILE_NAME + ".damaged")
            with contextlib.suppress(OSError):
                os.replace(self.path, aside)
            for rest in ("-wal", "-shm"):
                self.path.with_name(FILE_NAME + rest).unlink(missing_ok=True)
            log.error("%s: %s; starting anew, the file is kept as %s", self.path, error, aside)
            try:
                self._db = self._open()
            except sqlite3.Error as again:
                raise StateError(f"{self.path}: cannot be used: {again}") from again
        except OSError as error:
            raise StateError(f"{self.path}: cannot be used: {error.strerror}") from error

    def _open(self) -> sqlite3.Connection:
        db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        try:
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=FULL")
            db.execute("PRAGMA auto_vacuum=INCREMENTAL")
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version not in (0, _VERSION):
                raise sqlite3.DatabaseError(f"version {version} is not known")
            db.executescript(_SCHEMA)
            db.execute(f"PRAGMA user_version={_VERSION}")
        except sqlite3.Error:
            db.close()
            raise
        return db

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing. Raises StateError, and then nothing has happened."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            yield self._db
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            raise StateError(f"{self.path}: {error}") from error

    def add_predictions(self, predictions: Sequence[Prediction]) -> None:
        """Keep predictions; the same one again is ignored. Labels that wait for them are joined.

        Raises StateError; nothing has been taken then.
        """
        with self._transaction() as db:
            for one in predictions:
                text = orjson.dumps(one.outputs, default=str).decode()
                if len(text) > _LONGEST_OUTPUTS:
                    self.purged["too_large"] += 1
                    continue
                key = (one.request_id, one.arm, int(one.mirrored))
                rest = (one.model, one.share, one.started, text)
                new = db.execute(
                    "INSERT OR IGNORE INTO predictions VALUES (?,?,?,?,?,?,?)", (*key, *rest)
                ).rowcount
                if new:
                    self._join(db, "l.request_id = ? AND p.arm = ? AND p.mirrored = ?", key)

    def add_labels(self, labels: Sequence[Label], now: float) -> list[str]:
        """Keep labels, and join them; what became of each (:data:`OUTCOMES`).

        A label that is known already is a duplicate, or with another value a conflict: the first
        one stays. Raises StateError; nothing has been taken then.
        """
        outcomes: list[str] = []
        with self._transaction() as db:
            for one in labels:
                outcomes.append(self._add_label(db, one, now))
        self.counts.update(outcomes)
        return outcomes

    def _add_label(self, db: sqlite3.Connection, one: Label, now: float) -> str:
        text = orjson.dumps(one.label).decode()
        known = db.execute(
            "SELECT label, reward FROM labels WHERE request_id = ? AND row = ?",
            (one.request_id, one.row),
        ).fetchone()
        if known is not None:
            return "duplicate" if known == (text, one.reward) else "conflict"
        newest = db.execute(
            "SELECT max(started) FROM predictions WHERE request_id = ?", (one.request_id,)
        ).fetchone()[0]
        if newest is not None and newest < now - self.horizon:
            return "late"
        db.execute(
            "INSERT INTO labels VALUES (?,?,?,?,?,?)",
            (one.request_id, one.row, text, one.reward, now, int(newest is not None)),
        )
        if newest is None:
            return "orphan"
        self._join(db, "l.request_id = ? AND l.row = ?", (one.request_id, one.row))
        return "joined"

    def _join(self, db: sqlite3.Connection, where: str, values: tuple[object, ...]) -> None:
        joined = db.execute(
            "INSERT INTO joined (request_id, arm, mirrored, model, share, started, outputs, row,"
            " label, reward, received) SELECT p.request_id, p.arm, p.mirrored, p.model, p.share,"
            " p.started, p.outputs, l.row, l.label, l.reward, l.received FROM labels l"
            f" JOIN predictions p ON p.request_id = l.request_id WHERE {where}",
            values,
        ).rowcount
        if joined:
            db.execute("UPDATE labels SET joined = 1 WHERE request_id = ?", (values[0],))

    def take(self, after: int, limit: int = 10_000) -> list[Joined]:
        """Joined pairs with a number above ``after``, in their order. Raises StateError."""
        try:
            rows = self._db.execute(
                "SELECT * FROM joined WHERE seq > ? ORDER BY seq LIMIT ?", (after, limit)
            ).fetchall()
        except sqlite3.Error as error:
            raise StateError(f"{self.path}: {error}") from error
        return [_joined(row) for row in rows]

    def release(self, through: int) -> None:
        """Pairs up to that number are part of a saved state. Raises StateError."""
        with self._transaction() as db:
            db.execute("DELETE FROM joined WHERE seq <= ?", (through,))

    def purge(self, now: float) -> None:
        """Let go of what has waited for longer than the horizon, and of the oldest beyond the
        size. Raises StateError."""
        with self._transaction() as db:
            limit = now - self.horizon
            gone = db.execute("DELETE FROM predictions WHERE started < ?", (limit,)).rowcount
            self.purged["horizon"] += gone
            orphans = db.execute(
                "DELETE FROM labels WHERE received < ? AND joined = 0", (limit,)
            ).rowcount
            self.purged["orphan_horizon"] += orphans
            db.execute("DELETE FROM labels WHERE received < ?", (limit,))
        while self.size() > self.max_bytes:
            with self._transaction() as db:
                gone = db.execute(
                    "DELETE FROM predictions WHERE (request_id, arm, mirrored) IN (SELECT"
                    " request_id, arm, mirrored FROM predictions ORDER BY started LIMIT ?)",
                    (_PURGED_AT_ONCE,),
                ).rowcount
                gone += db.execute(
                    "DELETE FROM labels WHERE (request_id, row) IN (SELECT request_id, row FROM"
                    " labels ORDER BY received LIMIT ?)",
                    (_PURGED_AT_ONCE,),
                ).rowcount
            if not gone:
                break
            self.purged["size"] += gone
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("PRAGMA incremental_vacuum")

    def size(self) -> int:
        """Bytes in use."""
        pages, free, size = (
            self._db.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_count", "freelist_count", "page_size")
        )
        return int((pages - free) * size)

    def waiting(self) -> dict[str, int]:
        """How many predictions and labels are there, and how many labels have no prediction."""
        one = self._db.execute
        return {
            "predictions": one("SELECT count(*) FROM predictions").fetchone()[0],
            "labels": one("SELECT count(*) FROM labels").fetchone()[0],
            "orphans": one("SELECT count(*) FROM labels WHERE joined = 0").fetchone()[0],
        }


def _joined(row: tuple[object, ...]) -> Joined:
    seq, request_id, arm, mirrored, model, share, started, outputs, number, label, reward, at = row
    columns = orjson.loads(str(outputs))
    index = int(str(number))
    return Joined(
        int(str(seq)),
        str(request_id),
        str(arm),
        bool(mirrored),
        str(model),
        float(str(share)),
        float(str(started)),
        {name: cells[index] for name, cells in columns.items() if index < len(cells)},
        index,
        orjson.loads(str(label)),
        float(str(reward)) if reward is not None else None,
        float(str(at)),
    )
