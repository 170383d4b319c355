"""Alerts for the way of records over Kafka."""

from __future__ import annotations

from collections.abc import Mapping

from monitor.slo.alerts import Alert


def kafka_alerts(scrape: Mapping[str, str]) -> tuple[Alert, ...]:
    """None yet."""
    return ()
