"""Joins labels to predictions, whichever arrives first, in one SQLite file.

Every joined pair gets an increasing number and is kept until the evaluation reports that it is part
of a saved state; so each pair is evaluated exactly once, even if a process is killed in between. A
label is kept as long as one of its predictions, so that a duplicate is recognised. All calls are
synchronous and come from one thread.
"""

from __future__ import annotations

import math
import sqlite3
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path
from typing import Any

import orjson

from understudy.monitor.labels.file import FeedbackFile
from understudy.monitor.labels.label import Label
from understudy.monitor.labels.purge import Purge

FILE_NAME = "feedback.sqlite"
OUTCOMES = ("joined", "corrected", "duplicate", "conflict", "orphan", "late")
MOST_ROWS = 2_000_000
ROWS_AT_ONCE = 2_000
"""Predictions of a transaction: SQLite's log holds all that it changes until it ends, which may be
several pages for each."""
_LAST = 100
"""Labels by which it is judged whether labels match predictions."""
_LONGEST_OUTPUTS = 4096

_ADD_PREDICTION = "INSERT OR IGNORE INTO predictions VALUES (?,?,?,?,?,?,?,0,?)"
_LABELS_OF = (
    "SELECT row, label, reward, received, at, joined FROM labels WHERE request_id = ? ORDER BY row"
)
_PREDICTIONS_OF = (
    "SELECT arm, mirrored, model, share, started, outputs, experiment, labelled FROM predictions"
    " WHERE request_id = ?"
)
_KNOWN = (
    "SELECT label, reward, key, joined, at, source, earlier FROM labels"
    " WHERE request_id = ? AND row = ?"
)
_MOST_EARLIER = 8
"""Values that a correction has replaced are remembered, so that a repeated post of one of them is
no correction."""
_JOIN = (
    "INSERT INTO joined (request_id, arm, mirrored, model, share, started, outputs, experiment,"
    " row, label, reward, received, delay) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)"
)


@dataclass(frozen=True, slots=True)
class Prediction:
    """A prediction that may get a label.

    ``outputs`` are the columns of the decoded answer. ``share`` is the challenger's share at the
    time of assignment, 0 outside a split; ``experiment`` is the one that assigned the request.
    ``started`` is unix time.
    """

    request_id: str
    arm: str
    mirrored: bool
    model: str
    share: float
    started: float
    outputs: dict[str, list[object]]
    experiment: str = ""


@dataclass(frozen=True, slots=True)
class Joined:
    """A prediction with its label.

    ``outputs`` are those of the label's row. ``delay`` is the time in seconds from the prediction
    until the outcome was known.
    """

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
    delay: float
    experiment: str = ""


class FeedbackStore:
    """Stores predictions and labels, and joins them.

    ``horizon`` is how long predictions and labels wait for each other, in seconds. ``max_bytes``
    limits the file, ``max_rows`` the number of predictions and labels together. ``after`` is the
    number of the last pair that the evaluation has taken. ``settle`` is how long a label may still
    be corrected before it counts, in seconds: evidence that was used cannot be taken back.

    Errors of the disk raise StateError, and the next call tries again.
    """

    def __init__(
        self,
        state_dir: Path,
        horizon: float,
        max_bytes: int,
        max_rows: int = MOST_ROWS,
        after: int = 0,
        settle: float = 0.0,
    ) -> None:
        self.horizon = horizon
        self.settle = settle
        self.max_bytes = max_bytes
        self.max_rows = max_rows
        self._file = FeedbackFile(state_dir / FILE_NAME, after)
        self.tallies = self._file.tallies
        self._handed_out = after
        """The highest number of a pair that was handed out."""
        self._last: deque[str] = deque(maxlen=_LAST)
        """Outcomes of the last labels that were new or corrected."""

    def open(self) -> None:
        """Open the file now instead of at the first call. Raises StateError."""
        self._file.open()

    def close(self) -> None:
        """Close the file; the next call opens it again."""
        self._file.close()

    @property
    def path(self) -> Path:
        """The file."""
        return self._file.path

    @property
    def failures(self) -> int:
        """Number of calls that failed with an error of the disk."""
        return self._file.failures

    # In -----------------------------------------------------------------------------------------

    def add_predictions(self, predictions: Sequence[Prediction]) -> None:
        """Store predictions, and join the labels that wait for them; duplicates are ignored.

        Clients may choose ids. Of several requests with the same id, the first one of an arm gets
        the label until it is deleted; the others are counted. Where the disk is almost full, the
        oldest give way to the new ones. Raises StateError; earlier ones stay stored then, and are
        recognised when they come again.
        """
        for some in _batched(_of_one_record(predictions), ROWS_AT_ONCE):
            if self._file.lacking():
                Purge(self._file, self.horizon, self.max_bytes, self.max_rows).make_room()
            self._add_predictions(some)

    def _add_predictions(self, predictions: Sequence[Prediction]) -> None:
        with self._file.transaction() as db:
            for one in predictions:
                text = orjson.dumps(one.outputs, default=str).decode()
                if len(text) > _LONGEST_OUTPUTS:
                    self.tallies.add("purged", "too_large")
                    continue
                rest = (one.model, one.share, one.started, text, one.experiment)
                mirrored = int(one.mirrored)
                new = db.execute(_ADD_PREDICTION, (one.request_id, one.arm, mirrored, *rest))
                if new.rowcount:
                    self.tallies.add("predictions", one.arm)
                    prediction = (one.arm, mirrored, *rest, 0)
                    self._join_waiting(db, one.request_id, prediction)
                elif _is_another(db, one):
                    self.tallies.add("repeated", one.arm)

    def _join_waiting(
        self, db: sqlite3.Connection, request_id: str, prediction: tuple[Any, ...]
    ) -> None:
        started = prediction[4]
        for row, label, reward, received, at, joined in db.execute(
            _LABELS_OF, (request_id,)
        ).fetchall():
            if received - started > self.horizon:
                continue
            self._join(db, request_id, prediction, (row, label, reward, received), at)
            prediction = (*prediction[:-1], 1)
            if not joined:
                db.execute(
                    "UPDATE labels SET joined = 1 WHERE request_id = ? AND row = ?",
                    (request_id, row),
                )
                self.tallies.add("kept", "orphans", -1)
                self.tallies.add("orphans", "joined_later")

    def add_labels(self, labels: Sequence[Label], now: float) -> list[str]:
        """Store labels and join them; returns the outcome of each (:data:`OUTCOMES`).

        A label for a known row is a duplicate if its value is the same. A different value of the
        same named source is a correction and replaces the first; one of another source is a
        conflict, and the first is kept. A reward may follow a label of the same row, and vice
        versa. ``now`` is unix time. Raises StateError, with none stored.
        """
        return self.add_received([(now, label) for label in labels])

    def add_received(self, labels: Iterable[tuple[float, Label]]) -> list[str]:
        """As :meth:`add_labels`, with the unix time at which each label was received."""
        outcomes: list[str] = []
        with self._file.transaction() as db:
            for received, one in labels:
                outcome = self._add_label(db, one, received)
                outcomes.append(outcome)
                self.tallies.add("label", outcome)
        self._last.extend(one for one in outcomes if one not in ("duplicate", "conflict"))
        return outcomes

    def _add_label(self, db: sqlite3.Connection, one: Label, now: float) -> str:
        label, reward = _text(one.label), one.reward
        known = db.execute(_KNOWN, (one.request_id, one.row)).fetchone()
        if known is not None:
            old_label, old_reward, key, joined, at, source, earlier = known
            if one.key is not None and one.key == key:
                return "duplicate"
            if _differ(label, old_label) or _differ(reward, old_reward):
                if one.source is None or one.source != source:
                    return "conflict"
                before = orjson.loads(earlier) if earlier else []
                if _is_older(one.at, at) or (one.at is None and [label, reward] in before):
                    return "duplicate"
                before = [*before, [old_label, old_reward]][-_MOST_EARLIER:]
                self._correct(db, one, (label, reward), orjson.dumps(before).decode(), joined)
                return "corrected"
            label = label if old_label is None else None
            reward = reward if old_reward is None else None
            if label is None and reward is None:
                return "duplicate"
        limit = now - self.horizon
        predictions = db.execute(_PREDICTIONS_OF, (one.request_id,)).fetchall()
        fresh = [prediction for prediction in predictions if prediction[4] >= limit]
        if predictions and not fresh:
            return "late"
        if known is not None:
            db.execute(
                "UPDATE labels SET label = coalesce(label, ?), reward = coalesce(reward, ?)"
                " WHERE request_id = ? AND row = ?",
                (label, reward, one.request_id, one.row),
            )
            if not joined:
                return "orphan"
        else:
            values = (one.request_id, one.row, label, reward, now, one.at, one.key)
            more = (int(bool(fresh)), one.source, None)
            db.execute("INSERT INTO labels VALUES (?,?,?,?,?,?,?,?,?,?)", (*values, *more))
            self.tallies.add("kept", "labels")
            if not fresh:
                self.tallies.add("kept", "orphans")
                return "orphan"
        for prediction in fresh:
            self._join(db, one.request_id, prediction, (one.row, label, reward, now), one.at)
        return "joined"

    def _correct(
        self,
        db: sqlite3.Connection,
        one: Label,
        values: tuple[str | None, float | None],
        earlier: str,
        joined: bool,
    ) -> None:
        """Replace a label, also in pairs that the evaluation has not taken."""
        where = (one.request_id, one.row)
        db.execute(
            "UPDATE labels SET label = coalesce(?, label), reward = coalesce(?, reward),"
            " key = coalesce(?, key), at = coalesce(?, at), earlier = ?"
            " WHERE request_id = ? AND row = ?",
            (*values, one.key, one.at, earlier, *where),
        )
        changed = 0
        for name, value in zip(("label", "reward"), values, strict=True):
            if value is not None:
                # A column's name cannot be a parameter.
                changed += db.execute(
                    f"UPDATE joined SET {name} = ? WHERE request_id = ? AND row = ?"  # noqa: S608
                    f" AND {name} IS NOT NULL AND seq > ?",
                    (value, *where, self._handed_out),
                ).rowcount
        self.tallies.add("corrections", "in_time" if changed or not joined else "after_use")

    def _join(
        self,
        db: sqlite3.Connection,
        request_id: str,
        prediction: tuple[Any, ...],
        label: tuple[Any, ...],
        at: float | None,
    ) -> None:
        arm, mirrored, _, _, started, _, _, labelled = prediction
        received = label[-1]
        # A sender's clock may be ahead of ours: a label is never later than its arrival.
        delay = max(0.0, (received if at is None else min(at, received)) - started)
        cursor = db.execute(_JOIN, (request_id, *prediction[:-1], *label, delay))
        self._file.last = max(self._file.last, cursor.lastrowid or 0)
        self.tallies.delay(arm, delay)
        if not labelled:
            db.execute(
                "UPDATE predictions SET labelled = 1"
                " WHERE request_id = ? AND arm = ? AND mirrored = ?",
                (request_id, arm, mirrored),
            )
            self.tallies.add("labelled", arm)

    def counts(self) -> list[tuple[str, str, float]]:
        """Counts of label outcomes, delays and deletions, as plain data."""
        return self.tallies.counts()

    def load_counts(self, counts: Iterable[tuple[str, str, float]]) -> None:
        """Replace the counts by those of another store. Raises StateError."""
        with self._file.transaction():
            self.tallies.load_counts(counts)

    # Out ----------------------------------------------------------------------------------------

    def oldest(self) -> float | None:
        """Unix time of the oldest stored prediction; None without any. Raises StateError."""
        db = self._file.open()
        with self._file.guarded():
            (found,) = db.execute("SELECT min(started) FROM predictions").fetchone()
        return None if found is None else float(found)

    def take(self, after: int, now: float = math.inf, limit: int = 10_000) -> list[Joined]:
        """At most ``limit`` joined pairs with a number above ``after``, ascending.

        Those that may still be corrected at the unix time ``now`` wait. Raises StateError.
        """
        db = self._file.open()
        with self._file.guarded():
            rows = db.execute(
                "SELECT * FROM joined WHERE seq > ? ORDER BY seq LIMIT ?", (after, limit)
            ).fetchall()
        settled = now - self.settle if self.settle else math.inf
        found = list(takewhile(lambda one: one.received <= settled, map(_joined, rows)))
        if found:
            self._handed_out = max(self._handed_out, found[-1].seq)
        return found

    def release(self, through: int) -> None:
        """Delete pairs up to the number ``through``, which are in a saved state.

        Raises StateError.
        """
        with self._file.transaction() as db:
            db.execute("DELETE FROM joined WHERE seq <= ?", (through,))

    def purge(self, now: float) -> None:
        """Delete rows older than the horizon, and the oldest beyond the limits, in small batches.

        ``now`` is unix time. Raises StateError; earlier batches stay deleted.
        """
        Purge(self._file, self.horizon, self.max_bytes, self.max_rows).run(now)

    def figures(self) -> dict[str, Any]:
        """Counts since the file was created, by outcome, reason and arm, and the rows waiting now.

        ``coverage`` by arm: the number of predictions and how many of them are labelled, and the
        same of those that are ``settled``, older than the horizon. ``unmatched`` are, of the
        ``last`` labels, those without a prediction: not known, or older than the horizon.
        """
        of = self.tallies.of
        purged, kept, predictions = of("purged"), of("kept"), of("predictions")
        labelled, settled, known = of("labelled"), of("settled"), of("settled_labelled")
        return {
            "labels": {outcome: self.tallies.get("label", outcome) for outcome in OUTCOMES},
            "joined_later": self.tallies.get("orphans", "joined_later"),
            "corrections": {
                when: self.tallies.get("corrections", when) for when in ("in_time", "after_use")
            },
            "waiting": {
                "predictions": sum(predictions.values()),
                "labels": kept.get("labels", 0),
                "orphans": kept.get("orphans", 0),
            },
            "purged": purged,
            "repeated": of("repeated"),
            "unmatched": {
                "last": len(self._last),
                # Some may have been joined since.
                "orphan": min(self._last.count("orphan"), kept.get("orphans", 0)),
                "late": self._last.count("late"),
            },
            "coverage": {
                arm: {
                    "predictions": predictions[arm],
                    "labelled": labelled.get(arm, 0),
                    "settled": settled.get(arm, 0),
                    "settled_labelled": known.get(arm, 0),
                    "share": _share(known.get(arm, 0), settled.get(arm, 0)),
                }
                for arm in sorted(predictions)
            },
            "delays": self.tallies.delays(),
        }


def _batched(items: Sequence[Prediction], size: int) -> Iterator[Sequence[Prediction]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _is_another(db: sqlite3.Connection, one: Prediction) -> bool:
    """Whether the prediction that is known by this id is one of another request."""
    query = "SELECT started FROM predictions WHERE request_id = ? AND arm = ? AND mirrored = ?"
    (started,) = db.execute(query, (one.request_id, one.arm, int(one.mirrored))).fetchone()
    return bool(started != one.started)


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _differ(new: object, old: object) -> bool:
    return new is not None and old is not None and new != old


def _is_older(new: float | None, old: float | None) -> bool:
    return new is not None and old is not None and new < old


def _text(label: object) -> str | None:
    """A label as JSON: 1 differs from "1", but 1.0 equals 1."""
    if label is None:
        return None
    if isinstance(label, float) and label.is_integer() and abs(label) < 2**53:
        label = int(label)
    return orjson.dumps(label).decode()


def _joined(row: tuple[Any, ...]) -> Joined:
    seq, request_id, arm, mirrored, model, share, started, outputs, number, label, reward = row[:11]
    columns = orjson.loads(outputs)
    return Joined(
        seq,
        request_id,
        arm,
        bool(mirrored),
        model,
        share,
        started,
        {name: cells[number] for name, cells in columns.items() if number < len(cells)},
        number,
        orjson.loads(label) if label is not None else None,
        reward,
        *row[11:],
    )


def _of_one_record(predictions: Sequence[Prediction]) -> list[Prediction]:
    """Merge predictions of the same record: experiments and monitoring may both offer it, with
    different outputs."""
    found: dict[tuple[str, str, bool, float], Prediction] = {}
    for one in predictions:
        key = (one.request_id, one.arm, one.mirrored, one.started)
        known = found.get(key)
        if known is not None and known is not one:
            both = {**known.outputs, **one.outputs}
            if len(orjson.dumps(both, default=str)) > _LONGEST_OUTPUTS:
                both = known.outputs
            assigned = max(known, one, key=lambda prediction: prediction.share)
            one = replace(assigned, outputs=both)
        found[key] = one
    return list(found.values())
