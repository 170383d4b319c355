"""An experiment as JSON for the API and pages, without NaN or infinity."""

from __future__ import annotations

from typing import Any

from understudy.monitor.experiments.contestant import ChallengerState
from understudy.monitor.experiments.live import LiveExperiment

DECISIONS = ("promote", "rollback", "continue", "invalid")


def summary(live: LiveExperiment, now: float) -> dict[str, Any]:
    """A short summary, for lists."""
    return {
        "name": live.declared.name,
        "mode": live.declared.mode,
        "running_seconds": max(0.0, now - live.started),
        "challengers": [
            {
                "name": name,
                "decision": c.decision.verdict,
                "phase": c.rollout.phase,
                "stage": c.rollout.stage.name,
                "weight": c.rollout.weight,
            }
            for name, c in live.contestants.items()
        ],
    }


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
        "left_out": {
            "around_changes_of_weights": live.carried_over,
        },
        "split": {
            "honoured": live.experiment.split_honoured,
            "units": list(split.counts) if split is not None else [],
            "log_e": split.log_e if split is not None else 0.0,
        },
        "challengers": [contestant(live, c) for c in live.contestants.values()],
    }


def contestant(live: LiveExperiment, c: ChallengerState) -> dict[str, Any]:
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
        },
        "mode": c.mode,
        "weight": state.weight,
        "version": state.version,
        "requests": {
            "pairs": contest.pairs,
            "served": contest.served[1],
            "champion_served": contest.served[0],
            "diverted": c.diverted,
            "unpaired": c.lost,
        },
        **c.decision.to_dict(),
        "noise": {"compared": c.noise.compared, "outputs": c.noise.fields()[:20]},
    }
