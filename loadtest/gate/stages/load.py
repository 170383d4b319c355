"""The load stage (open loop), and the scenarios of LoadGen."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from understudy.common.fields import Seconds
from understudy.loadtest.engine.outcome import Outcome
from understudy.loadtest.engine.pool import Arrivals, Loop
from understudy.loadtest.gate.context import GateContext, StageKind
from understudy.loadtest.gate.plan import Load, NamedLong, Part, SendRate, Stage
from understudy.loadtest.gate.result import StageResult
from understudy.loadtest.gate.sending import load_of
from understudy.loadtest.gate.stream_words import stream_facts
from understudy.loadtest.gate.verdict import (
    Criterion,
    evaluate,
    generator_late,
    latency_limits,
    missed_already,
    needed,
    overall_verdict,
    pass_or_fail,
    reasons,
)
from understudy.loadtest.scenarios.loadgen import Settings
from understudy.loadtest.scenarios.loadgen import evaluate as evaluate_loadgen

_LOADGEN_SHARE = 0.99
_LONGER = 4.0
"""Largest factor by which a load that did not decide is longer when it is repeated."""


class LoadGen(Part):
    """A scenario of MLPerf LoadGen."""

    scenario: Literal["SingleStream", "MultiStream", "Server", "Offline"]
    seconds: NamedLong = 600.0
    rate: SendRate | None = None
    limit: Seconds | None = None
    queries: Annotated[int, Field(ge=1)] | None = None
    users: Annotated[int, Field(ge=1, le=10_000)] = 32
    mode: Literal["performance", "accuracy"] = "performance"

    @model_validator(mode="after")
    def _complete(self) -> LoadGen:
        if self.scenario == "Server" and (self.rate is None or self.limit is None):
            raise ValueError("Server needs rate and limit")
        return self


def run_load(gate: GateContext, stage: Stage, load: Load) -> StageResult:
    """Run an open-loop load, and evaluate the objectives."""
    objectives = gate.objectives(stage)
    if load.shape == "until-break":
        return _until_break(gate, stage, load)
    outcome = gate.drive(load_of(load, gate.plan.engine, gate.plan.limits))
    earlier = gate.earlier.outcome if gate.earlier is not None else None
    criteria = evaluate(objectives, outcome, earlier)
    verdict = overall_verdict(criteria)
    late = generator_late(outcome, latency_limits(objectives)) is not None
    why = reasons(criteria)
    result = StageResult(stage.name, stage.kind, verdict, why, criteria, outcome, late=late)
    result.facts = stream_facts(objectives, outcome)
    return result


def load_again(gate: GateContext, stage: Stage, load: Load, result: StageResult) -> Load | None:
    """The settings with which to repeat an invalid load: never at a lower rate, and longer where
    it is steady. None where it would not be decided even so."""
    if result.outcome is None or load.shape == "until-break":
        return load if result.late else None
    objectives = gate.objectives(stage)
    count, fewest = result.outcome.count, needed(objectives)
    if not result.late and (objectives.rule == "loadgen" or not count):
        return None  # LoadGen's rule is for one look
    longest = 1.0
    if load.shape in ("steady", "soak"):
        longest = min(_LONGER, gate.seconds_left / load.seconds)
    if not result.late and count * (1.0 + longest) < fewest:
        return None
    wanted = max(2.0, 1.5 * (fewest - count) / max(count, 1))
    longer = max(1.0, min(longest, wanted))
    return load.model_copy(update={"seconds": load.seconds * longer}) if longer > 1.0 else load


def _until_break(gate: GateContext, stage: Stage, load: Load) -> StageResult:
    """Increase the rate in steps until a step provably misses the objectives."""
    objectives = gate.objectives(stage)
    length = load.step_seconds

    def broken(outcome: Outcome) -> bool:
        step = int(outcome.complete // length)
        return missed_already(objectives, outcome.part(step * length, outcome.complete)) or (
            step > 0
            and missed_already(objectives, outcome.part((step - 1) * length, step * length))
        )

    outcome = gate.drive(load_of(load, gate.plan.engine, gate.plan.limits), stop=broken)
    first, last = load.rate or 0.0, load.to or 0.0
    rise = (last - first) / max(1, load.steps - 1)
    rows: list[dict[str, Any]] = []
    for number in range(load.steps):
        part = outcome.part(number * length, (number + 1) * length)
        if not part.count:
            break
        criteria = evaluate(objectives, part)
        late = generator_late(part, latency_limits(objectives)) is not None
        verdict = overall_verdict(criteria)
        why = "; ".join(reasons(criteria))
        rows.append({"rate": first + rise * number, "said": verdict, "why": why,
                     "p99": part.quantile(0.99), "failed": part.failed,
                     "late": late})  # fmt: skip
        if verdict == "failed":
            break
    good = [row["rate"] for row in rows if row["said"] == "passed"]
    bad = [row["rate"] for row in rows if row["said"] == "failed"]
    data = {"steps": rows, "holds": max(good, default=None), "breaks": bad[0] if bad else None}
    result = StageResult(stage.name, stage.kind, "shown", [], [], outcome, {"until_break": data})
    result.late = any(row["late"] for row in rows)
    held = f"{data['holds']:,.0f}/s held" if good else "no step was proven to hold"
    result.facts = [held + (f", {bad[0]:,.0f}/s failed" if bad else ", no step failed")]
    if load.at_least is not None:
        top = max(good, default=0.0)
        verdict = pass_or_fail(top >= load.at_least)
        why = f"the last step proven to hold was {top:,.0f}/s" if verdict != "passed" else ""
        # An invalid step may have held; only a failed step below it rules that out.
        unsure = [row for row in rows if row["said"] == "invalid" and row["rate"] >= load.at_least]
        if verdict == "failed" and (not bad or (unsure and bad[0] > load.at_least)):
            verdict = "invalid"
            why += f"; {unsure[0]['rate']:,.0f}/s: {unsure[0]['why']}" if unsure else ""
        result.criteria = [Criterion("holds per second", load.at_least, top, verdict, why)]
        result.verdict, result.why = verdict, reasons(result.criteria)
    return result


def run_loadgen(gate: GateContext, stage: Stage, declared: LoadGen) -> StageResult:
    """Run a scenario of LoadGen, and evaluate it by LoadGen's rules."""
    settings = Settings(
        declared.scenario, declared.seconds, declared.rate or 1.0, declared.limit, declared.queries,
        declared.users, gate.plan.engine.seed,
        "PerformanceOnly" if declared.mode == "performance" else "AccuracyOnly",
    )  # fmt: skip
    if declared.mode == "accuracy":
        # Every payload once, compared with its expected values.
        count = len(gate.requests)
        load: Arrivals = Loop(declared.users, 1, count, declared.seconds)
        processes = gate.processes
        gate.processes = min(processes, declared.users)  # each has some of the payloads
        try:
            outcome = gate.drive(load)
        finally:
            gate.processes = processes
        right = 1.0 - outcome.failed / outcome.count if outcome.count else 0.0
        expected = sum(map(bool, gate.checks.expected))
        evaluation = evaluate_loadgen(settings, outcome)
        shown = {
            k: v for k, v in evaluation.fields.items() if k.startswith(("effective_", "result_"))
            and k not in ("result_validity", "result_invalid_reason", "result_min_duration_met")
        }  # fmt: skip
        data: dict[str, Any] = {"loadgen": {**shown, "accuracy": right}, "log": evaluation.log()}
        result = StageResult(stage.name, stage.kind, "passed", [], [], outcome, data)
        if expected < count:
            result.verdict = "invalid"
            some = f"{count - expected:,} of {count:,} payloads have no" if expected else (
                "no payload has"
            )  # fmt: skip
            result.why = [f"{some} expected values: use payloads.bodies with expect"]
        elif outcome.failed:
            result.verdict = "failed"
            result.why = [f"{outcome.failed:,} of {outcome.count:,} responses are not as expected"]
        elif outcome.count < count:
            result.verdict = "invalid"
            result.why = [
                f"{outcome.count:,} of {count:,} payloads were sent in {declared.seconds:g} s: "
                "give it more seconds"
            ]
        return result
    processes, gate.processes = gate.processes, 1
    try:
        outcome = gate.drive(settings.load(), seconds=declared.seconds)
    finally:
        gate.processes = processes
    evaluation = evaluate_loadgen(settings, outcome)
    result = StageResult(stage.name, stage.kind, "passed", list(evaluation.why), [], outcome)
    result.data = {"loadgen": dict(evaluation.fields), "log": evaluation.log()}
    limit = declared.limit
    late = generator_late(outcome, {_LOADGEN_SHARE: limit}) if limit is not None else None
    result.late = late is not None
    if late is not None:
        result.criteria = [late.criterion]
        result.why += reasons(result.criteria)
    over = 0
    if limit is not None:
        over = outcome.over(limit) if late is None else late.over(outcome, limit)
    if outcome.failed or over > (1.0 - _LOADGEN_SHARE) * outcome.count:
        result.verdict = "failed"
    elif late is not None or not evaluation.valid:
        result.verdict = "invalid"
    return result


def _check_load(gate: GateContext, stage: Stage, load: Load) -> list[str]:
    count = load_of(load, gate.plan.engine, gate.plan.limits).count
    fewest = needed(gate.objectives(stage))
    if not stage.judged or count >= fewest or load.shape == "until-break":
        return []
    return [
        f"{stage.name}: about {count:,.0f} requests cannot prove its objectives, at least "
        f"{fewest:,} are required"
    ]


def _lacks(gate: GateContext, stage: Stage, load: Load) -> str:
    if gate.objectives(stage).empty:
        return "objectives, such as p99, errors or rate"
    return "at_least" if load.shape == "until-break" and load.at_least is None else ""


LOAD = StageKind(Load, run_load, _check_load, _lacks, load_again)
LOADGEN = StageKind(LoadGen, run_loadgen)
