"""What numbers mean, in words and colours, and which colours things keep on every dashboard."""

from __future__ import annotations

from tools.dashboards.panels import BLUE, GREEN, GREY, ORANGE, RED, YELLOW
from understudy.monitor.routing.serving import ROLES

DECISIONS = {
    1.0: ("promote", GREEN),
    2.0: ("continue", BLUE),
    3.0: ("no improvement", YELLOW),
    4.0: ("roll back", RED),
    5.0: ("invalid", ORANGE),
}
DRIFTED = {0.0: ("as usual", GREEN), 1.0: ("drifted", ORANGE)}
MET = {0.0: ("not met", RED), 1.0: ("met", GREEN)}
RELOADED = {0.0: ("rejected", RED), 1.0: ("accepted", GREEN)}
CAUGHT_UP = {0.0: ("behind", ORANGE), 1.0: ("up to date", GREEN)}
CLOSED = {0.0: ("closed", GREEN), 1.0: ("probing", YELLOW), 2.0: ("open", RED)}
STATES = ("connecting", "sending", "stalled", "error")
"""Of the connection to Kafka, as ``understudy_kafka_state`` names them."""
CONNECTED = {
    float(number): (word, color)
    for number, (word, color) in enumerate(zip(STATES, (BLUE, GREEN, ORANGE, RED), strict=True))
}
FIRING = {1.0: ("firing", RED)}
UNTESTED = {1.0: ("not tested", YELLOW)}
PLAYED = {
    float(number): (word, color)
    for number, (word, color) in enumerate(zip(ROLES, (GREEN, BLUE, YELLOW, GREY), strict=True))
}
QUANTILES = {
    "p50": "green", "p90": "light-green", "p95": "yellow", "p99": "orange", "p99.9": "red",
    "max": "dark-red",
}  # fmt: skip
SEVERITIES = {"critical": RED, "warning": ORANGE, "info": BLUE}
BOUNDS = {"estimate": BLUE, "labels": GREEN, "without labels": BLUE}
OUTCOMES = {
    "ok": GREEN, "client_error": YELLOW, "server_error": RED, "timeout": "dark-red",
    "cancelled": GREY, "upstream_connect": "purple", "upstream_reset": "dark-purple",
    "overload": ORANGE, "garbage": "super-light-purple", "model_overload": "light-red",
    "shutdown": "light-orange", "rejected": "light-yellow", "incomplete": "light-blue",
    "client_stalled": "super-light-blue", "stream_error": "semi-dark-red",
    "truncated": "semi-dark-purple",
}  # fmt: skip


def decided(where: str) -> str:
    """The present decision of each challenger, as a number of :data:`DECISIONS`.

    The highest one where replicas of the sidecar disagree: roll back before continue.
    """
    of_each = "max by (experiment, challenger)"
    cause = f'understudy_experiment_decision_cause{{{where}, cause=~"no_improvement|limit"}}'

    def on(word: str) -> str:
        return f'({of_each} (understudy_experiment_decision{{{where}, decision="{word}"}}) == 1)'

    # A rollback for want of an improvement is not one because of harm.
    rolled = f"{on('rollback')} * 4 - ({of_each} ({cause}) or {on('rollback')} * 0)"
    return f"{on('invalid')} * 5 or ({rolled}) or {on('continue')} * 2 or {on('promote')}"
