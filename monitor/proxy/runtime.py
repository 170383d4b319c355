"""The runtime objects of a plan: pools, routes and mirrors. A new plan creates a new runtime;
exchanges in flight keep the one they started with, and unchanged parts are carried over."""

from __future__ import annotations

import asyncio
from random import Random

from understudy.monitor.proxy.arm import Arm
from understudy.monitor.proxy.handoff import HandOff
from understudy.monitor.proxy.memory import Memory
from understudy.monitor.proxy.mirror import Mirror
from understudy.monitor.proxy.protocols import Timed
from understudy.monitor.proxy.resolver import Resolver
from understudy.monitor.proxy.routes import Routes
from understudy.monitor.proxy.split import Router, Serving, Traffic
from understudy.monitor.proxy.tracing import Tracer
from understudy.monitor.proxy.turns import Turns
from understudy.monitor.proxy.wall import WallClock
from understudy.monitor.routing.plan import Plan, live_labels
from understudy.monitor.stats.shared import SharedStats

_UNITS = 256
_MIRROR_UNITS = 256
_REFUSED_UNITS = 64
"""Work in a turn of the event loop for clients and their responses, for mirrored responses, and for
what clients still send after they were refused, where one unit is about a microsecond: what a
request waits for at most, beside other requests."""
_PAUSE = 0.001
"""Seconds between turns of mirrored responses, and of what clients send after they were refused, so
that they leave most of the time to clients."""


class Runtime:
    """Everything an exchange needs; ``active`` holds what is in flight, shared by all runtimes."""

    def __init__(
        self,
        plan: Plan,
        stats: SharedStats,
        handoff: HandOff,
        active: set[Timed],
        random: Random,
        loop: asyncio.AbstractEventLoop,
        before: Runtime | None = None,
    ) -> None:
        self.routes: Routes = Routes(
            plan, stats, before.routes if before is not None else None, self._tell_names
        )
        # First, so that the entries of what is gone can be used again.
        stats.retire(live_labels(plan, self.routes.known))
        self.plan = plan
        self._stats = stats
        self.words = stats.words
        self.handoff = handoff
        self.active = active
        self.random_bits = random.getrandbits
        self.tracer = Tracer(plan.tracing, random.getrandbits) if plan.tracing is not None else None
        self.capture_limit = plan.capture.max_body_bytes
        self.head_limit = plan.limits.head_bytes
        self.target_limit = plan.limits.target_bytes
        self.body_limit = plan.limits.body_bytes
        self.lines_limit = 1 + plan.limits.header_lines
        self.turns: Turns = before.turns if before is not None else Turns(loop, _UNITS)
        self.mirror_turns: Turns = (
            before.mirror_turns if before is not None else Turns(loop, _MIRROR_UNITS, _PAUSE)
        )
        self.refused_turns: Turns = (
            before.refused_turns if before is not None else Turns(loop, _REFUSED_UNITS, _PAUSE)
        )
        self.wall: WallClock = before.wall if before is not None else WallClock()
        self.resolver: Resolver = before.resolver if before is not None else Resolver(loop)
        memory = before.memory if before is not None else Memory(plan.limits.memory_bytes)
        memory.limit = plan.limits.memory_bytes
        self.memory: Memory = memory
        self.champion: Arm
        if before is not None and before.plan.champion == plan.champion:
            self.champion = before.champion
        else:
            self.champion = Arm(
                0, plan.champion, "primary", stats, loop, self.turns, memory, self.resolver
            )
        mirrors = (
            {(m.challenger, m.arm.index): m for m in before.mirrors}
            if before is not None and before.plan.sample_salt == plan.sample_salt
            else {}
        )
        salt = plan.sample_salt.encode()[:64]
        self.mirrors: list[Mirror] = [
            mirrors.get((challenger, index))
            or Mirror(
                index, challenger, salt, stats, loop, self.mirror_turns, memory, self.resolver
            )
            for index, challenger in enumerate(plan.challengers, start=1)
        ]
        serving = before.serving if before is not None else {}
        self.serving: dict[int, Serving] = {}
        """Challengers that serve clients, by arm index."""
        for index, challenger in enumerate(plan.challengers, start=1):
            upstream = challenger.serving
            if upstream is None:
                continue
            old = serving.get(index)
            if old is None or (old.arm.upstream, old.settings) != (upstream, challenger.breaker):
                arm = Arm(
                    index, upstream, "primary", stats, loop, self.turns, memory, self.resolver
                )
                old = Serving(arm, challenger.breaker, stats)
            self.serving[index] = old
        routers = [Router(split, plan.arms, stats) for split in plan.splits]
        if before is not None:
            since = {
                router.division: router.since
                for traffic in before.traffic.values()
                for router in traffic.routers
            }
            for router in routers:
                router.since = since.get(router.division, router.since)
        self.traffic: dict[int, Traffic] = {}
        """By index of a model whose requests are split."""
        for model in dict.fromkeys(split.model for split in plan.splits):
            name = plan.models[model].name if model < len(plan.models) else ""
            mine = [router for router in routers if router.split.model == model]
            for router in mine:
                arms = [self.serving[arm].arm for arm in router.reachable if arm in self.serving]
                router.rewriting = [arm for arm in arms if arm.upstream.rewrite is not None]
            self.traffic[model] = Traffic(name, mine)
        # By runtime, and not by arm: an exchange keeps its runtime until it is over.
        others: list[Mirror | Serving] = [*self.mirrors, *self.serving.values()]
        self._holds = [stats.hold(self.champion.forget)]
        for one in others:
            self._holds += [stats.hold(one.forget), stats.hold(one.arm.forget)]
        self.faults = {fault.arm: fault for fault in plan.faults}
        handoff.limits = plan.handoff
        self._routers = routers
        self._tell_names()
        if before is not None:
            before._retire(self)

    def _tell_names(self) -> None:
        """Tell the evaluation plane what the indices in records mean."""
        self.handoff.name(
            {
                "generation": self.plan.generation,
                "models": [
                    {"name": m.name, "version": m.version, "protocol": m.protocol}
                    for m in self.routes.models
                ],
                "arms": list(self.plan.arms),
                "splits": [router.names() for router in self._routers],
            }
        )

    def tidy(self) -> None:
        """Free statistics of arms and models that were removed long ago."""
        self._stats.tidy()

    def _retire(self, successor: Runtime) -> None:
        self.routes.close()
        if self.champion is not successor.champion:
            self.champion.retire()
        for mirror in self.mirrors:
            if mirror not in successor.mirrors:
                mirror.retire()
        for index, serving in self.serving.items():
            if successor.serving.get(index) is not serving:
                serving.retire()

    def sweep(self, now: float) -> None:
        """Close idle connections, update the gauges, follow the wall clock; ``now`` is monotonic
        time in seconds."""
        self.wall.refresh()
        self.champion.pool.sweep(now)
        self.champion.publish()
        for mirror in self.mirrors:
            mirror.arm.pool.sweep(now)
            mirror.publish()
        for serving in self.serving.values():
            serving.arm.pool.sweep(now)
            serving.publish()

    def look_at_certificates(self, now: float) -> None:
        """Use the TLS files of model servers if they have changed; ``now`` as above."""
        self.champion.pool.look_at_certificates(now)
        for mirror in self.mirrors:
            mirror.arm.pool.look_at_certificates(now)
        for serving in self.serving.values():
            serving.arm.pool.look_at_certificates(now)
