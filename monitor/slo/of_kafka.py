"""Alerts for the way of records over Kafka, and for the evaluators at its end."""

from __future__ import annotations

from collections.abc import Mapping

from understudy.common.units import MINUTE
from understudy.monitor.slo.alerts import Alert, Trial
from understudy.monitor.slo.model import Level, Stream
from understudy.monitor.slo.promql import selector
from understudy.monitor.slo.trying import counter, level

_AT = {"instance": "a:9090"}


def kafka_alerts(scrape: Mapping[str, str]) -> tuple[Alert, ...]:
    """For sidecars that publish (``evaluation: kafka``) and for ``understudy evaluate``."""

    def metric(name: str, **labels: str) -> str:
        return selector(f"understudy_{name}", {**scrape, **labels})

    def grew(name: str) -> str:
        return f"sum by (namespace, instance) (increase({metric(name)}[15m]))"

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
        return counter(f"understudy_{name}", scrape, {**_AT, **labels}, 0, fault)

    def value(name: str, calm: float, fault: float, **labels: str) -> Level:
        return level(f"understudy_{name}", scrape, {**_AT, **labels}, calm, fault)

    behind = {"partition": "understudy.records-3"}
    return (
        ticket(
            "UnderstudyKafkaAway",
            f"max by (namespace, instance) ({metric('kafka_state', state='sending')}) == 0",
            5 * MINUTE,
            "{{ $labels.instance }} cannot publish to Kafka",
            "Records wait on disk and are sent in order when it is back; clients notice nothing.",
            (
                value("kafka_state", 1, 0, state="sending"),
                value("kafka_state", 0, 1, state="error"),
            ),
            7 * MINUTE,
            2 * MINUTE,
        ),
        ticket(
            "UnderstudyKafkaSpool",
            f"max by (namespace, instance) ({metric('kafka_spool_bytes')}\n/\n"
            f"{metric('kafka_spool_limit_bytes')}) > 0.5",
            5 * MINUTE,
            "{{ $labels.instance }}: half of the spool is full",
            "{{ $value | humanizePercentage }} of what may wait for Kafka is taken; when all is, "
            "the oldest records are dropped.",
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
            "{{ $labels.instance }} drops records that were to be published",
            "{{ $value | humanize }} records and labels will never reach Kafka.",
            (count("kafka_dropped_total", 10, reason="spool_full"),),
            3 * MINUTE,
        ),
        ticket(
            "UnderstudyKafkaRoutesStale",
            f"min by (namespace, instance) ({metric('kafka_routes_caught_up')}) == 0",
            5 * MINUTE,
            "{{ $labels.instance }} routes by old shares",
            "It cannot read the topic of routes; a rollout may go on without it.",
            (value("kafka_routes_caught_up", 1, 0),),
            7 * MINUTE,
            2 * MINUTE,
        ),
        ticket(
            "UnderstudyEvaluatorBehind",
            "max by (namespace, instance, partition) "
            f"(min_over_time({metric('evaluator_lag')}[10m])) > 100",
            0.0,
            "Evaluators do not keep up with {{ $labels.partition }}",
            "{{ $value | humanize }} messages have waited for ten minutes and more: findings and "
            "experiments are late.",
            (value("evaluator_lag", 0, 500, **behind),),
            13 * MINUTE,
            2 * MINUTE,
            {**_AT, **behind},
        ),
        ticket(
            "UnderstudyEvaluatorFailing",
            f"{grew('evaluator_failures_total')} >= 3",
            0.0,
            "{{ $labels.instance }}: the evaluator begins anew again and again",
            "{{ $value | humanize }} times in 15 minutes it went back to what is committed.",
            (count("evaluator_failures_total", 1),),
            6 * MINUTE,
        ),
        ticket(
            "UnderstudyEvaluatorUnread",
            f"{grew('evaluator_dead_total')} > 0",
            0.0,
            "{{ $labels.instance }} finds messages that it cannot read",
            "{{ $value | humanize }} messages in 15 minutes were left out.",
            (count("evaluator_dead_total", 5, reason="damaged"),),
            3 * MINUTE,
        ),
        ticket(
            "UnderstudyEvaluatorBlocksLost",
            f"{grew('evaluator_blocks_missing_total')} > 0",
            0.0,
            "{{ $labels.instance }}: blocks of records never came",
            "{{ $value | humanize }} blocks are missing between those that came: they were dropped "
            "before Kafka or deleted in it.",
            (count("evaluator_blocks_missing_total", 5, partition="3"),),
            3 * MINUTE,
        ),
    )
