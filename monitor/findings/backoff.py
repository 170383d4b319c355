"""Exponential back-off with jitter."""

from __future__ import annotations

import random


class Backoff:
    """Waits ``first`` seconds after a failure, doubled with each further one up to ``longest``.

    Random jitter shortens each wait by up to a half, so that clients that failed together do not
    return together. The time is passed in, from any clock in seconds.
    """

    def __init__(
        self, first: float = 1.0, longest: float = 300.0, rng: random.Random | None = None
    ) -> None:
        self.first = first
        self.longest = longest
        self.failures = 0
        self.until: float | None = None
        """Time of the next attempt; None when it may be made at once."""
        self._rng = rng or random.Random()  # noqa: S311  # spreads retries

    def ready(self, now: float) -> bool:
        """Whether an attempt may be made at ``now``."""
        # After the clock was set back, no wait is longer than the longest one.
        return self.until is None or now >= self.until or self.until - now > self._limit

    @property
    def _limit(self) -> float:
        return 2.0 * self.longest

    def failed(self, now: float, at_least: float = 0.0) -> float:
        """Record a failure at ``now``; returns the seconds to wait. ``at_least`` is the wait that
        the server asked for, honoured up to twice ``longest``."""
        self.failures += 1
        wait = min(self.longest, self.first * 2.0 ** min(self.failures - 1, 30))
        wait *= 1.0 - 0.5 * self._rng.random()
        wait = max(wait, min(at_least, self._limit))
        self.until = now + wait
        return wait

    def succeeded(self) -> None:
        """Record a success: the next failure counts as the first."""
        self.failures = 0
        self.until = None
