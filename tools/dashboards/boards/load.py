"""A load test laid over what the service measured in it."""

from __future__ import annotations

from tools.dashboards.board import ARM, MODEL, VERSION, Board, Row
from tools.dashboards.panels import Query, heat, lines, third
from tools.dashboards.queries import (
    LIVE,
    WHERE,
    cells,
    dropped_share,
    failed_share,
    named,
    quantile,
    rate,
    share,
)
from tools.dashboards.words import OUTCOMES, QUANTILES

_SEEN = Row(
    "What clients saw",
    (
        lines(
            "Requests",
            "Client requests per second, by outcome. Purple regions are stages of `understudy gate`.",
            "reqps",
            Query(rate("requests_total", LIVE, by="outcome"), "{{outcome}}"),
            empty="no traffic",
            colors={f"^{name}$": color for name, color in OUTCOMES.items()},
            stacked=True,
            low=0,
        ),
        lines(
            "Latency of the last ten seconds",
            "Quantiles of all arms together, the slowest replica's.",
            "s",
            *(
                Query(f"max({quantile(at, window='10s')})", name)
                for at, name in (
                    ("0.5", "p50"),
                    ("0.99", "p99"),
                    ("0.999", "p99.9"),
                    ("1.0", "max"),
                )
            ),
            empty="no traffic",
            colors={f"^{name}$": color for name, color in QUANTILES.items()},
            log=True,
        ),
        heat(
            "Durations",
            "Where the bands separate, the service is saturated: some requests wait, others do not.",
            "s",
            cells("request_duration_seconds", LIVE),
            empty="no traffic",
            counts="reqps",
        ),
    ),
)

_INSIDE = Row(
    "What it cost",
    (
        third(
            "In flight, and waiting for a connection",
            "If requests wait for a connection, the model server is the bottleneck.",
            "none",
            Query(f"sum by (arm) ({named('in_flight_requests')})", "{{arm}}"),
            Query(
                f"sum by (arm) ({named('pool_connections', WHERE, state='waiting')})",
                "{{arm}}, waiting",
            ),
            empty="no traffic",
        ),
        third(
            "CPU of the sidecar",
            "Cores in use, by process: workers forward, the evaluation plane measures.",
            "none",
            Query(rate("process_cpu_seconds_total", by="process"), "{{process}}"),
            empty="not running",
            stacked=True,
        ),
        third(
            "CPU per request",
            "CPU time of the workers per client request, including mirrored requests.",
            "s",
            Query(
                f"{rate('process_cpu_seconds_total', process='~worker-.*')} / "
                f"({rate('requests_total', role='primary')} > 0)",
                "per request",
            ),
            empty="no traffic",
        ),
        third(
            "Failed",
            "Share of client requests that failed, by arm.",
            "percentunit",
            Query(failed_share("arm"), "{{arm}}"),
            empty="no traffic",
        ),
        third(
            "Dropped records and mirrored requests",
            "What the sidecar drops first, so that clients do not wait.",
            "percentunit",
            Query(dropped_share(), "not evaluated"),
            Query(
                share(rate("dropped_total", stage="mirror"), rate("mirror_total")),
                "mirrored requests dropped",
            ),
            empty="no traffic",
        ),
        third(
            "Memory of the sidecar",
            "Resident memory, by process.",
            "bytes",
            Query(f"sum by (process) ({named('process_resident_memory_bytes')})", "{{process}}"),
            empty="not running",
            stacked=True,
        ),
    ),
)

BOARD = Board(
    uid="understudy-load",
    title="Understudy / Load tests",
    text="Stages of `understudy gate` as annotations over what the sidecar measured meanwhile.",
    choices=(MODEL, VERSION, ARM),
    rows=(_SEEN, _INSIDE),
    since="now-30m",
    refresh="10s",
)
