"""The catalogue of alerts that do not belong to an objective, with their unit tests."""

from __future__ import annotations

from collections.abc import Mapping

from understudy.monitor.slo.alerts import Alert
from understudy.monitor.slo.finding_alerts import (
    experiment_alerts,
    finding_alerts,
    untested_alerts,
)
from understudy.monitor.slo.kafka_alerts import kafka_alerts
from understudy.monitor.slo.outage_alerts import outage_alerts
from understudy.monitor.slo.sidecar_alerts import sidecar_alerts


def alerts_of(scrape: Mapping[str, str], scrape_interval: float = 15.0) -> tuple[Alert, ...]:
    """All alerts, for series with the labels ``scrape``; ``scrape_interval`` is in seconds."""
    return (
        *outage_alerts(scrape, scrape_interval),
        *finding_alerts(scrape),
        *untested_alerts(scrape),
        *experiment_alerts(scrape),
        *sidecar_alerts(scrape),
        *kafka_alerts(scrape),
    )
