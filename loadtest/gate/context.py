"""What stages use: the plan, the target, the payloads, and a way to drive load."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Generic, Protocol, TypeVar

from understudy.loadtest.engine.outcome import Outcome
from understudy.loadtest.engine.pool import Arrivals, Loop, Target, Watch, cores, drive
from understudy.loadtest.errors import LoadTestError
from understudy.loadtest.gate.plan import Objectives, Part, Plan, Stage
from understudy.loadtest.gate.preflight import preflight
from understudy.loadtest.gate.result import StageResult
from understudy.loadtest.gate.sending import (
    bytes_of,
    checks_of,
    not_looked_at,
    payloads_of,
    script_of,
)
from understudy.loadtest.gate.target import Address, address_of, allowed, target_of
from understudy.loadtest.payloads.checks import Checks
from understudy.loadtest.payloads.request import Payload


class Progress(Protocol):
    """Receives the progress of a gate."""

    def stage(self, stage: Stage, number: int, count: int) -> None:
        """A stage starts; it is ``number`` of ``count``."""

    def update(self, outcome: Outcome, elapsed: float, seconds: float) -> None:
        """More requests have ended; ``elapsed`` and ``seconds`` are of the stage."""

    def note(self, text: str) -> None:
        """Show a message."""

    def done(self, result: StageResult) -> None:
        """A stage has ended."""


class GateContext:
    """The plan, checked against the target at ``url``.

    ``source`` is the name of the plan in reports; ``show`` receives the progress; ``own`` confirms
    that a public address is yours; without ``judged``, results are shown and no stage is judged.
    Raises PlanError for an invalid plan and TargetError for a target that must not be loaded."""

    def __init__(
        self,
        plan: Plan,
        url: str,
        source: str,
        show: Progress,
        own: bool = False,
        judged: bool = True,
    ) -> None:
        if not judged:
            stages = [stage.model_copy(update={"judged": False}) for stage in plan.stages]
            plan = plan.model_copy(update={"stages": stages})
        self.judged = judged
        self.plan = plan
        self.url = url
        self.source = source
        self.show = show
        self.own = own
        self.address = address_of(url)
        allowed(self.address, own)
        self.payloads: list[Payload] = payloads_of(
            plan.payloads, plan.engine.seed, self.address.grpc
        )
        self.requests = bytes_of(self.payloads, self.address)
        self.script = script_of(self.payloads)
        self.checks = checks_of(plan.checks, plan.payloads, self.payloads)
        self.not_looked_at = not_looked_at(self.checks, len(self.payloads))
        self.target: Target = target_of(self.address, plan.engine)
        self.processes = plan.engine.processes or cores()
        self.earlier: StageResult | None = None
        """The first attempt of the stage that runs, if it did not decide and is repeated."""
        self._until = time.monotonic() + plan.limits.seconds
        self._others: tuple[list[Payload], Checks] | None = None
        """What is sent to targets by the other protocol."""

    @property
    def seconds_left(self) -> float:
        """Until the limit of the whole gate, in seconds."""
        return max(0.0, self._until - time.monotonic())

    def objectives(self, stage: Stage) -> Objectives:
        """The objectives of a stage, by default those of the plan."""
        return stage.objectives or self.plan.objectives

    def preflight(self, address: Address | None = None) -> None:
        """Raise TargetError if the target, or ``address``, gives no good response to a request."""
        address = address or self.address
        payloads, checks = self._for(address)
        preflight(
            target_of(address, self.plan.engine), f"{address.scheme}://{address.authority}",
            payloads, bytes_of(payloads, address),
            replace(checks),  # a used validator could not be sent to the sending processes
        )  # fmt: skip

    def _for(self, address: Address) -> tuple[list[Payload], Checks]:
        """Payloads and checks for a target, which may be asked by another protocol."""
        if address.grpc == self.address.grpc:
            return self.payloads, self.checks
        if self._others is None:
            plan = self.plan
            payloads = payloads_of(plan.payloads, plan.engine.seed, address.grpc)
            self._others = payloads, checks_of(plan.checks, plan.payloads, payloads)
        return self._others

    def drive(
        self,
        load: Arrivals,
        stop: Watch | None = None,
        seconds: float | None = None,
        timeout: float | None = None,
        address: Address | None = None,
    ) -> Outcome:
        """Drive ``load`` against the target, or ``address``, and show the progress.

        ``stop`` can end the load; ``seconds`` is the length to show; ``timeout`` of a request in
        seconds. Raises LoadTestError when the gate exceeds its limit of time, or cannot send.
        """
        length = load.seconds if seconds is None else seconds
        target, requests, checks = self.target, self.requests, self.checks
        if address is not None:
            payloads, checks = self._for(address)
            target, requests = target_of(address, self.plan.engine), bytes_of(payloads, address)
        if timeout is not None:
            target = replace(target, timeout=min(timeout, target.timeout))
        if isinstance(load, Loop):
            load = replace(load, most=self.plan.limits.rate)
        late = False

        def look(outcome: Outcome) -> bool:
            nonlocal late
            late = time.monotonic() > self._until
            return late or (stop is not None and stop(outcome))

        def progress(outcome: Outcome, elapsed: float) -> None:
            self.show.update(outcome, elapsed, length)

        script = self.script
        measured = drive(
            target, requests, load, checks, self.processes, look, progress, script=script
        )
        if late:
            limit = self.plan.limits.seconds
            raise LoadTestError(f"the gate takes longer than {limit:g} s (limits.seconds)")
        return measured


S = TypeVar("S", bound=Part)


def _no_more(settings: Part) -> list[str]:
    return []


def _lacks_nothing(gate: GateContext, stage: Stage, settings: Part) -> str:
    return ""


def _same(gate: GateContext, stage: Stage, settings: S, result: StageResult) -> S | None:
    return settings if result.late else None


def _nothing_to_check(gate: GateContext, stage: Stage, settings: Part) -> list[str]:
    return []


@dataclass(frozen=True, slots=True)
class StageKind(Generic[S]):
    """What a kind of stage declares about itself.

    ``settings`` is the model of its part of the plan. ``run`` runs one stage. ``check`` is called
    for all stages before any runs: it raises PlanError for what cannot be run, and returns notes
    for the report, as that a stage is too short for a verdict. ``lacks`` names what a stage needs
    that asks nothing, so that it could only pass by accident; an empty text where it asks
    something. ``again`` returns the settings with which an invalid stage is repeated, None if that
    would not help: by default the same, if the load generator was at fault. ``targets`` are the
    URLs of the other targets that a stage loads.
    """

    settings: type[S]
    run: Callable[[GateContext, Stage, S], StageResult]
    check: Callable[[GateContext, Stage, S], list[str]] = _nothing_to_check
    lacks: Callable[[GateContext, Stage, S], str] = _lacks_nothing
    again: Callable[[GateContext, Stage, S, StageResult], S | None] = _same
    targets: Callable[[S], list[str]] = _no_more
