"""From one server's capacity to a traffic's replicas, and what a prediction costs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from loadtest.errors import PlanError


@dataclass(frozen=True, slots=True)
class Figure:
    """A number with where it came from: measured, declared, computed, or absent."""

    value: float | None
    source: str
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {"value": self.value, "source": self.source, "note": self.note}


def replicas(traffic: float, low: float, headroom: float = 0.3, spare: int = 1) -> int:
    """Servers for ``traffic`` per second, each of which surely takes ``low``, with ``headroom`` of
    it kept free and ``spare`` ones that may be away."""
    if traffic < 0.0 or low <= 0.0 or not 0.0 <= headroom < 1.0 or spare < 0:
        raise PlanError("traffic and capacity must be positive, headroom from 0 to below 1")
    return math.ceil(traffic / (low * (1.0 - headroom)) - 1e-9) + spare


def per_prediction(
    rate: float | None,
    cpu_seconds: float | None,
    seconds: float,
    predictions: float,
    declared: Mapping[str, float],
) -> dict[str, Figure]:
    """Cost and energy of a prediction at a ``rate`` per second and server.

    ``cpu_seconds`` is what the server's processes used over ``seconds`` in which they gave
    ``predictions``. ``declared`` may hold ``price_per_hour`` of a server and its ``watts``.
    """
    found: dict[str, Figure] = {}
    if cpu_seconds is not None and predictions > 0.0:
        found["cpu_seconds"] = Figure(cpu_seconds / predictions, "measured")
    else:
        found["cpu_seconds"] = Figure(None, "absent", "the server's processes are not known")
    price, watts = declared.get("price_per_hour"), declared.get("watts")
    if price is not None and rate:
        found["cost"] = Figure(
            price / 3600.0 / rate, "computed", f"declared price, measured capacity of {rate:.4g}/s"
        )
    else:
        found["cost"] = Figure(None, "absent", "no price_per_hour is declared")
    if watts is not None and rate:
        found["joules"] = Figure(
            watts / rate, "computed", f"declared power, measured capacity of {rate:.4g}/s"
        )
    else:
        found["joules"] = Figure(None, "absent", "no watts are declared")
    found["seconds_observed"] = Figure(seconds, "measured")
    return found


PRESETS: Mapping[str, Mapping[str, Any]] = {
    "real-time": {"p": 0.99, "limit": 0.01, "errors": 0.0001, "headroom": 0.5},
    "interactive": {"p": 0.99, "limit": 0.1, "errors": 0.001, "headroom": 0.3},
    "cloud-scale": {"p": 0.999, "limit": 0.25, "errors": 0.001, "headroom": 0.4},
    "edge": {"p": 0.95, "limit": 0.05, "errors": 0.01, "headroom": 0.2},
}
"""Objectives to start from: a percentile with its limit in seconds, failures, room to keep free."""
