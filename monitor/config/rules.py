"""Builds the decision rules of an experiment from its configuration."""

from __future__ import annotations

import math

from understudy.monitor.config.experiment import Experiment, Stage
from understudy.shadow.experiment import DEFAULT_METRICS, Rules
from understudy.shadow.rollout import Stage as RolloutStage

DEFAULT_WEIGHTS = (0.0, 0.01, 0.05, 0.25, 0.5, 1.0)


def rules_of(experiment: Experiment) -> Rules:
    """Raises ExperimentError that names the path within the experiment."""
    metrics = experiment.metrics
    return Rules.parse(
        DEFAULT_METRICS if metrics is None else [metric.plain() for metric in metrics],
        alpha=experiment.alpha,
        promote=experiment.promote,
        minimum=experiment.minimum,
        max_seconds=experiment.max_duration or math.inf,
        max_requests=experiment.max_requests or math.inf,
        at_end=experiment.at_end,
        min_seconds=experiment.minimum_duration,
        shadow_only=experiment.mode == "shadow",
    )


def stages_of(experiment: Experiment, challenger: str) -> tuple[RolloutStage, ...]:
    """The stages of a canary; other modes have one, at whose end a person decides.

    Raises RolloutError.
    """
    if experiment.mode != "canary":
        weight = experiment.weights.get(challenger, 0.0) if experiment.mode == "split" else 0.0
        mode = "split" if weight else "shadow"
        return (RolloutStage(mode, mode, weight, "manual", experiment.minimum, 0.0, "decision"),)
    declared = experiment.stages
    if declared is None:
        declared = [
            Stage(weight=w, requires="decision" if w == 0.5 else "no_harm") for w in DEFAULT_WEIGHTS
        ]
    return tuple(_stage(stage) for stage in declared)


def _stage(stage: Stage) -> RolloutStage:
    return RolloutStage(
        f"{stage.weight * 100:g} %" if stage.weight else "shadow",
        "split" if stage.weight else "shadow",
        stage.weight,
        stage.gate,
        stage.requests,
        float(stage.seconds),
        stage.requires,
    )
