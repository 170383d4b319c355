"""The result of compiling a file of objectives: SLOs, alerts and notices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from understudy.common.units import duration
from understudy.monitor.slo import trials
from understudy.monitor.slo.alerts import Alert, runbook_url
from understudy.monitor.slo.model import Slo
from understudy.monitor.slo.rules import ALERT, Group, document, group, manifest

RUNBOOKS = "docs/runbooks"


@dataclass(frozen=True, slots=True)
class Compiled:
    """Compiled objectives.

    ``alerts`` do not belong to an objective. ``notices`` list what was omitted or changed.
    ``interval`` is the evaluation interval in seconds, if set. ``tried`` is False when no unit
    tests can be generated.
    """

    service: str
    slos: tuple[Slo, ...]
    alerts: tuple[Alert, ...] = ()
    notices: tuple[str, ...] = ()
    runbooks: str = RUNBOOKS
    interval: float | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    tried: bool = True

    def groups(self) -> list[Group]:
        """All rule groups."""
        results = [self.slo_group(slo) for slo in self.slos]
        return [*results, *self.alert_groups()]

    def slo_group(self, slo: Slo) -> Group:
        """The group of one objective."""
        return group(slo, runbook_url(self.runbooks, ALERT), self.interval)

    def alert_groups(self) -> list[Group]:
        """The groups of the alerts that do not belong to an objective, one for each kind."""
        kinds = dict.fromkeys(alert.kind for alert in self.alerts)
        timed = {} if self.interval is None else {"interval": duration(self.interval)}
        return [
            {
                "name": f"understudy-{kind}-{self.service}",
                **timed,
                "rules": [
                    alert.rule(self.service, runbook_url(self.runbooks, alert.name), self.labels)
                    for alert in self.alerts
                    if alert.kind == kind
                ],
            }
            for kind in kinds
        ]

    def rule_files(self) -> dict[str, dict[str, Any]]:
        """Rule files by name: one for each objective, so that its tests evaluate no others, and one
        for the alerts."""
        result = {f"{slo.id}.rules.yml": document([self.slo_group(slo)]) for slo in self.slos}
        if self.alerts:
            result[f"{self.service}-alerts.rules.yml"] = document(self.alert_groups())
        return result

    def test_files(self, faults: Sequence[float] = trials.FAULTS) -> dict[str, dict[str, Any]]:
        """Files for ``promtool test rules`` by name, to be stored beside the rule files."""
        result: dict[str, dict[str, Any]] = {}
        if not self.tried:
            return result
        for slo in self.slos:
            tests = trials.by_interval(trials.of_objective(slo, faults))
            for interval, some in tests.items():
                name = f"{slo.id}-{interval}.tests.yml"
                result[name] = trials.document([f"{slo.id}.rules.yml"], some)
        alert_groups = trials.by_interval([trials.of_alert(alert) for alert in self.alerts])
        for interval, some in alert_groups.items():
            name = f"{self.service}-alerts-{interval}.tests.yml"
            result[name] = trials.document([f"{self.service}-alerts.rules.yml"], some)
        return result

    def prometheus_rule(self, labels: Mapping[str, str], namespace: str = "") -> dict[str, Any]:
        """All rules as one manifest for the Prometheus operator."""
        return manifest(f"understudy-{self.service}", self.groups(), labels, namespace)
