"""The moves of a rollout, for verdicts and commands."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from understudy.shadow.rollout.state import SELF, Event, Rollout, Step

DWELL_SECONDS = 30.0
"""How long a gradual roll-back stays at each weight."""


def change(
    rollout: Rollout,
    now: float,
    kind: str,
    who: str,
    why: str,
    reasons: tuple[str, ...] = (),
    **moved: Any,
) -> Step:
    """The next version, with the fields ``moved`` changed, and the event that tells of it."""
    changed = replace(rollout, version=rollout.version + 1, **moved)
    event = Event(
        now,
        changed.experiment,
        changed.challenger,
        kind,
        who,
        why,
        changed.stage.name,
        changed.weight,
        changed.phase,
        changed.version,
        rollout.stage.name,
        reasons,
        changed.since,
        changed.exposure,
        changed.cause,
    )
    return changed, (event,)


def advance(
    rollout: Rollout,
    now: float,
    who: str,
    why: str,
    exposure: int,
    reasons: tuple[str, ...] = (),
    index: int | None = None,
) -> Step:
    """To the next stage, or to that of ``index``; behind the last the challenger is promoted."""
    index = rollout.index + 1 if index is None else index
    if index == len(rollout.stages) or rollout.stages[index].weight == 1.0:
        # A shadow stage never promotes by itself: it only allows people to promote.
        weight = 1.0 if rollout.mode == "split" or len(rollout.stages) > 1 else 0.0
        return change(rollout, now, "promoted", who, why, reasons, phase="promoted", weight=weight)
    following = rollout.stages[index]
    return change(
        rollout,
        now,
        "advanced",
        who,
        why,
        reasons,
        phase="running",
        index=index,
        weight=following.weight,
        since=now,
        exposure=exposure if following.mode == rollout.mode else 0,
    )


def step_down(rollout: Rollout, now: float) -> Step:
    """The next lower weight of a gradual roll-back, when it is time."""
    if not now - rollout.since >= DWELL_SECONDS:
        return rollout, ()
    below = [stage.weight for stage in rollout.stages if stage.weight < rollout.weight]
    weight = max(below, default=0.0)
    phase = "rolling_back" if weight > 0.0 else "aborted"
    why = "gradual roll-back"
    return change(rollout, now, phase, SELF, why, phase=phase, weight=weight, since=now)


def recount(rollout: Rollout, now: float, exposure: int) -> Step:
    """Count the stage from now on when the clock or the evidence went back, as after a crash.

    Otherwise requests from before the stage would count for it, and a clock that was set back would
    keep a gradual roll-back at its weight until the old time comes again.
    """
    causes = []
    if now < rollout.since:
        causes.append("the clock went back")
    if exposure < rollout.exposure:
        causes.append(f"the evidence went back to {exposure:,} requests")
    if not causes:
        return rollout, ()
    since, exposure = min(now, rollout.since), min(exposure, rollout.exposure)
    why = " and ".join(causes)
    return change(rollout, now, "recounted", SELF, why, since=since, exposure=exposure)
