"""The ramp from shadow to all traffic: a pure state machine.

Time, verdicts and people's commands are passed in; what comes out is the next state and the events
that led to it. Traffic that stops neither promotes nor aborts: only verdicts, exposure and people
move a rollout.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
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
VERDICTS = ("promote", "rollback", "continue", "invalid")
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
    "no_harm", or a "decision" to promote; the last stage before all traffic always the latter.
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
        if self.gate not in ("automatic", "manual"):
            raise RolloutError(f"stage {self.name}: a gate is automatic or manual: {self.gate!r}")
        if self.requires not in ("decision", "no_harm"):
            raise RolloutError(
                f"stage {self.name}: it requires decision or no_harm, not {self.requires!r}"
            )
        if self.minimum_requests < 0 or not 0.0 <= self.minimum_seconds < math.inf:
            raise RolloutError(f"stage {self.name}: its minimum is a number from 0 up")


@dataclass(frozen=True, slots=True)
class Event:
    """What happened; the audit log keeps it. ``weight`` is the one in force afterwards.

    ``since`` and ``exposure`` are those of the rollout afterwards, so that :func:`replayed` finds
    the same state; ``from_stage`` is where it was before, ``reasons`` are those of the verdict.
    """

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
    from_stage: str = ""
    reasons: tuple[str, ...] = ()
    since: float = 0.0
    exposure: int = 0

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {**asdict(self), "reasons": list(self.reasons)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Event:
        """Undo :meth:`to_dict`; what a log added is left out. Raises TypeError when one lacks."""
        known = {field.name: data[field.name] for field in fields(cls) if field.name in data}
        return cls(**{**known, "reasons": tuple(known.get("reasons", ()))})


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
        if on_invalid not in ("pause", "rollback"):
            raise RolloutError(f"on_invalid is pause or rollback, not {on_invalid!r}")
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
    def last(self) -> bool:
        """Whether all traffic comes next."""
        following = self.stages[self.index + 1 : self.index + 2]
        return not following or following[0].weight == 1.0

    @property
    def requires(self) -> str:
        """What it takes to leave the stage: nothing but a decision leads to all traffic."""
        return "decision" if self.last else self.stage.requires

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
        if known.weight not in {0.0, 1.0, *(stage.weight for stage in known.stages)}:
            raise ValueError(f"no stage of the rollout has the weight {known.weight!r}")
        return known


Step = tuple[Rollout, tuple[Event, ...]]


def stages_from(
    weights: Sequence[float], minimum_requests: int = 100, minimum_seconds: float = 0.0
) -> tuple[Stage, ...]:
    """A ramp over ``weights``, of which 0 is shadow, with automatic gates.

    Raises RolloutError for weights that do not rise.
    """
    stages = tuple(
        Stage(
            f"{weight * 100:g} %" if weight else "shadow",
            "split" if weight else "shadow",
            weight,
            minimum_requests=minimum_requests,
            minimum_seconds=minimum_seconds,
            requires="decision" if following in (None, 1.0) else "no_harm",
        )
        for weight, following in zip(weights, (*weights[1:], None), strict=True)
    )
    check_stages(stages)
    return stages


def check_stages(stages: tuple[Stage, ...]) -> None:
    """Raises RolloutError unless the weights rise from stage to stage, each with its name."""
    if not stages:
        raise RolloutError("a rollout needs at least one stage")
    weights = [stage.weight for stage in stages]
    if any(later <= before for before, later in pairwise(weights)):
        shown = ", ".join(f"{w:g}" for w in weights)
        raise RolloutError(f"the weights of the stages must rise, not {shown}")
    if len({stage.name for stage in stages}) < len(stages):
        raise RolloutError("each stage needs a name of its own")


def step(
    rollout: Rollout, now: float, verdict: str, reasons: tuple[str, ...], exposure: int
) -> Step:
    """Move on by what the evidence says.

    ``exposure`` is the number of the challenger's own requests so far, in the mode of the stage.
    Raises RolloutError for a verdict that there is not.
    """
    if verdict not in VERDICTS:
        raise RolloutError(f"a verdict is one of {', '.join(VERDICTS)}, not {verdict!r}")
    if not rollout.live:
        return rollout, ()
    rollout, events = _recount(rollout, now, exposure)
    rollout, more = _judged(rollout, now, verdict, reasons, exposure)
    return rollout, events + more


def _judged(
    rollout: Rollout, now: float, verdict: str, reasons: tuple[str, ...], exposure: int
) -> Step:
    why = "; ".join(reasons)
    if verdict == "rollback" or (verdict == "invalid" and rollout.on_invalid == "rollback"):
        # Harm does not wait for the next step of a gradual roll-back.
        return _change(
            rollout, now, "rolled_back", SELF, why, reasons, phase="rolled_back", weight=0.0
        )
    if rollout.phase == "rolling_back":
        return _step_down(rollout, now)
    if verdict == "invalid" and rollout.phase != "paused":
        return _change(rollout, now, "paused", SELF, why, reasons, phase="paused")
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
        why = f"{served:,} requests of the challenger without harm"
    if stage.gate == "manual":
        return _change(rollout, now, "waiting", SELF, why, reasons, phase="waiting")
    return _advance(rollout, now, SELF, why, exposure, reasons)


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
        return _change(rollout, now, "promoted", who, why, phase="promoted", weight=1.0)
    return _advance(rollout, now, who, why, exposure, index=_later(rollout, to))


def approve(
    rollout: Rollout, now: float, who: str, why: str, exposure: int, to: str | None = None
) -> Step:
    """A person opens the gate at which it waits; ``to``, if given, has to be the next stage."""
    _person(who, why or "-")
    if rollout.phase != "waiting":
        raise RolloutError(f"nothing waits for approval: the rollout is {_shown(rollout)}")
    if to is not None and _later(rollout, to) != rollout.index + 1:
        raise RolloutError(f"{to!r} is not the next stage; to skip one needs force and a reason")
    return _advance(rollout, now, who, why or "approved", exposure)


def pause(rollout: Rollout, now: float, who: str, why: str) -> Step:
    """Keep the weights as they are until resumed."""
    _person(who, why or "-")
    if rollout.phase not in ("running", "waiting"):
        raise RolloutError(f"only what runs or waits can be paused; this is {_shown(rollout)}")
    return _change(rollout, now, "paused", who, why, phase="paused")


def resume(rollout: Rollout, now: float, who: str, why: str, exposure: int) -> Step:
    """Go on where it was paused; the stage's minimum counts anew."""
    _person(who, why or "-")
    if rollout.phase != "paused":
        raise RolloutError(f"only a paused rollout can be resumed; this one is {_shown(rollout)}")
    anew = replace(rollout, since=now, exposure=exposure)
    return _change(anew, now, "resumed", who, why, phase="running")


def abort(rollout: Rollout, now: float, who: str, why: str, gradual: bool = False) -> Step:
    """Take the challenger off, at once or stage by stage."""
    _person(who, why)
    _must_live(rollout)
    if gradual and rollout.phase == "rolling_back":
        raise RolloutError(f"the rollout is already {_shown(rollout)}")
    if gradual and rollout.weight > 0.0:
        anew = replace(rollout, since=now)
        return _change(anew, now, "rolling_back", who, why, phase="rolling_back")
    return _change(rollout, now, "aborted", who, why, phase="aborted", weight=0.0)


def replayed(rollout: Rollout, events: Iterable[Event]) -> Rollout:
    """The state after ``events``; those that it already has seen change nothing.

    Raises RolloutError for an event of a stage that it does not have.
    """
    indices = {stage.name: index for index, stage in enumerate(rollout.stages)}
    for event in events:
        if event.version <= rollout.version:
            continue
        if event.stage not in indices:
            raise RolloutError(f"there is no stage {event.stage!r}")
        rollout = replace(
            rollout,
            index=indices[event.stage],
            phase=event.phase,
            weight=event.weight,
            since=event.since,
            exposure=event.exposure,
            version=event.version,
        )
    return rollout


def allocation(before: Allocation, weights: Mapping[int, float], arms: int) -> Allocation:
    """The assignment for new weights of the challengers, by arm, moving no unit that need not move.

    The champion, arm 0, has what they leave. A first allocation gives all to the champion before
    any is taken away, so that it does not matter when an experiment began to divide requests.
    When one of several challengers was promoted, the weights add up to more than all there is: the
    largest counts then, the others get nothing.
    """
    shares = [0.0] * arms
    most = max(weights.values(), default=0.0)
    crowded = math.fsum(weights.values()) > 1.0 + 1e-9
    promoted = sum(weight == most for weight in weights.values())
    for arm, weight in weights.items():
        if not crowded:
            shares[arm] = weight
        elif weight == most:
            shares[arm] = min(most, 1.0 / promoted)
    shares[0] = max(0.0, 1.0 - math.fsum(shares[1:]))
    if set(before.arms) == {OUT}:
        before = before.reweighed([1.0, *[0.0] * (arms - 1)])
    return before.reweighed(shares)


def _advance(
    rollout: Rollout,
    now: float,
    who: str,
    why: str,
    exposure: int,
    reasons: tuple[str, ...] = (),
    index: int | None = None,
) -> Step:
    index = rollout.index + 1 if index is None else index
    if index == len(rollout.stages) or rollout.stages[index].weight == 1.0:
        # A shadow promotes nobody by itself: all that follows from it is that people may.
        weight = 1.0 if rollout.mode == "split" or len(rollout.stages) > 1 else 0.0
        return _change(rollout, now, "promoted", who, why, reasons, phase="promoted", weight=weight)
    following = rollout.stages[index]
    changed = replace(
        rollout,
        index=index,
        since=now,
        exposure=exposure if following.mode == rollout.mode else 0,
    )
    step_ = _change(
        changed, now, "advanced", who, why, reasons, phase="running", weight=following.weight
    )
    return step_[0], (replace(step_[1][0], from_stage=rollout.stage.name),)


def _step_down(rollout: Rollout, now: float) -> Step:
    if not now - rollout.since >= DWELL_SECONDS:
        return rollout, ()
    below = [stage.weight for stage in rollout.stages if stage.weight < rollout.weight]
    weight = max(below, default=0.0)
    phase = "rolling_back" if weight > 0.0 else "aborted"
    changed = replace(rollout, since=now)
    return _change(changed, now, phase, SELF, "gradual roll-back", phase=phase, weight=weight)


def _recount(rollout: Rollout, now: float, exposure: int) -> Step:
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
    anew = replace(rollout, since=min(now, rollout.since), exposure=min(exposure, rollout.exposure))
    return _change(anew, now, "recounted", SELF, " and ".join(causes), phase=rollout.phase)


def _change(
    rollout: Rollout,
    now: float,
    kind: str,
    who: str,
    why: str,
    reasons: tuple[str, ...] = (),
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
        changed.stage.name,
        reasons,
        changed.since,
        changed.exposure,
    )
    return changed, (event,)


def _later(rollout: Rollout, name: str) -> int:
    later = [stage.name for stage in rollout.stages[rollout.index + 1 :]]
    if name not in later:
        known = ", ".join(map(repr, later)) or "none"
        raise RolloutError(f"{name!r} is no later stage; there are: {known}")
    return rollout.index + 1 + later.index(name)


_POSSIBLE = {
    "running": "it can be paused, aborted, or promoted with force and a reason",
    "waiting": "it can be approved, paused, aborted, or promoted with force and a reason",
    "paused": "it can be resumed, aborted, or promoted with force and a reason",
    "rolling_back": "it can be aborted at once, or promoted with force and a reason",
}


def _shown(rollout: Rollout) -> str:
    """The phase, and what is possible in it."""
    possible = _POSSIBLE.get(rollout.phase, "it is over, only a new experiment can follow")
    return f"{rollout.phase.replace('_', ' ')}; {possible}"


def _person(who: str, why: str) -> None:
    if not who.strip():
        raise RolloutError("who does this? It goes into the audit log")
    if not why.strip():
        raise RolloutError("why? The reason goes into the audit log")


def _must_live(rollout: Rollout) -> None:
    if not rollout.live:
        raise RolloutError(f"this is no longer possible: the rollout is {_shown(rollout)}")
