"""The result of compiling a file of objectives: SLOs, alerts and notices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from understudy.common.units import duration
from understudy.monitor.config.runbooks import PUBLIC, runbook_url
from understudy.monitor.slo import trials
from understudy.monitor.slo.alerts import OF_INSTALLATION, Alert
from understudy.monitor.slo.model import Slo
from understudy.monitor.slo.rules import ALERT, Group, document, group, manifest
from understudy.monitor.slo.scope import Scope

INSTALLATION = "installation"
"""Name of the files with the rules about the installation: no objective's name is that short."""


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
    runbooks: str = PUBLIC
    link: str | None = None
    interval: float | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    tried: bool = True
    scope: Scope = field(default_factory=Scope)

    def parts(self) -> dict[str, tuple[Alert, ...]]:
        """The alerts that do not belong to an objective, by the name of their file: those about the
        models of the service, and those about the installation."""
        parts = {
            f"{self.service}-alerts": tuple(
                alert for alert in self.alerts if alert.kind not in OF_INSTALLATION
            ),
            INSTALLATION: tuple(alert for alert in self.alerts if alert.kind in OF_INSTALLATION),
        }
        return {name: alerts for name, alerts in parts.items() if alerts}

    def slo_group(self, slo: Slo) -> Group:
        """The group of one objective."""
        return group(slo, runbook_url(self.runbooks, ALERT), self.interval)

    def alert_groups(self, alerts: Sequence[Alert]) -> list[Group]:
        """The groups of alerts that do not belong to an objective, one for each kind."""
        kinds = dict.fromkeys(alert.kind for alert in alerts)
        timed = {} if self.interval is None else {"interval": duration(self.interval)}
        return [
            {
                "name": f"understudy-{kind}-{self.service}",
                **timed,
                "rules": [
                    rule
                    for alert in alerts
                    if alert.kind == kind
                    for rule in alert.rules(
                        self.service,
                        runbook_url(self.runbooks, alert.name),
                        self.labels,
                        self.link,
                    )
                ],
            }
            for kind in kinds
        ]

    def rule_files(self) -> dict[str, dict[str, Any]]:
        """Rule files by name: one for each objective, so that its tests evaluate no others, one for
        the other alerts of the service, and one for the installation."""
        result = {f"{slo.id}.rules.yml": document([self.slo_group(slo)]) for slo in self.slos}
        for name, alerts in self.parts().items():
            result[f"{name}.rules.yml"] = document(self.alert_groups(alerts))
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
        for part, alerts in self.parts().items():
            tests = trials.by_interval([trials.of_alert(alert) for alert in alerts])
            for interval, some in tests.items():
                name = f"{part}-{interval}.tests.yml"
                result[name] = trials.document([f"{part}.rules.yml"], some)
        return result

    def prometheus_rules(
        self, labels: Mapping[str, str], namespace: str = ""
    ) -> dict[str, dict[str, Any]]:
        """All rules as manifests for the Prometheus operator, by file name: those of the service
        and those about the installation."""
        groups = {self.service: [self.slo_group(slo) for slo in self.slos]}
        for part, alerts in self.parts().items():
            name = INSTALLATION if part == INSTALLATION else self.service
            groups[name] = [*groups.get(name, ()), *self.alert_groups(alerts)]
        return {
            f"{name}.prometheusrule.yaml": manifest(f"understudy-{name}", some, labels, namespace)
            for name, some in groups.items()
            if some
        }
