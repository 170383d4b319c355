"""Is everything well, and where to look if it is not."""

from __future__ import annotations

from tools.dashboards.board import ARM, MODEL, VERSION, Board, Row
from tools.dashboards.panels import (
    GREEN,
    ORANGE,
    RED,
    Query,
    figure,
    leading,
    lines,
    states,
    third,
)
from tools.dashboards.queries import (
    LIVE,
    OF_MODEL,
    WHERE,
    dropped_share,
    failed_share,
    missing_share,
    named,
    quantile,
    rate,
)
from tools.dashboards.words import DECISIONS, FIRING, OUTCOMES, QUANTILES, SEVERITIES, decided

_FIRING = 'ALERTS{alertname=~"Understudy.+", alertstate="firing"}'
_WIDE = 3

_NOW = Row(
    "Now",
    (
        figure(
            "Requests",
            "Client requests per second, without mirrored requests.",
            "reqps",
            Query(rate("requests_total", LIVE)),
            empty="no traffic",
            width=_WIDE,
        ),
        figure(
            "Failed",
            "Share of client requests that failed: model server errors, timeouts, broken connections, "
            "overload. Client errors do not count.",
            "percentunit",
            Query(failed_share()),
            empty="no traffic",
            steps=((None, GREEN), (0.001, ORANGE), (0.01, RED)),
            decimals=2,
            width=_WIDE,
        ),
        figure(
            "p99 of the last minute",
            "99 of 100 client requests were faster than this, in the slowest arm of the slowest "
            "replica. Measured in the sidecar, within 1 %.",
            "s",
            Query(f"max({quantile('0.99', window='1m')})"),
            empty="no traffic",
            width=_WIDE,
        ),
        figure(
            "Open findings",
            "Open findings: blindness, quality, drift, performance, validation, objectives.",
            "none",
            Query(f"sum({named('findings_open', WHERE, model='~$model')})"),
            empty="none so far",
            steps=((None, GREEN), (1, ORANGE)),
            width=_WIDE,
        ),
        figure(
            "Alerts firing",
            "Firing pages and tickets of Understudy's rules, independent of the variables above.",
            "none",
            Query(f"count({_FIRING}) or vector(0)"),
            empty="none",
            steps=((None, GREEN), (1, RED)),
            width=_WIDE,
        ),
        figure(
            "Error budget left",
            "Remaining error budget of the objective with the least budget left.",
            "percentunit",
            Query("min(slo:period_error_budget_remaining:ratio)"),
            empty="no objectives",
            steps=((None, RED), (0.1, ORANGE), (0.5, GREEN)),
            decimals=2,
            width=_WIDE,
        ),
        figure(
            "Not evaluated",
            "Share of exchanges that were dropped before evaluation, so their content is unknown. "
            "Clients are not affected.",
            "percentunit",
            Query(dropped_share()),
            empty="no traffic",
            steps=((None, GREEN), (0.001, ORANGE), (0.05, RED)),
            decimals=2,
            width=_WIDE,
        ),
        figure(
            "Sidecars",
            "Scraped replicas; compare with the expected number.",
            "none",
            Query(f"count({named('workers')})"),
            empty="none",
            width=_WIDE,
        ),
    ),
)

_TRAFFIC = Row(
    "Traffic and tails",
    leading(
        "understudy-latency",
        "Latency and tails",
        third(
            "Requests by arm",
            "Client requests per second, by the arm that answered them.",
            "reqps",
            Query(rate("requests_total", LIVE, by="arm"), "{{arm}}"),
            empty="no traffic",
            stacked=True,
        ),
        third(
            "Latency",
            "Quantiles of the last minute over all arms: the slowest replica's. The distance "
            "between them is what the slowest users feel.",
            "s",
            *(
                Query(f"max({quantile(at, window='1m')})", name)
                for at, name in (
                    ("0.5", "p50"),
                    ("0.95", "p95"),
                    ("0.99", "p99"),
                    ("0.999", "p99.9"),
                )
            ),
            empty="no traffic",
            colors={f"^{name}$": color for name, color in QUANTILES.items()},
        ),
        third(
            "Failures by outcome",
            "Failed client requests per second, by outcome. Empty: no failures.",
            "reqps",
            Query(rate("requests_total", LIVE, outcome="!ok", by="outcome"), "{{outcome}}"),
            Query(
                rate("grpc_calls_total", LIVE, grpc_status="!OK", by="grpc_status"),
                "gRPC {{grpc_status}}",
            ),
            empty="no failures",
            colors={f"^{name}$": color for name, color in OUTCOMES.items()},
            stacked=True,
        ),
    ),
)

_SILENT = Row(
    "Silent failure: quality, drift, accuracy",
    leading(
        "understudy-predictions",
        "Predictions and features",
        third(
            "Open findings",
            "Open findings by kind and severity. `understudy findings` and the console show "
            "features, start time and advice.",
            "none",
            Query(
                f"sum by (kind, severity) ({named('findings_open', WHERE, model='~$model')} > 0)",
                "{{kind}} · {{severity}}",
            ),
            empty="none open",
            colors={f"{name}$": color for name, color in SEVERITIES.items()},
            stacked=True,
            stepped=True,
        ),
        lines(
            "Accuracy",
            "Measured once labels arrive, and estimated from the scores until then.",
            "percentunit",
            Query(
                "avg by (model, version) "
                f"({named('performance_estimate', OF_MODEL, metric='accuracy', bound='estimate')})",
                "{{model}} {{version}}, labels",
            ),
            Query(
                "avg by (model, version) ("
                + named(
                    "performance_estimate", OF_MODEL, metric="estimated_accuracy", bound="estimate"
                )
                + ")",
                "{{model}} {{version}}, without labels",
            ),
            empty="no labels, and no baseline with labels",
            width=8,
        ),
        third(
            "Missing values",
            "Share of values that are null, NaN or absent, for the ten features with the largest share.",
            "percentunit",
            Query(
                f"topk(10, {missing_share()})",
                "{{model}}: {{feature}}",
            ),
            empty="no features decoded",
        ),
    ),
)

_NEXT = Row(
    "Experiments and objectives",
    (
        *leading(
            "understudy-experiments",
            "Experiments",
            states(
                "Decision",
                "The current decision on each challenger. The statistics are anytime-valid.",
                DECISIONS,
                Query(decided(WHERE), "{{experiment}}: {{challenger}}"),
                empty="no experiments",
                width=8,
                height=7,
            ),
            lines(
                "Share of the challengers",
                "Share of units assigned to a challenger by its rollout.",
                "percentunit",
                Query(
                    f"max by (experiment, challenger) ({named('experiment_weight')})",
                    "{{experiment}}: {{challenger}}",
                ),
                empty="no experiments",
                stepped=True,
                low=0,
                high=1,
                width=8,
                height=7,
            ),
        ),
        *leading(
            "understudy-slo",
            "Objectives and error budgets",
            lines(
                "Burn rate",
                "Burn rate of each objective: at 1, the error budget lasts exactly for the period.",
                "none",
                Query(
                    "max by (sloth_service, sloth_slo) (slo:current_burn_rate:ratio)",
                    "{{sloth_service}}: {{sloth_slo}}",
                ),
                empty="no objectives",
                steps=((1.0, ORANGE),),
                low=0,
                width=8,
                height=7,
            ),
        ),
        states(
            "Alerts",
            "Alerts of Understudy's rules over time; their annotations link to the runbook.",
            FIRING,
            Query(
                f"max by (alertname, severity, sloth_slo, model, arm, instance) ({_FIRING})",
                "{{alertname}} {{sloth_slo}}{{model}} {{arm}}{{instance}}: {{severity}}",
            ),
            empty="no alerts",
            width=24,
            height=7,
        ),
    ),
)

BOARD = Board(
    uid="understudy-overview",
    title="Understudy / Overview",
    text="Traffic, tails, silent failure, experiments and error budgets of all models on one page.",
    choices=(MODEL, VERSION, ARM),
    rows=(_NOW, _TRAFFIC, _SILENT, _NEXT),
)
