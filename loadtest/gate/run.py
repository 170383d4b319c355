"""Runs a plan, stage by stage, and never forgets what was measured so far."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Protocol

from loadtest.engine.outcome import Outcome
from loadtest.engine.pool import Arrivals, Target, Watch, cores, drive
from loadtest.errors import LoadTestError
from loadtest.gate.environment import environment
from loadtest.gate.plan import Objectives, Plan, Stage
from loadtest.gate.result import Result, StageResult
from loadtest.gate.sending import bytes_of, checks_of, payloads_of
from loadtest.gate.stages.kinds import RUN, check
from loadtest.gate.target import Address, address_of, allowed, reachable, target_of
from loadtest.payloads.request import Payload


class Show(Protocol):
    """Told how it goes."""

    def stage(self, stage: Stage, number: int, count: int) -> None:
        """A stage begins."""

    def update(self, outcome: Outcome, elapsed: float, seconds: float) -> None:
        """Some more requests have ended."""

    def say(self, text: str) -> None:
        """Something that people should know."""

    def done(self, result: StageResult) -> None:
        """A stage is over."""


class Gate:
    """``own``: a public address is said to be one's own. Raises PlanError and TargetError for what
    cannot be run at all."""

    def __init__(self, plan: Plan, url: str, source: str, show: Show, own: bool = False) -> None:
        self.plan = plan
        self.url = url
        self.source = source
        self.show = show
        self.own = own
        self.address = address_of(url)
        allowed(self.address, own)
        self.payloads: list[Payload] = payloads_of(plan.payloads, plan.engine.seed)
        self.requests = bytes_of(self.payloads, self.address)
        self.checks = checks_of(plan.checks, self.payloads)
        self.target: Target = target_of(self.address, plan.engine)
        self.processes = plan.engine.processes or cores()
        check(self)

    def run(self) -> Result:
        """Everything; what goes wrong in the middle is part of the result."""
        result = Result(
            self.url, self.source, time.time(), environment(self.plan.engine.seed, self.url)
        )
        if self.processes == 1 and cores() == 1:
            result.notes.append("one sending process, since there are few cores to spare")
        until = time.monotonic() + self.plan.limits.seconds
        try:
            if not any(stage.kind == "cold_start" for stage in self.plan.stages):
                reachable(self.address)
            for number, stage in enumerate(self.plan.stages):
                if time.monotonic() > until:
                    result.broken = f"longer than {self.plan.limits.seconds:g} s (limits.seconds)"
                    break
                self.show.stage(stage, number + 1, len(self.plan.stages))
                found = self._stage(stage)
                result.stages.append(found)
                self.show.done(found)
                if stage.stop_on_fail and found.verdict in ("failed", "invalid"):
                    left = [one.name for one in self.plan.stages[number + 1 :]]
                    if left:
                        result.notes.append(f"left out after {stage.name}: {', '.join(left)}")
                    break
        except LoadTestError as error:
            result.broken = str(error)
        except KeyboardInterrupt:
            result.broken = "interrupted"
        return result

    def _stage(self, stage: Stage) -> StageResult:
        begun = time.monotonic()
        try:
            found = RUN[stage.kind](self, stage)
        except LoadTestError as error:
            found = StageResult(stage.name, stage.kind, "invalid", [str(error)])
        found.seconds = time.monotonic() - begun
        if not stage.judged and found.outcome is not None and found.outcome.count:
            found.verdict, found.why = "shown", []
        return found

    # For stages ---------------------------------------------------------------------------------

    def objectives(self, stage: Stage) -> Objectives:
        """Of a stage: its own, or those of the plan."""
        return stage.objectives or self.plan.objectives

    def drive(
        self,
        load: Arrivals,
        stop: Watch | None = None,
        seconds: float | None = None,
        timeout: float | None = None,
        address: Address | None = None,
    ) -> Outcome:
        """Load the target, or another address, and look on."""
        length = load.seconds if seconds is None else seconds
        target, requests = self.target, self.requests
        if address is not None:
            target, requests = (
                target_of(address, self.plan.engine),
                bytes_of(self.payloads, address),
            )
        if timeout is not None:
            target = replace(target, timeout=min(timeout, target.timeout))

        def progress(outcome: Outcome, elapsed: float) -> None:
            self.show.update(outcome, elapsed, length)

        return drive(target, requests, load, self.checks, self.processes, stop, progress)
