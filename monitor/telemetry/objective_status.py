"""The figures of the arms as the running service knows them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from understudy.monitor.config.objective import (
    KNOWN,
    Difference,
    Figure,
    Objective,
    compared,
    dominated,
    verdicts,
)
from understudy.monitor.pipeline.plane import EvaluationPlane
from understudy.monitor.routing.serving import CHARGED, ArmService
from understudy.monitor.stats.distribution import MIDDLES, Distribution, summary
from understudy.monitor.stats.reader import Snapshot

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
_FEWEST_FOR_MEAN = 30
_SURE = 3.29
"""Standard errors of an interval at confidence 99.9 %: arms are compared in many metrics, at every
look."""


def declared(plane: EvaluationPlane) -> list[Objective]:
    """The objectives of the configuration."""
    wanted = plane.settings.document.get("objectives") or {}
    return [Objective.parse(metric, text) for metric, text in wanted.items()]


def side_by_side(plane: EvaluationPlane, objectives: Sequence[Objective]) -> dict[str, Any]:
    """Every arm with its figures, which objectives it meets, and by whom it is dominated; and what
    could be compared between the arms, or why not."""
    service = plane.service(plane.windows.latest or Snapshot(0.0))
    measured = _measured(plane)
    figures = {one.arm: _figures(plane, one, measured) for one in service.arms}
    watts = plane.energy.watts()
    rate = sum(f["throughput"].value or 0.0 for f in figures.values() if "throughput" in f)
    if watts is not None and rate:
        # Energy is not counted by arm: every arm's predictions cost the same.
        for one in figures.values():
            one["energy_per_prediction"] = Figure(watts / rate, "estimated", basis="all arms")
    comparisons = compared(figures, list(_differences(plane)))
    better = dominated(comparisons, list(figures))
    return {
        "window_seconds": WINDOW,
        "arms": [
            {
                "arm": one.arm,
                "role": one.role,
                "configured_as": "challenger" if one.challenger else "champion",
                "objectives": verdicts(objectives, figures[one.arm]),
                "figures": {
                    name: {
                        "value": f.value,
                        "low": f.low,
                        "high": f.high,
                        "source": f.source,
                        "basis": f.basis,
                    }
                    for name, f in figures[one.arm].items()
                },
                "dominated_by": better[one.arm],
                "pareto": not better[one.arm],
            }
            for one in service.arms
        ],
        "comparisons": [
            {
                "metric": one.metric,
                "arm": one.arm,
                "other": one.other,
                "result": one.result,
                "why_not": one.why,
            }
            for one in comparisons
        ],
    }


@dataclass(slots=True)
class _Measured:
    """Durations of an arm's requests in one role, and how many of them were its errors."""

    whole: Distribution = field(default_factory=Distribution)
    errors: int = 0


def _measured(plane: EvaluationPlane) -> dict[tuple[str, str], _Measured]:
    """By arm and role."""
    found: dict[tuple[str, str], _Measured] = {}
    for labels, sketch in plane.windows.sketches("duration", WINDOW).items():
        have = dict(labels)
        key = have.get("arm", ""), have.get("role", "")
        one = found.setdefault(key, _Measured())
        one.whole.add(sketch)
        if have.get("outcome", "") in CHARGED:
            one.errors += sketch.count
    return found


def _figures(
    plane: EvaluationPlane, service: ArmService, measured: Mapping[tuple[str, str], _Measured]
) -> dict[str, Figure]:
    """Of clients' requests for an arm that serves, else of mirrored ones."""
    arm = service.arm
    role = "mirror" if service.role in ("mirrored", "unused") else "primary"
    basis = "mirrored requests" if role == "mirror" else "requests of clients"
    found = measured.get((arm, role)) or _Measured()
    whole, errors = found.whole, found.errors
    count = whole.count
    figures: dict[str, Figure] = {}
    shown = summary(whole, WINDOW) if count else {}
    for metric, key in _QUANTILES.items():
        value = shown.get(key)
        if value is None or count < _FEWEST.get(metric, 1):
            figures[metric] = Figure(None, "absent", basis=basis)
        else:
            low, high = _latency_interval(whole, metric)
            figures[metric] = Figure(value, "measured", low, high, basis)
    if count:
        low, high = wilson(errors, count)
        figures["error_rate"] = Figure(errors / count, "measured", low, high, basis)
        figures["throughput"] = Figure(shown.get("rate"), "measured", basis=basis)
    figures["accuracy"] = _accuracy(plane, arm)
    figures["cost_per_prediction"] = _cost(plane, arm, figures["latency_mean"])
    figures["energy_per_prediction"] = Figure(None, "absent")
    return figures


def _latency_interval(whole: Distribution, metric: str) -> tuple[float | None, float | None]:
    """The interval of a quantile by its order statistics (binomial, normal approximation), or of
    the mean; None where there are too few requests for an end."""
    count = whole.count
    if metric == "latency_mean":
        mean = whole.mean or 0.0
        spread = math.sqrt(float((whole.counts * (MIDDLES - mean) ** 2).sum()) / count)
        half = _SURE * spread / math.sqrt(count)
        return (max(0.0, mean - half), mean + half) if count >= _FEWEST_FOR_MEAN else (None, None)
    share = float(metric.removeprefix("latency_p")) / 100.0
    half = _SURE * math.sqrt(share * (1.0 - share) / count)
    low, high = share - half, share + half + 1.0 / count
    ends = whole.quantiles((max(low, 0.0), min(high, 1.0)))
    assert ends is not None
    return (ends[0] if low > 0.0 else None), (ends[1] if high < 1.0 else None)


def wilson(errors: int, count: int) -> tuple[float, float]:
    """Wilson's interval of a rate (Wilson 1927): at confidence 99.9 %."""
    rate, square = errors / count, _SURE**2
    centre = (rate + square / (2 * count)) / (1.0 + square / count)
    half = _SURE * math.sqrt(rate * (1.0 - rate) / count + square / (4 * count**2))
    half /= 1.0 + square / count
    return max(0.0, centre - half), min(1.0, centre + half)


def _differences(plane: EvaluationPlane) -> Iterator[Difference]:
    """What running experiments have measured on both of their arms at the same time."""
    for live in plane.experiments.live.values() if plane.experiments is not None else ():
        for name, contestant in live.contestants.items():
            if not contestant.rollout.live:
                continue
            for item in contestant.decision.evidence:
                interval = item.difference
                if item.name in KNOWN and item.decides and not interval.is_empty:
                    ends = interval.lower, interval.upper
                    if all(map(math.isfinite, ends)):
                        yield Difference(name, live.arms.champion, item.name, *ends)


def _accuracy(plane: EvaluationPlane, arm: str) -> Figure:
    loop = plane.pipeline.findings_loop
    if loop is not None and arm == plane.settings.arms[0]:
        for performance in loop.watches.performance.values():
            value = performance.whole.metrics().get("accuracy")
            if value is not None:
                interval = performance.interval.interval()
                basis = "all labelled requests"
                return Figure(value, "measured", interval.lower, interval.upper, basis)
            estimate = performance.estimate()
            if estimate is not None:
                basis = "requests without labels"
                return Figure(estimate.value, "estimated", estimate.low, estimate.high, basis)
    for live in plane.experiments.live.values() if plane.experiments is not None else ():
        for name, contestant in live.contestants.items():
            for item in contestant.decision.evidence:
                if item.name == "accuracy":
                    champion, challenger = item.estimates
                    value = challenger if arm == name else champion
                    if arm in (name, live.arms.champion) and value is not None:
                        over = "" if contestant.rollout.live else ", which has ended"
                        basis = f"experiment {live.declared.name}{over}"
                        return Figure(value, "measured", basis=basis)
    return Figure(None, "absent")


def _cost(plane: EvaluationPlane, arm: str, seconds: Figure) -> Figure:
    """By what the experiments' configuration says a request and a second cost."""
    for live in plane.experiments.live.values() if plane.experiments is not None else ():
        cost = live.declared.cost.get(arm)
        if cost is None:
            continue
        if not cost.per_second:
            price = cost.per_request
            return Figure(price, "estimated", price, price, "declared prices")
        if seconds.value is not None:
            value, low, high = (
                None if end is None else cost.per_request + cost.per_second * end
                for end in (seconds.value, seconds.low, seconds.high)
            )
            return Figure(value, "estimated", low, high, f"the time of {seconds.basis}")
    return Figure(None, "absent")
