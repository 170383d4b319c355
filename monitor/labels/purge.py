"""Deletes predictions and labels beyond the horizon or the size limits, or when the disk is almost
full."""

from __future__ import annotations

import math
import sqlite3
from typing import Any

from understudy.monitor.labels.file import FeedbackFile

_AT_ONCE = 5_000
_AT_ONCE_ON_A_FULL_DISK = 1_000
_MOST_BATCHES = 20
_LEAST_BYTES = 8 * 1024 * 1024
"""What stays on a disk that is almost full: deleting more would not help it."""
_REMEMBERED = 1.25
"""Predictions are kept for this many horizons, to tell a late label from an unknown id."""
_OLDEST = "SELECT request_id, arm, mirrored, labelled FROM predictions"


class Purge:
    """One pass over the file, in small batches; :class:`FeedbackStore` explains the limits."""

    def __init__(self, file: FeedbackFile, horizon: float, max_bytes: int, max_rows: int) -> None:
        self._file = file
        self._horizon = horizon
        self._max_bytes = max_bytes
        self._max_rows = max_rows
        self._excess_reason = "size"
        self._at_once = _AT_ONCE

    def run(self, now: float) -> None:
        """Delete until the file is within its limits.

        ``now`` is unix time in seconds. Raises StateError; earlier batches stay deleted.
        """
        db = self._file.open()
        with self._file.guarded():
            # Another process may still be delivering records of an older run.
            self._file.tallies.load(db)
        self.make_room()
        for _ in range(_MOST_BATCHES):
            if not (self._old(now) or self._excess()):
                break
        self._file.shrink()

    def make_room(self) -> None:
        """Delete the oldest rows as far as the disk has too little room: the state of the service
        is on it, too, and is worth more. Raises StateError; earlier batches stay deleted."""
        lacking = self._file.lacking()
        if not lacking:
            return
        most = max(_LEAST_BYTES, self._file.size() - lacking)
        if most < self._max_bytes:
            self._max_bytes, self._excess_reason = most, "disk"
            # What a transaction deletes is first written to the log, on the same disk.
            self._at_once = _AT_ONCE_ON_A_FULL_DISK
        for _ in range(_MOST_BATCHES):
            if not self._excess():
                break
        self._file.shrink(at_once=True)

    def _old(self, now: float) -> bool:
        """Delete one batch of expired rows; True when there may be more."""
        with self._file.transaction() as db:
            limit = now - self._horizon * _REMEMBERED
            old = db.execute(
                f"{_OLDEST} WHERE started < ? ORDER BY started LIMIT ?", (limit, self._at_once)
            ).fetchall()
            self._drop(db, old, "horizon")
            orphans = self._drop_orphans(db, now - self._horizon, "orphan_horizon", self._at_once)
        return len(old) == self._at_once or orphans == self._at_once

    def _excess(self) -> bool:
        """Delete one batch of the oldest rows beyond the limits; True when there may be more.

        It deletes from predictions or orphans, whichever are more numerous: labels for unknown ids
        must not displace predictions that wait for labels.
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
                most = min(excess, orphans, self._at_once)
                gone = self._drop_orphans(db, None, f"orphan_{self._excess_reason}", most)
            else:
                # Deleting a prediction deletes its labels.
                most = min(math.ceil(excess * predictions / max(1, rows)), self._at_once)
                old = db.execute(f"{_OLDEST} ORDER BY started LIMIT ?", (most,)).fetchall()
                self._drop(db, old, self._excess_reason)
                gone = len(old)
        return gone > 0

    def _drop(self, db: sqlite3.Connection, predictions: list[Any], reason: str) -> None:
        """Delete predictions, and the labels that were joined only to them."""
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
        self, db: sqlite3.Connection, before: float | None, reason: str, most: int
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
