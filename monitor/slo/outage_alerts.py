"""Alerts for outages of a model: a model server of it is down."""

from __future__ import annotations

from understudy.common.units import MINUTE, duration
from understudy.monitor.slo.alerts import SHARE, Alert, Trial
from understudy.monitor.slo.promql import selector
from understudy.monitor.slo.scope import Scope
from understudy.monitor.slo.trial_series import counter, level

UNANSWERED = "upstream_connect|upstream_reset|timeout|overload|garbage"
"""Outcomes of a model server that gives no answer a client could read."""
_REQUESTS = "understudy_requests_total"
_ANSWERED = {"model": "m", "version": "1", "arm": "champion", "role": "primary", "protocol": "oip"}


def outage_alerts(scope: Scope, interval: float) -> tuple[Alert, ...]:
    """Alerts for outages of the models of a scope; ``interval`` is the scrape interval in
    seconds."""
    window = duration(max(4.0 * interval, 4.0))
    of_request = ("model", "version", "arm")
    primary = {**scope.labels(*of_request), "role": "primary"}
    served = {**_ANSWERED, **scope.example(*of_request)}
    who = {name: served[name] for name in ("model", "arm")}
    by_arm = scope.by("model", "arm")
    bad = selector(_REQUESTS, {**primary, "outcome=~": UNANSWERED})
    every = selector(_REQUESTS, primary)
    down = Alert(
        name="UnderstudyModelServerDown",
        kind="outage",
        severity="page",
        expr=(
            f"sum{by_arm}(rate({bad}[{window}]))\n/\n"
            f"sum{by_arm}(rate({every}[{window}])) > 0.5\nand\n"
            f"sum{by_arm}(increase({bad}[{window}])) >= 5"
        ),
        lasts=0.0,
        summary="{{ $labels.arm }} is down for {{ $labels.model }}",
        description=(
            f"{SHARE} of its requests get no response: refused, reset, "
            "malformed, timed out or overloaded. Restart or roll back the model server."
        ),
        trial=Trial(
            series=(
                counter(_REQUESTS, {**served, "outcome": "ok"}, 600, 0),
                counter(_REQUESTS, {**served, "outcome": "upstream_connect"}, 0, 600),
            ),
            fires=4 * interval,
            ends=6 * interval,
            labels={**who, "severity": "page"},
            calm=40 * interval,
            step=interval,
        ),
    )
    return (down, _diverted(scope))


def _diverted(scope: Scope) -> Alert:
    """The alert for a challenger that should serve clients and does not."""
    of_request = ("model", "version", "arm")
    which, state = scope.labels(*of_request), scope.labels("arm")
    example = {**scope.example(*of_request), "instance": "a:9090"}
    if not scope.arm:
        example["arm"] = "candidate"
    by_arm = scope.by("instance", "model", "arm")
    planned = selector("understudy_arm_share", {**which, "of": "planned"})
    is_down = selector("understudy_arm_state", {**state, "state": "down"})
    diverted = selector("understudy_arm_diverted_requests", which)
    in_state = {name: value for name, value in example.items() if name not in ("model", "version")}
    return Alert(
        name="UnderstudyServingArmDown",
        kind="outage",
        severity="page",
        expr=(
            f"max{by_arm}({planned}) > 0\n"
            f"and {scope.on('instance', 'arm')}\n"
            f"max{scope.by('instance', 'arm')}({is_down}) == 1\n"
            f"and {scope.on('instance', 'model', 'arm')}\n"
            f"sum{by_arm}({diverted}) > 0"
        ),
        lasts=MINUTE,
        summary="{{ $labels.arm }} should serve clients on {{ $labels.instance }} and is down",
        description=(
            f"By the routes {SHARE} of the requests are its own; the "
            "champion serves them. Restart its model server, or abort the experiment."
        ),
        trial=Trial(
            series=(
                level("understudy_arm_share", {**example, "of": "planned"}, 1, 1),
                level("understudy_arm_state", {**in_state, "state": "down"}, 0, 1),
                level("understudy_arm_diverted_requests", example, 0, 600),
            ),
            fires=3 * MINUTE,
            ends=2 * MINUTE,
            labels={name: example[name] for name in ("instance", "model", "arm")},
        ),
    )
