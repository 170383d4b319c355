"""Figures of two arms."""

from __future__ import annotations

from typing import Any


def two_arms() -> dict[str, Any]:
    """What GET /v1/objectives says of a champion, and of a challenger that is worse in all."""

    def figure(value: float, half: float = 0.0) -> dict[str, object]:
        low, high = (value - half, value + half) if half else (None, None)
        basis = "requests of clients"
        return {"value": value, "low": low, "high": high, "source": "measured", "basis": basis}

    def arm(name: str, accuracy: float, latency: float, by: list[str]) -> dict[str, object]:
        limits = [("accuracy", 0.9, False, accuracy >= 0.9), ("latency_p95", 0.05, True, True)]
        return {
            "arm": name,
            "figures": {"accuracy": figure(accuracy, 0.01), "latency_p95": figure(latency)},
            "objectives": [
                {"metric": m, "limit": limit, "at_most": less, "met": met}
                for m, limit, less, met in limits
            ],
            "dominated_by": by,
            "pareto": not by,
        }

    return {
        "window_seconds": 300.0,
        "arms": [arm("now", 0.91, 0.02, []), arm("<b>", 0.8, 0.03, ["now"])],
        "comparisons": [
            {"metric": "accuracy", "arm": "<b>", "other": "now", "result": "worse", "why_not": ""},
            {
                "metric": "latency_p95",
                "arm": "<b>",
                "other": "now",
                "result": None,
                "why_not": "that of <b> and now has no interval",
            },
        ],
    }
