"""A challenger of an experiment, and what its records carry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from understudy.monitor.config.experiment import Experiment as Declared
from understudy.monitor.config.rules import stages_of
from understudy.monitor.experiments.timeline import Timeline
from understudy.shadow import comparison, rollout
from understudy.shadow.experiment import Decision


@dataclass(frozen=True, slots=True)
class Arms:
    """Names that an experiment's records carry. ``again`` is the champion asked twice, or ""."""

    champion: str
    again: str
    mirror_rate: Mapping[str, float]
    """Share of the requests that each challenger gets a copy of."""
    salt: bytes
    """By which copies are chosen."""


@dataclass(frozen=True, slots=True)
class Division:
    """How the worker that served a record divided the requests. ``arms`` are its names of all arms;
    ``weights`` are those of the experiment's arms, in their order. ``since`` is when that began in
    the worker, ``epoch`` when it was decided, which all workers know alike (unix time)."""

    arms: tuple[str, ...]
    weights: tuple[float, ...]
    since: float
    epoch: float


class Contestant:
    """A challenger of an experiment, with everything that is kept about it."""

    def __init__(self, name: str, declared: Declared, now: float) -> None:
        self.name = name
        self.rollout = rollout.Rollout.begin(
            declared.name, name, stages_of(declared, name), now, declared.on_invalid
        )
        self.noise = comparison.NoiseCancelling()
        self.worst = comparison.Worst(declared.compare.keep)
        self.timeline = Timeline()
        self.decision = Decision("continue", ("no traffic yet",))
        self.diverted = 0
        """Requests that were the challenger's and that the champion served in its stead."""
        self.lost = 0
        """Answers whose counterpart did not come while there was room to wait."""

    @property
    def mode(self) -> str:
        """Which evidence counts now."""
        return self.rollout.mode
