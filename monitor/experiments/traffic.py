"""How long a challenger has had traffic."""

from __future__ import annotations

import numpy as np

from understudy.monitor.evidence.columns import Floats
from understudy.shadow.state import Saved, Stateful

PAUSE = 60.0
"""Seconds between two requests up to which the time between them counts as time with traffic."""


class TrafficTime(Stateful):
    """The time between a challenger's requests, without pauses longer than :data:`PAUSE`.

    Faults that show only after a while, such as leaks, show under load. So a burst of requests
    before a silent hour is not an experiment of an hour. ``seconds`` never decreases.
    """

    seconds: Saved[float]
    _last: Saved[float]
    """Unix time of the last request; 0 before any."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._last = 0.0

    def add(self, started: Floats) -> None:
        """Add requests by the unix times at which they started, in seconds."""
        if not started.size:
            return
        times = np.maximum(np.sort(started), self._last)
        gaps = np.diff(times, prepend=self._last or times[0])
        self.seconds += float(np.minimum(gaps, PAUSE).sum())
        self._last = float(times[-1])
