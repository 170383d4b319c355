"""The statistics of exchanges: a row of series for each kind, one series for each outcome."""

from __future__ import annotations

from understudy.monitor.errors import StateError
from understudy.monitor.records.record import OUTCOMES
from understudy.monitor.stats.shared import SharedStats, observe


class Series:
    """Indices into the shared statistics of all numbers of one label set."""

    __slots__ = ("duration", "first_byte", "queue", "request_bytes", "requests", "response_bytes")

    def __init__(self, stats: SharedStats, labels: dict[str, str]) -> None:
        self.requests = stats.counter("requests", labels)
        self.request_bytes = stats.counter("request_bytes", labels)
        self.response_bytes = stats.counter("response_bytes", labels)
        self.duration = stats.sketch("duration", labels)
        self.first_byte = stats.sketch("first_byte", labels)
        self.queue = stats.sketch("queue", labels)

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
            observe(words, self.queue, queue_ns)


class SeriesRow:
    """The series of one kind of exchange, one per outcome, made when first needed.

    Every label comes from the configuration or from a closed list, so the rows are bounded.
    If the shared file is full all the same (many reloads with new names), further series are
    counted under the model ``other``.
    """

    __slots__ = ("_by_outcome", "_labels", "_stats")

    def __init__(self, stats: SharedStats, labels: dict[str, str]) -> None:
        self._stats = stats
        self._labels = labels
        self._by_outcome: list[Series | None] = [None] * len(OUTCOMES)

    def of(self, outcome: int) -> Series:
        """The series of ``outcome``, an index of
        :data:`understudy.monitor.records.record.OUTCOMES`."""
        series = self._by_outcome[outcome]
        if series is None:
            labels = {**self._labels, "outcome": OUTCOMES[outcome]}
            try:
                series = Series(self._stats, labels)
            except StateError:
                series = Series(self._stats, {**labels, "model": "other", "version": ""})
            self._by_outcome[outcome] = series
        return series
