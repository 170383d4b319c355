"""The statistics of exchanges: a row of series for each kind, one series for each outcome."""

from __future__ import annotations

from understudy.monitor.proxy.stream import StreamMeter
from understudy.monitor.records.grpc_status import NAMES
from understudy.monitor.records.record import OUTCOMES
from understudy.monitor.stats.shared import SharedStats, other_labels
from understudy.monitor.stats.sketch import observe


class Series:
    """Indices into the shared statistics of all numbers of one label set."""

    __slots__ = (
        *("_labels", "_stats", "_stream", "duration", "first_byte", "queue", "request_bytes"),
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
        self._stream: tuple[int, int, int, int] | None = None
        """Of streams: time to the first event, longest gap, events, stalls."""
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

    def add_stream(self, words: memoryview, stream: StreamMeter, started_ns: int) -> None:
        """Count the events of one stream, of a request that began at ``started_ns``."""
        if self._stream is None:
            stats, labels = self._stats, self._labels
            self._stream = (
                stats.sketch("first_event", labels),
                stats.sketch("longest_gap", labels),
                stats.counter("stream_events", labels),
                stats.counter("stream_stalls", labels),
            )
        first_event, longest_gap, events, stalls = self._stream
        if stream.events:
            observe(words, first_event, max(0, stream.first_ns - started_ns))
        if stream.events > 1:
            observe(words, longest_gap, stream.longest_ns)
        words[events] += stream.events
        words[stalls] += stream.stalls

    def uses(self, index: int) -> bool:
        """Whether one of its numbers begins at ``index``."""
        counters = (self.requests, self.request_bytes, self.response_bytes)
        sketches = (self.duration, self.first_byte, self.queue)
        return index in counters or index in sketches or index in (self._stream or ())


class SeriesRow:
    """The series of one kind of exchange, one per outcome, made when first needed.

    Every label comes from the configuration or from a closed list, so the rows are bounded. What
    has no room in the shared statistics is counted under ``other`` until there is room.
    """

    __slots__ = ("_by_outcome", "_calls", "_labels", "_overflowed", "_stats")

    def __init__(self, stats: SharedStats, labels: dict[str, str]) -> None:
        self._stats = stats
        self._labels = labels
        self._by_outcome: list[Series | None] = [None] * len(OUTCOMES)
        self._overflowed: list[Series | None] = [None] * len(OUTCOMES)
        self._calls: dict[int, int] = {}
        """Indices of the counters of gRPC calls by status, made when first needed."""

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

    def count_call(self, words: memoryview, code: int) -> None:
        """Count a gRPC call that ended with this status, an index of
        :data:`understudy.monitor.records.grpc_status.NAMES`."""
        index = self._calls.get(code)
        if index is None:
            labels = {**self._labels, "grpc_status": NAMES[code]}
            index = self._calls[code] = self._stats.counter("grpc_calls", labels)
        words[index] += 1

    def forget(self, index: int) -> None:
        """The entry with this index is freed: its arm or model is gone."""
        if index in self._calls.values():
            self._calls = {}
            self._labels = other_labels(self._labels)
        if any(s is not None and s.uses(index) for s in (*self._by_outcome, *self._overflowed)):
            self._by_outcome = [None] * len(OUTCOMES)
            self._overflowed = [None] * len(OUTCOMES)
            self._labels = other_labels(self._labels)
