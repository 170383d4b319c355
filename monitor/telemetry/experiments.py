"""Experiments as metric families."""

from __future__ import annotations

import math
from collections.abc import Iterator

from prometheus_client.core import Metric

from understudy.monitor.experiments.limits import limits_now
from understudy.monitor.experiments.runner import ExperimentRunner
from understudy.monitor.experiments.summary import DECISIONS
from understudy.monitor.proxy.split import UNASSIGNED
from understudy.monitor.routing.plan import Plan
from understudy.monitor.stats.reader import Snapshot
from understudy.monitor.telemetry.families import counter, gauge, pick
from understudy.shadow.experiment import CAUSES

_WHO = ("model", "experiment", "challenger")


def experiment_families(runner: ExperimentRunner | None) -> Iterator[Metric]:
    """Effects with their bounds, evidence, decisions and shares.

    A bound that is infinite is left out: there is nothing to say yet.
    """
    effects: list[tuple[list[str], float]] = []
    evidence: list[tuple[list[str], float]] = []
    limits: list[tuple[list[str], float]] = []
    thresholds: list[tuple[list[str], float]] = []
    decisions: list[tuple[list[str], float]] = []
    causes: list[tuple[list[str], float]] = []
    weights: list[tuple[list[str], float]] = []
    requests: list[tuple[list[str], float]] = []
    left_out: list[tuple[list[str], float]] = []
    unanswered: list[tuple[list[str], float]] = []
    for name, live in runner.live.items() if runner is not None else ():
        model = live.declared.model or (runner.config.models[0].name if runner is not None else "")
        for state, counts in (("overdue", live.overdue()), ("lost", live.assignments.lost())):
            by_arm = zip(live.order, counts, strict=True)
            unanswered += [([model, name, arm, state], float(n)) for arm, n in by_arm]
        for challenger, contestant in live.contestants.items():
            who = [model, name, challenger]
            verdict = contestant.decision.verdict
            decisions += [([*who, one], float(one == verdict)) for one in DECISIONS]
            cause = contestant.decision.cause
            causes += [([*who, one], float(one == cause)) for one in CAUSES]
            weights.append((who, contestant.rollout.weight))
            requests.append(
                (who, float(live.experiment.contests[challenger].requests(contestant.mode)))
            )
            missing = live.experiment.contests[challenger].left_out[contestant.mode]
            left_out += [([*who, reason], float(n)) for reason, n in missing.items()]
            for item in contestant.decision.evidence:
                bounds = {"lower": item.difference.lower, "upper": item.difference.upper}
                if None not in item.estimates:
                    champion, theirs = item.estimates
                    bounds["estimate"] = (theirs or 0.0) - (champion or 0.0)
                effects += [
                    ([*who, item.name, bound], value)
                    for bound, value in bounds.items()
                    if math.isfinite(value)
                ]
                held = limits_now(item)
                for limit in ("margin", "effect"):
                    value = held[limit]
                    if value is not None and math.isfinite(value):
                        limits.append(([*who, item.name, limit], value))
                for about, needed in (("pass", held["log_threshold"]),
                                      ("harm", held["log_threshold_harm"])):  # fmt: skip
                    if needed is not None:
                        thresholds.append(([*who, item.name, about], math.exp(min(needed, 700.0))))
                for about, log_e in (("pass", item.log_pass), ("harm", item.log_harm)):
                    evidence.append(([*who, item.name, about], math.exp(min(log_e, 700.0))))
    yield gauge(
        "experiment_effect",
        "Challenger minus champion: estimate, and bounds that hold at all times.",
        (*_WHO, "metric", "bound"),
        effects,
    )
    yield gauge(
        "experiment_e_value",
        "Evidence that a claim holds (pass) or that there is harm.",
        (*_WHO, "metric", "about"),
        evidence,
    )
    yield gauge(
        "experiment_limit",
        "What the difference is held against: the margin of harm, and the wanted effect, in "
        "the metric's own unit.",
        (*_WHO, "metric", "limit"),
        limits,
    )
    yield gauge(
        "experiment_e_value_threshold",
        "The e-value from which on a claim (pass) or harm is concluded, while the evidence of the "
        "other metrics stays as it is.",
        (*_WHO, "metric", "about"),
        thresholds,
    )
    yield gauge(
        "experiment_decision", "1 for the present decision.", (*_WHO, "decision"), decisions
    )
    yield gauge(
        "experiment_decision_cause",
        "1 for the cause of the present decision: a rollback may follow from harm, or from want of "
        "an improvement.",
        (*_WHO, "cause"),
        causes,
    )
    yield gauge("experiment_weight", "Share of units assigned to the challenger.", _WHO, weights)
    yield gauge(
        "experiment_requests",
        "Requests of the challenger in the current mode.",
        _WHO,
        requests,
    )
    yield gauge(
        "experiment_left_out",
        "Requests that were not evaluated, or whose answer was not, by reason.",
        (*_WHO, "reason"),
        left_out,
    )
    yield gauge(
        "experiment_unanswered",
        "Assigned or mirrored requests that should have finished by now and have no answer yet "
        "(overdue), and those whose worker or records were lost.",
        ("model", "experiment", "arm", "state"),
        unanswered,
    )


def assignment_families(plan: Plan, snapshot: Snapshot) -> Iterator[Metric]:
    """Requests that workers could not assign, or that another arm served. Evaluators must not count
    them again."""
    models = {split.experiment: plan.models[split.model].name for split in plan.splits}
    challengers = {
        split.experiment: [plan.arms[arm] for arm in sorted(set(split.arms)) if arm > 0]
        for split in plan.splits
    }
    for source, text, label, name, zeros in (
        (
            "unassigned",
            "Requests without a unit.",
            "reason",
            "reason",
            dict.fromkeys(models, UNASSIGNED),
        ),
        (
            "diverted",
            "Requests of a challenger that the champion served: the breaker was open.",
            "arm",
            "challenger",
            challengers,
        ),
    ):
        series = {(one, which): 0 for one, all_ in zeros.items() for which in all_}
        for have, value in snapshot.counters_named(source).items():
            experiment, which = pick(have, ("experiment", label))
            series[experiment, which] = value
        values = [
            ([models.get(experiment, "other"), experiment, which], value)
            for (experiment, which), value in series.items()
        ]
        yield counter(f"experiment_{source}", text, ("model", "experiment", name), values)
