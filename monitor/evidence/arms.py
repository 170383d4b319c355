"""The arms that an experiment compares, and how a worker divided the requests among them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from understudy.monitor.config.compile import REPEAT_SUFFIX
from understudy.monitor.config.experiment import Experiment
from understudy.monitor.config.model import Config


@dataclass(frozen=True, slots=True)
class Arms:
    """Arm names in the records of an experiment.

    ``repeat`` is the arm of the champion's second answer to the same request, which measures its
    own noise; "" when noise is not measured.
    """

    champion: str
    repeat: str
    mirror_rate: Mapping[str, float]
    """Share of the requests that are mirrored to each challenger, in [0, 1]."""
    salt: bytes
    """Salt of the hash that chooses which requests are mirrored."""


@dataclass(frozen=True, slots=True)
class SplitShares:
    """How the worker that served a record divided the requests.

    ``arms`` names all arms of the worker. ``weights`` are the weights of the experiment's arms, in
    the experiment's order. ``since`` is the unix time at which the worker applied them, ``epoch``
    the unix time of the decision, which is the same for all workers. ``first`` is the number in
    records of a request assigned to the first of ``arms``.
    """

    arms: tuple[str, ...]
    weights: tuple[float, ...]
    since: float
    epoch: float
    first: int = 1


def arms_of(config: Config, declared: Experiment) -> Arms:
    """The arms of a declared experiment."""
    rates = {c.name: c.mirror.rate for c in config.challengers}
    champion = config.champion.name
    repeat = champion + REPEAT_SUFFIX if declared.compare.noise else ""
    # Must be the salt by which workers choose mirrored requests: it is the same in every plan.
    return Arms(champion, repeat, rates, b"understudy")
