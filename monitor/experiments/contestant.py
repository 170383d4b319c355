"""A challenger of an experiment, and what its records carry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from monitor.config.experiment import Experiment as Declared
from monitor.experiments.observe import NAN, Observation
from monitor.experiments.pairing import Pairing
from monitor.experiments.rules import stages_of
from monitor.experiments.timeline import Timeline
from shadow import comparison, rollout
from shadow.experiment import Contest, Decision, Pairs, Split

_MOST_WAITING = 20_000


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


@dataclass(slots=True)
class _Gathered:
    """Rows of one contest since the last flush."""

    arms: list[float] = field(default_factory=list)
    shares: list[float] = field(default_factory=list)
    split: list[dict[str, float]] = field(default_factory=list)
    pairs: list[tuple[dict[str, float], dict[str, float]]] = field(default_factory=list)


class Contestant:
    """A challenger of an experiment, with everything that is kept about it."""

    def __init__(self, name: str, declared: Declared, now: float) -> None:
        self.name = name
        self.rollout = rollout.Rollout.begin(
            declared.name, name, stages_of(declared, name), now, declared.on_invalid
        )
        self.pairing: Pairing[Observation] = Pairing(_MOST_WAITING)
        self.labels: Pairing[float] = Pairing(_MOST_WAITING)
        self.noise = comparison.NoiseCancelling()
        self.worst = comparison.Worst(declared.compare.keep)
        self.timeline = Timeline()
        self.decision = Decision("continue", ("no traffic yet",))
        self.diverted = 0
        """Requests that were the challenger's and that the champion served in its stead."""
        self.gathered = _Gathered()

    @property
    def mode(self) -> str:
        """Which evidence counts now."""
        return self.rollout.mode

    def flush(self, contest: Contest, columns: Sequence[str]) -> None:
        """Hand what was gathered to the statistics, as batches of ``columns``."""
        gathered, self.gathered = self.gathered, _Gathered()
        if gathered.pairs:
            contest.update_pairs(
                Pairs(
                    {
                        column: (
                            np.array([a.get(column, NAN) for a, _ in gathered.pairs]),
                            np.array([b.get(column, NAN) for _, b in gathered.pairs]),
                        )
                        for column in columns
                    },
                    sum("error" in first for first, _ in gathered.pairs),
                )
            )
        if gathered.split:
            contest.update_split(
                Split(
                    np.array(gathered.arms),
                    np.array(gathered.shares),
                    {
                        column: np.array([row.get(column, NAN) for row in gathered.split])
                        for column in columns
                    },
                    np.array(["error" in row for row in gathered.split]),
                )
            )
