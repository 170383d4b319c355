"""Chooses the arm that serves a request of a split model.

Several experiments may split the requests of one model. Each has a slice of the units, by a hash
that depends on the model only, and divides its slice with a salt of its own: so a request is served
by at most one challenger, and the assignment in one experiment is independent of all others.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Sequence
from hashlib import blake2b
from time import monotonic, time
from typing import TYPE_CHECKING, Any, Final

from understudy.monitor.proxy.arm import Arm
from understudy.monitor.proxy.breaker import Breaker, success_of
from understudy.monitor.proxy.pointer import pointed, steps
from understudy.monitor.routing.plan import Breaker as BreakerSettings
from understudy.monitor.routing.plan import Split
from understudy.monitor.stats.shared import SharedStats
from understudy.shadow.assignment import OUT, POINTS, Allocation, point, threshold

if TYPE_CHECKING:
    from understudy.monitor.proxy.head import RequestHead

_LONGEST_UNIT: Final = 256
"""Longest unit in bytes that is kept as it is; a longer one is replaced by its digest."""
NO_UNIT = "no_unit"
NOT_JSON = "not_json"
BODY_TOO_LARGE = "body_too_large"
NOT_REWRITTEN = "not_rewritten"
UNASSIGNED = (NO_UNIT, NOT_JSON, BODY_TOO_LARGE, NOT_REWRITTEN)
"""Why a request could not be assigned."""


class Serving:
    """A challenger that serves clients: its connections, and its circuit breaker."""

    def __init__(self, arm: Arm, settings: BreakerSettings, stats: SharedStats) -> None:
        self.arm = arm
        self.settings = settings
        self.breaker = Breaker(settings)
        self._words = stats.words
        self._gauge = stats.gauge("serving_breaker", {"arm": arm.upstream.name})
        self._sink = stats.sink

    def report(self, outcome: int, epoch: int) -> None:
        """Report the outcome of a request that the breaker allowed."""
        self.breaker.report(success_of(outcome), monotonic(), epoch)

    def publish(self) -> None:
        """Update the gauges."""
        self._words[self._gauge] = self.breaker.state
        self.arm.publish()

    def retire(self) -> None:
        """Send no new requests to it."""
        self._words[self._gauge] = 0
        self.arm.retire()

    def forget(self, index: int) -> None:
        """The entry with this index is freed: the challenger is gone from the plan."""
        if index == self._gauge:
            self._gauge = self._sink


class Choice:
    """``arm`` serves the request, 0 is the champion. ``assigned`` is as in a record: the number of
    the arm that the unit belongs to, or 0 when the request is not part of an experiment. ``router``
    is that of the experiment that chose the arm."""

    __slots__ = ("arm", "assigned", "router", "unit")

    def __init__(
        self, arm: int = 0, assigned: int = 0, unit: bytes = b"", router: Router | None = None
    ) -> None:
        self.arm = arm
        self.assigned = assigned
        self.unit = unit
        self.router = router

    def diverted(self) -> None:
        """Count a request that the champion serves because the challenger's breaker is open."""
        if self.router is not None:
            self.router.diverted(self.arm)


class Router:
    """Assigns the units of one experiment. Pure but for its counters."""

    def __init__(self, split: Split, arms: tuple[str, ...], stats: SharedStats) -> None:
        self.split = split
        self.since = time()
        self._allocation = Allocation(split.starts, split.arms)
        # By name: when arms are added or removed, the same index may be another model server.
        owners = tuple("" if arm == OUT else arms[arm] for arm in split.arms)
        by = (split.unit, split.unit_name, split.salt, split.holdout)
        self.division = (split.experiment, by, split.first, split.slice, split.starts, owners)
        """What determines the assignment of units: while it is unchanged, ``since`` is, too."""
        salt = split.salt.encode()
        self._salt = blake2b(salt, digest_size=32).digest()
        self._holdout_salt = blake2b(salt, digest_size=32, person=b"holdout").digest()
        self._holdout = threshold(split.holdout)
        self.overrides = {unit.encode(): arm for unit, arm in split.overrides}
        """Arms of testers' units."""
        self._names = {name.encode(): index for index, name in enumerate(arms)}
        self.reachable = {0, *split.arms, *self.overrides.values()} - {OUT}
        self._exclude = [(name.encode(), value.encode()) for name, value in split.exclude]
        self._path = steps(split.unit_name) if split.unit == "pointer" else ()
        self._header = split.unit_name.encode().lower()
        self._cookie = split.unit_name.encode() + b"="
        self._override_header = (split.override_header or "").encode()
        self._stats = stats
        self._arm_names = arms
        self._experiment = split.experiment
        self.rewriting: list[Arm] = []
        """Arms that may serve and ask for the model by another name or version."""

    def names(self) -> dict[str, Any]:
        """Shares by arm, and since when, as JSON for the evaluation plane."""
        sizes = [self._allocation.size(arm) / POINTS for arm in range(len(self._arm_names))]
        return {
            "experiment": self._experiment,
            "model": self.split.model,
            "weights": sizes,
            "since": self.since,
            "epoch": self.split.epoch,
            "first": self.split.first,
        }

    def excludes(self, head: RequestHead) -> bool:
        """Whether a header excludes the request from this experiment."""
        return any(value in values(head.lines, name) for name, value in self._exclude)

    def by_header(self, head: RequestHead) -> Choice | None:
        """The arm that a tester's header names; None if it names no arm of this experiment."""
        if not self._override_header:
            return None
        arm = self._names.get(field(head.lines, self._override_header), -1)
        return Choice(arm, router=self) if arm in self.reachable else None

    def assign(self, unit: bytes) -> Choice:
        """The arm of a unit of this experiment's slice."""
        if self._holdout and point(self._holdout_salt, unit) < self._holdout:
            return Choice(0, 0, unit)
        arm = self._allocation.arm(point(self._salt, unit))
        if arm == OUT:
            return Choice(0, 0, unit)
        return Choice(arm, self.split.first + arm, unit, self)

    def unassigned(self, reason: str) -> None:
        """Count a request that could not be assigned and went to the champion."""
        labels = {"experiment": self._experiment, "reason": reason}
        self._stats.words[self._stats.counter("unassigned", labels)] += 1

    def diverted(self, arm: int) -> None:
        """Count a request that the champion serves because the breaker of ``arm`` is open."""
        labels = {"experiment": self._experiment, "arm": self._arm_names[arm]}
        self._stats.words[self._stats.counter("diverted", labels)] += 1

    def unit(self, head: RequestHead, proxy_id: int, body: bytes) -> bytes:
        """The unit of a request; empty without one. Raises ValueError or RecursionError for a body
        that is not readable JSON."""
        by = self.split.unit
        if by == "request":
            return b"%016x" % proxy_id
        if by == "header":
            return field(head.lines, self._header)
        if by == "cookie":
            for line in head.lines:
                if line[:7].lower() == b"cookie:":
                    for part in line[7:].split(b";"):
                        if part.strip().startswith(self._cookie):
                            return part.strip()[len(self._cookie) :]
            return b""
        return pointed(json.loads(body), self._path) if body else b""


class Traffic:
    """The requests of one model, divided among its experiments; they assign the same kind of
    unit, and their slices do not overlap."""

    def __init__(self, model: str, routers: Sequence[Router]) -> None:
        self.routers = tuple(routers)
        self.needs_body = routers[0].split.unit == "pointer"
        self._excluding = any(router.split.exclude for router in routers)
        self._by_header = any(router.split.override_header for router in routers)
        self._listed: dict[bytes, tuple[int, Router]] = {}
        """Testers' units: the arm, and the experiment that sends them there."""
        for router in reversed(routers):
            self._listed |= {unit: (arm, router) for unit, arm in router.overrides.items()}
        self._salt = blake2b(model.encode(), digest_size=32, person=b"slice").digest()
        self._starts, self._owners = _slices(routers)
        self._sliced = len(self._owners) > 1

    @property
    def rewrites(self) -> bool:
        """Whether requests to one of the arms name another model in their bodies."""
        return any(router.rewriting for router in self.routers)

    def choose(self, head: RequestHead, proxy_id: int, body: bytes, unread: str = "") -> Choice:
        """Choose the arm of a request.

        ``proxy_id`` is the unit of a request that is one by itself: the client cannot choose it.
        ``body`` is the complete body if the unit is in it; ``unread`` is the reason why it is
        missing. Requests without a readable unit are counted.
        """
        routers = self.routers
        if self._excluding:
            routers = tuple(router for router in routers if not router.excludes(head))
            if not routers:
                return Choice()
        if self._by_header:
            for router in routers:
                named = router.by_header(head)
                if named is not None:
                    return named
        unit = b""
        reason = unread or NO_UNIT
        if not unread:
            try:
                unit = routers[0].unit(head, proxy_id, body)
            except (ValueError, RecursionError):
                reason = NOT_JSON
        if not unit:
            for router in routers:
                router.unassigned(reason)
            return Choice()
        listed = self._listed.get(unit) if self._listed else None
        if len(unit) > _LONGEST_UNIT:
            unit = blake2b(unit, digest_size=32).hexdigest().encode()
        if listed is not None and listed[1] in routers:
            return Choice(listed[0], 0, unit, listed[1])
        owner = self._owners[0]
        if self._sliced:
            owner = self._owners[bisect_right(self._starts, point(self._salt, unit)) - 1]
        if owner is None or (self._excluding and owner not in routers):
            return Choice(0, 0, unit)
        return owner.assign(unit)


def _slices(routers: Sequence[Router]) -> tuple[list[int], list[Router | None]]:
    """Where slices begin, and the experiment to which each belongs; None for units that belong to
    none. Of two that overlap, the first keeps its units."""
    edges = sorted({0, *(edge for router in routers for edge in router.split.slice)} - {POINTS})
    owners = [
        next((r for r in routers if r.split.slice[0] <= edge < r.split.slice[1]), None)
        for edge in edges
    ]
    return edges, owners


def values(lines: list[bytes], name: bytes) -> list[bytes]:
    """The values of all fields ``name`` (lower case), in order."""
    length = len(name)
    return [
        line[length + 1 :].strip(b" \t")
        for line in lines
        if line[length : length + 1] == b":" and line[:length].lower() == name
    ]


def field(lines: list[bytes], name: bytes) -> bytes:
    """The value of the first field ``name`` (lower case), empty if there is none."""
    length = len(name)
    for line in lines:
        if line[length : length + 1] == b":" and line[:length].lower() == name:
            return line[length + 1 :].strip(b" \t")
    return b""
