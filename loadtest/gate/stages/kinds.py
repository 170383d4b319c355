"""Which kinds of stages there are, and whether those of a plan can be run."""

from __future__ import annotations

from collections.abc import Callable

from understudy.loadtest.chaos.experiment import load_experiment
from understudy.loadtest.errors import PlanError
from understudy.loadtest.gate.context import GateContext
from understudy.loadtest.gate.plan import Stage
from understudy.loadtest.gate.result import StageResult
from understudy.loadtest.gate.sending import load_of
from understudy.loadtest.gate.stages.capacity import run_capacity
from understudy.loadtest.gate.stages.chaos import run_chaos
from understudy.loadtest.gate.stages.cold_start import run_cold_start
from understudy.loadtest.gate.stages.compare import run_compare
from understudy.loadtest.gate.stages.load import run_load, run_loadgen
from understudy.loadtest.gate.target import address_of, allowed
from understudy.loadtest.gate.verdict import needed

RUN: dict[str, Callable[[GateContext, Stage], StageResult]] = {
    "load": run_load,
    "loadgen": run_loadgen,
    "capacity": run_capacity,
    "chaos": run_chaos,
    "compare": run_compare,
    "cold_start": run_cold_start,
}


def check(gate: GateContext) -> list[str]:
    """Raise PlanError for stages that cannot be run, before any is; what is to be known of others,
    as that they are too short for a verdict."""
    plan = gate.plan
    notes = []
    for stage in plan.stages:
        where = f"stages.{stage.name}"
        try:
            if stage.load is not None:
                load = load_of(stage.load, plan.engine, plan.limits)
                fewest = needed(gate.objectives(stage))
                if stage.judged and load.count < fewest and stage.load.shape != "until-break":
                    notes.append(
                        f"{stage.name}: about {load.count:,.0f} requests cannot prove its "
                        f"objectives, at least {fewest:,} are required"
                    )
            if stage.chaos is not None:
                load_experiment(stage.chaos.experiment)
                if stage.chaos.load.shape not in ("steady", "soak"):
                    raise PlanError(
                        "chaos: load must be steady, because it lasts as long as the fault"
                    )
                load_of(stage.chaos.load, plan.engine, plan.limits)
            if stage.compare is not None:
                allowed(address_of(stage.compare.other), gate.own)
                load_of(stage.compare.load, plan.engine, plan.limits)
            if stage.capacity is not None:
                if stage.capacity.most > plan.limits.rate:
                    raise PlanError(
                        f"capacity: most is above the limit of {plan.limits.rate:g}/s (limits.rate)"
                    )
                objectives = gate.objectives(stage)
                if not objectives.percentiles():
                    raise PlanError(
                        "capacity: an objective for a percentile is required, such as p99"
                    )
        except PlanError as error:
            raise PlanError(f"{where}: {error}") from error
    return notes
