"""The effect of a fault on requests: time to detection, depth, time to recovery.

A request is *bad* when it failed or took longer than the limit. Degradation starts with the first
bad request that was due after the fault started, and lasts while the next bad request is due within
a second of the one before. Requests count from when they were due, so times are exact to the gap
between two requests.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from understudy.loadtest.engine.outcome import Outcome

QUIET_SECONDS = 1.0
"""Seconds without a bad request after which degradation is over."""


@dataclass(frozen=True, slots=True)
class Recovery:
    """Times are in seconds. ``detected_after``: from the start of the fault until a client can
    know, by a failed response or by the limit; None if no request was bad. ``recovered_after``:
    from the end of the fault until the last bad request was due (negative: before the end); None if
    requests were bad until the load ended. ``lost`` requests failed, ``slow`` ones exceeded the
    limit; ``depth`` is the share of bad requests while degradation lasted."""

    detected_after: float | None
    recovered_after: float | None
    lost: int
    slow: int
    depth: float
    requests: int
    worst: float | None
    normal_p99: float | None
    during_p99: float | None
    over: bool

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


def recovery(outcome: Outcome, begin: float, end: float, limit: float) -> Recovery:
    """The recovery of ``outcome`` from a fault between ``begin`` and ``end``, seconds from the
    start of the load; ``limit`` is a latency in seconds."""
    bad = (~outcome.ok) | (outcome.latency > limit)
    due = outcome.due
    ended = due + outcome.latency
    # Requests in flight when the fault started are part of it.
    normal = outcome.latency[(ended < begin) & outcome.ok]
    first_after = int(np.searchsorted(due, begin))
    indices = np.flatnonzero(bad & (ended >= begin))
    usual = float(np.quantile(normal, 0.99)) if len(normal) else None
    if not len(indices):
        part = outcome.latency[first_after : int(np.searchsorted(due, end))]
        during = float(np.quantile(part, 0.99)) if len(part) else None
        return Recovery(None, 0.0, 0, 0, 0.0, len(part), None, usual, during, True)
    gaps = np.diff(due[indices])
    breaks = np.flatnonzero(gaps > QUIET_SECONDS)
    # A gap between bad requests while the fault lasts does not end degradation.
    breaks = breaks[due[indices[breaks]] >= end]
    last = int(indices[breaks[0]]) if len(breaks) else int(indices[-1])
    first = int(indices[0])
    known = np.minimum(outcome.latency[indices], np.where(outcome.ok[indices], limit, np.inf))
    detected = max(0.0, float((due[indices] + known).min()) - begin)
    stretch = slice(first, last + 1)
    over = float(due[-1]) - float(due[last]) >= QUIET_SECONDS
    lost = int((~outcome.ok[stretch]).sum())
    wrong = int(bad[stretch].sum())
    return Recovery(
        detected,
        float(due[last]) - end if over else None,
        lost,
        wrong - lost,
        wrong / (last + 1 - first),
        last + 1 - first,
        float(outcome.latency[stretch].max()),
        usual,
        float(np.quantile(outcome.latency[stretch], 0.99)),
        over,
    )


def budget_burned(found: Recovery, objective: float, per_second: float, period: float) -> float:
    """Share of the error budget of ``period`` seconds that the fault consumed, at ``per_second``
    requests and an ``objective`` such as 0.999."""
    allowed = (1.0 - objective) * per_second * period
    return (found.lost + found.slow) / allowed if allowed > 0.0 else 0.0
