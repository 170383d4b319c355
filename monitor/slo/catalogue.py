"""The catalogue of alerts that do not belong to an objective, with their unit tests."""

from __future__ import annotations

from collections.abc import Sequence

from understudy.monitor.config.hours import Interval
from understudy.monitor.slo.alerts import Alert
from understudy.monitor.slo.finding_alerts import (
    experiment_alerts,
    finding_alerts,
    untested_alerts,
)
from understudy.monitor.slo.kafka_alerts import kafka_alerts
from understudy.monitor.slo.outage_alerts import outage_alerts
from understudy.monitor.slo.scope import Scope
from understudy.monitor.slo.sidecar_alerts import sidecar_alerts
from understudy.monitor.slo.stream_alerts import stream_alerts
from understudy.monitor.slo.traffic_alert import traffic_alert


def service_alerts(
    scope: Scope, scrape_interval: float = 15.0, hours: Sequence[Interval] = ()
) -> tuple[Alert, ...]:
    """Alerts about the models of a scope; ``scrape_interval`` is in seconds, ``hours`` are those in
    which requests are expected."""
    return (
        *outage_alerts(scope, scrape_interval),
        *stream_alerts(scope),
        traffic_alert(scope, hours),
        *finding_alerts(scope),
        *untested_alerts(scope),
        *experiment_alerts(scope),
    )


def installation_alerts(scope: Scope) -> tuple[Alert, ...]:
    """Alerts about sidecars, evaluators and Kafka, which serve all models of a scope."""
    own = scope.only()
    return (*sidecar_alerts(own), *kafka_alerts(own))


def alerts_of(scope: Scope, scrape_interval: float = 15.0) -> tuple[Alert, ...]:
    """All of them."""
    return (*service_alerts(scope, scrape_interval), *installation_alerts(scope))
