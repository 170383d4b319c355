"""Routes and inhibitions for Alertmanager: who is told of what, and what hides what.

Three things are hidden: a ticket by the page about the same, what follows from an outage by the
outage, and what a sidecar that is not seen would say about itself. Both our rules and the sidecar's
own channel (``notify: alertmanager``) are meant; the latter's alerts have no label
``understudy_kind``, and no ``namespace``, nor have those of objectives.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from understudy.monitor.slo.rules import ALERT

PAGE, TICKET = "page", "ticket"
DOWN, UNSEEN = "UnderstudyModelServerDown", "UnderstudyNotSeen"
OF_CHANNEL = (
    "UnderstudyDrift|UnderstudyQuality|UnderstudyPerformance|UnderstudyValidation|"
    "UnderstudyObjective|UnderstudyOther"
)
"""Alerts about a model that is wrong, by whichever way they come."""
_OF_MODEL = "predictions|features|rules|performance|freshness"
_OF_ARM = (
    "UnderstudyMirrorBreakerOpen|UnderstudyMirrorDrops|UnderstudyServingBreakerOpen|"
    "UnderstudyPoolExhausted"
)


def inhibitions() -> list[dict[str, Any]]:
    """What hides what."""

    def hides(source: list[str], target: list[str], *equal: str) -> dict[str, Any]:
        return {"source_matchers": source, "target_matchers": target, "equal": list(equal)}

    burn = f'alertname="{ALERT}"'
    outage = [f'alertname="{DOWN}"']
    return [
        # A page hides the ticket about the same objective, and about the same kind of finding.
        hides([burn, 'severity="page"'], [burn, 'severity="ticket"'], "sloth_id"),
        hides(
            ['understudy_kind="finding"', 'severity="page"'],
            ['understudy_kind="finding"', 'severity="ticket"'],
            "service",
            "namespace",
            "model",
            "kind",
        ),
        # A model server that does not answer hides that its model is wrong, slow or without labels.
        hides(outage, ['understudy_kind="finding"'], "service", "namespace", "model"),
        hides(outage, [f'alertname=~"{OF_CHANNEL}"', 'understudy_kind=""'], "model"),
        # Not those that clients notice: it may be a challenger that does not answer.
        hides(outage, [burn, f'understudy_sli=~"{_OF_MODEL}"'], "service"),
        hides(outage, [burn, 'severity="ticket"'], "service"),
        hides(outage, [f'alertname=~"{_OF_ARM}"'], "service", "namespace", "arm"),
        hides(outage, ['alertname="UnderstudyNoTraffic"'], "service", "namespace", "model"),
        # What cannot be seen says nothing.
        hides(
            [f'alertname="{UNSEEN}"'],
            [f'alertname!="{UNSEEN}"', 'understudy_kind=~"sidecar|kafka"'],
            "service",
            "namespace",
            "instance",
        ),
    ]


def routes() -> dict[str, Any]:
    """The tree of routes: pages at once, tickets once a day.

    Pages about the model itself wait a minute: what a dead model server brings about may be found
    before the outage is, and would not be hidden by it.
    """
    return {
        "receiver": TICKET,
        "group_by": ["service", "namespace", "alertname", "sloth_slo", "model"],
        "group_wait": "30s",
        "group_interval": "5m",
        "repeat_interval": "1d",
        "routes": [
            {
                "matchers": ['severity=~"page|critical"', f'alertname=~"{OF_CHANNEL}"'],
                "receiver": PAGE,
                "group_wait": "1m",
                "group_interval": "5m",
                "repeat_interval": "4h",
            },
            {
                "matchers": ['severity=~"page|critical"'],
                "receiver": PAGE,
                "group_wait": "0s",
                "group_interval": "1m",
                "repeat_interval": "4h",
            },
        ],
    }


def document(webhooks: Mapping[str, str]) -> dict[str, Any]:
    """A whole configuration. ``webhooks`` are addresses by receiver; one without is told
    nothing."""
    receivers = []
    for name in (PAGE, TICKET):
        receiver: dict[str, Any] = {"name": name}
        if webhooks.get(name):
            receiver["webhook_configs"] = [{"url": webhooks[name], "send_resolved": True}]
        receivers.append(receiver)
    return {"route": routes(), "inhibit_rules": inhibitions(), "receivers": receivers}
