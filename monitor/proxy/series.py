"""The statistics of exchanges: a row of series for each kind, one series for each outcome."""

from __future__ import annotations

from understudy.monitor.records.record import OUTCOMES
from understudy.monitor.stats.shared import SharedStats, observe, other_labels


class Series:
    """Indices into the shared statistics of all numbers of one label set."""

    __slots__ = (
        *("_labels", "_stats", "duration", "first_byte", "queue", "request_bytes"),
        *("requests", "response_bytes", "room"),
    )

    def __init__(self, stats: SharedStats, labels: dict[str, str]) -> None:
        before = stats.overflowed
        self.requests = stats.counter("requests", labels)
        self.request_bytes = stats.counter("request_bytes", labels)
        self.response_bytes = stats.counter("response_bytes", labels)
        self.duration = stats.sketch("duration", labels)
        self.first_byte = stats.sketch("first_byte", labels)
        self.queue = -1
        """-1 as long as there was no value: most exchanges wait in no queue."""
        self._stats = stats
        self._labels = labels
        self.room = stats.room if stats.overflowed > before else -1
        """If part of it is counted as ``other``: the state of the memory at that moment."""

    def add(
        self,
        words: memoryview,
        duration_ns: int,
        first_byte_ns: int,
        queue_ns: int,
        request_size: int,
        response_size: int,
    ) -> None:
        """Count one exchange; a time of 0 to the first byte, or in the queue, means none."""
        words[self.requests] += 1
        words[self.request_bytes] += request_size
        words[self.response_bytes] += response_size
        observe(words, self.duration, duration_ns)
        if first_byte_ns:
            observe(words, self.first_byte, first_byte_ns)
        if queue_ns:
            if self.queue < 0:
                self.queue = self._stats.sketch("queue", self._labels)
            observe(words, self.queue, queue_ns)

    def uses(self, index: int) -> bool:
        """Whether one of its numbers begins at ``index``."""
        return index in (
            *(self.requests, self.request_bytes, self.response_bytes),
            *(self.duration, self.first_byte, self.queue),
        )


class SeriesRow:
    """The series of one kind of exchange, one per outcome, made when first needed.

    Every label comes from the configuration or from a closed list, so the rows are bounded. What
    has no room in the shared statistics is counted under ``other`` until there is room.
    """

    __slots__ = ("__weakref__", "_by_outcome", "_labels", "_overflowed", "_stats")

    def __init__(self, stats: SharedStats, labels: dict[str, str]) -> None:
        self._stats = stats
        self._labels = labels
        self._by_outcome: list[Series | None] = [None] * len(OUTCOMES)
        self._overflowed: list[Series | None] = [None] * len(OUTCOMES)
        stats.hold(self)

    def of(self, outcome: int) -> Series:
        """The series of ``outcome``, an index of
        :data:`understudy.monitor.records.record.OUTCOMES`."""
        series = self._by_outcome[outcome]
        if series is None:
            series = self._overflowed[outcome]
            if series is not None and series.room == self._stats.room:
                return series
            series = Series(self._stats, {**self._labels, "outcome": OUTCOMES[outcome]})
            if series.room < 0:
                self._by_outcome[outcome] = series
                self._overflowed[outcome] = None
            else:
                self._overflowed[outcome] = series
        return series

    def forget(self, index: int) -> None:
        """The entry with this index is freed: its arm or model is gone."""
        if any(s is not None and s.uses(index) for s in (*self._by_outcome, *self._overflowed)):
            self._by_outcome = [None] * len(OUTCOMES)
            self._overflowed = [None] * len(OUTCOMES)
            self._labels = other_labels(self._labels)
