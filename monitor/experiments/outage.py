"""Notices a challenger that serves and answers nothing any more, while the champion does.

No statistics are needed for that, and few would be possible: its circuit breaker sends almost all
of its requests to the champion, so little evidence comes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from understudy.monitor.evidence.columns import Floats
from understudy.shadow.experiment.fates import ANSWERED, LATE, OVERLOAD, UNREADABLE
from understudy.shadow.state import Config, Count, Saved, Stateful

LEAST = 20
"""Number of requests in a row without an answer below which nothing is concluded."""
_ANSWERS = (ANSWERED, LATE, UNREADABLE)


class Outage(Stateful):
    """The requests of one challenger since its last answer.

    ``down_after`` is how long no request may have been answered, in seconds.
    """

    down_after: Config[float]
    requests: Saved[Count]
    """Number of requests since the last answer."""
    _since: Saved[float]
    _last: Saved[float]
    _champion: Saved[float]
    """Unix times at which the first and the last of them started, and the last request that the
    champion answered."""

    def __init__(self, down_after: float) -> None:
        self.down_after = down_after
        self.requests = 0
        self._since = self._last = self._champion = 0.0

    def add(self, challenger: NDArray[np.bool_], fates: NDArray[np.int64], started: Floats) -> None:
        """Add requests in order of time; ``challenger`` marks those that were assigned to it."""
        answered = np.isin(fates, _ANSWERS)
        theirs = started[~challenger & answered]
        if theirs.size:
            self._champion = max(self._champion, float(theirs.max()))
        mine = challenger & (fates != OVERLOAD)  # those waited for our own connections
        times, own = started[mine], answered[mine]
        if not own.size:
            return
        silent = len(own) - (int(np.flatnonzero(own)[-1]) + 1 if own.any() else 0)
        if silent < len(own):
            self.requests = 0
        if silent:
            if not self.requests:
                self._since = float(times[-silent])
            self.requests += silent
            self._last = max(self._last, float(times[-1]))

    def clear(self) -> None:
        """Forget the requests so far: the weights have changed."""
        self.requests = 0

    def describe(self, name: str) -> str:
        """Why the challenger ``name`` is down; "" while it is not."""
        seconds = self._last - self._since
        if self.requests < LEAST or seconds < self.down_after or self._champion <= self._since:
            return ""
        return (
            f"{name} is down: none of its last {self.requests:,} requests was answered, for "
            f"{seconds:.0f} s, while the champion answered"
        )
