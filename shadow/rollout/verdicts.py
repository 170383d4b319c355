"""Moves of a rollout that follow from verdicts."""

from __future__ import annotations

from understudy.shadow.rollout.moves import advance, change, recount, step_down
from understudy.shadow.rollout.stages import RolloutError
from understudy.shadow.rollout.state import SELF, Rollout, Step

VERDICTS = ("promote", "rollback", "continue", "invalid")


def step(
    rollout: Rollout,
    now: float,
    verdict: str,
    reasons: tuple[str, ...],
    exposure: int,
    cause: str = "",
    unit: str = "requests",
) -> Step:
    """Move on by what the evidence says.

    ``exposure`` is the number of the challenger's own requests so far, in the mode of the stage,
    counted in ``unit`` ("requests" or "units"); ``cause`` is that of the decision.
    Raises RolloutError for a verdict that there is not.
    """
    if verdict not in VERDICTS:
        raise RolloutError(f"a verdict is one of {', '.join(VERDICTS)}, not {verdict!r}")
    if not rollout.live:
        return rollout, ()
    rollout, events = recount(rollout, now, exposure)
    rollout, more = _judged(rollout, now, verdict, reasons, exposure, cause, unit)
    return rollout, events + more


def _judged(
    rollout: Rollout,
    now: float,
    verdict: str,
    reasons: tuple[str, ...],
    exposure: int,
    cause: str,
    unit: str,
) -> Step:
    why = "; ".join(reasons)
    if verdict == "rollback" or (verdict == "invalid" and rollout.on_invalid == "rollback"):
        # Harm does not wait for the next step of a gradual roll-back.
        ended = {"phase": "rolled_back", "weight": 0.0, "cause": cause}
        return change(rollout, now, "rolled_back", SELF, why, reasons, **ended)
    if rollout.phase == "rolling_back":
        return step_down(rollout, now)
    if verdict == "invalid" and rollout.phase != "paused":
        return change(rollout, now, "paused", SELF, why, reasons, phase="paused")
    if rollout.phase != "running":
        return rollout, ()
    stage = rollout.stage
    served = exposure - rollout.exposure
    if served < max(1, stage.minimum_requests):
        return rollout, ()
    if not now - rollout.since >= stage.minimum_seconds:
        return rollout, ()
    if rollout.requires == "decision" and verdict != "promote":
        return rollout, ()
    if verdict == "continue":
        why = f"{served:,} {unit} of the challenger without proven harm"
    if stage.gate == "manual":
        return change(rollout, now, "waiting", SELF, why, reasons, phase="waiting")
    return advance(rollout, now, SELF, why, exposure, reasons)
