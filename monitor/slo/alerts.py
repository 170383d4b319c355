"""Alerts that do not belong to an objective: the rule, its runbook page and its unit test."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from understudy.common.units import duration
from understudy.monitor.slo.burn import Severity
from understudy.monitor.slo.model import Level, Stream

Kind = Literal["outage", "sidecar", "kafka", "experiment", "finding"]
OF_INSTALLATION: frozenset[Kind] = frozenset(("sidecar", "kafka"))
"""Kinds of alerts that are about an installation, whatever models it serves."""

SHARE = (
    "{{ if and (gt $value 0.9999) (lt $value 1.0) }}more than 99.99%"
    "{{ else }}{{ $value | humanizePercentage }}{{ end }}"
)
"""The value of an alert as a percentage in its texts. Prometheus' own function has four digits, by
which 99.999 % of the requests are 100 %."""
SERVICE = "{{.service}}"
"""Placeholder in expressions for the service, which is a label of recorded series and alerts."""
FINDINGS = "/?model={{ $labels.model }}"
"""The page of an alert's model in the console, with its findings."""


@dataclass(frozen=True, slots=True)
class Trial:
    """The unit test of an alert.

    ``series`` are as in the trial of an objective, with everything bad during the fault. The alert
    must fire within ``fires`` seconds, not end during the next ``lasts`` seconds, and end within
    ``ends`` seconds after the fault, with the labels ``labels``.
    """

    series: tuple[Stream | Level, ...]
    fires: float
    ends: float
    labels: Mapping[str, str] = field(default_factory=dict)
    calm: float = 1800.0
    step: float = 60.0
    lasts: float = 0.0


@dataclass(frozen=True, slots=True)
class Record:
    """A recorded series that alerts read, with the label ``service``."""

    name: str
    expr: str


@dataclass(frozen=True, slots=True)
class Alert:
    """An alert: fires when ``expr`` holds for ``lasts`` seconds.

    ``kind`` is the label ``understudy_kind``; empty when the series has a label ``kind``.
    ``records`` are recorded before it, in the same evaluation. Expressions may contain
    :data:`SERVICE`.
    """

    name: str
    kind: Kind
    severity: Severity
    expr: str
    lasts: float
    summary: str
    description: str
    trial: Trial
    records: tuple[Record, ...] = ()

    def rules(
        self,
        service: str,
        runbook: str,
        labels: Mapping[str, str] | None = None,
        link: str | None = None,
    ) -> list[dict[str, Any]]:
        """The rules of Prometheus: those that record, then the alert. ``labels`` are added, and
        override labels of the expression. Alerts on findings link to them at ``link``, the control
        address."""
        found = self.kind == "finding"
        timed = {"for": duration(self.lasts)} if self.lasts else {}
        common = {**(labels or {}), "service": service}
        records: list[dict[str, Any]] = [
            {"record": one.name, "expr": one.expr.replace(SERVICE, service), "labels": common}
            for one in self.records
        ]
        alert = {
            "alert": self.name,
            "expr": self.expr.replace(SERVICE, service),
            **timed,
            "labels": {
                **common,
                "severity": self.severity,
                "understudy_kind": self.kind,
            },
            "annotations": {
                "summary": self.summary,
                "description": self.description,
                "runbook_url": runbook,
                **({"findings_url": f"{link.rstrip('/')}{FINDINGS}"} if link and found else {}),
            },
        }
        return [*records, alert]
