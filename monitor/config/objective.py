"""Objectives, figures of arms, and Pareto dominance between arms."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from understudy.common.units import FINE_SECONDS, quantity

KNOWN: dict[str, tuple[str, bool]] = {
    "accuracy": ("", False),
    "error_rate": ("", True),
    "throughput": ("/s", False),
    "latency_mean": ("s", True),
    "latency_p50": ("s", True),
    "latency_p90": ("s", True),
    "latency_p95": ("s", True),
    "latency_p99": ("s", True),
    "latency_p99.9": ("s", True),
    "cost_per_prediction": ("", True),
    "energy_per_prediction": ("J", True),
}
"""By name: unit, and whether less is better."""
SOURCES = ("measured", "estimated", "absent")
_UNITS: Mapping[str, Mapping[str, float]] = {
    "s": {"": 1.0, **FINE_SECONDS},
    "": {"": 1.0, "%": 0.01},
    "/s": {"": 1.0, "/s": 1.0},
    "J": {"": 1.0, "J": 1.0, "mJ": 1e-3},
}
"""Units that a limit may have, by the unit of the metric."""


@dataclass(frozen=True, slots=True)
class Objective:
    """``limit`` in the unit of the metric; ``less``: it must be at most the limit."""

    metric: str
    limit: float
    less: bool

    @classmethod
    def parse(cls, metric: str, text: str) -> Objective:
        """From ``latency_p99`` and ``<= 50ms``. Raises ValueError, which names the valid values."""
        if metric not in KNOWN:
            raise ValueError(f"{metric!r} is not one of {', '.join(KNOWN)}")
        sign = text.strip()[:2]
        found = quantity(text.strip()[2:], loose=True) if sign in ("<=", ">=") else None
        if found is None:
            raise ValueError(f"{text!r}: write <= or >=, and a number with its unit, as '<= 50ms'")
        unit = KNOWN[metric][0]
        factor = _UNITS[unit].get(found[1])
        if factor is None:
            raise ValueError(f"{text!r}: the unit of {metric} is {unit or 'none, or %'}")
        limit = float(found[0]) * factor
        if not math.isfinite(limit):
            raise ValueError(f"not a finite number: {found[0]!r}")
        return cls(metric, limit, sign == "<=")

    def met(self, value: float) -> bool:
        """Whether a value is within the limit."""
        return value <= self.limit if self.less else value >= self.limit


def latency_limits(objectives: Mapping[str, str]) -> tuple[float, ...]:
    """The limits in seconds that quantiles of the latency have: the histogram gets edges there."""
    found = (Objective.parse(metric, text) for metric, text in objectives.items())
    limits = {one.limit for one in found if one.metric.startswith("latency_p") and one.less}
    return tuple(sorted(limit for limit in limits if limit > 0.0))


@dataclass(frozen=True, slots=True)
class Figure:
    """A value with where it came from; ``low`` and ``high`` where there is an interval."""

    value: float | None
    source: str
    low: float | None = None
    high: float | None = None


Figures = Mapping[str, Figure]


def verdicts(objectives: Sequence[Objective], figures: Figures) -> list[dict[str, Any]]:
    """Each objective with its figure and whether it is met; None where that is not known."""
    found = []
    for objective in objectives:
        figure = figures.get(objective.metric, Figure(None, "absent"))
        found.append(
            {
                "metric": objective.metric,
                "unit": KNOWN[objective.metric][0],
                "limit": objective.limit,
                "at_most": objective.less,
                "value": figure.value,
                "low": figure.low,
                "high": figure.high,
                "source": figure.source,
                "met": None if figure.value is None else objective.met(figure.value),
            }
        )
    return found


def dominated(arms: Mapping[str, Figures]) -> dict[str, list[str]]:
    """By arm: the arms that are better in everything that is known of both.

    At least as good everywhere and surely better somewhere: where there are intervals they must not
    overlap for one to be better, and it is at least as good unless the other is surely better. So
    nothing is claimed of differences that may be chance. Arms without a figure in common are not
    compared.
    """
    found: dict[str, list[str]] = {}
    for name, mine in arms.items():
        found[name] = []
        for other, theirs in arms.items():
            common = [
                metric
                for metric in KNOWN
                if metric != "throughput"  # what an arm gets to do is not its own merit
                and _known(mine, metric)
                and _known(theirs, metric)
            ]
            if other == name or not common:
                continue
            better = [_better(theirs[m], mine[m], KNOWN[m][1]) for m in common]
            worse = [_better(mine[m], theirs[m], KNOWN[m][1]) for m in common]
            if any(better) and not any(worse):
                found[name].append(other)
    return found


def _known(figures: Figures, metric: str) -> bool:
    return metric in figures and figures[metric].value is not None


def _better(a: Figure, b: Figure, less: bool) -> bool:
    """Whether ``a`` is surely better than ``b``."""
    assert a.value is not None
    assert b.value is not None
    a_low, a_high = _ends(a)
    b_low, b_high = _ends(b)
    return a_high < b_low if less else a_low > b_high


def _ends(figure: Figure) -> tuple[float, float]:
    assert figure.value is not None
    low = figure.value if figure.low is None else figure.low
    high = figure.value if figure.high is None else figure.high
    return low, high
