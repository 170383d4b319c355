"""What an alert is that is no objective: a rule, its page in the runbook, and how to try it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from understudy.common.units import duration
from understudy.monitor.slo.burn import Severity
from understudy.monitor.slo.model import Level, Stream

Kind = Literal["outage", "sidecar", "kafka", "experiment", "finding"]


@dataclass(frozen=True, slots=True)
class Trial:
    """``series`` as in the trial of an objective, with everything bad during the fault. The alert
    must fire within ``fires`` seconds and end within ``ends``; ``labels`` are those that it has."""

    series: tuple[Stream | Level, ...]
    fires: float
    ends: float
    labels: Mapping[str, str] = field(default_factory=dict)
    calm: float = 1800.0
    step: float = 60.0


@dataclass(frozen=True, slots=True)
class Alert:
    """``lasts`` are the seconds that the condition must hold. ``kind`` is empty where the series
    has a label ``kind`` of its own."""

    name: str
    kind: Kind
    severity: Severity
    expr: str
    lasts: float
    summary: str
    description: str
    trial: Trial

    def rule(
        self, service: str, runbook: str, labels: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """As a rule of Prometheus. Labels that the expression yields stay, unless one of ``labels``
        has the name."""
        timed = {"for": duration(self.lasts)} if self.lasts else {}
        return {
            "alert": self.name,
            "expr": self.expr,
            **timed,
            "labels": {
                **(labels or {}),
                "service": service,
                "severity": self.severity,
                "understudy_kind": self.kind,
            },
            "annotations": {
                "summary": self.summary,
                "description": self.description,
                "runbook_url": runbook,
            },
        }


def runbook_url(base: str, name: str) -> str:
    """Where the page of an alert is: ``base`` may hold ``{alert}``."""
    if "{alert}" in base:
        return base.replace("{alert}", name)
    return f"{base.rstrip('/')}/{name}.md"
