"""Alerts for outages: a model server is down, a sidecar cannot be scraped, traffic has stopped."""

from __future__ import annotations

from collections.abc import Mapping

from understudy.common.units import HOUR, MINUTE, duration
from understudy.monitor.slo.alerts import Alert, Trial
from understudy.monitor.slo.promql import selector
from understudy.monitor.slo.trial_series import counter, level

UNANSWERED = "upstream_connect|upstream_reset|timeout|overload|garbage"
"""Outcomes of a model server that gives no answer a client could read."""
_REQUESTS = "understudy_requests_total"
_ANSWERED = {"model": "m", "version": "1", "arm": "champion", "role": "primary", "protocol": "oip"}


def outage_alerts(scrape: Mapping[str, str], interval: float) -> tuple[Alert, ...]:
    """Alerts for outages, for series with the labels ``scrape``; ``interval`` is the scrape
    interval in seconds."""
    window = duration(max(4.0 * interval, 4.0))
    primary = {**scrape, "role": "primary"}
    bad = selector(_REQUESTS, {**primary, "outcome=~": UNANSWERED})
    every = selector(_REQUESTS, primary)
    up = selector("up", scrape) if scrape else 'up{job="understudy"}'
    here = scrape or {"job": "understudy"}
    down = Alert(
        name="UnderstudyModelServerDown",
        kind="outage",
        severity="page",
        expr=(
            f"sum by (namespace, model, arm) (rate({bad}[{window}]))\n/\n"
            f"sum by (namespace, model, arm) (rate({every}[{window}])) > 0.5\nand\n"
            f"sum by (namespace, model, arm) (increase({bad}[{window}])) >= 5"
        ),
        lasts=0.0,
        summary="{{ $labels.arm }} is down for {{ $labels.model }}",
        description=(
            "{{ $value | humanizePercentage }} of its requests get no response: refused, reset, "
            "malformed, timed out or overloaded. Restart or roll back the model server."
        ),
        trial=Trial(
            series=(
                counter(_REQUESTS, scrape, {**_ANSWERED, "outcome": "ok"}, 600, 0),
                counter(_REQUESTS, scrape, {**_ANSWERED, "outcome": "upstream_connect"}, 0, 600),
            ),
            fires=4 * interval,
            ends=6 * interval,
            labels={"model": "m", "arm": "champion", "severity": "page"},
            calm=40 * interval,
            step=interval,
        ),
    )
    unseen = Alert(
        name="UnderstudyNotSeen",
        kind="outage",
        severity="page",
        # A target that is removed has no `up` series, so also test for its absence.
        expr=f"{up} == 0\nor\nabsent({up})",
        lasts=5 * MINUTE,
        summary=(
            "{{ if $labels.instance }}{{ $labels.instance }} cannot be scraped{{ else }}"
            "Prometheus scrapes no sidecar{{ end }}"
        ),
        description=(
            "The evaluation plane or the whole sidecar is down: its objectives and findings are "
            "unknown. Check whether clients are still served."
        ),
        trial=Trial(
            series=(level("up", here, {"instance": "a:9090"}, 1, 0),),
            fires=7 * MINUTE,
            ends=2 * MINUTE,
            labels={"instance": "a:9090"},
        ),
    )
    silent = Alert(
        name="UnderstudyNoTraffic",
        kind="outage",
        severity="ticket",
        expr=(
            f"sum by (namespace, model) (rate({every}[15m] offset 1h)) > 0\nunless\n"
            f"sum by (namespace, model) (rate({every}[15m])) > 0"
        ),
        lasts=15 * MINUTE,
        summary="{{ $labels.model }} receives no traffic",
        description=(
            "No request for half an hour; there was traffic an hour ago. Check the load balancer "
            "and the clients."
        ),
        trial=Trial(
            series=(counter(_REQUESTS, scrape, {**_ANSWERED, "outcome": "ok"}, 60, 0),),
            fires=33 * MINUTE,
            ends=3 * MINUTE,
            labels={"model": "m"},
            calm=2 * HOUR,
        ),
    )
    return (down, unseen, silent)
