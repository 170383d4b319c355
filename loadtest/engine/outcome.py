"""What a stretch of load has shown: every request, and figures of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from understudy.loadtest.engine.book import Taken
from understudy.loadtest.engine.histogram import Histogram

Floats = NDArray[np.float64]
_COLUMNS = ("due", "latency", "first_byte", "ok", "payload")
MOST_KEPT = 5_000_000
"""Requests of which every single one is kept; of more only the histograms grow."""


@dataclass(slots=True)
class Outcome:
    """Requests of one stretch of load. Times are in seconds from its start, ``begun`` is that in
    unix time. Latencies count from the moment at which a request was *due*, so that a stalled
    target cannot hide. ``single`` is False where there were too many to keep every one."""

    seconds: float = 0.0
    begun: float = 0.0
    due: Floats = field(default_factory=lambda: np.zeros(0))
    latency: Floats = field(default_factory=lambda: np.zeros(0))
    first_byte: Floats = field(default_factory=lambda: np.zeros(0))
    ok: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))
    payload: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    latencies: Histogram = field(default_factory=Histogram)
    lags: Histogram = field(default_factory=Histogram)
    count: int = 0
    failed: int = 0
    statuses: dict[str, int] = field(default_factory=dict)
    errors: dict[str, int] = field(default_factory=dict)
    single: bool = True
    complete: float = 0.0
    """Every request that was due before this moment has ended: who looks earlier than the end must
    look at these alone, since the quick ones end first."""
    cpu_seconds: float = 0.0
    """Of the processes that sent."""
    _rooms: dict[str, NDArray[Any]] = field(default_factory=dict)
    """What the columns are the beginning of: room for more, so that adding copies little."""

    def add(self, parts: Iterable[Taken]) -> None:
        """Take what processes have sent in; in any order."""
        kept: list[tuple[Any, ...]] = []
        for part in parts:
            if not len(part.due):
                continue
            latency = np.maximum(part.ended - part.due, 0.0)
            ok = (part.status >= 200) & (part.status < 400)
            self.latencies.add(latency)
            self.lags.add(np.maximum(part.picked - part.due, 0.0))
            self.count += len(latency)
            self.failed += int((~ok).sum())
            for status, number in zip(*np.unique(part.status, return_counts=True), strict=True):
                if status:
                    name = str(int(status))
                    self.statuses[name] = self.statuses.get(name, 0) + int(number)
            for error, number in part.errors.items():
                self.errors[error] = self.errors.get(error, 0) + number
            if self.count <= MOST_KEPT:
                kept.append((part.due, latency, part.first_byte - part.due, ok, part.payload))
            else:
                self.single = False
        if kept:
            columns = [np.concatenate(column) for column in zip(*kept, strict=True)]
            # What comes is mostly due after what there is: only the end has to be put in order.
            place = int(np.searchsorted(self.due, columns[0].min()))
            order = np.argsort(np.concatenate([self.due[place:], columns[0]]), kind="stable")
            for name, fresh in zip(_COLUMNS, columns, strict=True):
                self._append(name, place, fresh, order)

    def _append(self, name: str, place: int, fresh: NDArray[Any], order: NDArray[np.int64]) -> None:
        held: NDArray[Any] = getattr(self, name)
        end = np.concatenate([held[place:], fresh])[order]
        room, count = self._rooms.get(name), place + len(end)
        if room is None or held.base is not room or count > len(room):
            room = self._rooms[name] = np.empty(2 * count, fresh.dtype)
            room[:place] = held[:place]
        room[place:count] = end
        setattr(self, name, room[:count])

    @property
    def rate(self) -> float:
        """Answers per second, good ones and others."""
        return self.count / self.seconds if self.seconds else 0.0

    @property
    def error_rate(self) -> float | None:
        """Share of the requests that failed; None of nothing."""
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
        """Requests that took longer than ``seconds``, or failed; failed ones took for ever."""
        if self.single:
            return int(((self.latency > seconds) | ~self.ok).sum())
        return max(self.latencies.above(seconds), self.failed)

    @property
    def lag_p99(self) -> float | None:
        """The engine's own lag in seconds."""
        return self.lags.quantile(0.99)

    def part(self, start: float, end: float) -> Outcome:
        """Requests that were due from ``start`` to ``end``, in seconds. Only where all are kept."""
        first, last = np.searchsorted(self.due, [start, end])
        found = Outcome(end - start, self.begun + start)
        cut = slice(int(first), int(last))
        found.due = self.due[cut] - start
        # Copies, since what there is is put into order as more comes.
        found.latency, found.ok = self.latency[cut].copy(), self.ok[cut].copy()
        found.first_byte, found.payload = self.first_byte[cut].copy(), self.payload[cut].copy()
        found.count, found.failed = len(found.due), int((~found.ok).sum())
        found.latencies.add(found.latency)
        found.lags = self.lags
        return found

    def series(self, width: float = 1.0) -> list[dict[str, Any]]:
        """By stretches of ``width`` seconds: rate, failures, p50, p95, p99, largest latency."""
        if not len(self.due):
            return []
        place = (self.due / width).astype(np.int64)
        cuts = np.flatnonzero(np.diff(place)) + 1
        rows = []
        for start, end in zip([0, *cuts], [*cuts, len(place)], strict=True):
            part = np.sort(self.latency[start:end])
            ranks = [part[min(len(part) - 1, int(p * len(part)))] for p in (0.5, 0.95, 0.99)]
            rows.append(
                {
                    "at": float(place[start]) * width,
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
        """As JSON: what a report shows."""
        quantiles = {f"p{100 * p:g}": self.quantile(p) for p in (0.5, 0.9, 0.95, 0.99, 0.999)}
        # A quantile of fewer requests than lie beyond it is the maximum under another name.
        held = {
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
            "latency": {**held, "mean": self.latencies.mean, "max": self.latencies.largest or None},
            "send_lag": {f"p{p:g}": self.lags.quantile(p / 100.0) for p in (50.0, 99.0)},
            "statuses": self.statuses,
            "errors": self.errors,
            "cpu_us_per_request": self.cpu_seconds / self.count * 1e6 if self.count else None,
        }


def percentiles(outcome: Outcome) -> list[tuple[float, float]]:
    """Pairs of quantile and latency for a percentile plot, up to the last whole request."""
    found = []
    tail = 1.0
    while tail * max(outcome.count, 1) >= 1.0 and tail > 1e-7:
        for part in (1.0, 0.7, 0.5, 0.35, 0.25, 0.175, 0.13):
            p = 1.0 - tail * part
            value = outcome.latencies.quantile(p) if p > 0.0 else None
            if value is not None and tail * part * outcome.count >= 1.0:
                found.append((p, value))
        tail /= 10.0
    return found
