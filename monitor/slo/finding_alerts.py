"""Alerts for findings and experiments.

Alerts for findings have the names that the sidecar's own channel to Alertmanager uses, so both have
the same runbook page.
"""

from __future__ import annotations

from collections.abc import Mapping

from understudy.common.units import HOUR, MINUTE
from understudy.monitor.slo.alerts import SHARE, Alert, Trial
from understudy.monitor.slo.burn import Severity
from understudy.monitor.slo.promql import selector
from understudy.monitor.slo.scope import Scope
from understudy.monitor.slo.trial_series import counter, level

_FINDINGS = {
    "blind": "requests or answers cannot be read, so nothing that needs them is tested",
    "drift": "inputs or predictions drifted from the baseline",
    "quality": "inputs violate the rules of the baseline",
    "performance": "accuracy or calibration dropped",
    "objective": "an objective of the sidecar is missed",
    "validation": "validation cases fail",
    "other": "more findings are open than are reported individually",
}
_SEVERITIES: tuple[tuple[Severity, str], ...] = (("page", "critical"), ("ticket", "warning"))


def finding_alerts(scope: Scope) -> tuple[Alert, ...]:
    """A page for critical findings and a ticket for warnings, of each kind."""
    results = []
    model = scope.example("model")["model"]
    who = scope.example("model")
    which = scope.labels("model")
    for kind, what in _FINDINGS.items():
        for severity, theirs in _SEVERITIES:
            open_ = {"kind": kind, "severity": theirs}
            metric = "understudy_findings_open"
            results.append(
                Alert(
                    name=f"Understudy{kind.capitalize()}",
                    kind="finding",
                    severity=severity,
                    expr=(
                        f"max{scope.by('model', 'kind')}"
                        f"({selector(metric, {**which, **open_})}) > 0"
                    ),
                    lasts=0.0,
                    summary=f"{{{{ $labels.model }}}}: {what}",
                    description=(
                        f"{{{{ $value }}}} {theirs} findings are open. Run `understudy findings "
                        "list` to see features, size and start time."
                    ),
                    trial=Trial(
                        series=(level(metric, {**who, **open_}, 0, 2),),
                        fires=2 * MINUTE,
                        ends=2 * MINUTE,
                        labels={"model": model, "kind": kind, "severity": severity},
                    ),
                )
            )
    return tuple(results)


_UNREAD = "unreadable"
"""What is unreadable has its own finding."""
_WAITING = "no_labels|reference|checking|learning|segment"
"""Reasons why something is not tested that usually pass by themselves."""


def untested_alerts(scope: Scope) -> tuple[Alert, ...]:
    """Alerts for what is declared and not tested: no finding can come from it."""
    metric = "understudy_not_tested"

    def untested(which: Mapping[str, str], ago: str = "") -> str:
        series = selector(metric, {**scope.labels("model", "version"), **which})
        return f"max{scope.by('model', 'check', 'reason')}({series}{ago}) == 1"

    def trial(check: str, reason: str, fires: float) -> Trial:
        known = {**scope.example("model", "version"), "check": check, "reason": reason}
        who = {"model": known["model"], "check": check, "reason": reason}
        series = level(metric, known, 0, 1)
        return Trial((series,), fires, 2 * MINUTE, {**who, "severity": "ticket"})

    waiting, other = {"reason=~": _WAITING}, {"reason!~": f"{_WAITING}|{_UNREAD}"}
    return (
        Alert(
            name="UnderstudyNotTested",
            kind="finding",
            severity="ticket",
            expr=(
                f"({untested(other)})\nor\n"
                f"({untested(waiting)}\nand\n{untested(waiting, ' offset 1d')})"
            ),
            lasts=15 * MINUTE,
            summary="{{ $labels.model }}: {{ $labels.check }} is not tested",
            description=(
                "It is declared, and no finding can come from it ({{ $labels.reason }}). Run "
                "`understudy findings list` to see what is missing."
            ),
            trial=trial("performance", "selective", 17 * MINUTE),
        ),
    )


_GAUGES = {"decision": "decision", "cause": "decision_cause"}


def experiment_alerts(scope: Scope) -> tuple[Alert, ...]:
    """Alerts for decisions, and for experiments that cannot reach one."""
    who = {"experiment": "e", "challenger": "candidate"}
    which, here = scope.labels("model"), scope.example("model")
    contest = scope.by("model", "experiment", "challenger")
    metric = "understudy_experiment_decision"

    def decided(
        labels: Mapping[str, str], name: str, severity: Severity, summary: str, description: str
    ) -> Alert:
        metric = next(f"understudy_experiment_{_GAUGES[label]}" for label in labels)
        return Alert(
            name=name,
            kind="experiment",
            severity=severity,
            expr=(f"max{contest}({selector(metric, {**which, **labels})}) == 1"),
            lasts=0.0,
            summary=summary,
            description=description,
            trial=Trial(
                series=(level(metric, {**here, **who, **labels}, 0, 1),),
                fires=2 * MINUTE,
                ends=2 * MINUTE,
                labels={**who, "severity": severity},
            ),
        )

    requests = "understudy_experiment_requests"
    deciding = selector(metric, {**which, "decision": "continue"})
    own = selector(requests, which)
    unassigned = "understudy_experiment_unassigned_total"
    every = selector("understudy_requests_total", {**which, "role": "primary"})
    served = {**here, "version": "1", "arm": "champion", "role": "primary",
              "protocol": "oip", "outcome": "ok"}  # fmt: skip
    return (
        decided(
            {"cause": "harm"},
            "UnderstudyExperimentRollback",
            "ticket",
            "{{ $labels.experiment }}: roll back {{ $labels.challenger }}",
            "It is proven to be worse than its margins allow. In a rollout, its units are already "
            "back with the champion. Take it down and fix it.",
        ),
        decided(
            {"cause": "no_improvement"},
            "UnderstudyExperimentNoImprovement",
            "ticket",
            "{{ $labels.experiment }}: {{ $labels.challenger }} is not better",
            "The target improvement has been ruled out; no harm is proven. Its units are back with "
            "the champion. Keep the champion, or start a new experiment with a smaller effect.",
        ),
        decided(
            {"cause": "limit"},
            "UnderstudyExperimentUndecided",
            "ticket",
            "{{ $labels.experiment }}: {{ $labels.challenger }} reached its limit undecided",
            "Neither harm nor the claims are proven. Allow more time or requests in a new "
            "experiment, or accept a larger margin.",
        ),
        decided(
            {"decision": "promote"},
            "UnderstudyExperimentPromote",
            "ticket",
            "{{ $labels.experiment }}: promote {{ $labels.challenger }}",
            "All claims are proven. Make it the champion, unless a controller does.",
        ),
        decided(
            {"decision": "invalid"},
            "UnderstudyExperimentInvalid",
            "ticket",
            "{{ $labels.experiment }}: comparison is invalid",
            "The split differs from the configured shares, or an assumption of the statistics is "
            "violated. Do not use its numbers; find the cause and start a new experiment.",
        ),
        Alert(
            name="UnderstudyExperimentStuck",
            kind="experiment",
            severity="ticket",
            expr=(f"(max{contest}({deciding}) == 1)\nand\n(max{contest}(changes({own}[1h])) == 0)"),
            lasts=HOUR,
            summary="{{ $labels.experiment }}: {{ $labels.challenger }} receives no requests",
            description=(
                "No request for two hours. Bring the challenger back, or end the experiment."
            ),
            trial=Trial(
                series=(
                    level(metric, {**here, **who, "decision": "continue"}, 1, 1),
                    counter(requests, {**here, **who}, 60, 0),
                ),
                fires=2 * HOUR + 10 * MINUTE,
                ends=10 * MINUTE,
                labels=who,
                calm=2 * HOUR,
                step=5 * MINUTE,
            ),
        ),
        Alert(
            name="UnderstudyExperimentUnassigned",
            kind="experiment",
            severity="ticket",
            expr=(
                f"sum{scope.by('model', 'experiment')}(rate({selector(unassigned, which)}[15m]))\n"
                f"/ {scope.on('model')} group_left ()\n"
                f"sum{scope.by('model')}(rate({every}[15m])) > 0.1"
            ),
            lasts=15 * MINUTE,
            summary="{{ $labels.experiment }}: requests lack a unit",
            description=(
                f"{SHARE} of the requests carry no unit and stay with the "
                "champion. Make clients send the header, cookie or field of `unit`."
            ),
            trial=Trial(
                series=(
                    counter("understudy_requests_total", served, 600, 600),
                    counter(unassigned, {**here, "experiment": "e", "reason": "missing"}, 0, 300),
                ),
                fires=22 * MINUTE,
                ends=16 * MINUTE,
                labels={"experiment": "e"},
            ),
        ),
    )
