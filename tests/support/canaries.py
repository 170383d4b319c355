"""Declarations of experiments with a share of the traffic, and what is seen of them."""

from __future__ import annotations

from typing import Any

import httpx

from tests.support.world import World

GUARDRAILS: list[dict[str, Any]] = [
    {"metric": "error_rate", "margin": "5 pp"},
    {"metric": "timeout_rate", "margin": "5 pp"},
]


STAGES: list[dict[str, Any]] = [
    {"weight": 0.0, "requests": 100},
    {"weight": 0.2, "requests": 50},
    {"weight": 0.5, "requests": 100, "requires": "decision"},
    {"weight": 1.0},
]


def canary(**changes: Any) -> dict[str, Any]:
    return {
        "name": "ramp",
        "challengers": ["other0"],
        "mode": "canary",
        "metrics": GUARDRAILS,
        "stages": STAGES,
        "minimum_duration": 0,
        **changes,
    }


def shown(world: World) -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(world.service.control + "/v1/experiments/ramp").json()
    return found


def challenger(world: World) -> dict[str, Any]:
    found: dict[str, Any] = shown(world)["challengers"][0]
    return found
