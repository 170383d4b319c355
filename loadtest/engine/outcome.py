"""The result of a run of load: every request, and statistics of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from understudy.loadtest.engine.answer import count_error, status_name
from understudy.loadtest.engine.histogram import Histogram
from understudy.loadtest.engine.recorder import FinishedRequests
from understudy.loadtest.engine.stream import MOMENTS, STREAM_COLUMNS

Floats = NDArray[np.float64]
_COLUMNS = ("due", "latency", "first_byte", "ok", "payload", "lag", "service")
MOST_KEPT = 5_000_000
"""Up to this number every request is kept; beyond it, only the histograms grow."""


@dataclass(slots=True)
class Outcome:
    """Requests of one run of load. Times are in seconds from its start; ``begun`` is the start in
    unix time. Latencies count from the time at which a request was *due*, so that a stalled target
    cannot hide. Of a latency, ``lag`` is the generator's own delay, and ``service`` the time from
    the bytes sent to the whole response. ``single`` is False when there were too many requests to
    keep each of them."""

    seconds: float = 0.0
    begun: float = 0.0
    due: Floats = field(default_factory=lambda: np.zeros(0))
    latency: Floats = field(default_factory=lambda: np.zeros(0))
    first_byte: Floats = field(default_factory=lambda: np.zeros(0))
    ok: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))
    payload: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    lag: Floats = field(default_factory=lambda: np.zeros(0))
    service: Floats = field(default_factory=lambda: np.zeros(0))
    latencies: Histogram = field(default_factory=Histogram)
    lags: Histogram = field(default_factory=Histogram)
    """Of requests, or of a timer in a closed loop, in which no request has a time at which it is
    due."""
    services: Histogram = field(default_factory=Histogram)
    count: int = 0
    failed: int = 0
    statuses: dict[str, int] = field(default_factory=dict)
    errors: dict[str, int] = field(default_factory=dict)
    single: bool = True
    complete: float = 0.0
    """Every request that was due before this time has ended. Before the end of the run, use only
    these: fast requests end first, so the others are biased."""
    retried: int = 0
    """Requests that were sent again, since the server had closed their kept connection."""
    cpu_seconds: float = 0.0
    """CPU time of the sending processes."""
    waited_seconds: float | None = None
    """For how long they were ready to run and had no CPU; None where the kernel does not say."""
    processes: int = 1
    streams: dict[str, Floats] = field(default_factory=dict)
    """Columns of streamed answers, see :class:`.stream.Stream`, their points in time in seconds
    from when the request was due; empty where no streams are read."""
    gaps: Histogram = field(default_factory=Histogram)
    """Times between two events with output of one answer, of all answers."""
    _buffers: dict[str, NDArray[Any]] = field(default_factory=dict)
    """Arrays with spare capacity whose first part is the column, so that appending copies
    little."""

    def add(self, parts: Iterable[FinishedRequests]) -> None:
        """Add finished requests of the sending processes, in any order."""
        rows: list[tuple[Any, ...]] = []
        for part in parts:
            self.retried += part.retried
            if not len(part.due):
                continue
            latency = np.maximum(part.ended - part.due, 0.0)
            ok = part.ok
            self.latencies.add(latency)
            lag = np.maximum(part.picked - part.due, 0.0)
            service = np.maximum(part.ended - part.sent, 0.0)
            self.lags.add(lag if part.wakes is None else part.wakes)
            self.services.add(service)
            self.count += len(latency)
            self.failed += int((~ok).sum())
            for status, number in zip(*np.unique(part.status, return_counts=True), strict=True):
                if status:
                    name = status_name(int(status))
                    self.statuses[name] = self.statuses.get(name, 0) + int(number)
            for error, number in part.errors.items():
                count_error(self.errors, error, number)
            if self.count <= MOST_KEPT:
                first_byte = part.first_byte - part.due
                streams = part.streams or {}
                columns = [
                    column - part.due if name in MOMENTS else column
                    for name, column in streams.items()
                ]
                rows.append(
                    (part.due, latency, first_byte, ok, part.payload, lag, service, *columns)
                )
                if part.gaps is not None:
                    self.gaps.add(part.gaps)
            else:
                self.single = False
        if rows:
            columns = [np.concatenate(column) for column in zip(*rows, strict=True)]
            # New requests are mostly due after the known ones: only the tail has to be sorted.
            start = int(np.searchsorted(self.due, columns[0].min()))
            order = np.argsort(np.concatenate([self.due[start:], columns[0]]), kind="stable")
            names = (*_COLUMNS, *STREAM_COLUMNS)[: len(columns)]
            for name, fresh in zip(names, columns, strict=True):
                self._append(name, start, fresh, order)

    def _append(self, name: str, start: int, fresh: NDArray[Any], order: NDArray[np.int64]) -> None:
        stream = name in STREAM_COLUMNS
        column: NDArray[Any] = (
            self.streams.get(name, np.zeros(0)) if stream else getattr(self, name)
        )
        end = np.concatenate([column[start:], fresh])[order]
        buffer, count = self._buffers.get(name), start + len(end)
        if buffer is None or column.base is not buffer or count > len(buffer):
            buffer = self._buffers[name] = np.empty(2 * count, fresh.dtype)
            buffer[:start] = column[:start]
        buffer[start:count] = end
        if stream:
            self.streams[name] = buffer[:count]
        else:
            setattr(self, name, buffer[:count])

    @property
    def rate(self) -> float:
        """Responses per second, failed ones included."""
        return self.count / self.seconds if self.seconds else 0.0

    @property
    def error_rate(self) -> float | None:
        """Share of the requests that failed; None without requests."""
        return self.failed / self.count if self.count else None

    def quantile(self, p: float) -> float | None:
        """Latency in seconds that a share ``p`` does not exceed; exact where all are kept."""
        if self.single and len(self.latency):
            rank = max(1, int(np.ceil(p * len(self.latency) - 1e-9)))
            return float(np.partition(self.latency, rank - 1)[rank - 1])
        return self.latencies.quantile(p)

    def so_far(self) -> Outcome:
        """The requests that were due before all of them had ended."""
        return self.part(0.0, max(0.0, self.complete))

    def over(self, seconds: float) -> int:
        """Number of requests that took longer than ``seconds`` or failed."""
        if self.single:
            return int(((self.latency > seconds) | ~self.ok).sum())
        return max(self.latencies.above(seconds), self.failed)

    def served_over(self, seconds: float) -> int:
        """Number of requests whose time of service was longer than ``seconds``, or that failed."""
        if self.single:
            return int(((self.service > seconds) | ~self.ok).sum())
        return max(self.services.above(seconds), self.failed)

    def served(self, slack: float) -> Outcome:
        """The same requests, with their time of service but for ``slack`` seconds as latency. Needs
        ``single``."""
        outcome = self.part(0.0, np.inf)
        outcome.seconds, outcome.begun = self.seconds, self.begun
        outcome.latency = np.maximum(outcome.service - slack, 0.0)
        return outcome

    @property
    def lag_p99(self) -> float | None:
        """99th percentile of the engine's own lag, in seconds."""
        return self.lags.quantile(0.99)

    def part(self, start: float, end: float) -> Outcome:
        """The requests that were due from ``start`` to ``end``, in seconds. Needs ``single``."""
        first, last = np.searchsorted(self.due, [start, end])
        outcome = Outcome(end - start, self.begun + start)
        cut = slice(int(first), int(last))
        outcome.due = self.due[cut] - start
        # Copies, since the columns are sorted in place as more requests end.
        outcome.latency, outcome.ok = self.latency[cut].copy(), self.ok[cut].copy()
        outcome.first_byte, outcome.payload = self.first_byte[cut].copy(), self.payload[cut].copy()
        outcome.count, outcome.failed = len(outcome.due), int((~outcome.ok).sum())
        outcome.latencies.add(outcome.latency)
        outcome.lag, outcome.service = self.lag[cut].copy(), self.service[cut].copy()
        outcome.lags.add(outcome.lag)
        outcome.services.add(outcome.service)
        outcome.streams = {name: column[cut].copy() for name, column in self.streams.items()}
        return outcome

    def series(self, width: float = 1.0) -> list[dict[str, Any]]:
        """Per interval of ``width`` seconds: rate, failures, p50, p95, p99, largest latency."""
        if not len(self.due):
            return []
        interval = (self.due / width).astype(np.int64)
        cuts = np.flatnonzero(np.diff(interval)) + 1
        rows = []
        for start, end in zip([0, *cuts], [*cuts, len(interval)], strict=True):
            part = np.sort(self.latency[start:end])
            ranks = [part[min(len(part) - 1, int(p * len(part)))] for p in (0.5, 0.95, 0.99)]
            rows.append(
                {
                    "at": float(interval[start]) * width,
                    "rate": (end - start) / width,
                    "failed": int((~self.ok[start:end]).sum()),
                    "p50": float(ranks[0]),
                    "p95": float(ranks[1]),
                    "p99": float(ranks[2]),
                    "max": float(part[-1]),
                }
            )
        return rows

    def summary(self) -> dict[str, Any]:
        """As JSON, for the report."""
        quantiles = {f"p{100 * p:g}": self.quantile(p) for p in (0.5, 0.9, 0.95, 0.99, 0.999)}
        # A quantile with less than one request beyond it would be the maximum.
        reliable = {
            name: value
            for name, value in quantiles.items()
            if self.count * (1.0 - float(name[1:]) / 100.0) >= 1.0
        }
        return {
            "requests": self.count,
            "failed": self.failed,
            "seconds": self.seconds,
            "rate": self.rate,
            "error_rate": self.error_rate,
            "latency": {
                **reliable,
                "mean": self.latencies.mean,
                "max": self.latencies.largest or None,
            },
            "send_lag": {f"p{p:g}": self.lags.quantile(p / 100.0) for p in (50.0, 99.0)},
            "service": {name: self.services.quantile(float(name[1:]) / 100.0) for name in reliable},
            "processes": self.processes,
            "waited_seconds": self.waited_seconds,
            "statuses": self.statuses,
            "errors": self.errors,
            "retried": self.retried,
            "cpu_us_per_request": self.cpu_seconds / self.count * 1e6 if self.count else None,
        }


def percentiles(outcome: Outcome) -> list[tuple[float, float]]:
    """Pairs of quantile and latency for a percentile plot, up to the last whole request."""
    results = []
    tail = 1.0
    while tail * max(outcome.count, 1) >= 1.0 and tail > 1e-7:
        for part in (1.0, 0.7, 0.5, 0.35, 0.25, 0.175, 0.13):
            p = 1.0 - tail * part
            value = outcome.latencies.quantile(p) if p > 0.0 else None
            if value is not None and tail * part * outcome.count >= 1.0:
                results.append((p, value))
        tail /= 10.0
    return results
