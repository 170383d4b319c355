"""When to try again what has failed."""

from __future__ import annotations

import random


class Backoff:
    """Twice as long after each failure, up to ``most`` seconds, shortened by chance.

    The chance (up to a half) keeps many that failed together from coming back together. The time is
    passed in: any clock whose unit is the second will do.
    """

    def __init__(
        self, first: float = 1.0, most: float = 300.0, chance: random.Random | None = None
    ) -> None:
        self.first = first
        self.most = most
        self.failures = 0
        self.until: float | None = None
        """Not before that time; None when nothing stands in the way."""
        self._chance = chance or random.Random()

    def ready(self, now: float) -> bool:
        """Whether it may be tried."""
        # A clock that was set back must not keep it waiting for longer than it would ever wait.
        return self.until is None or now >= self.until or self.until - now > self._longest

    @property
    def _longest(self) -> float:
        return 2.0 * self.most

    def failed(self, now: float, at_least: float = 0.0) -> float:
        """It has failed at ``now``; how many seconds to wait. ``at_least`` is what the other side
        asked for, as far as that is no longer than twice ``most``."""
        self.failures += 1
        wait = min(self.most, self.first * 2.0 ** min(self.failures - 1, 30))
        wait *= 1.0 - 0.5 * self._chance.random()
        wait = max(wait, min(at_least, self._longest))
        self.until = now + wait
        return wait

    def worked(self) -> None:
        """It has worked: the next failure is the first one."""
        self.failures = 0
        self.until = None
