"""What a fault did to the requests: how soon it showed, how deep it went, when it was over.

A request is *bad* when it failed or took longer than the limit. Degradation begins with the first
bad one that was due after the fault began, and lasts as long as the next bad one is due within a
second of the one before. A request counts from the moment at which it was due, so all of this is
exact to the distance of two requests.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from understudy.loadtest.engine.outcome import Outcome

APART = 1.0
"""Seconds without a bad request, after which it is over."""


@dataclass(frozen=True, slots=True)
class Recovery:
    """Seconds: ``detected_after`` from the begin of the fault until a client could know, the time
    of its answer or its limit; ``recovered_after`` from the end of the fault until the last bad
    request was due (negative: before the fault ended). None: it never showed, or it was not over
    when the load was. ``lost`` failed, ``slow`` took longer than the limit; ``depth`` is the share
    of bad ones among those that were due while it lasted."""

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
    """Of a fault from ``begin`` to ``end``, in seconds of the load, and a latency ``limit``."""
    bad = (~outcome.ok) | (outcome.latency > limit)
    due = outcome.due
    ended = due + outcome.latency
    # Requests that were on their way when the fault began are part of it.
    normal = outcome.latency[(ended < begin) & outcome.ok]
    first_after = int(np.searchsorted(due, begin))
    places = np.flatnonzero(bad & (ended >= begin))
    usual = float(np.quantile(normal, 0.99)) if len(normal) else None
    if not len(places):
        part = outcome.latency[first_after : int(np.searchsorted(due, end))]
        during = float(np.quantile(part, 0.99)) if len(part) else None
        return Recovery(None, 0.0, 0, 0, 0.0, len(part), None, usual, during, True)
    gaps = np.diff(due[places])
    breaks = np.flatnonzero(gaps > APART)
    # While the fault lasts a pause between bad requests ends nothing.
    breaks = breaks[due[places[breaks]] >= end]
    last = int(places[breaks[0]]) if len(breaks) else int(places[-1])
    first = int(places[0])
    known = np.minimum(outcome.latency[places], np.where(outcome.ok[places], limit, np.inf))
    detected = max(0.0, float((due[places] + known).min()) - begin)
    stretch = slice(first, last + 1)
    over = float(due[-1]) - float(due[last]) >= APART
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
    """Share of the error budget of a ``period`` in seconds that the fault took, at a usual rate of
    requests, for an ``objective`` of good ones as 0.999."""
    allowed = (1.0 - objective) * per_second * period
    return (found.lost + found.slow) / allowed if allowed > 0.0 else 0.0
