"""Open units of assignment: all records of a unit form one observation.

A unit is closed when no record of it has arrived for a while, or when too many units are open. A
unit that returns later counts as another one; if units return for days, the interval is slightly
too narrow, which is documented.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from understudy.shadow.experiment import Units
from understudy.shadow.state import Config, Count, Saved, Stateful

IDLE_SECONDS = 1800.0
MAX_OPEN = 5_000


@dataclass(slots=True)
class OpenUnit:
    """A unit with records so far.

    ``arm`` is its index within the experiment, 0 is the champion. ``sums`` are (sum, count) by
    column. ``at`` is the unix time of the last record.
    """

    state_as_list: ClassVar[bool] = True

    arm: Count
    at: float
    sums: dict[str, tuple[float, int]] = field(default_factory=dict)


class OpenUnits(Stateful):
    """Sums and counts per unit, least recently used first.

    ``idle`` is the time in seconds after which a unit is closed, ``limit`` the largest number of
    open units.
    """

    _idle: Config[float]
    _limit: Config[int]
    _open: Saved[OrderedDict[str, OpenUnit]]

    def __init__(self, idle: float = IDLE_SECONDS, limit: int = MAX_OPEN) -> None:
        self._idle = idle
        self._limit = limit
        self._open = OrderedDict()

    def __len__(self) -> int:
        return len(self._open)

    def add(self, unit: str, arm: int, at: float, values: Mapping[str, float]) -> list[OpenUnit]:
        """Add a record; returns the units closed for it, such as a unit that changed its arm."""
        closed = []
        known = self._open.pop(unit, None)
        if known is not None and known.arm != arm:
            closed.append(known)
            known = None
        if known is None:
            known = OpenUnit(arm, at)
        known.at = at
        for name, value in values.items():
            if value == value:
                total, n = known.sums.get(name, (0.0, 0))
                known.sums[name] = (total + value, n + 1)
        self._open[unit] = known
        if len(self._open) > self._limit:
            closed.append(self._open.popitem(last=False)[1])
        return closed

    def expired(self, now: float) -> list[OpenUnit]:
        """Close and return the units that have been idle for too long."""
        closed = []
        while self._open:
            unit, oldest = next(iter(self._open.items()))
            if now - oldest.at < self._idle:
                break
            closed.append(oldest)
            del self._open[unit]
        return closed

    def all(self) -> list[OpenUnit]:
        """Close and return every one."""
        closed = list(self._open.values())
        self._open.clear()
        return closed


def closed_units(closed: list[OpenUnit], share: float) -> Units:
    """Closed units as one batch."""
    names = sorted({name for item in closed for name in item.sums})
    return Units(
        np.array([float(item.arm > 0) for item in closed]),
        np.full(len(closed), share),
        {
            name: (
                np.array([item.sums.get(name, (0.0, 0))[0] for item in closed]),
                np.array([float(item.sums.get(name, (0.0, 0))[1]) for item in closed]),
            )
            for name in names
        },
    )
