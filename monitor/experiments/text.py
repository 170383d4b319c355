"""Formats numbers of experiments for display."""

from __future__ import annotations

from collections.abc import Sequence

_SCALES = {
    "error_rate": (100.0, " pp"),
    "timeout_rate": (100.0, " pp"),
    "disagreement": (100.0, " pp"),
    "accuracy": (100.0, " pp"),
}


def scale_of(metric: str) -> tuple[float, str]:
    """Factor and unit in which a metric is displayed."""
    if metric == "latency_tail":
        return 100.0, " pp"
    if metric.startswith("latency_"):
        return 1e3, " ms"
    return _SCALES.get(metric, (1.0, ""))


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
