"""The store as the evaluation plane uses it: its own thread, a bounded queue, figures to show."""

from __future__ import annotations

import asyncio
import logging
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from monitor.errors import StateError
from monitor.feedback.labels import Label
from monitor.feedback.store import FeedbackStore, Joined, Prediction

log = logging.getLogger(__name__)

T = TypeVar("T")
MOST_WAITING = 50_000
DELAYS = (1.0, 10.0, 60.0, 600.0, 3600.0, 6 * 3600.0, 86400.0, 3 * 86400.0, 7 * 86400.0)
"""Edges of the histogram of how late labels are, in seconds."""


class Feedback:
    """Offers of predictions never wait; what finds no room is dropped and counted, oldest first."""

    def __init__(self, state_dir: Path, horizon: float, max_bytes: int) -> None:
        self.store = FeedbackStore(state_dir, horizon, max_bytes)
        self.dropped = 0
        self.error: str | None = None
        """Why predictions cannot be kept at present."""
        self.delays: dict[str, list[int]] = {}
        """Labels by arm and delay: one count per edge of :data:`DELAYS`, and one beyond."""
        self.delay_sums: dict[str, float] = {}
        self._pending: deque[Prediction] = deque()
        self._thread = ThreadPoolExecutor(1, "feedback")
        self._waiting = self.store.waiting()

    def offer(self, prediction: Prediction) -> None:
        """A prediction that may get a label."""
        if len(self._pending) >= MOST_WAITING:
            self._pending.popleft()
            self.dropped += 1
        self._pending.append(prediction)

    async def flush(self) -> bool:
        """Have on disk what was offered so far; False when that failed, and it is kept."""
        batch = list(self._pending)
        self._pending.clear()
        if not batch:
            return self.error is None
        try:
            await self._call(lambda: self.store.add_predictions(batch))
        except StateError as error:
            if self.error is None:
                log.error("%s", error)
            self.error = str(error)
            room = MOST_WAITING - len(self._pending)
            self.dropped += max(0, len(batch) - room)
            self._pending.extendleft(reversed(batch[-room:] if room else []))
            return False
        self.error = None
        return True

    async def add(self, labels: Sequence[Label]) -> list[str]:
        """Keep labels; what became of each. Raises StateError."""
        # A label may be as quick as the prediction's way to the disk.
        await self.flush()
        return await self._call(lambda: self.store.add_labels(labels, time.time()))

    async def take(self, after: int) -> list[Joined]:
        """Joined pairs with a number above ``after``. Raises StateError."""
        found = await self._call(lambda: self.store.take(after))
        for one in found:
            counts = self.delays.setdefault(one.arm, [0] * (len(DELAYS) + 1))
            delay = max(0.0, one.received - one.started)
            counts[bisect_left(DELAYS, delay)] += 1
            self.delay_sums[one.arm] = self.delay_sums.get(one.arm, 0.0) + delay
        return found

    async def tidy(self, saved_seq: int) -> None:
        """Release what is part of a saved state, and purge."""

        def tidy() -> dict[str, int]:
            self.store.release(saved_seq)
            self.store.purge(time.time())
            return self.store.waiting()

        try:
            self._waiting = await self._call(tidy)
        except StateError as error:
            log.error("%s", error)

    def summary(self) -> dict[str, Any]:
        """Counts since this process began, and what waits at present."""
        return {
            "labels": dict(self.store.counts),
            "waiting": self._waiting,
            "dropped": self.dropped,
            "purged": dict(self.store.purged),
            "error": self.error,
            "delays": {
                arm: {
                    "count": sum(counts),
                    "mean_seconds": self.delay_sums[arm] / max(1, sum(counts)),
                    "up_to_seconds": dict(zip(map(str, (*DELAYS, "more")), counts, strict=True)),
                }
                for arm, counts in self.delays.items()
            },
        }

    async def close(self) -> None:
        """Flush and close."""
        await self.flush()
        await self._call(self.store.close)
        self._thread.shutdown()

    async def _call(self, do: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, do)
