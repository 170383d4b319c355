"""Alerts for records in transit through Kafka, and for the evaluators."""

from __future__ import annotations

from collections.abc import Mapping

from understudy.common.units import MINUTE
from understudy.monitor.slo.alerts import SHARE, Alert, Trial
from understudy.monitor.slo.model import Level, Stream
from understudy.monitor.slo.promql import selector
from understudy.monitor.slo.scope import Scope
from understudy.monitor.slo.trial_series import counter, level

_AT = {"instance": "a:9090"}


def kafka_alerts(scope: Scope) -> tuple[Alert, ...]:
    """Alerts for sidecars with ``evaluation: kafka`` and for ``understudy evaluate``."""
    scrape, here = scope.labels(), scope.example()

    def metric(name: str, **labels: str) -> str:
        return selector(f"understudy_{name}", {**scrape, **labels})

    def grew(name: str) -> str:
        return f"sum{scope.by('instance')}(increase({metric(name)}[15m]))"

    def ticket(
        name: str,
        expr: str,
        lasts: float,
        summary: str,
        description: str,
        series: tuple[Stream | Level, ...],
        fires: float,
        ends: float = 20 * MINUTE,
        labels: Mapping[str, str] = _AT,
    ) -> Alert:
        trial = Trial(series, fires, ends, labels)
        return Alert(name, "kafka", "ticket", expr, lasts, summary, description, trial)

    def count(name: str, fault: float, **labels: str) -> Stream:
        return counter(f"understudy_{name}", {**here, **_AT, **labels}, 0, fault)

    def value(name: str, calm: float, fault: float, **labels: str) -> Level:
        return level(f"understudy_{name}", {**here, **_AT, **labels}, calm, fault)

    behind = {"partition": "understudy.records-3"}
    return (
        ticket(
            "UnderstudyKafkaAway",
            f"max{scope.by('instance')}({metric('kafka_state', state='sending')}) == 0",
            5 * MINUTE,
            "{{ $labels.instance }} cannot publish to Kafka",
            "Records wait on disk and are sent when Kafka is back; clients are not affected. Check "
            "brokers, address and credentials.",
            (
                value("kafka_state", 1, 0, state="sending"),
                value("kafka_state", 0, 1, state="error"),
            ),
            7 * MINUTE,
            2 * MINUTE,
        ),
        ticket(
            "UnderstudyKafkaSpool",
            f"max{scope.by('instance')}({metric('kafka_spool_bytes')}\n/\n"
            f"{metric('kafka_spool_limit_bytes')}) > 0.5",
            5 * MINUTE,
            "{{ $labels.instance }}: Kafka spool is filling up",
            f"{SHARE} of the spool is in use. Once it is full, the oldest "
            "records are dropped. Fix Kafka, or raise kafka.spool.max_size.",
            (
                value("kafka_spool_limit_bytes", 1e9, 1e9),
                value("kafka_spool_bytes", 0, 8e8),
            ),
            7 * MINUTE,
            2 * MINUTE,
        ),
        ticket(
            "UnderstudyKafkaDropped",
            f"{grew('kafka_dropped_total')} > 0",
            0.0,
            "{{ $labels.instance }} drops records before Kafka",
            "{{ $value | humanize }} records and labels were dropped in 15 minutes. Check the "
            "reason in understudy_kafka_dropped_total.",
            (count("kafka_dropped_total", 10, reason="spool_full"),),
            3 * MINUTE,
        ),
        ticket(
            "UnderstudyKafkaRoutesStale",
            f"min{scope.by('instance')}({metric('kafka_routes_caught_up')}) == 0",
            5 * MINUTE,
            "{{ $labels.instance }} uses stale routes",
            "It cannot read the routes topic, so it misses stages and roll-backs. Check the topic "
            "and permissions.",
            (value("kafka_routes_caught_up", 1, 0),),
            7 * MINUTE,
            2 * MINUTE,
        ),
        ticket(
            "UnderstudyEvaluatorBehind",
            f"max{scope.by('instance', 'partition')}"
            f"(min_over_time({metric('evaluator_lag')}[10m])) > 100",
            0.0,
            "Evaluators lag behind on {{ $labels.partition }}",
            "{{ $value | humanize }} messages have been waiting for ten minutes; findings and "
            "experiments are late. Add evaluators, or wait for a burst to pass.",
            (value("evaluator_lag", 0, 500, **behind),),
            13 * MINUTE,
            2 * MINUTE,
            {**_AT, **behind},
        ),
        ticket(
            "UnderstudyEvaluatorFailing",
            f"{grew('evaluator_failures_total')} >= 3",
            0.0,
            "{{ $labels.instance }}: evaluator keeps restarting",
            "{{ $value | humanize }} restarts from the last committed offset in 15 minutes. See "
            "`GET /v1/evaluator` and the log for the reason.",
            (count("evaluator_failures_total", 1),),
            6 * MINUTE,
        ),
        ticket(
            "UnderstudyEvaluatorUnread",
            f"{grew('evaluator_dead_total')} > 0",
            0.0,
            "{{ $labels.instance }} skips unreadable messages",
            "{{ $value | humanize }} messages were skipped in 15 minutes; they are in the "
            "dead-letter topic, with the reason.",
            (count("evaluator_dead_total", 5, reason="damaged"),),
            3 * MINUTE,
        ),
        ticket(
            "UnderstudyEvaluatorBlocksLost",
            f"{grew('evaluator_blocks_missing_total')} > 0",
            0.0,
            "{{ $labels.instance }}: blocks of records are missing",
            "{{ $value | humanize }} numbered blocks are missing: a sidecar dropped them, or Kafka "
            "deleted them unread. Check the retention.",
            (count("evaluator_blocks_missing_total", 5, partition="3"),),
            3 * MINUTE,
        ),
    )
