"""Formats numbers of experiments for display."""

from __future__ import annotations

from collections.abc import Sequence

from understudy.shadow.experiment import METRICS
from understudy.shadow.experiment.hypothesis import Statistic
from understudy.shadow.experiment.margin import Unit


def scale_of(metric: str) -> tuple[float, str]:
    """Factor and unit in which people read a metric."""
    known = METRICS.get(metric.partition("(")[0])
    if known is None:
        return 1.0, ""
    if known.statistic in (Statistic.RATE, Statistic.TAIL):
        return 100.0, " pp"
    if known.unit is Unit.POINTS and known.statistic is not Statistic.DISTRIBUTION:
        return 100.0, " pp"
    return (1e3, " ms") if known.unit is Unit.SECONDS else (1.0, "")


def shown(value: float | None, factor: float, unit: str) -> str:
    """A number for display; "–" for None."""
    return "–" if value is None else f"{value * factor:.4g}{unit.replace(' pp', ' %')}"


def interval(ends: Sequence[float | None], factor: float, unit: str) -> str:
    """An interval for display; an end that is None is infinite."""
    low, high = (
        "−∞" if end is None and side == 0 else "∞" if end is None else f"{end * factor:+.4g}"
        for side, end in enumerate(ends)
    )
    return "–" if (low, high) == ("−∞", "∞") else f"{low} … {high}{unit}"
