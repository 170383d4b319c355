"""Objectives as metric families."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import Metric

from understudy.monitor.pipeline.plane import EvaluationPlane
from understudy.monitor.telemetry.families import gauge
from understudy.monitor.telemetry.objective_status import declared, side_by_side


def objective_families(plane: EvaluationPlane) -> Iterator[Metric]:
    """Metric families of objectives; unknown values have no sample."""
    wanted = declared(plane)
    arms = side_by_side(plane, wanted)["arms"]
    met = [
        ([arm["arm"], one["metric"]], float(one["met"]))
        for arm in arms
        for one in arm["objectives"]
        if one["met"] is not None
    ]
    yield gauge("objective_met", "1 while an objective is met.", ("arm", "objective"), met)
    costs = [
        ([arm["arm"]], arm["figures"]["cost_per_prediction"]["value"])
        for arm in arms
        if arm["figures"]["cost_per_prediction"]["value"] is not None
    ]
    yield gauge(
        "cost_per_prediction",
        "Cost of a prediction, at the prices in the configuration.",
        ("arm",),
        costs,
    )
