"""The sidecar itself: processes, queues, drops, connections, Kafka; and the evaluators."""

from __future__ import annotations

from tools.dashboards.board import Board, Row
from tools.dashboards.boards.kafka import EVALUATORS, KAFKA
from tools.dashboards.panels import GREEN, ORANGE, RED, Query, figure, lines, states, third
from tools.dashboards.queries import WHERE, increase, named, rate
from tools.dashboards.words import CLOSED, RELOADED

_PROCESSES = Row(
    "Processes",
    (
        figure(
            "Replicas",
            "Scraped sidecars and evaluators.",
            "none",
            Query(f"count({named('workers')})", "sidecars"),
            Query(f"count({named('process_open_fds', process='evaluator')})", "evaluators"),
            empty="none",
            names=True,
            width=4,
        ),
        figure(
            "Workers",
            "Worker processes, over all replicas.",
            "none",
            Query(f"sum({named('workers')})"),
            empty="none",
            width=4,
        ),
        figure(
            "Version",
            "Running versions.",
            "none",
            Query(f"count by (version) ({named('build_info')})", "{{version}}"),
            empty="none",
            names=True,
            width=4,
        ),
        figure(
            "Restarts in the last hour",
            "Restarts of workers and of the evaluation plane.",
            "none",
            Query(
                f"sum(increase({named('worker_restarts_total')}[1h])) + "
                f"sum(increase({named('evaluation_restarts_total')}[1h]))"
            ),
            empty="none",
            steps=((None, GREEN), (1, ORANGE), (5, RED)),
            decimals=0,
            width=4,
        ),
        figure(
            "Last configuration",
            "Whether the last reload was accepted; otherwise the previous configuration stays active.",
            "none",
            Query(f"min({named('config_last_reload_successful')})"),
            empty="none",
            words=RELOADED,
            width=4,
        ),
        figure(
            "Generation",
            "Number of the active configuration; the lowest and the highest of the replicas.",
            "none",
            Query(f"min({named('config_generation')})", "lowest"),
            Query(f"max({named('config_generation')})", "highest"),
            empty="none",
            width=4,
        ),
        third(
            "CPU",
            "Cores in use, by process.",
            "none",
            Query(rate("process_cpu_seconds_total", by="process"), "{{process}}"),
            empty="not running",
            stacked=True,
        ),
        third(
            "Memory",
            "Resident memory, by process: it should be flat. And what workers keep for connections, "
            "with its limit.",
            "bytes",
            Query(f"sum by (process) ({named('process_resident_memory_bytes')})", "{{process}}"),
            Query(f"sum({named('connection_memory_bytes')})", "for connections"),
            Query(f"sum({named('connection_memory_limit_bytes')})", "for connections, at most"),
            empty="not running",
        ),
        third(
            "Open files",
            "File descriptors in use, by process.",
            "none",
            Query(f"max by (process) ({named('process_open_fds')})", "{{process}}"),
            empty="not running",
        ),
    ),
)

_RECORDS = Row(
    "From the data plane to the evaluation",
    (
        third(
            "Records",
            "Eligible and evaluated exchanges. The lines coincide as long as nothing is dropped.",
            "ops",
            Query(rate("records_eligible_total"), "eligible"),
            Query(rate("records_sent_total"), "sent"),
            Query(rate("records_evaluated_total"), "evaluated"),
            empty="no traffic",
        ),
        third(
            "Dropped",
            "Dropped records and mirrored requests per second, by stage and reason.",
            "ops",
            Query(rate("dropped_total", by="stage, reason"), "{{stage}}: {{reason}}"),
            empty="none",
        ),
        third(
            "Trouble",
            "Per point of the picture: records lost in a crash, connections of workers closed for a "
            "protocol error, state that could not be saved, findings that could not be written, "
            "connections without a file descriptor, processes that were replaced since they hung or took "
            "too much memory; and series of workers that are counted as other, for want of room or since "
            "their arm is gone; and requests for more models than `match.most`.",
            "none",
            Query(increase("records_lost_total"), "records lost"),
            Query(increase("handoff_errors_total"), "protocol errors"),
            Query(increase("state_write_failures_total"), "state not saved"),
            Query(increase("findings_write_failures_total"), "findings not written"),
            Query(increase("feedback_failures_total"), "label store failed"),
            Query(increase("descriptors_exhausted_total"), "no descriptor left"),
            Query(increase("process_kills_total"), "processes replaced"),
            Query(increase("statistics_overflowed_total"), "series without room"),
            Query(increase("statistics_reclaimed_total"), "series removed"),
            Query(increase("models_unlisted_requests_total"), "for models beyond match.most"),
            empty="none",
        ),
        third(
            "Workers connected",
            "Workers, and those of them that are connected to the evaluation plane.",
            "none",
            Query(f"sum({named('workers')})", "workers"),
            Query(f"sum({named('handoff_connections')})", "connected"),
            empty="not running",
            stepped=True,
        ),
        third(
            "Waiting for labels",
            "Predictions that are kept for their labels, by arm, and labels whose prediction is not "
            "there (yet).",
            "short",
            Query(f"sum by (arm) ({named('feedback_predictions')})", "{{arm}}"),
            Query(f"sum({named('feedback_orphans')})", "orphans"),
            empty="feedback is off",
        ),
        third(
            "Notifications",
            "Messages to channels per second, by outcome, and findings that are pending for a channel.",
            "none",
            Query(rate("notifications_total", by="channel, outcome"), "{{channel}}: {{outcome}}"),
            Query(f"sum by (channel) ({named('notifications_pending')})", "{{channel}}: pending"),
            empty="no channels",
        ),
        third(
            "Findings",
            "Per point of the picture: findings that were opened, that came back within their time of "
            "grace, and closed findings that were dropped because the history is full.",
            "none",
            Query(increase("findings_total", by="kind"), "opened: {{kind}}"),
            Query(increase("findings_reopened_total"), "came back"),
            Query(increase("findings_forgotten_total"), "forgotten"),
            empty="none",
        ),
        third(
            "Ingested over the control API",
            "Records and events posted to the control API, by outcome.",
            "ops",
            Query(rate("ingested_total", by="source, outcome"), "{{source}}: {{outcome}}"),
            empty="no posted records",
        ),
        third(
            "Dropped labels",
            "Predictions and labels deleted per second, by reason: expired, or the store is full.",
            "ops",
            Query(rate("feedback_purged_total", by="reason"), "{{reason}}"),
            empty="feedback is off",
        ),
        lines(
            "OpenTelemetry",
            "Spans, metrics and log records per second by outcome: failed is a collector that was away "
            "or refused them, dropped a full queue; and those that wait.",
            "ops",
            Query(rate("otlp_offered_total", by="signal"), "{{signal}}: offered"),
            Query(rate("otlp_exported_total", by="signal, outcome"), "{{signal}}: {{outcome}}"),
            Query(f"sum by (signal) ({named('otlp_waiting')})", "{{signal}}: waiting"),
            empty="OpenTelemetry is off",
            width=24,
            low=0,
        ),
    ),
)

_CONNECTIONS = Row(
    "Connections",
    (
        third(
            "Client connections",
            "Open now and at most, accepted per second, and closed per second while idle to make room.",
            "none",
            Query(f"sum({named('connections_open')})", "open"),
            Query(f"sum({named('connections_limit')})", "limit"),
            Query(rate("connections_accepted_total"), "accepted per second"),
            Query(rate("connections_reclaimed_total"), "closed to make room"),
            empty="no clients",
        ),
        third(
            "Refused requests and responses",
            "Requests per second that never reached a model server, and responses that broke a rule "
            "of HTTP or a limit, by reason.",
            "reqps",
            Query(rate("rejected_requests_total", by="reason"), "{{reason}}"),
            Query(rate("refused_responses_total", by="arm, reason"), "{{arm}}: {{reason}}"),
            empty="none refused",
        ),
        third(
            "Pools",
            "Connections to model servers, requests that wait for one, and their addresses.",
            "none",
            Query(f"sum by (arm, state) ({named('pool_connections')})", "{{arm}}: {{state}}"),
            Query(
                f"max by (arm, state) ({named('upstream_addresses')})",
                "{{arm}}: addresses {{state}}",
            ),
            empty="no connections",
        ),
        third(
            "Connecting to model servers",
            "Per second: connections opened, failed attempts, requests retried on a new one, names "
            "looked up, changed certificates, and requests whose credentials were removed.",
            "ops",
            Query(rate("upstream_connects_total", by="arm"), "{{arm}}: made"),
            Query(rate("upstream_connect_failures_total", by="arm"), "{{arm}}: failed"),
            Query(rate("retries_total", by="arm"), "{{arm}}: again"),
            Query(
                rate("upstream_lookups_total", by="arm, outcome"), "{{arm}}: look-up {{outcome}}"
            ),
            Query(rate("certificate_changes_total", by="arm"), "{{arm}}: certificates"),
            Query(rate("credentials_removed_total", by="arm"), "{{arm}}: credentials removed"),
            empty="no connections",
        ),
        states(
            "Breakers",
            "The worst state of a challenger's circuit breaker over all workers: for mirrored requests, "
            "and for client requests.",
            CLOSED,
            *(
                Query(
                    f"max by (arm) ((({named(metric, WHERE, state='open')} > bool 0) * 2) or "
                    f"({named(metric, WHERE, state='half_open')} > bool 0))",
                    f"{{{{arm}}}}: {what}",
                )
                for metric, what in (
                    ("breaker_workers", "mirrored"),
                    ("serving_breaker_workers", "clients"),
                )
            ),
            empty="no challengers",
            width=8,
            height=8,
        ),
        third(
            "Queued mirrored requests",
            "Mirrored requests that wait for a challenger, or are in flight.",
            "none",
            Query(f"sum by (arm) ({named('mirror_queue_requests')})", "{{arm}}"),
            empty="no challengers",
        ),
    ),
)

BOARD = Board(
    uid="understudy-internals",
    title="Understudy / Sidecar internals",
    text="Processes, queues, drops, connections and Kafka of the sidecars themselves.",
    rows=(_PROCESSES, _RECORDS, _CONNECTIONS, KAFKA, EVALUATORS),
)
