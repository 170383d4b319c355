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
    """A value with where it came from; ``low`` and ``high`` where there is an interval.

    ``basis`` is what it was measured on, such as "requests of clients": figures of two arms are
    only compared on the same basis.
    """

    value: float | None
    source: str
    low: float | None = None
    high: float | None = None
    basis: str = ""


@dataclass(frozen=True, slots=True)
class Difference:
    """The interval of a difference, ``arm`` minus ``other``, that was measured as such."""

    arm: str
    other: str
    metric: str
    low: float
    high: float


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


@dataclass(frozen=True, slots=True)
class Comparison:
    """What is known of one metric of ``arm`` and ``other``: ``result`` is better, worse or open (of
    ``arm``), or None where they cannot be compared, because of ``why``."""

    metric: str
    arm: str
    other: str
    result: str | None
    why: str = ""


def compared(
    arms: Mapping[str, Figures], differences: Sequence[Difference] = ()
) -> list[Comparison]:
    """Every pair of arms in every metric that is known of both, like with like: by the interval of
    a difference if there is one, otherwise by two intervals on the same basis."""
    known = {(d.arm, d.other, d.metric): (d.low, d.high) for d in differences}
    known |= {(d.other, d.arm, d.metric): (-d.high, -d.low) for d in differences}
    found = []
    names = list(arms)
    for number, arm in enumerate(names):
        for other in names[:number]:
            for metric in KNOWN:
                # What an arm gets to do, and what all pay alike, is not its own merit.
                if metric in ("throughput", "energy_per_prediction"):
                    continue
                if _known(arms[arm], metric) and _known(arms[other], metric):
                    interval = known.get((arm, other, metric))
                    mine, theirs = arms[arm][metric], arms[other][metric]
                    found.append(_compare(metric, (arm, mine), (other, theirs), interval))
    return found


def _compare(
    metric: str,
    one: tuple[str, Figure],
    two: tuple[str, Figure],
    difference: tuple[float, float] | None,
) -> Comparison:
    (arm, mine), (other, theirs) = one, two
    if difference is None:
        why = _unlike(one, two)
        if why:
            return Comparison(metric, arm, other, None, why)
        assert mine.low is not None
        assert mine.high is not None
        assert theirs.low is not None
        assert theirs.high is not None
        difference = mine.low - theirs.high, mine.high - theirs.low
    low, high = difference if KNOWN[metric][1] else (-difference[1], -difference[0])
    return Comparison(
        metric, arm, other, "worse" if low > 0.0 else "better" if high < 0.0 else "open"
    )


def _unlike(one: tuple[str, Figure], two: tuple[str, Figure]) -> str:
    """Why two figures cannot be compared; empty if they can."""
    (arm, mine), (other, theirs) = one, two
    if mine.basis != theirs.basis:
        return f"that of {arm} is of {mine.basis}, that of {other} of {theirs.basis}"
    bare = [name for name, figure in (one, two) if figure.low is None or figure.high is None]
    if bare:
        return f"that of {' and '.join(bare)} has no interval"
    return ""


def dominated(comparisons: Sequence[Comparison], arms: Sequence[str]) -> dict[str, list[str]]:
    """By arm: the arms that are surely better in something, and worse in nothing that is known.

    A metric that is known of both but cannot be compared could be worse: then nothing is claimed.
    """
    found: dict[str, list[str]] = {name: [] for name in arms}
    pairs: dict[tuple[str, str], set[str | None]] = {}
    for one in comparisons:
        pairs.setdefault((one.arm, one.other), set()).add(one.result)
        opposite = {"better": "worse", "worse": "better"}
        turned = opposite.get(one.result or "", one.result)
        pairs.setdefault((one.other, one.arm), set()).add(turned)
    for (arm, other), results in pairs.items():
        if "worse" in results and not results & {"better", None}:
            found[arm].append(other)
    return found


def _known(figures: Figures, metric: str) -> bool:
    return metric in figures and figures[metric].value is not None
