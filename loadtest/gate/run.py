"""Runs a plan stage by stage; results so far survive errors."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from understudy.loadtest.engine.outcome import Outcome
from understudy.loadtest.engine.pool import cores
from understudy.loadtest.errors import GeneratorError, LoadTestError, TargetError
from understudy.loadtest.gate.context import GateContext, Progress
from understudy.loadtest.gate.environment import environment
from understudy.loadtest.gate.plan import Plan, Stage
from understudy.loadtest.gate.result import Result, StageResult
from understudy.loadtest.gate.stages.kinds import KINDS, check
from understudy.loadtest.gate.target import address_of, reachable
from understudy.loadtest.gate.verdict import nothing_good

_BUSY = 0.6
"""Share of the time of a sending process on a CPU from which on it is the bottleneck."""


class Gate(GateContext):
    """Runs a plan against a target.

    ``plan`` is what :func:`load_plan` returns, ``url`` the target, ``source`` the name of the plan
    in reports, ``show`` receives the progress; ``own`` confirms that a public address is yours;
    without ``judged``, results are shown without a verdict. Raises PlanError and TargetError
    for what cannot be run at all, and PlanError for a plan that could only pass by accident.

    >>> from pathlib import Path
    >>> from understudy.loadtest.gate.plan_file import plan_of
    >>> from understudy.loadtest.gate.show import SilentProgress
    >>> plan = plan_of(
    ...     {"version": 1, "objectives": {"p99": "50ms"},
    ...      "payloads": {"template": {"instances": [[1.0]]}},
    ...      "stages": [{"name": "steady", "load": {"rate": 100, "seconds": 60}}]},
    ...     Path("."), "example")
    >>> gate = Gate(plan, "http://127.0.0.1:8080", "example", SilentProgress())
    >>> gate.target.port, len(gate.requests) > 0  # gate.run() would load it
    (8080, True)
    """

    def __init__(
        self,
        plan: Plan,
        url: str,
        source: str,
        show: Progress,
        own: bool = False,
        judged: bool = True,
    ) -> None:
        super().__init__(plan, url, source, show, own, judged)
        self._target_down = ""
        self.notes = [self.not_looked_at] if self.not_looked_at else []
        self.notes += check(self)

    def run(self, keep: Callable[[Result], None] | None = None) -> Result:
        """Run all stages; errors are part of the result. ``keep`` receives the result so far after
        each stage."""
        result = Result(
            self.url, self.source, time.time(), environment(self.plan.engine.seed, self.url),
            judged=self.judged,
        )  # fmt: skip
        result.notes += self.notes
        if self.processes == 1 and cores() == 1:
            result.notes.append("one sending process, because few cores are available")
        if self.not_looked_at:
            self.show.note(self.not_looked_at)
        until = self._until = time.monotonic() + self.plan.limits.seconds
        try:
            begun = False
            for number, stage in enumerate(self.plan.stages):
                if time.monotonic() > until:
                    result.broken = f"longer than {self.plan.limits.seconds:g} s (limits.seconds)"
                    break
                if not begun and stage.kind != "cold_start":
                    begun = True
                    self._preflight_all()
                self.show.stage(stage, number + 1, len(self.plan.stages))
                results = self._stage(stage)
                result.stages.append(results)
                self.show.done(results)
                if keep is not None:
                    keep(result)
                if self._target_down:
                    result.broken = self._target_down
                    break
                if stage.stop_on_fail and results.verdict not in ("passed", "shown"):
                    left = [one.name for one in self.plan.stages[number + 1 :]]
                    if left:
                        result.notes.append(f"skipped after {stage.name}: {', '.join(left)}")
                    break
        except LoadTestError as error:
            result.broken = str(error)
        except KeyboardInterrupt:
            result.broken = "interrupted"
        return result

    def _preflight_all(self) -> None:
        self.preflight()
        for stage in self.plan.stages:
            for url in KINDS[stage.kind].targets(stage.settings):
                self.preflight(address_of(url))

    def _stage(self, stage: Stage) -> StageResult:
        result, measured = self._attempt(stage, stage.settings)
        if stage.judged and result.verdict == "invalid" and not self._target_down:
            result = self._repeat(stage, result)
        if not stage.judged and measured:
            result.verdict, result.why = "shown", []
        return result

    def _attempt(self, stage: Stage, settings: Any) -> tuple[StageResult, bool]:
        """Run a stage; the result, and whether anything of the model was measured."""
        begun = time.monotonic()
        try:
            result = KINDS[stage.kind].run(self, stage, settings)
            unseen = nothing_good(result.outcome) if result.outcome is not None else ""
        except GeneratorError as error:
            result = StageResult(stage.name, stage.kind, "invalid", [str(error)], late=True)
            unseen = ""
        except LoadTestError as error:
            result, unseen = StageResult(stage.name, stage.kind, "not measured"), str(error)
        result.seconds = time.monotonic() - begun
        if unseen:
            result.verdict, result.why = "not measured", [unseen]
        self._check_target(stage, result)
        return result, not unseen and not (result.late and result.outcome is None)

    def _repeat(self, stage: Stage, first: StageResult) -> StageResult:
        """Repeat an invalid stage once, with what the first attempt has shown; both attempts are in
        the report."""
        settings = KINDS[stage.kind].again(self, stage, stage.settings, first)
        if settings is None or first.seconds > self.seconds_left:
            return first
        processes = self.processes
        if first.late and first.outcome is not None:
            self.processes = _processes(processes, first.outcome)
        changed = [f"{self.processes} instead of {processes} sending processes"]
        changed *= self.processes != processes
        changed += [
            f"{name}: {getattr(settings, name):g} instead of {getattr(stage.settings, name):g}"
            for name in type(settings).model_fields
            if getattr(settings, name) != getattr(stage.settings, name)
        ]
        self.show.done(first)
        number = self.plan.stages.index(stage) + 1
        self.show.stage(stage, number, len(self.plan.stages))
        self.earlier = None if first.late else first
        self.show.note("invalid: repeated once" + "".join(f", {one}" for one in changed))
        try:
            result, _ = self._attempt(stage, settings)
        finally:
            self.earlier = None
        result.earlier, result.repeated = first, "; ".join(changed)
        if result.late:
            self.processes = processes
        return result

    def _check_target(self, stage: Stage, found: StageResult) -> None:
        """Mark a stage as invalid if the target went down during it."""
        outcome = found.outcome
        if stage.kind == "cold_start" or (outcome is not None and outcome.count and outcome.ok[-1]):
            return
        try:
            reachable(self.address)
        except TargetError as error:
            good = np.flatnonzero(outcome.ok) if outcome is not None else np.zeros(0)
            when = "before its first response"
            if outcome is not None and len(good):
                when = f"after {float(outcome.due[good[-1]]):.1f} s of this stage"
            self._target_down = f"the target went down {when}: {error}"
            # A chaos stage tests recovery, so its failure remains a failure.
            kept = found.verdict == "not measured" or stage.kind == "chaos"
            if not kept or found.verdict == "passed":
                found.verdict = "invalid"
            found.why = [self._target_down, *found.why]


def _processes(now: int, outcome: Outcome) -> int:
    """How many sending processes to try after ``now`` of them were late: fewer, so that they do not
    wait for each other, unless they were themselves busy and there are cores for more."""
    used = outcome.cpu_seconds / (outcome.seconds * now) if outcome.seconds else 0.0
    if used < _BUSY:
        return max(1, now // 2)
    return max(now, min(2 * now, cores()))
