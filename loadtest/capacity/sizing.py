"""Replicas for a traffic from the capacity of one server, and the cost of a prediction."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from understudy.loadtest.errors import PlanError


@dataclass(frozen=True, slots=True)
class Figure:
    """A number with its source: measured, declared, computed, or absent."""

    value: float | None
    source: str
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {"value": self.value, "source": self.source, "note": self.note}


def replicas(traffic: float, low: float, headroom: float = 0.3, spare: int = 1) -> int:
    """Servers for ``traffic`` per second if each sustains ``low`` per second, with a share
    ``headroom`` unused and ``spare`` extra servers. Raises PlanError."""
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
    """CPU time and cost of a prediction at ``rate`` per second and server.

    ``cpu_seconds`` is what the server's processes used over ``seconds`` for ``predictions``.
    ``declared`` may hold ``price_per_hour`` of a server."""
    result: dict[str, Figure] = {}
    if cpu_seconds is not None and predictions > 0.0:
        result["cpu_seconds"] = Figure(cpu_seconds / predictions, "measured")
    else:
        result["cpu_seconds"] = Figure(None, "absent", "the server's processes are not known")
    price = declared.get("price_per_hour")
    if price is not None and rate:
        result["cost"] = Figure(
            price / 3600.0 / rate, "computed", f"declared price, measured capacity of {rate:.4g}/s"
        )
    else:
        result["cost"] = Figure(None, "absent", "no price_per_hour is declared")
    result["seconds_observed"] = Figure(seconds, "measured")
    return result


PRESETS: Mapping[str, Mapping[str, Any]] = {
    "real-time": {"percentiles": {0.95: 0.05}, "errors": 0.001},
    "interactive": {"percentiles": {0.95: 0.1, 0.99: 0.5}, "errors": 0.001},
    "cloud-scale": {"percentiles": {0.99: 0.5}, "errors": 0.001, "needs": "rate"},
    "edge": {"percentiles": {0.9: 0.1}, "errors": 0.01, "needs": "joules"},
}
"""Objectives to start from: percentiles with their limits in seconds, and failures. ``needs``
is a further objective that the plan must set: the rate, or the energy of a prediction."""
