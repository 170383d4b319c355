"""A bounded queue in front of an exporter, and the thread that empties it.

Every item is counted once: sent, failed, or dropped; or lost, if the process is killed. The SDK's
own processor reports success for exports that have failed, so the result of each export is counted
here.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from understudy.monitor.config.otel import Signal
from understudy.monitor.telemetry.otlp.counts import DROPPED, FAILED, OFFERED, SENT, Counts

log = logging.getLogger(__name__)

T = TypeVar("T")

Export = Callable[[Sequence[T]], str | None]
"""Sends items; None, or why that failed. May take as long as the exporter's time limit."""


class ExportQueue(Generic[T]):
    """Items of one signal, each with a ``weight``, the number of spans or of what else is counted,
    and a ``size`` in bytes. ``prepare`` makes the exporter, in the thread: it imports the SDK."""

    def __init__(
        self,
        signal: Signal,
        counts: Counts,
        prepare: Callable[[], Export[T]],
        most: int,
        most_bytes: int,
        batch: int,
        interval: float,
    ) -> None:
        self.signal = signal
        self._counts = counts
        self.error: str | None = None
        """Why the last export failed; None if it succeeded."""
        self._prepare = prepare
        self._most, self._most_bytes = most, most_bytes
        self._batch, self._interval = batch, interval
        self._items: deque[tuple[T, int, int, float]] = deque()
        self.waiting = 0
        self._bytes = 0
        self._changed = threading.Condition()
        self._closing: float | None = None
        self._thread = threading.Thread(target=self._run, name=f"otlp {signal}", daemon=True)
        self._thread.start()

    def offer(self, item: T, weight: int, size: int) -> None:
        """Add an item. It is dropped, and counted, if the queue is full. Never waits for an
        export."""
        counts = self._counts
        counts.add(OFFERED, weight)
        with self._changed:
            full = self.waiting + weight > self._most or self._bytes + size > self._most_bytes
            if full or self._closing is not None:
                counts.add(DROPPED, weight)
                return
            first = not self._items
            self._items.append((item, weight, size, time.monotonic()))
            self.waiting += weight
            self._bytes += size
            if first or self.waiting >= self._batch:
                self._changed.notify()

    def stop(self, seconds: float) -> None:
        """Take nothing more, and send what waits for up to ``seconds``; the rest is dropped and
        counted. Returns at once."""
        with self._changed:
            if self._closing is None:
                self._closing = time.monotonic() + seconds
            self._changed.notify()

    def join(self, seconds: float) -> None:
        """Wait up to ``seconds`` for the end of it."""
        self._thread.join(seconds)

    @property
    def ended(self) -> bool:
        """Whether nothing changes any more."""
        return not self._thread.is_alive()

    def _drop_all(self) -> None:
        self._counts.add(DROPPED, self.waiting)
        self.waiting = self._bytes = 0
        self._items.clear()

    def _run(self) -> None:
        export: Export[T] | None = None
        while (taken := self._take()) is not None:
            items, weight = taken
            error: str | None
            try:
                if export is None:
                    export = self._prepare()
                error = export(items)
            except Exception as fault:
                error = f"{type(fault).__name__}: {fault}"
                log.debug("an export failed", exc_info=True)
            self._counts.add(SENT if error is None else FAILED, weight)
            if (error is None) != (self.error is None):
                if error is not None:
                    log.warning("%s cannot be sent: %s", self.signal, error)
                else:
                    log.info("%s are sent again", self.signal)
            self.error = error

    def _take(self) -> tuple[list[T], int] | None:
        """The next batch, once it is full or old enough; None at the end."""
        with self._changed:
            while True:
                now = time.monotonic()
                if self._closing is not None and (not self._items or now >= self._closing):
                    self._drop_all()
                    return None
                due = self._items[0][3] + self._interval if self._items else None
                if self.waiting >= self._batch or self._closing is not None:
                    break
                if due is not None and now >= due:
                    break
                self._changed.wait(None if due is None else due - now)
            items: list[T] = []
            weight = 0
            while self._items and (not items or weight + self._items[0][1] <= self._batch):
                item, count, size, _ = self._items.popleft()
                items.append(item)
                weight += count
                self._bytes -= size
            self.waiting -= weight
            return items, weight
