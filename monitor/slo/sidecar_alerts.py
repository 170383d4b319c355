"""Alerts for the sidecar itself: lost records, failing functions, crashes."""

from __future__ import annotations

from collections.abc import Mapping

from understudy.common.units import MINUTE
from understudy.monitor.slo.alerts import Alert, Trial
from understudy.monitor.slo.burn import Severity
from understudy.monitor.slo.model import Level, Stream
from understudy.monitor.slo.promql import selector
from understudy.monitor.slo.trial_series import counter, level

_WAITS = 20 * MINUTE


def sidecar_alerts(scrape: Mapping[str, str]) -> tuple[Alert, ...]:
    """Alerts for the sidecar, for series with the labels ``scrape``."""

    def metric(name: str, **labels: str) -> str:
        return selector(f"understudy_{name}", {**scrape, **labels})

    def grew(name: str, window: str, by: str, **labels: str) -> str:
        return f"sum by (namespace, {by}) (increase({metric(name, **labels)}[{window}]))"

    def ticket(
        name: str,
        expr: str,
        lasts: float,
        summary: str,
        description: str,
        series: tuple[Stream | Level, ...],
        labels: Mapping[str, str],
        fires: float,
        ends: float = _WAITS,
        severity: Severity = "ticket",
    ) -> Alert:
        trial = Trial(series, fires, ends, labels)
        return Alert(name, "sidecar", severity, expr, lasts, summary, description, trial)

    at = {"instance": "a:9090"}

    def count(name: str, calm: float, fault: float, **labels: str) -> Stream:
        return counter(f"understudy_{name}", scrape, {**at, **labels}, calm, fault)

    def value(name: str, calm: float, fault: float, **labels: str) -> Level:
        return level(f"understudy_{name}", scrape, {**at, **labels}, calm, fault)

    eligible = f"sum by (namespace, instance) (rate({metric('records_eligible_total')}[5m]))"
    handoff = metric("dropped_total", stage="handoff")
    copies = f"sum by (namespace, instance, arm) (rate({metric('mirror_total')}[15m]))"
    not_sent = "queue_full|breaker_open|body_too_large|fell_behind"
    # Keys with an operator cannot be passed as keyword arguments.
    unsent = selector("understudy_mirror_total", {**scrape, "outcome=~": not_sent})
    opened = selector("understudy_breaker_workers", {**scrape, "state=~": "open|half_open"})
    serving = selector(
        "understudy_serving_breaker_workers", {**scrape, "state=~": "open|half_open"}
    )
    planned = f"max by (namespace, instance, arm) ({metric('arm_share', of='planned')})"
    is_down = f"max by (namespace, instance, arm) ({metric('arm_state', state='down')})"
    diverted = f"sum by (namespace, instance, arm) ({metric('arm_diverted_requests')})"
    failed = selector("understudy_notifications_total", {**scrape, "outcome=~": "failed|refused"})
    return (
        ticket(
            "UnderstudyRecordsDropped",
            f"sum by (namespace, instance) (rate({handoff}[5m]))\n/\n({eligible} > 0) > 0.01",
            5 * MINUTE,
            "{{ $labels.instance }} drops records",
            "{{ $value | humanizePercentage }} of the records are dropped before evaluation; "
            "findings and experiments only use the rest. Give the evaluation plane more CPU.",
            (
                count("records_eligible_total", 600, 600),
                count("dropped_total", 0, 300, stage="handoff", reason="queue_full"),
            ),
            at,
            9 * MINUTE,
        ),
        ticket(
            "UnderstudyRecordsLost",
            f"{grew('records_lost_total', '15m', 'instance')} > 0",
            0.0,
            "{{ $labels.instance }} lost records in a crash",
            "{{ $value | humanize }} records were accepted and then lost. Fix the cause of the "
            "crash.",
            (count("records_lost_total", 0, 10),),
            at,
            3 * MINUTE,
        ),
        ticket(
            "UnderstudyWorkerRestarts",
            f"{grew('worker_restarts_total', '15m', 'instance')} >= 3",
            0.0,
            "{{ $labels.instance }}: workers keep crashing",
            "{{ $value | humanize }} worker restarts in 15 minutes; each one cuts off the requests "
            "in flight. Check the log for the exit reason.",
            (count("worker_restarts_total", 0, 1, slot="0"),),
            at,
            6 * MINUTE,
            severity="page",
        ),
        ticket(
            "UnderstudyEvaluationRestarts",
            f"{grew('evaluation_restarts_total', '15m', 'instance')} >= 3",
            0.0,
            "{{ $labels.instance }}: evaluation plane keeps crashing",
            "{{ $value | humanize }} restarts in 15 minutes. Clients are not affected; findings "
            "and experiments pause. Check memory and the log.",
            (count("evaluation_restarts_total", 0, 1),),
            at,
            6 * MINUTE,
        ),
        ticket(
            "UnderstudyHandoffBroken",
            f"sum by (namespace, instance) ({metric('handoff_connections')})\n<\n"
            f"sum by (namespace, instance) ({metric('workers')})",
            2 * MINUTE,
            "{{ $labels.instance }}: workers are disconnected from evaluation",
            "Only {{ $value }} workers are connected; the others will drop their records. Check "
            "the log, and restart the sidecar when convenient.",
            (value("workers", 2, 2), value("handoff_connections", 2, 1)),
            at,
            4 * MINUTE,
            2 * MINUTE,
        ),
        ticket(
            "UnderstudyMirrorBreakerOpen",
            f"max by (namespace, instance, arm) ({opened}) > 0",
            5 * MINUTE,
            "{{ $labels.instance }} stopped mirroring to {{ $labels.arm }}",
            "Its circuit breaker is open after repeated failures. Clients are not affected; "
            "evidence about it is incomplete. Check its model server.",
            (
                value("breaker_workers", 0, 1, arm="candidate", state="open"),
                value("breaker_workers", 2, 1, arm="candidate", state="closed"),
            ),
            {**at, "arm": "candidate"},
            7 * MINUTE,
            2 * MINUTE,
        ),
        ticket(
            "UnderstudyServingArmDown",
            f"{planned} > 0\nand on (namespace, instance, arm)\n{is_down} == 1\n"
            f"and on (namespace, instance, arm)\n{diverted} > 0",
            MINUTE,
            "{{ $labels.arm }} should serve clients on {{ $labels.instance }} and is down",
            "By the routes {{ $value | humanizePercentage }} of the requests are its own; the "
            "champion serves them. Restart its model server, or abort the experiment.",
            (
                value("arm_share", 1, 1, model="m", version="1", arm="candidate", of="planned"),
                value("arm_state", 0, 1, arm="candidate", state="down"),
                value("arm_diverted_requests", 0, 600, model="m", version="1", arm="candidate"),
            ),
            {**at, "arm": "candidate"},
            3 * MINUTE,
            2 * MINUTE,
            severity="page",
        ),
        ticket(
            "UnderstudyServingBreakerOpen",
            f"max by (namespace, instance, arm) ({serving}) > 0",
            MINUTE,
            "{{ $labels.arm }} is down on {{ $labels.instance }}",
            "Its circuit breaker is open after repeated failures; the champion serves its clients. "
            "Abort the experiment unless it recovers within minutes.",
            (
                value("serving_breaker_workers", 0, 1, arm="candidate", state="open"),
                value("serving_breaker_workers", 2, 1, arm="candidate", state="closed"),
            ),
            {**at, "arm": "candidate"},
            3 * MINUTE,
            2 * MINUTE,
        ),
        ticket(
            "UnderstudyMirrorDrops",
            f"sum by (namespace, instance, arm) (rate({unsent}[15m]))\n/\n({copies} > 0) > 0.05",
            15 * MINUTE,
            "{{ $labels.arm }} misses mirrored requests",
            "{{ $value | humanizePercentage }} of its mirrored requests were dropped. The drops "
            "are not random, so comparisons may be biased. Check the outcome label.",
            (
                count("mirror_total", 600, 600, arm="candidate", outcome="ok"),
                count("mirror_total", 0, 300, arm="candidate", outcome="queue_full"),
            ),
            {**at, "arm": "candidate"},
            20 * MINUTE,
        ),
        ticket(
            "UnderstudyPoolExhausted",
            "max by (namespace, instance, arm) "
            f"({metric('pool_connections', state='waiting')}) > 0",
            5 * MINUTE,
            "Requests wait for a connection to {{ $labels.arm }}",
            "{{ $value }} requests wait: the model server is saturated, or `max_connections` is "
            "too small. Add replicas.",
            (value("pool_connections", 0, 12, arm="champion", state="waiting"),),
            {**at, "arm": "champion"},
            7 * MINUTE,
            2 * MINUTE,
        ),
        ticket(
            "UnderstudyObjective",
            f"min by (namespace, instance, arm, objective) ({metric('objective_met')}) == 0",
            10 * MINUTE,
            "{{ $labels.arm }} misses its objective {{ $labels.objective }}",
            "The limit in the sidecar's `objectives` has been violated for 10 minutes. Run "
            "`understudy objectives` to see all arms side by side.",
            (value("objective_met", 1, 0, arm="champion", objective="latency_p99"),),
            {**at, "arm": "champion", "objective": "latency_p99"},
            12 * MINUTE,
            2 * MINUTE,
        ),
        ticket(
            "UnderstudyConfigRefused",
            f"min by (namespace, instance) ({metric('config_last_reload_successful')}) == 0",
            5 * MINUTE,
            "{{ $labels.instance }} runs an old configuration",
            "The last reload was rejected; the previous configuration stays active. Run "
            "`understudy config check`.",
            (value("config_last_reload_successful", 1, 0),),
            at,
            7 * MINUTE,
            2 * MINUTE,
        ),
        ticket(
            "UnderstudyStateNotSaved",
            f"{grew('state_write_failures_total', '15m', 'instance')} > 0",
            5 * MINUTE,
            "{{ $labels.instance }} cannot save its state",
            "Unsaved state is lost at the next restart. Check free space and permissions of "
            "`state_dir`.",
            (count("state_write_failures_total", 0, 30),),
            at,
            8 * MINUTE,
        ),
        ticket(
            "UnderstudyNotificationsFailing",
            f"sum by (namespace, instance, channel) (increase({failed}[15m])) >= 3",
            5 * MINUTE,
            "{{ $labels.channel }} receives no notifications",
            "{{ $value | humanize }} messages failed or were rejected in 15 minutes. Check the "
            "address and the token.",
            (count("notifications_total", 0, 2, channel="webhook", outcome="failed"),),
            {**at, "channel": "webhook"},
            10 * MINUTE,
        ),
        ticket(
            "UnderstudyFeedbackFailing",
            f"{grew('feedback_failures_total', '15m', 'instance')} > 0",
            5 * MINUTE,
            "{{ $labels.instance }} cannot store predictions and labels",
            "The feedback database fails, so labels are rejected. Check free space and permissions "
            "of `state_dir`.",
            (count("feedback_failures_total", 0, 10),),
            at,
            8 * MINUTE,
        ),
    )  # fmt: skip
