"""The figures of the arms as the running service knows them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from understudy.monitor.config.objective import Figure, Objective, dominated, verdicts
from understudy.monitor.pipeline.plane import EvaluationPlane
from understudy.monitor.routing.serving import NOT_ERRORS
from understudy.monitor.stats.distribution import Distribution, summary

WINDOW = 300.0
_QUANTILES = {
    "latency_p50": "p50",
    "latency_p90": "p90",
    "latency_p95": "p95",
    "latency_p99": "p99",
    "latency_p99.9": "p99_9",
    "latency_mean": "mean",
}
_FEWEST = {"latency_p99": 100, "latency_p99.9": 1000, "latency_p95": 20}
"""Minimum number of requests: below it a quantile would just be the maximum."""


def declared(plane: EvaluationPlane) -> list[Objective]:
    """The objectives of the configuration."""
    wanted = plane.settings.document.get("objectives") or {}
    return [Objective.parse(metric, text) for metric, text in wanted.items()]


def side_by_side(plane: EvaluationPlane, objectives: Sequence[Objective]) -> dict[str, Any]:
    """Every arm with its figures, which objectives it meets, and by whom it is dominated."""
    figures = {arm: _figures(plane, arm) for arm in plane.settings.arms}
    watts = plane.energy.watts()
    rate = sum(f["throughput"].value or 0.0 for f in figures.values() if "throughput" in f)
    if watts is not None and rate:
        # Energy is not counted by arm: every arm's predictions cost the same.
        for one in figures.values():
            one["energy_per_prediction"] = Figure(watts / rate, "estimated")
    better = dominated(figures)
    return {
        "window_seconds": WINDOW,
        "arms": [
            {
                "arm": arm,
                "role": "champion" if number == 0 else "challenger",
                "objectives": verdicts(objectives, figures[arm]),
                "figures": {
                    name: {"value": f.value, "low": f.low, "high": f.high, "source": f.source}
                    for name, f in figures[arm].items()
                },
                "dominated_by": better[arm],
                "pareto": not better[arm],
            }
            for number, arm in enumerate(plane.settings.arms)
        ],
    }


def _figures(plane: EvaluationPlane, arm: str) -> dict[str, Figure]:
    whole = Distribution()
    errors = 0
    for labels, found in plane.windows.sketches("duration", WINDOW).items():
        have = dict(labels)
        if have.get("arm") != arm:
            continue
        whole.add(found)
        if have.get("outcome", "") not in NOT_ERRORS:
            errors += found.count
    count = whole.count
    figures: dict[str, Figure] = {}
    shown = summary(whole, WINDOW) if count else {}
    for metric, key in _QUANTILES.items():
        value = shown.get(key)
        enough = count >= _FEWEST.get(metric, 1)
        figures[metric] = (
            Figure(value, "measured") if value is not None and enough else Figure(None, "absent")
        )
    if count:
        rate = errors / count
        half = 1.96 * math.sqrt(max(rate * (1.0 - rate), 1.0 / count) / count)
        low, high = max(0.0, rate - half), min(1.0, rate + half)
        figures["error_rate"] = Figure(rate, "measured", low, high)
        figures["throughput"] = Figure(shown.get("rate"), "measured")
    figures["accuracy"] = _accuracy(plane, arm)
    figures["cost_per_prediction"] = _cost(plane, arm, figures["latency_mean"].value)
    figures["energy_per_prediction"] = Figure(None, "absent")
    return figures


def _accuracy(plane: EvaluationPlane, arm: str) -> Figure:
    judge = plane.pipeline.findings_loop
    if judge is not None and arm == plane.settings.arms[0]:
        for performance in judge.watches.performance.values():
            value = performance.whole.metrics().get("accuracy")
            if value is not None:
                interval = performance.interval.interval()
                return Figure(value, "measured", interval.lower, interval.upper)
            estimate = performance.estimate()
            if estimate is not None:
                return Figure(estimate.value, "estimated", estimate.low, estimate.high)
    for live in plane.experiments.live.values() if plane.experiments is not None else ():
        for name, contestant in live.contestants.items():
            for item in contestant.decision.evidence:
                if item.name == "accuracy":
                    champion, challenger = item.estimates
                    value = challenger if arm == name else champion
                    if arm in (name, live.arms.champion) and value is not None:
                        return Figure(value, "measured")
    return Figure(None, "absent")


def _cost(plane: EvaluationPlane, arm: str, seconds: float | None) -> Figure:
    """By what the experiments' configuration says a request and a second cost."""
    for live in plane.experiments.live.values() if plane.experiments is not None else ():
        cost = live.declared.cost.get(arm)
        if cost is not None and (seconds is not None or not cost.per_second):
            value = cost.per_request + cost.per_second * (seconds or 0.0)
            return Figure(value, "estimated")
    return Figure(None, "absent")
