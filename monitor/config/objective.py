"""Objectives, figures of arms, and Pareto dominance between arms."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from understudy.common.text import did_you_mean
from understudy.common.units import (
    figure,
    joules,
    metric_name,
    percent,
    rate,
    seconds,
    share,
    write_rate,
    write_seconds,
    write_share,
)

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
_READ: Mapping[str, Callable[[str], float]] = {"s": seconds, "/s": rate, "J": joules, "": figure}
"""Parsers of limits, by the unit of the metric."""
_WRITTEN: Mapping[str, Callable[[float], str]] = {
    "s": write_seconds,
    "/s": write_rate,
    "J": "{:g} J".format,
    "": "{:g}".format,
}
"""The same for writing them."""


@dataclass(frozen=True, slots=True)
class Objective:
    """``limit`` in the unit of the metric; ``less``: it must be at most the limit."""

    metric: str
    limit: float
    less: bool

    @classmethod
    def parse(cls, metric: str, text: str) -> Objective:
        """From ``latency_p99`` and ``<= 50ms``. Raises ValueError, which names the valid values."""
        name = metric_name(metric)
        if name not in KNOWN:
            close = did_you_mean(metric, KNOWN)
            raise ValueError(f"{metric!r} is not one of {', '.join(KNOWN)}{close}")
        sign, written = text.strip()[:2], text.strip()[2:].strip()
        if sign not in ("<=", ">=") or not written:
            raise ValueError(f"{text!r}: write <= or >=, and a number with its unit, as '<= 50ms'")
        read = share if name == "error_rate" else _READ[KNOWN[name][0]]
        try:
            limit = read(written)
        except ValueError as error:
            unit = "%" if name == "error_rate" else KNOWN[name][0] or "none, or %"
            raise ValueError(f"{error}; the unit of {metric} is {unit}") from None
        return cls(name, limit, sign == "<=")

    def __str__(self) -> str:
        """Such as ``at most 50ms``."""
        write = write_share if self.metric == "error_rate" else _WRITTEN[KNOWN[self.metric][0]]
        return f"{'at most' if self.less else 'at least'} {write(self.limit)}"

    def met(self, value: float) -> bool:
        """Whether a value is within the limit."""
        return value <= self.limit if self.less else value >= self.limit


def shown(metric: str, value: float | None) -> str:
    """A value of a metric with its unit, for people."""
    if value is None:
        return "\u2013"
    if metric.startswith("latency"):
        return f"{value * 1e3:.3g} ms" if value < 0.9995 else f"{value:.3g} s"
    if metric in ("accuracy", "error_rate"):
        return percent(value, 3)
    unit = KNOWN[metric][0] if metric in KNOWN else ""
    return f"{value:.4g}{' ' + unit if unit not in ('', '/s') else unit}"


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
