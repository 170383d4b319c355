"""The ramp from shadow to all traffic: a pure state machine.

Time, verdicts and people's commands are passed in; what comes out is the next state and the events
that led to it. Traffic that stops neither promotes nor aborts: only verdicts, exposure and people
move a rollout.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any

from shadow.assignment import OUT, Allocation

SELF = "understudy"
"""Who did what no person did."""
PHASES = (
    "running",
    "waiting",
    "paused",
    "rolling_back",
    "promoted",
    "rolled_back",
    "aborted",
)
TERMINAL = frozenset(("promoted", "rolled_back", "aborted"))
DWELL_SECONDS = 30.0
"""How long a gradual roll-back stays at each weight."""


class RolloutError(ValueError):
    """What cannot be done now, and what can."""


@dataclass(frozen=True, slots=True)
class Stage:
    """``mode`` is "shadow" or "split", ``weight`` the challenger's share of the units.

    It is left when the challenger has had ``minimum_requests`` of its own, ``minimum_seconds`` have
    passed, and the gate opens: "automatic", or "manual" for a person to approve. It ``requires``
    "no_harm", or a "decision" to promote.
    """

    name: str
    mode: str
    weight: float = 0.0
    gate: str = "automatic"
    minimum_requests: int = 0
    minimum_seconds: float = 0.0
    requires: str = "no_harm"

    def __post_init__(self) -> None:
        if self.mode not in ("shadow", "split"):
            raise RolloutError(f"the mode of a stage is shadow or split, not {self.mode!r}")
        if not 0.0 <= self.weight <= 1.0 or (self.mode == "shadow") != (self.weight == 0.0):
            raise RolloutError(f"stage {self.name}: a weight of {self.weight} is not {self.mode}")


@dataclass(frozen=True, slots=True)
class Event:
    """What happened; the audit log keeps it. ``weight`` is the one in force afterwards."""

    at: float
    experiment: str
    challenger: str
    kind: str
    who: str
    why: str
    stage: str
    weight: float
    phase: str
    version: int

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Rollout:
    """``index`` is the stage, ``since`` when it began (seconds), ``exposure`` the challenger's
    requests at that time; ``version`` grows with every change."""

    experiment: str
    challenger: str
    stages: tuple[Stage, ...]
    index: int = 0
    phase: str = "running"
    weight: float = 0.0
    since: float = 0.0
    exposure: int = 0
    version: int = 1
    on_invalid: str = "pause"

    @classmethod
    def begin(
        cls,
        experiment: str,
        challenger: str,
        stages: tuple[Stage, ...],
        now: float,
        on_invalid: str = "pause",
    ) -> Rollout:
        """At the first stage. Raises RolloutError for stages that are no ramp."""
        check_stages(stages)
        return cls(
            experiment,
            challenger,
            stages,
            weight=stages[0].weight,
            since=now,
            on_invalid=on_invalid,
        )

    @property
    def stage(self) -> Stage:
        """The present stage."""
        return self.stages[self.index]

    @property
    def mode(self) -> str:
        """Which evidence counts: that of copies, or that of requests served."""
        return self.stage.mode

    @property
    def live(self) -> bool:
        """Whether it is not over."""
        return self.phase not in TERMINAL

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {"format": 1, **asdict(self), "stages": [asdict(stage) for stage in self.stages]}

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> Rollout:
        """Undo :meth:`to_dict`. Raises ValueError, KeyError or TypeError for another shape."""
        if state["format"] != 1:
            raise ValueError(f"format {state['format']!r} of a rollout is not known")
        data = {name: value for name, value in state.items() if name != "format"}
        known = cls(**{**data, "stages": tuple(Stage(**stage) for stage in data["stages"])})
        if known.phase not in PHASES or not 0 <= known.index < len(known.stages):
            raise ValueError(f"no phase of a rollout: {known.phase!r}, stage {known.index}")
        return known


Step = tuple[Rollout, tuple[Event, ...]]


def check_stages(stages: tuple[Stage, ...]) -> None:
    """Raises RolloutError unless the weights rise from stage to stage."""
    if not stages:
        raise RolloutError("a rollout needs at least one stage")
    weights = [stage.weight for stage in stages]
    if any(later <= before for before, later in pairwise(weights)):
        shown = ", ".join(f"{w:g}" for w in weights)
        raise RolloutError(f"the weights of the stages must rise, not {shown}")


def step(
    rollout: Rollout, now: float, verdict: str, reasons: tuple[str, ...], exposure: int
) -> Step:
    """Move on by what the evidence says.

    ``exposure`` is the number of the challenger's own requests so far, in the mode of the stage.
    """
    if not rollout.live:
        return rollout, ()
    why = "; ".join(reasons)
    if verdict == "rollback" and rollout.phase != "rolling_back":
        return _change(rollout, now, "rolled_back", SELF, why, phase="rolled_back", weight=0.0)
    if rollout.phase == "rolling_back":
        return _step_down(rollout, now)
    if verdict == "invalid":
        if rollout.on_invalid == "rollback":
            return _change(rollout, now, "rolled_back", SELF, why, phase="rolled_back", weight=0.0)
        if rollout.phase != "paused":
            return _change(rollout, now, "paused", SELF, why, phase="paused")
        return rollout, ()
    if rollout.phase != "running":
        return rollout, ()
    stage = rollout.stage
    if exposure < rollout.exposure:
        # The evidence began anew; so does the exposure.
        rollout = replace(rollout, exposure=0)
    served = exposure - rollout.exposure
    if served < max(1, stage.minimum_requests) or now - rollout.since < stage.minimum_seconds:
        return rollout, ()
    if stage.requires == "decision" and verdict != "promote":
        return rollout, ()
    if verdict == "continue":
        why = f"{served:,} requests of the challenger without harm"
    if stage.gate == "manual":
        return _change(rollout, now, "waiting", SELF, why, phase="waiting")
    return _advance(rollout, now, SELF, why, exposure)


def promote(
    rollout: Rollout, now: float, who: str, why: str, exposure: int, force: bool = False
) -> Step:
    """A person lets it go on from a stage at which it waits; ``force`` from any, without evidence.

    Forced, it goes straight to all traffic.
    """
    _person(who, why if force else "-")
    if rollout.phase == "waiting" and not force:
        return _advance(rollout, now, who, why or "approved", exposure)
    if not force:
        raise RolloutError(
            f"nothing waits for approval: the rollout is {rollout.phase}; promoting it without "
            "evidence needs force and a reason"
        )
    _must_live(rollout)
    return _change(rollout, now, "promoted", who, why, phase="promoted", weight=1.0)


def pause(rollout: Rollout, now: float, who: str, why: str) -> Step:
    """Keep the weights as they are until resumed."""
    _person(who, why or "-")
    if rollout.phase not in ("running", "waiting"):
        raise RolloutError(f"only a running rollout can be paused; this one is {rollout.phase}")
    return _change(rollout, now, "paused", who, why, phase="paused")


def resume(rollout: Rollout, now: float, who: str, why: str, exposure: int) -> Step:
    """Go on where it was paused; the stage's minimum counts anew."""
    _person(who, why or "-")
    if rollout.phase != "paused":
        raise RolloutError(f"only a paused rollout can be resumed; this one is {rollout.phase}")
    changed, events = _change(rollout, now, "resumed", who, why, phase="running")
    return replace(changed, since=now, exposure=exposure), events


def abort(rollout: Rollout, now: float, who: str, why: str, gradual: bool = False) -> Step:
    """Take the challenger off, at once or stage by stage."""
    _person(who, why)
    _must_live(rollout)
    if gradual and rollout.weight > 0.0:
        changed, events = _change(rollout, now, "rolling_back", who, why, phase="rolling_back")
        return replace(changed, since=now), events
    return _change(rollout, now, "aborted", who, why, phase="aborted", weight=0.0)


def allocation(before: Allocation, weights: Mapping[int, float], arms: int) -> Allocation:
    """The assignment for new weights of the challengers, by arm, moving no unit that need not move.

    The champion, arm 0, has what they leave. A first allocation gives all to the champion before
    any is taken away, so that it does not matter when an experiment began to divide requests.
    """
    shares = [0.0] * arms
    for arm, weight in weights.items():
        shares[arm] = weight
    shares[0] = max(0.0, 1.0 - math.fsum(shares[1:]))
    if set(before.arms) == {OUT}:
        before = before.reweighed([1.0, *[0.0] * (arms - 1)])
    return before.reweighed(shares)


def _advance(rollout: Rollout, now: float, who: str, why: str, exposure: int) -> Step:
    if rollout.index + 1 == len(rollout.stages) or rollout.stages[rollout.index + 1].weight == 1.0:
        # A shadow promotes nobody by itself: all that follows from it is that people may.
        weight = 1.0 if rollout.mode == "split" or len(rollout.stages) > 1 else 0.0
        return _change(rollout, now, "promoted", who, why, phase="promoted", weight=weight)
    following = rollout.stages[rollout.index + 1]
    changed = replace(
        rollout,
        index=rollout.index + 1,
        since=now,
        exposure=exposure if following.mode == rollout.mode else 0,
    )
    return _change(changed, now, "advanced", who, why, phase="running", weight=following.weight)


def _step_down(rollout: Rollout, now: float) -> Step:
    if now - rollout.since < DWELL_SECONDS:
        return rollout, ()
    below = [stage.weight for stage in rollout.stages if stage.weight < rollout.weight]
    weight = max(below, default=0.0)
    phase = "rolling_back" if weight > 0.0 else "aborted"
    changed = replace(rollout, since=now)
    return _change(changed, now, phase, SELF, "gradual roll-back", phase=phase, weight=weight)


def _change(
    rollout: Rollout,
    now: float,
    kind: str,
    who: str,
    why: str,
    *,
    phase: str,
    weight: float | None = None,
) -> Step:
    changed = replace(
        rollout,
        phase=phase,
        weight=rollout.weight if weight is None else weight,
        version=rollout.version + 1,
    )
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
    )
    return changed, (event,)


def _person(who: str, why: str) -> None:
    if not who.strip():
        raise RolloutError("who does this? It goes into the audit log")
    if not why.strip():
        raise RolloutError("why? The reason goes into the audit log")


def _must_live(rollout: Rollout) -> None:
    if not rollout.live:
        raise RolloutError(f"the rollout is over: it was {rollout.phase.replace('_', ' ')}")
