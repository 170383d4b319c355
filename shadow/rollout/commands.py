"""Commands of people to a rollout. Each names a person; those that skip or end something need a
reason."""

from __future__ import annotations

from understudy.shadow.rollout.moves import advance, change
from understudy.shadow.rollout.stages import RolloutError
from understudy.shadow.rollout.state import Rollout, Step

_POSSIBLE = {
    "running": "it can be paused, aborted, or promoted with force and a reason",
    "waiting": "it can be approved, paused, aborted, or promoted with force and a reason",
    "paused": "it can be resumed, aborted, or promoted with force and a reason",
    "rolling_back": "it can be aborted at once, or promoted with force and a reason",
}


def promote(
    rollout: Rollout,
    now: float,
    who: str,
    why: str,
    exposure: int,
    force: bool = False,
    to: str | None = None,
) -> Step:
    """A person lets it go on from a stage at which it waits; ``force`` from any, without evidence.

    Forced, it goes straight to all traffic, or to the later stage of the name ``to``.
    """
    if not force:
        return approve(rollout, now, who, why, exposure, to)
    _person(who, why)
    _must_live(rollout)
    if to is None:
        return change(rollout, now, "promoted", who, why, phase="promoted", weight=1.0)
    return advance(rollout, now, who, why, exposure, index=_later(rollout, to))


def approve(
    rollout: Rollout, now: float, who: str, why: str, exposure: int, to: str | None = None
) -> Step:
    """A person opens the gate at which it waits; ``to``, if given, has to be the next stage."""
    _person(who, why or "-")
    if rollout.phase != "waiting":
        raise RolloutError(f"no stage waits for approval: the rollout is {_shown(rollout)}")
    if to is not None and _later(rollout, to) != rollout.index + 1:
        raise RolloutError(f"{to!r} is not the next stage; skipping one needs force and a reason")
    return advance(rollout, now, who, why or "approved", exposure)


def pause(rollout: Rollout, now: float, who: str, why: str) -> Step:
    """Keep the present weights until the rollout is resumed."""
    _person(who, why or "-")
    if rollout.phase not in ("running", "waiting"):
        raise RolloutError(
            f"only a running or waiting rollout can be paused; this one is {_shown(rollout)}"
        )
    return change(rollout, now, "paused", who, why, phase="paused")


def resume(rollout: Rollout, now: float, who: str, why: str, exposure: int) -> Step:
    """Resume a paused rollout; the stage's minimum counts from 0 again."""
    _person(who, why or "-")
    if rollout.phase != "paused":
        raise RolloutError(f"only a paused rollout can be resumed; this one is {_shown(rollout)}")
    return change(rollout, now, "resumed", who, why, phase="running", since=now, exposure=exposure)


def abort(rollout: Rollout, now: float, who: str, why: str, gradual: bool = False) -> Step:
    """Abort: send all traffic back to the champion, at once or stage by stage."""
    _person(who, why)
    _must_live(rollout)
    if gradual and rollout.phase == "rolling_back":
        raise RolloutError(f"the rollout is already {_shown(rollout)}")
    if gradual and rollout.weight > 0.0:
        return change(rollout, now, "rolling_back", who, why, phase="rolling_back", since=now)
    return change(rollout, now, "aborted", who, why, phase="aborted", weight=0.0)


def _later(rollout: Rollout, name: str) -> int:
    later = [stage.name for stage in rollout.stages[rollout.index + 1 :]]
    if name not in later:
        known = ", ".join(map(repr, later)) or "none"
        raise RolloutError(f"{name!r} is not a later stage; later stages: {known}")
    return rollout.index + 1 + later.index(name)


def _shown(rollout: Rollout) -> str:
    """The phase, and what is possible in it."""
    possible = _POSSIBLE.get(rollout.phase, "it has ended; start a new experiment")
    return f"{rollout.phase.replace('_', ' ')}; {possible}"


def _person(who: str, why: str) -> None:
    if not who.strip():
        raise RolloutError("a name is required for the audit log")
    if not why.strip():
        raise RolloutError("a reason is required for the audit log")


def _must_live(rollout: Rollout) -> None:
    if not rollout.live:
        raise RolloutError(f"no longer possible: the rollout is {_shown(rollout)}")
