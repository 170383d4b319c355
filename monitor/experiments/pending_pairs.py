"""Mirrored requests that have not finished, though the champion's answer came long ago.

A request that hangs is a pair, and so evidence, only after its time limit. Until then it is counted
here, so that what hangs cannot be missing from a decision. Time is that of the newest row:
evaluation that lags behind, and replay, count the same.
"""

from __future__ import annotations

from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from understudy.monitor.evidence.batch import ColumnBatch
from understudy.shadow.experiment.fates import REPORTED
from understudy.shadow.state import Config, FieldError, Saved, Stateful

MAX_PENDING = 10_000
"""Requests without an end that are remembered of each challenger."""


class PendingPairs(Stateful):
    """The mirrored requests of one challenger that have been reported and have not finished.

    One that has no pair after ``wait`` seconds was lost, and is forgotten.
    """

    wait: Config[float]
    limit: Config[int]
    _due: Saved[dict[str, float]]
    """By request, the unix time for which it was reported; in about this order."""
    _newest: Saved[float]

    def __init__(self, wait: float, limit: int = MAX_PENDING) -> None:
        self.wait = wait
        self.limit = limit
        self._due = {}
        self._newest = 0.0

    def __len__(self) -> int:
        return len(self._due)

    def missing(self, age: float) -> int:
        """Requests that have lasted at least about ``age`` seconds."""
        before = self._newest - (age - REPORTED)
        return sum(due <= before for due in self._due.values())

    def take(self, batch: ColumnBatch, pending: NDArray[np.bool_]) -> None:
        """Take rows about pairs: reports of requests (``pending``, shape (rows,)), and the pairs of
        requests that have finished."""
        for row in np.flatnonzero(pending).tolist():
            if len(self._due) < self.limit:
                self._due.setdefault(_key(batch.ids[row]), float(batch.at[row]))
        if len(batch):
            self._newest = max(self._newest, float(batch.at.max()))
        if not self._due:
            return
        # The pair of a request comes after its report, whatever their times: a record may be late.
        for row in np.flatnonzero(~pending).tolist():
            self._due.pop(_key(batch.ids[row]), None)
        while self._due and self._newest - self._due[first := next(iter(self._due))] > self.wait:
            del self._due[first]

    def clear(self) -> None:
        """Forget all."""
        self._due.clear()

    def _restored(self) -> None:
        if len(self._due) > self.limit:
            raise FieldError("due", f"must be {self.limit:,} requests at most")


def _key(request_id: bytes) -> str:
    return blake2b(request_id, digest_size=12).hexdigest()
