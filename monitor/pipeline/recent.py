"""The last records, to be shown; bounded by count and bytes, never written to disk."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

from understudy.monitor.records.handoff import Names
from understudy.monitor.records.record import NOT_SENT, Record

MAX_BYTES = 4 * 1024 * 1024


def _size(record: Record) -> int:
    return 512 + len(record.request_body or b"") + len(record.response_body or b"")


class Recent:
    """At most ``keep`` records and ``max_bytes`` bytes of payload."""

    def __init__(self, keep: int, max_bytes: int = MAX_BYTES) -> None:
        self.keep = keep
        self._max_bytes = max_bytes
        self._bytes = 0
        self._records: deque[tuple[Names, Record]] = deque()
        self._added = 0
        """Number that the next record will have."""

    def __len__(self) -> int:
        return len(self._records)

    def add(self, names: Names, records: Sequence[Record]) -> None:
        """Add the records of one batch, oldest first; those of requests that were not sent are left
        out."""
        if self.keep <= 0:
            return
        for record in [r for r in records if r.outcome not in NOT_SENT][-self.keep :]:
            self._records.append((names, record))
            self._bytes += _size(record)
            self._added += 1
        self._trim()

    def resize(self, keep: int) -> None:
        """Change the maximum number of records."""
        self.keep = keep
        self._trim()

    def _trim(self) -> None:
        while self._records and (len(self._records) > self.keep or self._bytes > self._max_bytes):
            _, record = self._records.popleft()
            self._bytes -= _size(record)

    def newest(self, before: int | None = None) -> Iterator[tuple[int, Names, Record]]:
        """Newest first, each with its number, which grows; only those ``before`` another one."""
        number = self._added
        for names, record in reversed(self._records):
            number -= 1
            if before is None or number < before:
                yield number, names, record
