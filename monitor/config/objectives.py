"""The part of the configuration that declares objectives."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from understudy.monitor.config.objective import Objective


def _readable(value: dict[str, str]) -> dict[str, str]:
    for metric, text in value.items():
        Objective.parse(metric, text)
    return value


Objectives = Annotated[
    dict[str, str],
    AfterValidator(_readable),
    Field(examples=[{"accuracy": ">= 0.9", "latency_p99": "<= 50ms", "error_rate": "<= 1 %"}]),
]
"""By metric: <= or >=, and a number with its unit."""
