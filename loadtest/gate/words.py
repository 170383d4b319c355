"""Figures as texts, with their units."""

from __future__ import annotations

from typing import Literal

from understudy.common.units import percent

Unit = Literal["seconds", "share", "per second", "joules", "times"]


def seconds(value: float) -> str:
    """A duration with three digits and a unit, such as ``1.25 ms``."""
    if value < 0.0:
        return f"-{seconds(-value)}"
    if value == 0.0:
        return "0 s"
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if value >= size * 0.9995:
            return f"{value / size:.3g} {unit}"
    return f"{value * 1e6:.2g} µs"


def number(value: float) -> str:
    """A number with four significant digits."""
    return f"{value:,.4g}" if value < 1e5 else f"{value:,.0f}"


def figure(value: float, unit: Unit) -> str:
    """``value`` in its unit, as 0.05 seconds as ``50 ms``."""
    if unit == "seconds":
        return seconds(value)
    if unit == "share":
        return percent(value)
    return number(value) + {"per second": "/s", "joules": " J", "times": ""}[unit]
