"""Says how every limit of a plan was understood."""

from __future__ import annotations

from collections.abc import Iterator

from understudy.common.limits import limits_of
from understudy.common.units import percentile_name, write_rate, write_seconds, write_share
from understudy.loadtest.gate.plan import Objectives, Plan


def understood(plan: Plan) -> Iterator[str]:
    """Lines with the limits of the plan, then of each stage with its load and its objectives."""
    for path, limit in limits_of(plan.limits):
        yield f"  limits.{path}: {limit}"
    for path, limit in limits_of(plan.engine):
        yield f"  engine.{path}: {limit}"
    for stage in plan.stages:
        yield f"  {stage.name}: {stage.kind}{'' if stage.judged else ', not judged'}"
        for path, limit in limits_of(stage.settings, given=True):
            yield f"    {path}: {limit}"
        for line in _objectives(stage.objectives or plan.objectives):
            yield f"    {line}"


def _objectives(objectives: Objectives) -> Iterator[str]:
    for share, seconds in sorted(objectives.percentiles().items()):
        yield f"{percentile_name(share)}: at most {write_seconds(seconds)}"
    if objectives.first_byte_p95 is not None:
        yield f"first_byte_p95: at most {write_seconds(objectives.first_byte_p95)}"
    for name, limits in objectives.stream_percentiles().items():
        for share, seconds in sorted(limits.items()):
            yield f"{name} {percentile_name(share)}: at most {write_seconds(seconds)}"
    if objectives.goodput is not None:
        kept = ", ".join(
            f"{name} {write_seconds(limit)}" for name, limit in objectives.good_limits().items()
        )
        if objectives.goodput.share is not None:
            yield f"goodput: at least {write_share(objectives.goodput.share)} within {kept}"
        if objectives.goodput.rate is not None:
            yield f"goodput: at least {write_rate(objectives.goodput.rate)} within {kept}"
    most = objectives.most_errors()
    if most is not None:
        yield f"errors: at most {write_share(most)} of the requests"
    if objectives.rate is not None:
        yield f"rate: at least {write_rate(objectives.rate)} good answers"
    if objectives.joules is not None:
        yield f"joules: at most {objectives.joules:g} J per prediction"
