"""A closed loop over HTTP/2: users that wait for their responses before they send again."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import replace
from heapq import heappop, heappush

import numpy as np

from understudy.loadtest.engine.answer import Check
from understudy.loadtest.engine.http2_sender import Http2Sender
from understudy.loadtest.engine.recorder import FinishedRequests, Recorder
from understudy.loadtest.engine.sender import EARLY_NS, Endpoint
from understudy.loadtest.engine.stream import ReadStream
from understudy.loadtest.engine.timer import now_ns

_TICK_NS = 10_000_000
"""Between two looks at how late this process wakes up."""
_CATCH_UP_NS = 20_000_000
_PAUSE_NS = 50_000_000
"""After a query that failed: the target may be down, and a loop must not spin."""


class _Notifying(Recorder):
    """Calls ``after`` with each request that has ended, and whether it was good."""

    def __init__(self, after: Callable[[bool], None], streams: bool) -> None:
        super().__init__(streams)
        self._after = after

    def record(
        self,
        due: int,
        picked: int,
        sent: int,
        first_byte: int,
        ended: int,
        status: int,
        payload: int,
        error: str = "",
        stream: ReadStream | None = None,
    ) -> None:
        super().record(due, picked, sent, first_byte, ended, status, payload, error, stream)
        self._after(not error)


class Http2Users(Http2Sender):
    """``users`` send ``at_once`` requests each, wait for all responses, and repeat, until all
    together have sent ``queries`` (None: no limit), or :meth:`stop`. Queries start at least
    ``pace`` seconds apart. The moments that :meth:`run` takes do not matter.

    One user may send several requests at once, or many users one each. Raises ValueError for
    both, and as :class:`Sender` does.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        payloads: Sequence[bytes],
        check: Check | None = None,
        first: int = 0,
        stride: int = 1,
        *,
        users: int,
        at_once: int = 1,
        queries: int | None = None,
        pace: float = 0.0,
    ) -> None:
        super().__init__(endpoint, payloads, check, first, stride)
        if users > 1 and at_once > 1:
            raise ValueError("several users that send several requests at once are not supported")
        self._recorder = _Notifying(self._finished, self._streams is not None)
        self._users, self._at_once, self._remaining = users, at_once, queries
        self._pace_ns = int(pace * 1e9)
        self._next_start = 0
        self._starts: list[int] = []
        self._answered = 0
        """Requests of the current query that have ended."""
        self._good = False
        self._wakes = array("d")
        self._next_tick = 0

    def drain(self) -> FinishedRequests:
        """The requests that ended since the last call."""
        wakes, self._wakes = self._wakes, array("d")
        return replace(super().drain(), wakes=np.array(wakes, np.float64))

    def _advance(self) -> None:
        """The start: every user has a query to send."""
        self._next_start = self._next_tick = self._next = self._origin
        if not self._users or self._remaining == 0:
            self._exhausted = True
        for _ in range(self._users):
            self._plan(self._origin)

    def _plan(self, now: int) -> None:
        start = now
        if self._pace_ns:
            self._next_start = max(self._next_start + self._pace_ns, now - _CATCH_UP_NS)
            start = max(start, self._next_start)
        heappush(self._starts, start)

    def _finished(self, good: bool) -> None:
        self._good = good or (self._good and self._answered > 0)
        self._answered += 1
        if self._answered < self._at_once:
            return
        self._answered = 0
        if self._exhausted:
            return
        self._plan(now_ns() + (0 if self._good else _PAUSE_NS))
        self._next = min(self._next, self._starts[0])
        self._timer.set(self._next)

    def _send_due(self, now: int) -> None:
        if now >= self._next_tick:
            # A response that arrived while this process slept was recorded as late as that.
            self._wakes.append((now - self._next_tick) / 1e9)
            self._next_tick = now + _TICK_NS
        starts, count = self._starts, len(self._payloads)
        while starts and starts[0] <= now + EARLY_NS and not self._exhausted:
            heappop(starts)
            if self._remaining is not None:
                self._remaining -= 1
                self._exhausted = not self._remaining
            due = now_ns()
            for _ in range(self._at_once):
                payload = self._next_payload
                self._next_payload = (payload + self._stride) % count
                self._dispatch(payload, due, due)
        self._next = min(self._next_tick, starts[0]) if starts else self._next_tick
        self._timer.set(self._next)
