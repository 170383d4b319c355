"""Counters of feedback, stored in the same file and the same transactions as the rows they count.

So they are exact after a crash at any point: a label is counted if and only if it is stored.
"""

from __future__ import annotations

import math
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

SCHEMA = """
CREATE TABLE IF NOT EXISTS tallies (
  what TEXT, of TEXT, n REAL NOT NULL, PRIMARY KEY (what, of)) WITHOUT ROWID;
"""
QUANTILES = (0.5, 0.9, 0.99)
_PER_OCTAVE = 16
_SMALLEST = 1e-3
_DELAY = "delay "
_PRESENT = frozenset(("predictions", "labelled", "kept"))

Key = tuple[str, str]
"""Kind of counter, and its label: an outcome, a reason or an arm."""


class Tallies:
    """Sums by :data:`Key`. A rollback of the transaction also rolls back its changes.

    Delays are counted by arm in buckets that grow by 4.4 %, so a quantile is accurate to 2.2 %;
    delays below a millisecond count as one millisecond.
    """

    def __init__(self) -> None:
        self._sums: defaultdict[Key, float] = defaultdict(float)
        self._changes: defaultdict[Key, float] = defaultdict(float)

    def load(self, db: sqlite3.Connection) -> None:
        """Load the sums from the file. Raises sqlite3.Error."""
        self._changes.clear()
        self._sums.clear()
        for what, of, n in db.execute("SELECT what, of, n FROM tallies"):
            self._sums[what, of] = n

    def add(self, what: str, of: str, n: float = 1) -> None:
        """Add ``n`` to a sum, in the current transaction."""
        if n:
            self._changes[what, of] += n

    def delay(self, arm: str, seconds: float) -> None:
        """Count the delay of a label."""
        octaves = math.log2(max(seconds, _SMALLEST) / _SMALLEST)
        self.add(f"{_DELAY}{math.floor(octaves * _PER_OCTAVE)}", arm)
        self.add("delay_sum", arm, seconds)

    def write(self, db: sqlite3.Connection) -> None:
        """Write the changes within the transaction. Raises sqlite3.Error."""
        db.executemany(
            "INSERT INTO tallies VALUES (?,?,?) ON CONFLICT DO UPDATE SET n = n + excluded.n",
            [(what, of, n) for (what, of), n in self._changes.items() if n],
        )

    def end(self, committed: bool) -> None:
        """End the transaction: apply its changes if ``committed``, else discard them."""
        if committed:
            for key, n in self._changes.items():
                self._sums[key] += n
        self._changes.clear()

    def get(self, what: str, of: str) -> int:
        """One sum, without the changes of an open transaction."""
        return int(self._sums.get((what, of), 0))

    def of(self, what: str) -> dict[str, int]:
        """The sums of one kind, by label."""
        return {of: int(n) for (name, of), n in self._sums.items() if name == what}

    def counts(self) -> list[tuple[str, str, float]]:
        """The monotonic counters, for another store to continue from."""
        return [(*key, n) for key, n in self._sums.items() if _grows(key) and n]

    def load_counts(self, counts: Iterable[tuple[str, str, float]]) -> None:
        """Replace the monotonic counters by ``counts``, in the current transaction."""
        wanted = {(what, of): n for what, of, n in counts}
        for key in {*filter(_grows, self._sums), *wanted}:
            self.add(*key, wanted.get(key, 0.0) - self._sums.get(key, 0.0))

    def delays(self) -> dict[str, dict[str, Any]]:
        """Delays by arm: ``count``, ``sum_seconds``, ``mean_seconds``, and ``quantiles`` in seconds
        by quantile."""
        by_arm: dict[str, dict[int, int]] = {}
        for (what, arm), n in self._sums.items():
            if what.startswith(_DELAY) and n:
                by_arm.setdefault(arm, {})[int(what[len(_DELAY) :])] = int(n)
        found = {}
        for arm, buckets in sorted(by_arm.items()):
            count, total = sum(buckets.values()), self._sums.get(("delay_sum", arm), 0.0)
            found[arm] = {
                "count": count,
                "sum_seconds": total,
                "mean_seconds": total / count,
                "quantiles": {str(q): _quantile(buckets, q * count) for q in QUANTILES},
            }
        return found


def _grows(key: Key) -> bool:
    """Whether a sum is a monotonic counter, rather than a gauge."""
    return key[0] not in _PRESENT


def _quantile(buckets: Mapping[int, int], rank: float) -> float:
    """The geometric midpoint of the bucket that contains the rank."""
    below, bucket = 0, 0
    for bucket in sorted(buckets):
        below += buckets[bucket]
        if below >= rank:
            break
    return float(_SMALLEST * 2.0 ** ((bucket + 0.5) / _PER_OCTAVE))
