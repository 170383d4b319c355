"""The compare stage: this target and another one, alternately."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from understudy.common.fields import Share
from understudy.common.units import percentile, percentile_name
from understudy.loadtest.engine.outcome import Outcome
from understudy.loadtest.errors import LoadTestError
from understudy.loadtest.gate.context import GateContext, StageKind
from understudy.loadtest.gate.plan import Load, Part, Stage
from understudy.loadtest.gate.result import StageResult
from understudy.loadtest.gate.sending import load_of
from understudy.loadtest.gate.target import address_of, allowed
from understudy.loadtest.statistics.compare import compare as compared

Percentile = Literal["p50", "p90", "p95", "p99", "p99.9"]


def _name(value: Any) -> Any:
    share = percentile(value) if isinstance(value, str) else None
    return percentile_name(share) if share is not None else value


class CompareStage(Part):
    """Another target beside this one, in turns."""

    other: str
    load: Load
    repeats: Annotated[int, Field(ge=3, le=50)] = 5
    margin: Share = 0.05
    """Smallest relative difference that matters."""
    percentile: Annotated[Percentile, BeforeValidator(_name)] = "p99"


def run_compare(gate: GateContext, stage: Stage, settings: CompareStage) -> StageResult:
    """Load both targets alternately, and compare the repeats."""
    other = address_of(settings.other)
    load = load_of(settings.load, gate.plan.engine, gate.plan.limits)
    p = percentile(settings.percentile)
    assert p is not None
    mine: list[float] = []
    theirs: list[float] = []
    served: tuple[list[float], list[float]] = ([], [])
    outcome: Outcome | None = None
    for number in range(settings.repeats):
        pair = [(mine, None), (theirs, other)]
        for values, address in pair if number % 2 == 0 else reversed(pair):
            one = gate.drive(load, address=address)
            if one.failed:
                what = settings.other if address is not None else gate.url
                raise LoadTestError(
                    f"{what}: {one.failed:,} of {one.count:,} requests failed: nothing to compare"
                )
            values.append(one.quantile(p) or 0.0)
            served[values is theirs].append(one.services.quantile(p) or 0.0)
            outcome = one if address is None else outcome
    # The other target is the reference.
    comparison = compared(settings.percentile, theirs, mine, settings.margin)
    result = StageResult(stage.name, stage.kind, "passed", outcome=outcome)
    ratio = comparison.ratio
    if ratio is not None:
        result.facts = [
            f"{settings.percentile} is {ratio.value:.2f} times that of {settings.other} "
            f"({ratio.low:.2f} to {ratio.high:.2f})"
        ]
    result.data = {"comparison": {**comparison.to_dict(), "this": mine, "other": theirs,
                                  "other_target": settings.other}}  # fmt: skip
    if comparison.verdict == "worse":
        result.verdict, result.why = "failed", list(result.facts)
        by_service = compared(settings.percentile, served[1], served[0], settings.margin)
        if by_service.verdict != "worse":
            # The load generator itself was late in turns of one target more than of the other.
            result.verdict, result.late = "invalid", True
            result.why.append("but not by the time of service alone: use a less busy machine")
    elif comparison.verdict == "not enough repeats":
        result.verdict = "invalid"
        result.why = ["not enough repeats: add more, or make them longer"]
    return result


def _check(gate: GateContext, stage: Stage, wanted: CompareStage) -> list[str]:
    allowed(address_of(wanted.other), gate.own)
    load_of(wanted.load, gate.plan.engine, gate.plan.limits)
    return []


COMPARE = StageKind(CompareStage, run_compare, _check, targets=lambda wanted: [wanted.other])
