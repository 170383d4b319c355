"""An experiment as JSON for the API and pages, without NaN or infinity."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

from understudy.monitor.experiments.contestant import ChallengerState
from understudy.monitor.experiments.limits import limit_of
from understudy.monitor.experiments.live import LiveExperiment
from understudy.shadow.experiment.explanation import (
    Arm,
    Explanation,
    Situation,
    explain,
    outcome_of,
    tone_of,
)

DECISIONS = ("promote", "rollback", "continue", "invalid")
_RATE_SECONDS = 600.0
"""The present rate of requests is the mean over this time."""


def summary(live: LiveExperiment, now: float) -> dict[str, Any]:
    """A short summary, for lists."""
    return {
        "name": live.declared.name,
        "mode": live.declared.mode,
        "slice": list(live.declared.slice),
        "running_seconds": max(0.0, now - live.started),
        "challengers": [
            {
                "name": name,
                "decision": c.decision.verdict,
                "cause": c.decision.cause,
                "outcome": outcome_of(c.decision.verdict, c.decision.cause),
                "tone": tone_of(c.decision.verdict, c.decision.cause),
                "phase": c.rollout.phase,
                "stage": c.rollout.stage.name,
                "weight": c.rollout.weight,
                "traffic": traffic(live, c),
                "left_out": dict(live.experiment.contests[name].left_out[c.mode]),
            }
            for name, c in live.contestants.items()
        ],
    }


def traffic(live: LiveExperiment, c: ChallengerState) -> float:
    """The part of all requests of the model that the challenger should serve, in [0, 1]."""
    declared = live.declared
    begin, end = declared.slice
    return c.rollout.weight * (end - begin) * (1.0 - declared.holdout)


def document(live: LiveExperiment, now: float) -> dict[str, Any]:
    """The full document, without disagreements and timeline."""
    declared = live.declared
    split = live.experiment.split
    return {
        **summary(live, now),
        "alpha": declared.alpha,
        "champion": live.arms.champion,
        "unit": declared.unit.by,
        "started": live.started,
        "left_out": {"around_changes_of_weights": live.carried_over, **_left_out(live)},
        "split": {
            "honoured": live.experiment.split_honoured,
            "units": list(split.counts) if split is not None else [],
            "expected": list(split.expected) if split is not None else [],
            "log_e": split.log_e if split is not None else 0.0,
        },
        "limits": limits_of(live),
        "unanswered": _unanswered(live),
        "units_seen": _units_seen(live),
        "challengers": [contestant(live, c, now) for c in live.contestants.values()],
    }


def limits_of(live: LiveExperiment) -> dict[str, dict[str, Any]]:
    """By metric, what its difference is held against, challenger minus champion: ``margin``, beyond
    which it is harm, and ``effect``, the improvement that is wanted (None without one), each
    absolute or, if ``relative``, a share of the champion's value; and the log e-value
    ``log_threshold`` from which on evidence suffices where one metric decides alone. Each metric of
    a challenger has its own present thresholds."""
    goal = -math.log(live.experiment.rules.alpha)
    return {
        h.name: {**limit_of(h), "log_threshold": goal} for h in live.experiment.rules.hypotheses
    }


def _units_seen(live: LiveExperiment) -> dict[str, Any] | None:
    """Distinct units of the whole experiment; an estimate when they are more than are kept."""
    if not live.by_unit:
        return None
    number, error = live.units.distinct
    return {"number": number, "relative_error": error, "tracked": len(live.units)}


def _left_out(live: LiveExperiment) -> dict[str, int]:
    """Requests that were not evaluated in the present modes, by reason, over all challengers."""
    total: Counter[str] = Counter()
    for name, c in live.contestants.items():
        total.update(live.experiment.contests[name].left_out[c.mode])
    return dict(total)


def _not_evaluated(left_out: Mapping[str, int]) -> int:
    """Requests of which nothing was evaluated; of unreadable answers latency and errors were."""
    return sum(n for reason, n in left_out.items() if reason != "unreadable")


def _unanswered(live: LiveExperiment) -> dict[str, Any]:
    """Assigned requests without an end, by arm in the order champion, challengers; ``overdue`` has
    mirrored ones too."""
    assignments = live.assignments
    return {
        "in_flight": assignments.unfinished(),
        "overdue": live.overdue(),
        "after_seconds": assignments.patience,
        "lost_with_a_worker": assignments.lost(),
        "not_tracked": assignments.not_tracked,
    }


def explanation(live: LiveExperiment, c: ChallengerState, now: float) -> Explanation:
    """Why the present decision on a challenger is what it is, and what to do now."""
    return explain(live.experiment.rules, c.decision, situation(live, c, now))


def situation(live: LiveExperiment, c: ChallengerState, now: float) -> Situation:
    """What is known of a challenger beside its evidence, at the unix time ``now``."""
    state, split = c.rollout, live.experiment.split
    requests = live.experiment.contests[c.name].requests(c.mode)
    arms: tuple[Arm, ...] = ()
    if c.mode == "split" and split is not None:
        counted = zip(live.order, split.counts, split.expected, strict=True)
        arms = tuple(Arm(name, n, expected) for name, n, expected in counted)
    running = state.phase == "running"
    served = requests - state.exposure
    lasted = now - state.since
    return Situation(
        live.declared.name,
        c.name,
        c.mode,
        requests,
        _rate(c, requests, now),
        arms,
        live.experiment.contests[c.name].counted_in(c.mode),
        state.phase,
        max(0, state.stage.minimum_requests - served) if running else 0,
        max(0.0, state.stage.minimum_seconds - lasted) if running else 0.0,
        c.traffic.seconds,
        _not_evaluated(live.experiment.contests[c.name].left_out[c.mode]),
        _waiting(live) if c.mode == "split" else "",
    )


def _waiting(live: LiveExperiment) -> str:
    """The assigned requests that have no answer yet, in words."""
    found = live.unanswered(0.5)
    return found.describe(live.order) if found is not None and any(found.counts) else ""


def _rate(c: ChallengerState, requests: int, now: float) -> float | None:
    """The challenger's requests per second over the last minutes; None before that is known."""
    points = [p for p in c.timeline.points if p["mode"] == c.mode and now - p["at"] >= 5.0]
    if not points:
        return None
    # Points of a long experiment are further apart than the time over which the rate is taken.
    recent = [p for p in points if _RATE_SECONDS >= now - p["at"] >= 0.1 * _RATE_SECONDS]
    since = (
        recent[0] if recent else points[-1] if now - points[0]["at"] > _RATE_SECONDS else points[0]
    )
    return float(max(0, requests - since["requests"]) / (now - since["at"]))


def contestant(live: LiveExperiment, c: ChallengerState, now: float) -> dict[str, Any]:
    """The document of one challenger."""
    state = c.rollout
    contest = live.experiment.contests[c.name]
    return {
        "name": c.name,
        "phase": state.phase,
        "stage": {
            "name": state.stage.name,
            "number": state.index + 1,
            "of": len(state.stages),
            "since": state.since,
            "gate": state.stage.gate,
            "requires": state.requires,
            "minimum_requests": state.stage.minimum_requests,
            "minimum_seconds": state.stage.minimum_seconds,
            "all": [{"name": one.name, "weight": one.weight} for one in state.stages],
        },
        "mode": c.mode,
        "weight": state.weight,
        "traffic": traffic(live, c),
        "version": state.version,
        "requests": {
            "pairs": contest.pairs,
            "served": contest.served[1],
            "champion_served": contest.served[0],
            "diverted": c.diverted,
        },
        "counted_in": contest.counted_in(c.mode),
        "left_out": dict(contest.left_out[c.mode]),
        **c.decision.to_dict(),
        **explanation(live, c, now).to_dict(),
        "noise": {"compared": c.noise.compared, "outputs": c.noise.fields()[:20]},
    }
