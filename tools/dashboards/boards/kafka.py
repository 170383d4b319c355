"""Rows about Kafka: what sidecars publish, and the evaluators that read it."""

from __future__ import annotations

from tools.dashboards.board import Row
from tools.dashboards.panels import Query, states, third
from tools.dashboards.queries import increase, named, rate
from tools.dashboards.words import CAUGHT_UP, CONNECTED, STATES

KAFKA = Row(
    "Kafka",
    (
        states(
            "Connection",
            "State of the connection; stalled: connected, but without responses.",
            CONNECTED,
            Query(
                "max by (instance) ("
                + " or ".join(
                    f"({named('kafka_state', state=word)} == 1) * {number}"
                    for number, word in enumerate(STATES)
                )
                + ")",
                "{{instance}}",
            ),
            empty="the evaluation is embedded: no Kafka",
            width=8,
            height=8,
        ),
        third(
            "Published",
            "Records and labels per second: accepted, and acknowledged by Kafka. The lines coincide as "
            "long as Kafka keeps up.",
            "ops",
            Query(rate("kafka_taken_total"), "handed over"),
            Query(rate("kafka_published_records_total"), "records"),
            Query(rate("kafka_published_labels_total"), "labels"),
            empty="the evaluation is embedded: no Kafka",
        ),
        third(
            "Waiting",
            "Records and labels that Kafka does not have yet. While it is away they wait on disk.",
            "short",
            Query(f"sum by (instance) ({named('kafka_waiting_records')})", "{{instance}}"),
            empty="the evaluation is embedded: no Kafka",
        ),
        third(
            "Spool",
            "Bytes on disk, and the limit above which the oldest are dropped.",
            "bytes",
            Query(f"max by (instance) ({named('kafka_spool_bytes')})", "{{instance}}"),
            Query(f"min({named('kafka_spool_limit_bytes')})", "limit"),
            empty="the evaluation is embedded: no Kafka",
        ),
        third(
            "Drops and errors",
            "Per second: records and labels that will not reach Kafka, by reason, and errors, by kind.",
            "ops",
            Query(rate("kafka_dropped_total", by="reason"), "dropped: {{reason}}"),
            Query(rate("kafka_errors_total", by="error"), "error: {{error}}"),
            empty="none",
        ),
        third(
            "Time since the last acknowledgement",
            "Time since Kafka last accepted a message: the longest of the replicas.",
            "s",
            Query(f"max({named('kafka_last_answer_seconds')})", "longest"),
            empty="the evaluation is embedded: no Kafka",
        ),
        third(
            "Volume",
            "Bytes per second accepted by Kafka; determines the cost of retention.",
            "Bps",
            Query(rate("kafka_published_bytes_total"), "bytes"),
            empty="the evaluation is embedded: no Kafka",
        ),
        states(
            "Routes",
            "Whether a sidecar has read all routes; before that, it uses its last known routes.",
            CAUGHT_UP,
            Query(
                f"min by (instance) ({named('kafka_routes_caught_up')})",
                "{{instance}}",
            ),
            empty="the evaluation is embedded: no Kafka",
            width=8,
            height=8,
        ),
        third(
            "Taken over, and refused",
            "Per point of the picture: records that an earlier process had left on disk, and routes of "
            "controllers that had been replaced.",
            "none",
            Query(increase("kafka_recovered_total"), "records taken over"),
            Query(increase("kafka_routes_refused_total"), "routes refused"),
            empty="the evaluation is embedded: no Kafka",
        ),
    ),
    folded=True,
)

EVALUATORS = Row(
    "Evaluators",
    (
        third(
            "Evaluated",
            "Per second: records and labels that were read, from the topics of others too, and rows of "
            "evidence that were judged.",
            "ops",
            Query(rate("evaluator_records_total"), "read"),
            Query(rate("evaluator_imported_total", by="what"), "brought in: {{what}}"),
            Query(rate("evaluator_judged_rows_total", by="of"), "judged: {{of}}"),
            Query(rate("evaluator_late_rows_total", by="of"), "came late: {{of}}"),
            empty="the evaluation is embedded: no evaluators",
        ),
        third(
            "Consumer lag",
            "The ten partitions with the largest lag. If a line does not fall, add evaluators.",
            "short",
            Query(
                f"topk(10, max by (partition) ({named('evaluator_lag')}))",
                "{{partition}}",
            ),
            empty="the evaluation is embedded: no evaluators",
        ),
        third(
            "Restarts and unreadable messages",
            "Restarts from the last committed offset, unreadable messages, missing blocks, duplicate "
            "blocks (harmless), and snapshots that were set aside.",
            "none",
            Query(increase("evaluator_failures_total", by="instance"), "restarted: {{instance}}"),
            Query(increase("evaluator_dead_total", by="reason"), "not read: {{reason}}"),
            Query(increase("evaluator_blocks_missing_total"), "never came"),
            Query(increase("evaluator_blocks_duplicates_total"), "came again"),
            Query(increase("evaluator_snapshots_set_aside_total"), "snapshots set aside"),
            empty="the evaluation is embedded: no evaluators",
        ),
        third(
            "Commits",
            "Transactions per second, by evaluator: one a second, unless `--commit` says otherwise.",
            "ops",
            Query(rate("evaluator_commits_total", by="instance"), "{{instance}}"),
            empty="the evaluation is embedded: no evaluators",
        ),
        third(
            "CPU of evaluators",
            "Cores in use. An evaluator near 1 is the cause of lag.",
            "none",
            Query(
                rate("process_cpu_seconds_total", by="instance", process="evaluator"),
                "{{instance}}",
            ),
            empty="the evaluation is embedded: no evaluators",
        ),
        third(
            "Memory of evaluators",
            "Resident memory.",
            "bytes",
            Query(
                "max by (instance) "
                f"({named('process_resident_memory_bytes', process='evaluator')})",
                "{{instance}}",
            ),
            empty="the evaluation is embedded: no evaluators",
        ),
    ),
    folded=True,
)
