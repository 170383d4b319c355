"""Alerts for findings and experiments.

The names for findings are those that the sidecar's own channel to Alertmanager uses, so that there
is one page for each whichever way it comes.
"""

from __future__ import annotations

from collections.abc import Mapping

from understudy.common.units import HOUR, MINUTE
from understudy.monitor.slo.alerts import Alert, Trial
from understudy.monitor.slo.burn import Severity
from understudy.monitor.slo.promql import selector
from understudy.monitor.slo.trying import counter, level

_FINDINGS = {
    "drift": "inputs or predictions have moved away from the baseline",
    "quality": "inputs break the rules of the baseline",
    "performance": "the model is less right than it was",
    "validation": "cases that the model must pass fail",
    "objective": "an objective is missed",
    "other": "more findings are open than are told one by one",
}
_SEVERITIES: tuple[tuple[Severity, str], ...] = (("page", "critical"), ("ticket", "warning"))


def finding_alerts(scrape: Mapping[str, str]) -> tuple[Alert, ...]:
    """A page for critical findings and a ticket for warnings, of each kind."""
    found = []
    for kind, what in _FINDINGS.items():
        for severity, theirs in _SEVERITIES:
            open_ = {"kind": kind, "severity": theirs}
            metric = "understudy_findings_open"
            found.append(
                Alert(
                    name=f"Understudy{kind.capitalize()}",
                    kind="finding",
                    severity=severity,
                    expr=(
                        "max by (namespace, model, kind) "
                        f"({selector(metric, {**scrape, **open_})}) > 0"
                    ),
                    lasts=0.0,
                    summary=f"{{{{ $labels.model }}}}: {what}",
                    description=(
                        f"{{{{ $value }}}} {theirs} findings are open; `understudy findings list` "
                        "names features, size and since when."
                    ),
                    trial=Trial(
                        series=(level(metric, scrape, {"model": "m", **open_}, 0, 2),),
                        fires=2 * MINUTE,
                        ends=2 * MINUTE,
                        labels={"model": "m", "kind": kind, "severity": severity},
                    ),
                )
            )
    return tuple(found)


def experiment_alerts(scrape: Mapping[str, str]) -> tuple[Alert, ...]:
    """Decisions, and experiments that cannot come to one."""
    who = {"experiment": "e", "challenger": "candidate"}
    metric = "understudy_experiment_decision"

    def decided(
        decision: str, name: str, severity: Severity, summary: str, description: str
    ) -> Alert:
        labels = {"decision": decision}
        return Alert(
            name=name,
            kind="experiment",
            severity=severity,
            expr=(
                "max by (namespace, experiment, challenger) "
                f"({selector(metric, {**scrape, **labels})}) == 1"
            ),
            lasts=0.0,
            summary=summary,
            description=description,
            trial=Trial(
                series=(level(metric, scrape, {**who, **labels}, 0, 1),),
                fires=2 * MINUTE,
                ends=2 * MINUTE,
                labels={**who, "severity": severity},
            ),
        )

    requests = "understudy_experiment_requests"
    deciding = selector(metric, {**scrape, "decision": "continue"})
    own = selector(requests, scrape)
    unassigned = "understudy_experiment_unassigned_total"
    every = selector("understudy_requests_total", {**scrape, "role": "primary"})
    served = {"model": "m", "version": "1", "arm": "champion", "role": "primary",
              "protocol": "oip", "outcome": "ok"}  # fmt: skip
    return (
        decided(
            "rollback",
            "UnderstudyExperimentRollback",
            "ticket",
            "{{ $labels.experiment }}: {{ $labels.challenger }} is rolled back",
            "It is worse than allowed, with the confidence that was asked for; in a rollout its "
            "units are back with the champion.",
        ),
        decided(
            "promote",
            "UnderstudyExperimentPromote",
            "ticket",
            "{{ $labels.experiment }}: {{ $labels.challenger }} may be promoted",
            "It has passed everything that was asked of it.",
        ),
        decided(
            "invalid",
            "UnderstudyExperimentInvalid",
            "ticket",
            "{{ $labels.experiment }}: the comparison is not valid",
            "The split was not honoured, or an assumption of the statistics does not hold; its "
            "numbers must not be used.",
        ),
        Alert(
            name="UnderstudyExperimentStuck",
            kind="experiment",
            severity="ticket",
            expr=(
                f"(max by (namespace, experiment, challenger) ({deciding}) == 1)\nand\n"
                f"(max by (namespace, experiment, challenger) (changes({own}[1h])) == 0)"
            ),
            lasts=HOUR,
            summary="{{ $labels.experiment }}: nothing is learned about {{ $labels.challenger }}",
            description="It is to go on, but its challenger has had no request for two hours.",
            trial=Trial(
                series=(
                    level(metric, scrape, {**who, "decision": "continue"}, 1, 1),
                    counter(requests, scrape, who, 60, 0),
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
                "sum by (namespace, experiment) (rate("
                f"{selector(unassigned, scrape)}[15m]))\n"
                "/ on(namespace) group_left\n"
                f"sum by (namespace) (rate({every}[15m])) > 0.1"
            ),
            lasts=15 * MINUTE,
            summary="{{ $labels.experiment }}: requests have no unit",
            description=(
                "{{ $value | humanizePercentage }} of the requests carry nothing that says whose "
                "they are, so no arm can be kept for them."
            ),
            trial=Trial(
                series=(
                    counter("understudy_requests_total", scrape, served, 600, 600),
                    counter(unassigned, scrape, {"experiment": "e", "reason": "missing"}, 0, 300),
                ),
                fires=22 * MINUTE,
                ends=16 * MINUTE,
                labels={"experiment": "e"},
            ),
        ),
    )
