"""The state of a rollout, and the events that led to it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from understudy.shadow.rollout.stages import RolloutError, Stage, check_stages
from understudy.shadow.state import dump, load

SELF = "understudy"
"""The actor of automatic events."""
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


@dataclass(frozen=True, slots=True)
class Event:
    """What happened; the audit log keeps it. ``weight`` is the one in force afterwards.

    ``since`` and ``exposure`` are those of the rollout afterwards, so that :func:`replayed` finds
    the same state; ``from_stage`` is where it was before, ``reasons`` are those of the verdict and
    ``cause`` says why it ended (see :class:`Rollout`).
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
    cause: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return dump(self)  # type: ignore[no-any-return]

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Event:
        """Undo :meth:`to_dict`; what a log added is left out, and what it lacks is as usual.

        Raises FieldError, a ValueError, for values of other types, and TypeError when one lacks.
        """
        known = {field.name: data[field.name] for field in fields(cls) if field.name in data}
        return load(cls, dump(cls(**known)))


@dataclass(frozen=True, slots=True)
class Rollout:
    """``index`` is the stage, ``since`` when it began (seconds), ``exposure`` the challenger's
    requests at that time; ``version`` grows with every change. ``cause`` is that of the
    decision that rolled it back: harm, want of an improvement, or another."""

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
    cause: str = ""

    @classmethod
    def begin(
        cls,
        experiment: str,
        challenger: str,
        stages: tuple[Stage, ...],
        now: float,
        on_invalid: str = "pause",
    ) -> Rollout:
        """At the first stage. Raises RolloutError for stages that do not form a ramp."""
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
        """Which evidence counts: "shadow", of mirrored requests, or "split", of served ones."""
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
        """Whether the rollout is still running."""
        return self.phase not in TERMINAL

    def dump_state(self) -> dict[str, Any]:
        """As JSON."""
        return {"format": 1, **dump(self)}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Rollout:
        """Undo :meth:`dump_state`. Raises ValueError, KeyError or TypeError for another shape."""
        if state["format"] != 1:
            raise ValueError(f"format {state['format']!r} of a rollout is not known")
        # States of before causes were kept have none.
        saved = {"cause": "", **state}
        known = load(cls, {name: value for name, value in saved.items() if name != "format"})
        if known.phase not in PHASES or not 0 <= known.index < len(known.stages):
            raise ValueError(f"not a valid rollout: phase {known.phase!r}, stage {known.index}")
        if known.weight not in {0.0, 1.0, *(stage.weight for stage in known.stages)}:
            raise ValueError(f"no stage of the rollout has the weight {known.weight!r}")
        return known


Step = tuple[Rollout, tuple[Event, ...]]
"""What comes of anything: the next state, and the events that led to it."""


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
            cause=event.cause,
        )
    return rollout
