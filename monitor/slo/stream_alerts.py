"""Alerts for language models: streams that break, and answers later than the limits of `goodput`.

Objectives on availability and on token times page by their error budgets. These need no objectives:
of a stream that breaks, clients got a 200.
"""

from __future__ import annotations

from understudy.common.units import MINUTE, number
from understudy.monitor.slo.alerts import SHARE, Alert, Trial
from understudy.monitor.slo.burn import Severity
from understudy.monitor.slo.promql import selector
from understudy.monitor.slo.scope import Scope
from understudy.monitor.slo.trial_series import counter

_REQUESTS = "understudy_requests_total"
_ANSWERS, _GOOD = "understudy_llm_answers_total", "understudy_llm_good_answers_total"
_BROKEN = "stream_error|truncated"
_OF = ("model", "version", "arm")
_SERVED = {"model": "m", "version": "1", "arm": "champion"}
LEAST_GOOD = 0.9
"""Limits of `goodput` are meant for 99 % of the answers, as MLPerf's are: a tenth beyond them is
ten times what is allowed."""
_FEWEST = 5
_FEWEST_ANSWERS = 20


def stream_alerts(scope: Scope) -> tuple[Alert, ...]:
    """Alerts about the language models of a scope."""
    return (
        _broken(scope, "page", 0.25, "5m", 5 * MINUTE),
        _broken(scope, "ticket", 0.01, "15m", 15 * MINUTE),
        _late(scope),
    )


def _broken(scope: Scope, severity: Severity, share: float, window: str, length: float) -> Alert:
    primary = {**scope.labels(*_OF), "role": "primary"}
    served = {**_SERVED, **scope.example(*_OF), "role": "primary", "protocol": "openai-chat"}
    by_arm = scope.by("model", "arm")
    bad = selector(_REQUESTS, {**primary, "outcome=~": _BROKEN})
    every = selector(_REQUESTS, primary)
    return Alert(
        name="UnderstudyStreamsBroken",
        kind="outage",
        severity=severity,
        expr=(
            f"sum{by_arm}(rate({bad}[{window}]))\n/\n"
            f"sum{by_arm}(rate({every}[{window}])) > {number(share)}\nand\n"
            f"sum{by_arm}(increase({bad}[{window}])) >= {_FEWEST}"
        ),
        lasts=0.0,
        summary="Streams of {{ $labels.arm }} break for {{ $labels.model }}",
        description=(
            f"{SHARE} of its requests are streams with an error in them, or without an end, after "
            "a status of 200. Check the log of the model server."
        ),
        trial=Trial(
            series=(
                counter(_REQUESTS, {**served, "outcome": "ok"}, 600, 0),
                counter(_REQUESTS, {**served, "outcome": "stream_error"}, 0, 600),
            ),
            fires=6 * MINUTE if severity == "page" else 4 * MINUTE,
            ends=length + 3 * MINUTE,
            labels={"model": served["model"], "arm": served["arm"], "severity": severity},
        ),
    )


def _late(scope: Scope) -> Alert:
    labels = scope.labels(*_OF)
    served = {**_SERVED, **scope.example(*_OF)}
    by_arm = scope.by("model", "arm")
    answers = selector(_ANSWERS, labels)
    clients = selector(_REQUESTS, {**labels, "role": "primary"})
    return Alert(
        name="UnderstudyGoodputLow",
        kind="outage",
        severity="ticket",
        expr=(
            f"sum{by_arm}(rate({selector(_GOOD, labels)}[15m]))\n/\n"
            f"sum{by_arm}(rate({answers}[15m])) < {number(LEAST_GOOD)}\nand\n"
            f"sum{by_arm}(increase({answers}[15m])) >= {_FEWEST_ANSWERS}\nand\n"
            # Clients get no answers from an arm that is only mirrored to.
            f"sum{by_arm}(rate({clients}[15m])) > 0"
        ),
        lasts=5 * MINUTE,
        summary="{{ $labels.arm }} answers later than declared for {{ $labels.model }}",
        description=(
            f"Only {SHARE} of its answers are within all limits of the model's `goodput`: time to "
            "the first token, per token, or to the end. Check load and queue of the model server."
        ),
        trial=Trial(
            series=(
                counter(_GOOD, served, 600, 0),
                counter(_ANSWERS, {**served, "reason": "stop"}, 600, 600),
                counter(
                    _REQUESTS,
                    {**served, "role": "primary", "protocol": "openai-chat", "outcome": "ok"},
                    600,
                    600,
                ),
            ),
            fires=10 * MINUTE,
            ends=20 * MINUTE,
            labels={name: served[name] for name in ("model", "arm")},
        ),
    )
