"""Which kinds of stages there are, and whether those of a plan can be run."""

from __future__ import annotations

import importlib
from typing import Any

from understudy.loadtest.errors import PlanError
from understudy.loadtest.gate.context import GateContext, StageKind
from understudy.loadtest.gate.result import NOTHING_JUDGED

STAGES = {
    "load": "load:LOAD",
    "loadgen": "load:LOADGEN",
    "capacity": "capacity:CAPACITY",
    "chaos": "chaos:CHAOS",
    "compare": "compare:COMPARE",
    "cold_start": "cold_start:COLD_START",
}
"""Kinds of stages by name, which is their key in a plan: the file here, and its ``StageKind``."""


def _kind(code: str) -> StageKind[Any]:
    module, _, attribute = code.partition(":")
    result: StageKind[Any] = getattr(importlib.import_module(f"{__package__}.{module}"), attribute)
    return result


KINDS = {name: _kind(code) for name, code in STAGES.items()}


def check(gate: GateContext) -> list[str]:
    """Raise PlanError for stages that cannot be run or cannot have a verdict, before any is run;
    what is to be known of others, as that they are too short for a verdict."""
    notes = []
    if gate.script is not None and gate.target.http2:
        raise PlanError(
            "payloads.prompts: sessions and cancelled requests are not sent over HTTP/2: name the "
            "target by http:// or https:// alone"
        )
    for stage in gate.plan.stages:
        kind = KINDS[stage.kind]
        try:
            notes += kind.check(gate, stage, stage.settings)
        except PlanError as error:
            raise PlanError(f"stages.{stage.name}: {error}") from error
        if gate.objectives(stage).streams and not gate.checks.timed:
            raise PlanError(
                f"stages.{stage.name}: ttft, tpot, e2e and goodput are of streams of language "
                "models: set checks.format: openai"
            )
        lacks = kind.lacks(gate, stage, stage.settings) if stage.judged else ""
        if lacks:
            raise PlanError(
                f"stages.{stage.name}: would not be measured, because nothing is asked of it: give "
                f"it {lacks}, or judged: false"
            )
    if gate.judged and not any(stage.judged for stage in gate.plan.stages):
        raise PlanError(f"stages: {NOTHING_JUDGED}")
    return notes
