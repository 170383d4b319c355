"""Alerts for the sidecar itself: it cannot be scraped, loses records, fails or crashes.

They are about an installation and not about a service: one set of them is enough for all that a
Prometheus scrapes.
"""

from __future__ import annotations

from collections.abc import Mapping

from understudy.common.units import MINUTE
from understudy.monitor.slo.alerts import SHARE, Alert, Trial
from understudy.monitor.slo.burn import Severity
from understudy.monitor.slo.model import Level, Stream
from understudy.monitor.slo.promql import selector
from understudy.monitor.slo.scope import Scope
from understudy.monitor.slo.trial_series import counter, level

_WAITS = 20 * MINUTE


def sidecar_alerts(scope: Scope) -> tuple[Alert, ...]:
    """Alerts for the sidecars of an installation, whatever models they serve."""
    scrape, here = scope.labels(), scope.example()

    def metric(name: str, **labels: str) -> str:
        return selector(f"understudy_{name}", {**scrape, **labels})

    def grew(name: str, window: str, by: str, **labels: str) -> str:
        return f"sum{scope.by(by)}(increase({metric(name, **labels)}[{window}]))"

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
    names_job = any(key.rstrip("=!~") == "job" for key in scrape)
    job = {} if names_job else {"job": "understudy"}  # every job has a series `up`
    up, target = selector("up", {**job, **scrape}), {**job, **here}
    unseen = Alert(
        name="UnderstudyNotSeen",
        kind="sidecar",
        severity="page",
        # A target that is removed has no `up` series, so also test for its absence.
        expr=f"{up} == 0\nor\nabsent({up})",
        lasts=5 * MINUTE,
        summary=(
            "{{ if $labels.instance }}{{ $labels.instance }} cannot be scraped{{ else }}"
            "Prometheus scrapes no sidecar{{ end }}"
        ),
        description=(
            "The evaluation plane or the whole sidecar is down: its objectives and findings are "
            "unknown. Check whether clients are still served."
        ),
        trial=Trial(
            series=(level("up", {**target, **at}, 1, 0),),
            fires=7 * MINUTE,
            ends=2 * MINUTE,
            labels=at,
        ),
    )

    def count(name: str, calm: float, fault: float, **labels: str) -> Stream:
        return counter(f"understudy_{name}", {**here, **at, **labels}, calm, fault)

    def value(name: str, calm: float, fault: float, **labels: str) -> Level:
        return level(f"understudy_{name}", {**here, **at, **labels}, calm, fault)

    eligible = f"sum{scope.by('instance')}(rate({metric('records_eligible_total')}[5m]))"
    handoff = metric("dropped_total", stage="handoff")
    copies = f"sum{scope.by('instance', 'arm')}(rate({metric('mirror_total')}[15m]))"
    not_sent = "queue_full|breaker_open|body_too_large|fell_behind|not_rewritten"
    # Keys with an operator cannot be passed as keyword arguments.
    unsent = selector("understudy_mirror_total", {**scrape, "outcome=~": not_sent})
    opened = selector("understudy_breaker_workers", {**scrape, "state=~": "open|half_open"})
    # Of errors and latency there are findings, which have alerts of their own.
    untested = {"objective!~": "error_rate|latency_.*"}
    limits = selector("understudy_objective_met", {**scrape, **untested})
    serving = selector(
        "understudy_serving_breaker_workers", {**scrape, "state=~": "open|half_open"}
    )
    failed = selector("understudy_notifications_total", {**scrape, "outcome=~": "failed|refused"})
    return (
        unseen,
        ticket(
            "UnderstudyRecordsDropped",
            f"sum{scope.by('instance')}(rate({handoff}[5m]))\n/\n({eligible} > 0) > 0.01",
            5 * MINUTE,
            "{{ $labels.instance }} drops records",
            f"{SHARE} of the records are dropped before evaluation; "
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
            f"sum{scope.by('instance')}({metric('handoff_connections')})\n<\n"
            f"sum{scope.by('instance')}({metric('workers')})",
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
            f"max{scope.by('instance', 'arm')}({opened}) > 0",
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
            "UnderstudyServingBreakerOpen",
            f"max{scope.by('instance', 'arm')}({serving}) > 0",
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
            f"sum{scope.by('instance', 'arm')}(rate({unsent}[15m]))\n/\n({copies} > 0) > 0.05",
            15 * MINUTE,
            "{{ $labels.arm }} misses mirrored requests",
            f"{SHARE} of its mirrored requests were dropped. The drops "
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
            f"max{scope.by('instance', 'arm')}"
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
            "UnderstudyLimit",
            f"min{scope.by('instance', 'arm', 'objective')}({limits}) == 0",
            10 * MINUTE,
            "{{ $labels.arm }} misses its limit on {{ $labels.objective }}",
            "The limit in the sidecar's `objectives` has been violated for 10 minutes. Run "
            "`understudy objectives` to see all arms side by side.",
            (value("objective_met", 1, 0, arm="champion", objective="throughput"),),
            {**at, "arm": "champion", "objective": "throughput"},
            12 * MINUTE,
            2 * MINUTE,
        ),
        ticket(
            "UnderstudyConfigRefused",
            f"min{scope.by('instance')}({metric('config_last_reload_successful')}) == 0",
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
            f"sum{scope.by('instance', 'channel')}(increase({failed}[15m])) >= 3",
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
