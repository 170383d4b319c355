"""Runs the feedback store for the evaluation plane: one thread, a bounded queue, a summary."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from understudy.monitor.errors import StateError
from understudy.monitor.labels.label import Label
from understudy.monitor.labels.store import MOST_ROWS, FeedbackStore, Joined, Prediction

log = logging.getLogger(__name__)

T = TypeVar("T")
MOST_WAITING = 50_000


class LabelService:
    """Feedback store in its own thread.

    :meth:`offer` never blocks: when the queue is full, the oldest predictions are dropped and
    counted. ``after`` is the number of the last joined pair in the saved state. Errors of the file
    are logged, counted and shown, and every call tries again.
    """

    def __init__(
        self,
        state_dir: Path,
        horizon: float,
        max_bytes: int,
        max_rows: int = MOST_ROWS,
        after: int = 0,
        settle: float = 0.0,
    ) -> None:
        self.store = FeedbackStore(state_dir, horizon, max_bytes, max_rows, after, settle)
        self.dropped = 0
        self.error: str | None = None
        """Why the file cannot be used now; None when it can."""
        self.listeners: list[Callable[[Sequence[Label], float], None]] = []
        """Called with accepted labels and the unix time of their arrival."""
        self.before_flush: Callable[[], None] | None = None
        """Called to make the evaluation offer the predictions that it still buffers."""
        self._pending: deque[Prediction] = deque()
        self._thread = ThreadPoolExecutor(1, "feedback")
        self._closed = False
        try:
            self.store.open()
        except StateError as error:
            self._trouble(error)
        self._figures = self.store.figures()

    def configure(self, horizon: float, max_bytes: int, max_rows: int, settle: float = 0.0) -> None:
        """Apply other limits, from the next purge on: seconds, bytes, rows, and seconds."""
        self.store.horizon, self.store.max_bytes = horizon, max_bytes
        self.store.settle = settle
        self.store.max_rows = max_rows

    def offer(self, prediction: Prediction) -> None:
        """Queue a prediction that may get a label."""
        if len(self._pending) >= MOST_WAITING:
            self._pending.popleft()
            self.dropped += 1
        self._pending.append(prediction)

    async def flush(self) -> bool:
        """Write queued predictions to disk; False when that failed, and they stay queued."""
        if self.before_flush is not None:
            self.before_flush()
        if not self._pending:
            return True
        batch = list(self._pending)
        self._pending.clear()
        try:
            await self._call(lambda: self.store.add_predictions(batch))
        except StateError:
            room = MOST_WAITING - len(self._pending)
            self.dropped += max(0, len(batch) - room)
            self._pending.extendleft(reversed(batch[-room:] if room > 0 else []))
            return False
        return True

    async def add(self, labels: Sequence[Label]) -> list[str]:
        """Store labels; returns the outcome of each. Raises StateError, with none stored."""
        # A label may arrive before its prediction is on disk.
        await self.flush()
        now = time.time()
        outcomes = await self._call(lambda: self.store.add_labels(labels, now))
        for listener in self.listeners:
            listener(labels, now)
        return outcomes

    async def take(self, after: int) -> list[Joined]:
        """Joined pairs with a number above ``after`` that are settled. Raises StateError."""
        now = time.time()
        return await self._call(lambda: self.store.take(after, now))

    async def tidy(self, saved_seq: int) -> None:
        """Delete joined pairs up to ``saved_seq``, which are in a saved state, and purge."""

        def tidy() -> None:
            self.store.release(saved_seq)
            self.store.purge(time.time())

        with contextlib.suppress(StateError):  # logged and shown; the next call tries again
            await self._call(tidy)

    def summary(self) -> dict[str, Any]:
        """Outcomes of labels, their delays, the numbers waiting now, and the last error."""
        return {
            **self._figures,
            "queued": len(self._pending),
            "dropped": self.dropped,
            "failures": self.store.failures,
            "error": self.error,
        }

    async def close(self) -> None:
        """Flush and close."""
        await self.flush()
        with contextlib.suppress(StateError):
            await self._call(self.store.close)
        self._closed = True
        self._thread.shutdown()

    async def _call(self, do: Callable[[], T]) -> T:
        if self._closed:
            raise StateError("the service is stopping")

        def work() -> tuple[T, dict[str, Any]]:
            return do(), self.store.figures()

        try:
            result, self._figures = await asyncio.get_running_loop().run_in_executor(
                self._thread, work
            )
        except StateError as error:
            self._trouble(error)
            raise
        if self.error is not None:
            log.warning("%s: writable again", self.store.path)
            self.error = None
        return result

    def _trouble(self, error: StateError) -> None:
        if self.error is None:
            log.error("cannot store feedback: %s; other functions continue", error)
        self.error = str(error)
