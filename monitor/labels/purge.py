"""What has waited too long, or is too much, goes: predictions, and the labels of nothing else."""

from __future__ import annotations

import math
import sqlite3
from typing import Any

from understudy.monitor.labels.file import FeedbackFile

_AT_ONCE = 5_000
_MOST_BATCHES = 20
_REMEMBERED = 1.25
"""Predictions are remembered for that many horizons, to tell a late label from an unknown id."""
_OLDEST = "SELECT request_id, arm, mirrored, labelled FROM predictions"


class Purge:
    """One round over the file, in small batches; what the bounds mean, the store says."""

    def __init__(self, file: FeedbackFile, horizon: float, max_bytes: int, max_rows: int) -> None:
        self._file = file
        self._horizon = horizon
        self._max_bytes = max_bytes
        self._max_rows = max_rows

    def run(self, now: float) -> None:
        """Raises StateError; what was done stays done then."""
        db = self._file.open()
        with self._file.guarded():
            # Another process may be handing in the last of an older run.
            self._file.tallies.load(db)
        for _ in range(_MOST_BATCHES):
            if not (self._old(now) or self._excess()):
                break
        self._file.shrink()

    def _old(self, now: float) -> bool:
        """One batch of what is too old; True when there may be more."""
        with self._file.transaction() as db:
            limit = now - self._horizon * _REMEMBERED
            old = db.execute(
                f"{_OLDEST} WHERE started < ? ORDER BY started LIMIT ?", (limit, _AT_ONCE)
            ).fetchall()
            self._drop(db, old, "horizon")
            orphans = self._drop_orphans(db, now - self._horizon, "orphan_horizon")
        return len(old) == _AT_ONCE or orphans == _AT_ONCE

    def _excess(self) -> bool:
        """One batch of the oldest when there is too much; True when there may be more.

        Of predictions and orphans those have to go of which there are more: labels for unknown ids
        must not drive out what others are going to be joined to.
        """
        kept = self._file.tallies.of("kept")
        predictions = sum(self._file.tallies.of("predictions").values())
        rows = predictions + kept.get("labels", 0)
        size = self._file.size()
        excess = max(rows - self._max_rows, math.ceil(rows * (1.0 - self._max_bytes / size)))
        if excess <= 0:
            return False
        orphans = kept.get("orphans", 0)
        with self._file.transaction() as db:
            if orphans > predictions:
                most = min(excess, orphans, _AT_ONCE)
                gone = self._drop_orphans(db, None, "orphan_size", most)
            else:
                # Each takes its labels along.
                most = min(math.ceil(excess * predictions / max(1, rows)), _AT_ONCE)
                old = db.execute(f"{_OLDEST} ORDER BY started LIMIT ?", (most,)).fetchall()
                self._drop(db, old, "size")
                gone = len(old)
        return gone > 0

    def _drop(self, db: sqlite3.Connection, predictions: list[Any], reason: str) -> None:
        """Delete predictions, and the labels that have been joined to nothing else."""
        db.executemany(
            "DELETE FROM predictions WHERE request_id = ? AND arm = ? AND mirrored = ?",
            [row[:3] for row in predictions],
        )
        for _, arm, _, labelled in predictions:
            self._file.tallies.add("predictions", arm, -1)
            self._file.tallies.add("labelled", arm, -labelled)
            if reason == "horizon":
                self._file.tallies.add("settled", arm)
                self._file.tallies.add("settled_labelled", arm, labelled)
        self._file.tallies.add("purged", reason, len(predictions))
        labels = db.executemany(
            "DELETE FROM labels WHERE request_id = ?1 AND joined = 1"
            " AND NOT EXISTS (SELECT 1 FROM predictions WHERE request_id = ?1)",
            [(request_id,) for request_id in {row[0] for row in predictions}],
        ).rowcount
        self._file.tallies.add("kept", "labels", -max(0, labels))

    def _drop_orphans(
        self, db: sqlite3.Connection, before: float | None, reason: str, most: int = _AT_ONCE
    ) -> int:
        gone = db.execute(
            "DELETE FROM labels WHERE (request_id, row) IN (SELECT request_id, row FROM labels"
            " WHERE joined = 0 AND received < ? ORDER BY received LIMIT ?)",
            (float("inf") if before is None else before, most),
        ).rowcount
        self._file.tallies.add("kept", "labels", -gone)
        self._file.tallies.add("kept", "orphans", -gone)
        self._file.tallies.add("purged", reason, gone)
        return gone
