"""The store as the evaluation plane uses it: its own thread, a bounded queue, figures to show."""

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
    """Offers of predictions never wait; what finds no room is dropped and counted, oldest first.

    ``after`` is the number of the last joined pair in the saved state. Trouble with the file is
    logged, shown and counted, and every call tries anew.
    """

    def __init__(
        self,
        state_dir: Path,
        horizon: float,
        max_bytes: int,
        max_rows: int = MOST_ROWS,
        after: int = 0,
    ) -> None:
        self.store = FeedbackStore(state_dir, horizon, max_bytes, max_rows, after)
        self.dropped = 0
        self.error: str | None = None
        """Why the file cannot be used at present."""
        self.listeners: list[Callable[[Sequence[Label], float], None]] = []
        """Told of labels that were taken, and when."""
        self.before_flush: Callable[[], None] | None = None
        """Makes the evaluation offer the predictions that it still holds."""
        self._pending: deque[Prediction] = deque()
        self._thread = ThreadPoolExecutor(1, "feedback")
        self._closed = False
        try:
            self.store.open()
        except StateError as error:
            self._trouble(error)
        self._figures = self.store.figures()

    def configure(self, horizon: float, max_bytes: int, max_rows: int) -> None:
        """Go on with other bounds; they count from the next purge on."""
        self.store.horizon, self.store.max_bytes = horizon, max_bytes
        self.store.max_rows = max_rows

    def offer(self, prediction: Prediction) -> None:
        """A prediction that may get a label."""
        if len(self._pending) >= MOST_WAITING:
            self._pending.popleft()
            self.dropped += 1
        self._pending.append(prediction)

    async def flush(self) -> bool:
        """Have on disk what was offered so far; False when that failed, and it is kept."""
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
        """Keep labels; what became of each. Raises StateError, and none has been taken then."""
        # A label may be as quick as the prediction's way to the disk.
        await self.flush()
        now = time.time()
        outcomes = await self._call(lambda: self.store.add_labels(labels, now))
        for listener in self.listeners:
            listener(labels, now)
        return outcomes

    async def take(self, after: int) -> list[Joined]:
        """Joined pairs with a number above ``after``. Raises StateError."""
        return await self._call(lambda: self.store.take(after))

    async def tidy(self, saved_seq: int) -> None:
        """Release what is part of a saved state, and purge."""

        def tidy() -> None:
            self.store.release(saved_seq)
            self.store.purge(time.time())

        with contextlib.suppress(StateError):  # logged and shown; it is tried again
            await self._call(tidy)

    def summary(self) -> dict[str, Any]:
        """What became of labels, how late they came, what waits at present, and trouble."""
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
            log.warning("%s: can be used again", self.store.path)
            self.error = None
        return result

    def _trouble(self, error: StateError) -> None:
        if self.error is None:
            log.error("%s; feedback waits, all else goes on", error)
        self.error = str(error)
