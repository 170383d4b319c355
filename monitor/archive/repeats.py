"""Recognises records that were written twice.

Workers keep what they sent until the evaluation plane has saved its state, and send it again after
the plane was killed. The log is written more often than the state, so it holds some of these
records already. An id tells them apart: the run of the service, the number of the worker, that of
its batch, and the place in the batch, or for a record that was posted, its arm and request.
"""

from __future__ import annotations

from collections import OrderedDict
from hashlib import blake2b

from understudy.monitor.records.record import OPEN, Record

MOST_BATCHES = 100_000
"""Batches that a reader remembers. All workers together write fewer between two saved states."""
MOST_RECORDS = 65_536
"""Records of one batch that can be told apart."""


def record_id(batch: str, index: int, arm: str, record: Record) -> str:
    """The id of a record: number ``index`` of ``batch``.

    Without a batch, the record was posted, and its arm and request identify it. The id is empty for
    a record that nothing identifies.
    """
    if not batch and record.request_id and record.outcome != OPEN:
        text = b"%b\0%b" % (arm.encode(), record.request_id)
        batch, index = blake2b(text, digest_size=8).hexdigest(), 0
    return f"{batch}-{index}" if batch else ""


class Repeats:
    """The records of a log that is read from its beginning; ``count`` are those left out."""

    def __init__(self) -> None:
        self.count = 0
        self._seen: OrderedDict[str, int] = OrderedDict()
        """The records of each batch that were read, as bits."""

    def includes(self, record: object) -> bool:
        """Whether a record with this id was read before; it is remembered. Never for no id."""
        if not isinstance(record, str):
            return False
        batch, _, number = record.rpartition("-")
        if not batch or not number.isdecimal() or len(number) > 5 or int(number) >= MOST_RECORDS:
            return False
        bit, seen = 1 << int(number), self._seen.get(batch, 0)
        if seen & bit:
            self.count += 1
            return True
        self._seen[batch] = seen | bit
        if len(self._seen) > MOST_BATCHES:
            self._seen.popitem(last=False)
        return False
