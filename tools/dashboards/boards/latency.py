"""How fast, for the slowest users too, and where the time goes."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import CustomVariable
from grafana_foundation_sdk.models.dashboard import VariableOption

from tools.dashboards.board import ARM, MODEL, VERSION, Board, Row
from tools.dashboards.panels import Query, figure, heat, lines, third
from tools.dashboards.queries import (
    LIVE,
    OF_ARM,
    WHERE,
    cells,
    mean,
    named,
    of_buckets,
    quantile,
    rate,
    share,
)
from tools.dashboards.words import QUANTILES

_AT = (
    ("0.5", "p50"), ("0.9", "p90"), ("0.95", "p95"), ("0.99", "p99"), ("0.999", "p99.9"),
    ("1.0", "max"),
)  # fmt: skip
_COLORS = {f"{name}$": color for name, color in QUANTILES.items()}
_MIRRORED = f'{OF_ARM}, role="mirror"'


_TAILS = Row(
    "The whole distribution",
    (
        *(
            figure(
                name,
                (
                    "The slowest client request in the selected window."
                    if name == "max"
                    else f"Quantile {at} in the selected window: the slowest arm of the slowest replica."
                ),
                "s",
                Query(f"max({quantile(at)})"),
                empty="no traffic",
            )
            for at, name in _AT
        ),
        heat(
            "Client requests by duration",
            "Distribution of durations over time. A second band is a second population of requests, which "
            "quantiles hide. With exemplars enabled in Prometheus, a point links to the trace of a "
            "request.",
            "s",
            cells("request_duration_seconds", LIVE),
            empty="no traffic",
            counts="reqps",
        ),
        lines(
            "Quantiles over the window",
            "From the sidecars' own sketches, within 1 % whatever the value; of several replicas the "
            "slowest one.",
            "s",
            *(Query(f"max({quantile(at)})", name) for at, name in _AT),
            empty="no traffic",
            colors=_COLORS,
            log=True,
            height=9,
        ),
        lines(
            "Quantiles over all replicas",
            "From the buckets of the histograms, which add up exactly over replicas; between two edges "
            "of buckets (5, 10, 25, 50, 75, 100, 250, 500, 750 ms, 1, 2.5, 5, 7.5, 10 s) it is a guess. "
            "Where Prometheus keeps native histograms, whose buckets are 9 % wide, these are used.",
            "s",
            *(
                Query(of_buckets(at, "request_duration_seconds", LIVE), name)
                for at, name in _AT[:-1]
            ),
            empty="no traffic",
            colors=_COLORS,
            log=True,
            height=9,
        ),
    ),
)

_ARMS = Row(
    "By arm",
    (
        *(
            third(
                f"{name} by arm",
                f"The {which}: client requests, and mirrored requests.",
                "s",
                Query(quantile(at), "{{arm}}"),
                Query(quantile(at, _MIRRORED), "{{arm}}, mirrored"),
                empty="no traffic",
            )
            for name, at, which in (
                ("p50", "0.5", "usual request"),
                ("p99", "0.99", "slowest hundredth"),
            )
        ),
        third(
            "Mean by arm",
            "Means hide the tail; use them for capacity planning.",
            "s",
            Query(mean("request_duration_seconds", LIVE, "arm"), "{{arm}}"),
            Query(mean("request_duration_seconds", _MIRRORED, "arm"), "{{arm}}, mirrored"),
            empty="no traffic",
        ),
    ),
)

_WHERE_TIME_GOES = Row(
    "Where the time goes",
    (
        third(
            "p99 of the first byte",
            "Time to the first byte of the response, from histogram buckets.",
            "s",
            Query(
                of_buckets("0.99", "time_to_first_byte_seconds", OF_ARM, "arm, role"),
                "{{arm}}, {{role}}",
            ),
            empty="no traffic",
        ),
        third(
            "Mean wait for a connection",
            "Wait of a request because all connections to the model server were in use, for those that "
            "waited; see `max_connections`.",
            "s",
            Query(mean("queue_seconds", OF_ARM, "arm, role"), "{{arm}}, {{role}}"),
            empty="no waiting requests",
        ),
        third(
            "In flight, and waiting",
            "Requests in flight at a model server, and requests that wait for a connection to it.",
            "none",
            Query(f"sum by (arm, role) ({named('in_flight_requests')})", "{{arm}}, {{role}}"),
            Query(
                f"sum by (arm) ({named('pool_connections', WHERE, state='waiting')})",
                "{{arm}}, waiting",
            ),
            empty="no traffic",
        ),
        third(
            "Size of requests and responses",
            "Mean size of the payload. A challenger whose answers are of another size says something "
            "else.",
            "bytes",
            Query(
                share(
                    rate("request_bytes_total", LIVE, by="arm"),
                    rate("requests_total", LIVE, by="arm"),
                ),
                "{{arm}}, requests",
            ),
            Query(
                share(
                    rate("response_bytes_total", OF_ARM, by="arm, role"),
                    rate("requests_total", OF_ARM, by="arm, role"),
                ),
                "{{arm}}, answers ({{role}})",
            ),
            empty="no traffic",
        ),
        third(
            "Cold starts",
            "Number of times that a model server started or restarted.",
            "none",
            Query(
                f"sum by (arm) (increase({named('cold_starts_total')}[$__rate_interval]))",
                "{{arm}}",
            ),
            empty="none",
            stepped=True,
        ),
        third(
            "Length of the last cold start",
            "From unreachable to the first successful response, by arm; slowest replica.",
            "s",
            Query(f"max by (arm) ({named('cold_start_seconds')})", "{{arm}}"),
            empty="none",
            stepped=True,
        ),
    ),
)

_STREAMS = Row(
    "Streams",
    (
        third(
            "p99 of the first event",
            "Time to the first event of a streamed response. It may be empty: see the tokens of language "
            "models.",
            "s",
            Query(
                of_buckets("0.99", "stream_first_event_seconds", OF_ARM, "arm, role"),
                "{{arm}}, {{role}}",
            ),
            empty="no streams",
        ),
        third(
            "p99 of the longest gap",
            "The longest pause between two events of a stream, without those in which the client did not "
            "read.",
            "s",
            Query(
                of_buckets("0.99", "stream_longest_gap_seconds", OF_ARM, "arm, role"),
                "{{arm}}, {{role}}",
            ),
            empty="no streams",
        ),
        third(
            "Events and stalls",
            "Events per second, and pauses of more than a second.",
            "none",
            Query(rate("stream_events_total", OF_ARM, by="arm"), "{{arm}}, events"),
            Query(rate("stream_stalls_total", OF_ARM, by="arm"), "{{arm}}, stalls"),
            empty="no streams",
        ),
    ),
)

BOARD = Board(
    uid="understudy-latency",
    title="Understudy / Latency and tails",
    text="Durations of requests: heat map, quantiles to p99.9 and the maximum, by arm, and where the time "
    "goes.",
    choices=(MODEL, VERSION, ARM),
    rows=(_TAILS, _ARMS, _WHERE_TIME_GOES, _STREAMS),
    extra=(
        CustomVariable("window")
        .label("Window")
        .description("The span over which the sidecar's own quantiles are taken.")
        .values("10s,1m,5m")
        .current(VariableOption(text="1m", value="1m", selected=True)),
    ),
)
