"""The capacity stage: the highest rate at which the objectives hold; replicas, cost, prediction."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Annotated, Any

from pydantic import Field

from understudy.common.fields import Rate, Share
from understudy.loadtest.capacity.breakpoint import Capacity, StepVerdict, estimate, search
from understudy.loadtest.capacity.meters import Meter, energy, memory
from understudy.loadtest.capacity.queue import HIGHEST_LOAD, highest_rate, observed, predict
from understudy.loadtest.capacity.sizing import per_prediction, replicas
from understudy.loadtest.capacity.usl import fit
from understudy.loadtest.chaos.processes import cpu_seconds
from understudy.loadtest.engine.pool import Loop, Open
from understudy.loadtest.errors import PlanError
from understudy.loadtest.gate.context import GateContext, StageKind
from understudy.loadtest.gate.plan import NamedLong, Objectives, Part, SendRate, Stage
from understudy.loadtest.gate.result import StageResult
from understudy.loadtest.gate.verdict import (
    Criterion,
    evaluate,
    generator_late,
    good_rate,
    latency_limits,
    missed_already,
    needed,
    overall_verdict,
    pass_or_fail,
    reasons,
)
from understudy.loadtest.gate.words import number
from understudy.loadtest.scenarios.shapes import steady

_SERVICE_LOAD = 0.75
"""Highest load, as a share of the capacity, whose service times are used for the prediction."""
_PROBE_FACTOR = 1.5
"""Requests of a probe, as a multiple of the smallest number that can prove a percentile."""


class CapacityStage(Part):
    """The highest rate at which the objectives hold."""

    start: SendRate
    most: SendRate
    seconds: NamedLong = 5.0
    """Of a probe at one rate, and longer where its percentile needs more requests."""
    precision: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.05
    at_least: Rate | None = None
    """Rate that must surely pass; without it the capacity is shown, by a stage that is not
    judged, or the energy is judged (`joules`)."""
    traffic: SendRate | None = None
    """Requests per second for which replicas are counted."""
    headroom: Annotated[Share, Field(lt=1.0)] = 0.3
    spare: Annotated[int, Field(ge=0, le=1000)] = 1
    price_per_hour: Annotated[float, Field(ge=0.0)] | None = None
    watts: Annotated[float, Field(ge=0.0)] | None = None
    pid: int | None = None
    """A process of the server on this machine, whose time is counted, with its children."""
    concurrencies: list[Annotated[int, Field(ge=1, le=10_000)]] = Field(default=[])
    """Closed loops of so many users for the Universal Scalability Law."""
    servers: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """Requests that the target works on at once, first come first served: from the times in service
    the latencies at other loads are predicted."""


def run_capacity(gate: GateContext, stage: Stage, settings: CapacityStage) -> StageResult:
    """Search for the highest rate that passes; derive replicas, cost and scalability."""
    objectives = gate.objectives(stage)
    fewest = needed(objectives)
    tightest = objectives.tightest or 1.0
    before = cpu_seconds(settings.pid) if settings.pid is not None else None
    meter = Meter()
    begun = time.monotonic()
    answered = 0
    seed = [gate.plan.engine.seed * 1000]
    lates: list[Criterion] = []

    def probe(rate: float) -> StepVerdict:
        nonlocal answered
        seconds = max(settings.seconds, _PROBE_FACTOR * 2.0 * fewest / rate)
        seed[0] += 1
        engine = gate.plan.engine
        load = Open(
            steady(rate, seconds), kind=engine.arrivals, seed=seed[0],
            burstiness=engine.burstiness or 1.0,
        )  # fmt: skip
        outcome = gate.drive(
            load,
            stop=lambda so_far: missed_already(objectives, so_far),
            # A stream may last for minutes and keep its limits.
            timeout=None if objectives.streams else max(2.0, 20.0 * tightest),
        )
        answered += outcome.count - outcome.failed
        meter.joules()
        late = generator_late(outcome, latency_limits(objectives))
        rest = [
            one for one in evaluate(objectives, outcome) if late is None or one != late.criterion
        ]
        verdict = overall_verdict(rest)
        passed: bool | None = verdict == "passed"
        why = "; ".join(reasons(rest))
        # Lag only increases latencies, so a pass is valid.
        if late is not None and verdict == "invalid":
            passed, why = None, "; ".join(reasons([late.criterion]))
            lates.append(late.criterion)
        gate.show.note(f"{rate:,.0f}/s: {'passed' if passed else why or 'failed'}")
        whole = outcome.seconds > 0.98 * seconds
        return StepVerdict(rate, passed, why, outcome, whole, good_rate(objectives, outcome))

    capacity = search(probe, settings.start, settings.most, precision=settings.precision)
    result = StageResult(stage.name, stage.kind, "passed")
    data: dict[str, Any] = {"capacity": capacity.to_dict()}
    guesses = [
        guess for p, limit in objectives.percentiles().items()
        if (guess := estimate(capacity, p, limit)) is not None
    ]  # fmt: skip
    if guesses:
        data["capacity"]["estimate"] = asdict(min(guesses, key=lambda one: one.value))
    if settings.servers is not None:
        data["prediction"] = _prediction(objectives, capacity, settings.servers)
    used = (
        cpu_seconds(settings.pid) - before
        if settings.pid is not None and before is not None
        else None
    )
    declared = {
        name: value
        for name, value in (("price_per_hour", settings.price_per_hour),)
        if value is not None
    }
    figures = per_prediction(
        capacity.low, used, time.monotonic() - begun, float(answered), declared
    )
    figures["joules"] = energy(meter.joules(), meter.names, answered, capacity.low, settings.watts)
    data["peak_memory"] = memory(settings.pid).to_dict()
    data["per_prediction"] = {name: figure.to_dict() for name, figure in figures.items()}
    if capacity.low is not None and settings.traffic is not None:
        count = replicas(settings.traffic, capacity.low, settings.headroom, settings.spare)
        data["replicas"] = {"traffic": settings.traffic, "count": count,
                            "headroom": settings.headroom, "spare": settings.spare}  # fmt: skip
    if settings.concurrencies:
        data["scalability"] = _scalability(gate, settings.concurrencies, settings.seconds)
    result.data = data
    result.facts = [described(capacity.low, capacity.high)]
    best = [one for one in capacity.probes if one.passed and one.rate == capacity.low]
    if best and best[-1].goodput is not None:
        data["capacity"]["goodput"] = best[-1].goodput
        result.facts.append(
            f"a goodput of {number(best[-1].goodput)} answers per second at {capacity.low:,.3g}/s"
        )
    if capacity.low is None and capacity.high is not None and capacity.why.startswith("even"):
        result.verdict, result.why = "failed", [capacity.why]
    elif capacity.probes and capacity.probes[-1].passed is None:
        result.verdict, result.why = "invalid", [capacity.why]
        result.late, result.criteria = bool(lates), lates[-1:]
    if settings.at_least is not None and result.verdict == "passed":
        low = capacity.low or 0.0
        verdict = pass_or_fail(low >= settings.at_least)
        result.criteria = [
            Criterion(
                "capacity per second", settings.at_least, low, verdict, "", low, capacity.high
            )
        ]
        if verdict == "failed":
            result.verdict = "failed"
            result.why = [f"capacity: {low:,.0f}/s passed, {settings.at_least:,.0f}/s are required"]
    elif settings.at_least is None and result.verdict == "passed":
        result.verdict = "shown"
    most_joules = objectives.joules
    if most_joules is not None:
        one = figures["joules"]
        energy_verdict = "invalid" if one.value is None else pass_or_fail(one.value <= most_joules)
        result.criteria.append(
            Criterion("joules per prediction", most_joules, one.value, energy_verdict, one.note)
        )
        if result.verdict == "shown" or (energy_verdict != "passed" and result.verdict == "passed"):
            result.verdict = energy_verdict
            result.why = reasons(result.criteria)
    return result


def described(low: float | None, high: float | None) -> str:
    """The capacity in words."""
    text = f"{low:,.0f}/s passed" if low is not None else "no rate passed"
    return text + (f", {high:,.0f}/s failed" if high is not None else "")


def _prediction(objectives: Objectives, found: Capacity, servers: int) -> dict[str, Any]:
    """Predict latencies at other rates from the service times at a moderate rate."""
    passed = [probe for probe in found.probes if probe.passed]
    if not passed or found.low is None:
        return {"servers": servers, "why_not": "no rate passed"}
    moderate = [probe for probe in passed if probe.rate <= _SERVICE_LOAD * found.low] or passed[:1]
    base = max(moderate, key=lambda probe: probe.rate)
    due, latency = base.outcome.due, base.outcome.latency
    service = observed(due, due + latency, servers)
    p, limit = max(objectives.percentiles().items())
    usable = service.times
    points = []
    full = servers / float(usable.mean()) if len(usable) else 0.0
    for part in (0.3, 0.5, 0.6, 0.7, 0.8, 0.9):
        one = predict(service, part * full, p, servers) if full else None
        if one is not None and one.value is not None:
            points.append([one.rate, one.value.value, one.value.low, one.value.high])
    best = highest_rate(service, limit, p, servers) if full else None
    return {
        "servers": servers, "percentile": p, "from_rate": base.rate, "points": points,
        "service_mean": float(usable.mean()) if len(usable) else None, "way": service.way,
        "highest_rate": best,
        "why_not": "" if points else predict(service, 1.0, p, servers).why_not
        or f"no prediction above {HIGHEST_LOAD:.0%} of the capacity of {servers}",
    }  # fmt: skip


def _scalability(gate: GateContext, concurrencies: list[int], seconds: float) -> dict[str, Any]:
    n, x = [], []
    for _ in range(3):
        for users in concurrencies:
            outcome = gate.drive(Loop(users, 1, None, seconds / 3.0), seconds=seconds / 3.0)
            if outcome.rate > 0.0:
                n.append(float(users))
                x.append(outcome.rate)
    points = [[a, b] for a, b in zip(n, x, strict=True)]
    try:
        return {"points": points, **fit(n, x).to_dict()}
    except ValueError as error:
        return {"points": points, "why_not": str(error)}


def _check(gate: GateContext, stage: Stage, wanted: CapacityStage) -> list[str]:
    most = gate.plan.limits.rate
    if wanted.most > most:
        raise PlanError(f"capacity: most is above the limit of {most:g}/s (limits.rate)")
    objectives = gate.objectives(stage)
    good = objectives.goodput is not None and objectives.goodput.share is not None
    if not objectives.percentiles() and (wanted.servers is not None or not objectives.streams):
        raise PlanError("capacity: an objective for a percentile is required, such as p99")
    if not objectives.percentiles() and not objectives.stream_percentiles() and not good:
        raise PlanError("capacity: a goodput has to have a share")
    return []


def _lacks(gate: GateContext, stage: Stage, wanted: CapacityStage) -> str:
    judged = wanted.at_least is not None or gate.objectives(stage).joules is not None
    return "" if judged else "at_least"


def _again(gate: GateContext, stage: Stage, wanted: CapacityStage, result: StageResult) -> None:
    """Never: the search itself has repeated what could not be measured."""


CAPACITY = StageKind(CapacityStage, run_capacity, _check, _lacks, _again)
