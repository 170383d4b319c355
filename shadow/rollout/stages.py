"""The stages of a ramp."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, zip_longest


class RolloutError(ValueError):
    """A command that is not possible now; the message lists those that are."""


@dataclass(frozen=True, slots=True)
class Stage:
    """``mode`` is "shadow" or "split", ``weight`` the challenger's share of the units.

    It is left when the challenger has had ``minimum_requests``, ``minimum_seconds`` have
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
        for weight, following in zip_longest(weights, weights[1:])
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
        raise RolloutError(f"the weights of the stages must increase, not {shown}")
    if len({stage.name for stage in stages}) < len(stages):
        raise RolloutError("stage names must be unique")
