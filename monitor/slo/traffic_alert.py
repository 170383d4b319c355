"""The alert for a model whose traffic has stopped.

Nights and weekends have no traffic, and so no alert: traffic is expected where it was a week ago,
or in declared hours. An alert lasts until the next request, whatever is expected by then.
"""

from __future__ import annotations

from collections.abc import Sequence

from understudy.common.units import DAY, HOUR, MINUTE, duration, number
from understudy.monitor.config.hours import WEEK, Interval
from understudy.monitor.slo.alerts import SERVICE, Alert, Record, Trial
from understudy.monitor.slo.promql import selector
from understudy.monitor.slo.scope import Scope
from understudy.monitor.slo.trial_series import counter

NAME = "UnderstudyNoTraffic"
_REQUESTS = "understudy_requests_total"
_OWN = {"service": SERVICE}
RATE, LAST, EXPECTED = "requests:rate15m", "last_request:timestamp", "requests:expected"
_RATE, _LAST, _EXPECTED = (selector(f"understudy:{one}", _OWN) for one in (RATE, LAST, EXPECTED))

LEAST = 10
"""Number of requests in each of two half hours from which more are expected: random arrivals at any
constant rate then cause at most one false alert in three months."""
_HALF = 30 * MINUTE
_WINDOW = 15 * MINUTE
_FORGOTTEN = 7 * DAY
"""Time after the last request at which a model is forgotten if no sidecar serves it."""
_MINUTE = "(day_of_week() * 1440 + hour() * 60 + minute())"
"""Minutes since Sunday 00:00 UTC."""


def traffic_alert(scope: Scope, hours: Sequence[Interval] = ()) -> Alert:
    """The alert for the models of a scope; ``hours`` are those in which requests are expected, by
    default those of the past."""
    of_request = ("model", "version", "arm")
    every = selector(_REQUESTS, {**scope.labels(*of_request), "role": "primary"})
    served = {
        "model": "m", "version": "1", "arm": "champion", "role": "primary", "protocol": "oip",
        **scope.example(*of_request),
    }  # fmt: skip
    earlier = f"last_over_time({_LAST}[1d])"
    firing = selector("ALERTS", {"alertname": NAME, "alertstate": "firing", **_OWN})
    same = scope.on("model")
    where = "expected in these hours" if hours else "usual at this hour"
    step = 5 * MINUTE if hours else MINUTE
    return Alert(
        name=NAME,
        kind="outage",
        severity="ticket",
        records=(
            Record(
                f"understudy:{RATE}",
                f"sum{scope.by('model')}(rate({every}[{duration(_WINDOW)}]))",
            ),
            Record(
                f"understudy:{LAST}",
                f"timestamp({_RATE} > 0)\n"
                f"or\n({earlier} > time() - {number(_FORGOTTEN)})\n"
                f"or\n({earlier} and {_RATE})",
            ),
            Record(
                f"understudy:{EXPECTED}",
                _declared(hours) if hours else _as_before(every, scope.by("model")),
            ),
        ),
        # The rate becomes 0 when the window no longer contains the last request.
        expr=(
            f"({_LAST} - {number(_WINDOW)})\n"
            f"and {same} (\n  {_EXPECTED} == 1\n  or\n  last_over_time({firing}[10m])\n)\n"
            f"unless {same} {_RATE} > 0"
        ),
        # Longer than bursts of requests that fill half hours can leave a gap in them.
        lasts=20 * MINUTE,
        summary="{{ $labels.model }} has had no traffic since {{ $value | humanizeTimestamp }}",
        description=(
            f"Requests are {where}. Check the load balancer and the clients. This ends with the "
            "next request."
        ),
        trial=Trial(
            series=(counter(_REQUESTS, {**served, "outcome": "ok"}, 60, 0),),
            fires=35 * MINUTE + 3 * step,
            ends=3 * step,
            labels={"model": served["model"]},
            calm=_first(hours) if hours else 2 * HOUR,
            step=step,
            lasts=3 * HOUR,
        ),
    )


def _as_before(every: str, by: str) -> str:
    """1 where both half hours around now had requests a week ago; without data of that time, a
    day ago; where there is none either, an hour ago; else 0."""

    def busy(ago: float) -> str:
        halves = (
            f"(sum{by}(increase({every}[{duration(_HALF)}] offset {duration(back)})) >= bool "
            f"{LEAST})"
            for back in (ago, ago - _HALF)
        )
        return "\n* ".join(halves)

    return "\nor\n".join(busy(ago) for ago in (7 * DAY, DAY, HOUR))


def _declared(hours: Sequence[Interval]) -> str:
    """1 where half an hour without requests is one of declared hours, else 0."""
    early = round((_HALF - _WINDOW) / MINUTE)
    whole = hours[0][0] == 0 and hours[-1][1] == WEEK
    terms = [
        f"({_MINUTE} >= bool {begin if whole and begin == 0 else begin + early}) * "
        f"({_MINUTE} < bool {end})"
        for begin, end in hours
    ]
    joined = "\n  + ".join(terms)
    return f"0 * {_LAST}\n+ on () group_left () (\n  {joined}\n)"


def _first(hours: Sequence[Interval]) -> float:
    """Seconds since 1970 (a Thursday) until the first declared hour after some traffic."""
    thursday, before = 4 * 1440, 120
    starts = (
        max(begin - thursday + week, before)
        for week in (0, WEEK)
        for begin, end in hours
        if end - thursday + week - max(begin - thursday + week, before) >= 60
    )
    return min(starts) * MINUTE
