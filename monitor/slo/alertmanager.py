"""Routes and inhibition rules for Alertmanager.

Three kinds of alerts are inhibited: a ticket by the page about the same objective, the consequences
of an outage by the outage, and alerts of a sidecar that cannot be scraped. Each applies within one
installation only: the alerts have the same identity, ``namespace`` by default. They apply to the
alerts of our rules and to those of the sidecar's own channel (``notify: alertmanager``). The latter
have no label ``understudy_kind``, and those of the identity only if its ``labels`` give them.

Alerts about the installation have another ``service`` than those about its models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from understudy.monitor.slo.rules import ALERT
from understudy.monitor.slo.scope import IDENTITY

PAGE, TICKET = "page", "ticket"
DOWN, UNSEEN = "UnderstudyModelServerDown", "UnderstudyNotSeen"
OF_CHANNEL = (
    "UnderstudyBlind|UnderstudyDrift|UnderstudyQuality|UnderstudyPerformance|UnderstudyObjective|"
    "UnderstudyValidation|UnderstudyOther"
)
"""Alerts about a model's quality, from our rules or from the sidecar's channel."""
_OF_MODEL = "predictions|features|rules|performance|freshness"
_DIVERTED = "UnderstudyServingArmDown"
_OF_ARM = (
    "UnderstudyMirrorBreakerOpen|UnderstudyMirrorDrops|UnderstudyServingBreakerOpen|"
    "UnderstudyPoolExhausted|UnderstudyLimit"
)


def inhibitions(identity: Sequence[str] = IDENTITY) -> list[dict[str, Any]]:
    """The inhibition rules; ``identity`` are the labels that tell installations apart."""

    def hides(source: list[str], target: list[str], *equal: str) -> dict[str, Any]:
        labels = list(dict.fromkeys((*equal, *identity)))
        return {"source_matchers": source, "target_matchers": target, "equal": labels}

    burn = f'alertname="{ALERT}"'
    outage = [f'alertname="{DOWN}"']
    return [
        # A page inhibits the ticket about the same objective, and about the same kind of finding.
        hides([burn, 'severity="page"'], [burn, 'severity="ticket"'], "service", "sloth_slo"),
        hides(
            ['understudy_kind="finding"', 'severity="page"'],
            ['understudy_kind="finding"', 'severity="ticket"'],
            "service",
            "model",
            "kind",
        ),
        # A model server that does not answer inhibits alerts about its model's quality.
        hides(outage, ['understudy_kind="finding"'], "service", "model"),
        hides(outage, [f'alertname=~"{OF_CHANNEL}"', 'understudy_kind=""'], "model"),
        # But not alerts about client errors: the server may be a challenger.
        hides(outage, [burn, f'understudy_sli=~"{_OF_MODEL}"'], "service"),
        hides(outage, [burn, 'severity="ticket"'], "service"),
        hides(outage, [f'alertname="{_DIVERTED}"'], "service", "model", "arm"),
        hides(outage, [f'alertname=~"{_OF_ARM}"'], "arm"),
        hides(outage, ['alertname="UnderstudyNoTraffic"'], "service", "model"),
        hides(
            [f'alertname="{_DIVERTED}"'],
            ['alertname="UnderstudyServingBreakerOpen"'],
            "instance",
            "arm",
        ),
        # A sidecar that cannot be scraped inhibits alerts about itself.
        hides(
            [f'alertname="{UNSEEN}"'],
            [f'alertname!="{UNSEEN}"', 'understudy_kind=~"sidecar|kafka"'],
            "service",
            "instance",
        ),
    ]


def routes(identity: Sequence[str] = IDENTITY) -> dict[str, Any]:
    """The routing tree: pages at once, tickets once a day, grouped by service and identity.

    Pages about the model wait a minute: the consequences of a dead model server may be detected
    before the outage itself, which could not inhibit them yet.
    """
    return {
        "receiver": TICKET,
        "group_by": ["service", *identity, "alertname", "sloth_slo", "model"],
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


def document(webhooks: Mapping[str, str], identity: Sequence[str] = IDENTITY) -> dict[str, Any]:
    """A complete configuration. ``webhooks`` are URLs by receiver; receivers without a URL get no
    notifications."""
    receivers = []
    for name in (PAGE, TICKET):
        receiver: dict[str, Any] = {"name": name}
        if webhooks.get(name):
            receiver["webhook_configs"] = [{"url": webhooks[name], "send_resolved": True}]
        receivers.append(receiver)
    return {
        "route": routes(identity),
        "inhibit_rules": inhibitions(identity),
        "receivers": receivers,
    }
