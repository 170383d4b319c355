"""Whose records an experiment compares, and how a worker divided the requests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from understudy.monitor.config.compile import AGAIN
from understudy.monitor.config.experiment import Experiment
from understudy.monitor.config.model import Config


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
class SplitShares:
    """How the worker that served a record divided the requests. ``arms`` are its names of all arms;
    ``weights`` are those of the experiment's arms, in their order. ``since`` is when that began in
    the worker, ``epoch`` when it was decided, which all workers know alike (unix time)."""

    arms: tuple[str, ...]
    weights: tuple[float, ...]
    since: float
    epoch: float


def arms_of(config: Config, declared: Experiment) -> Arms:
    """Whose records an experiment's are."""
    rates = {c.name: c.mirror.rate for c in config.challengers}
    champion = config.champion.name
    again = champion + AGAIN if declared.compare.noise else ""
    # The salt by which workers choose copies is that of every plan.
    return Arms(champion, again, rates, b"understudy")
