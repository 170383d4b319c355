"""Open-loop load, and the scenarios of LoadGen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadtest.engine.outcome import Outcome
from loadtest.engine.pool import Arrivals, Loop
from loadtest.gate.plan import Stage
from loadtest.gate.result import StageResult
from loadtest.gate.sending import load_of
from loadtest.gate.verdict import judge, reasons, together
from loadtest.scenarios.loadgen import Settings
from loadtest.scenarios.loadgen import judge as judge_loadgen

if TYPE_CHECKING:
    from loadtest.gate.run import Gate


def run_load(gate: Gate, stage: Stage) -> StageResult:
    """A stretch of open-loop load against the objectives."""
    assert stage.load is not None
    objectives = gate.objectives(stage)
    outcome = gate.drive(load_of(stage.load, gate.plan.engine, gate.plan.limits))
    criteria = judge(objectives, outcome)
    verdict = together(criteria)
    if not outcome.count:
        return StageResult(stage.name, stage.kind, "invalid", ["no request was sent"], criteria)
    return StageResult(stage.name, stage.kind, verdict, reasons(criteria), criteria, outcome)


def run_loadgen(gate: Gate, stage: Stage) -> StageResult:
    """A scenario of LoadGen, by its rules."""
    wanted = stage.loadgen
    assert wanted is not None
    settings = Settings(
        wanted.scenario, wanted.seconds, wanted.rate or 1.0, wanted.limit, wanted.queries,
        wanted.users, gate.plan.engine.seed,
        "PerformanceOnly" if wanted.mode == "performance" else "AccuracyOnly",
    )  # fmt: skip
    if wanted.mode == "accuracy":
        # Every payload once, held against what is expected of it.
        load: Arrivals = Loop(wanted.users, 1, len(gate.requests), wanted.seconds)
        outcome = gate.drive(load)
        right = 1.0 - outcome.failed / outcome.count if outcome.count else 0.0
        expected = gate.checks is not None and any(gate.checks.expected)
        data = {"loadgen": {"effective_test_mode": "AccuracyOnly", "accuracy": right}}
        result = StageResult(stage.name, stage.kind, "passed", [], [], outcome, data)
        if not expected:
            result.verdict = "invalid"
            result.why = ["no payload says what is expected of it: give bodies with expect"]
        elif outcome.failed:
            result.verdict = "failed"
            result.why = [f"{outcome.failed:,} of {outcome.count:,} answers are not as expected"]
        return result
    processes, gate.processes = gate.processes, 1
    try:
        outcome = gate.drive(settings.load(), seconds=wanted.seconds)
    finally:
        gate.processes = processes
    found = judge_loadgen(settings, outcome)
    result = StageResult(stage.name, stage.kind, "passed", list(found.why), [], outcome)
    result.data = {"loadgen": dict(found.fields), "log": found.log()}
    if outcome.failed or (wanted.limit is not None and _over(outcome, wanted.limit)):
        result.verdict = "failed"
    elif not found.valid:
        result.verdict = "invalid"
    return result


def _over(outcome: Outcome, limit: float) -> bool:
    return outcome.over(limit) > 0.01 * outcome.count
