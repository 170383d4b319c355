"""The arms that an experiment compares, and how a worker divided the requests among them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from understudy.monitor.config.compile import REPEAT_SUFFIX, mirror_timeouts, servers_of
from understudy.monitor.config.experiment import Experiment
from understudy.monitor.config.model import Config, Mirror, Timeouts

LONGEST_SECONDS = 300.0
"""A response that takes longer counts as late in a comparison, where no time limit says so."""

WAITS_SECONDS = 300.0
"""How long an answer waits at least for its counterpart, in seconds of the records' time."""


@dataclass(frozen=True, slots=True)
class TimeLimits:
    """Time limits that hold for all arms of a comparison, in seconds: the shorter ones of each."""

    first_byte: float = 120.0
    total: float = LONGEST_SECONDS


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
    mirror_limits: Mapping[str, TimeLimits] = field(default_factory=dict)
    """Of mirrored requests and their originals, by challenger."""
    serving_limits: TimeLimits = TimeLimits()
    """Of clients' requests, over all arms of the experiment."""
    largest_answers: Mapping[str, int] = field(default_factory=dict)
    """Size in bytes of the largest answer to a mirrored request that is read, by challenger."""
    servers: Mapping[str, str] = field(default_factory=dict)
    """By arm, which model server answers for it (:func:`~.config.compile.servers_of`)."""

    def limits_of(self, challenger: str) -> TimeLimits:
        """Those of the requests that are mirrored to a challenger."""
        return self.mirror_limits.get(challenger, self.serving_limits)

    def wait(self, challengers: Iterable[str]) -> float:
        """Seconds after which an answer of one of ``challengers``, or of the champion to the same
        request, no longer waits for its counterpart."""
        longest = max((self.limits_of(name).total for name in challengers), default=0.0)
        # A mirrored request may wait for a connection as long as it may take.
        return max(WAITS_SECONDS, 60.0 + 2.0 * longest)


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
    own = _for_model(config, declared, config.champion.timeouts)
    of_arms = [c for c in config.challengers if c.name in declared.challengers]
    return Arms(
        champion,
        repeat,
        rates,
        b"understudy",
        {c.name: _shorter(own, _of_mirror(config, declared, c.mirror)) for c in of_arms},
        _shorter(own, *(_for_model(config, declared, c.timeouts) for c in of_arms)),
        {c.name: c.mirror.max_response for c in of_arms},
        servers_of(config, declared),
    )


def _shorter(*timeouts: Timeouts) -> TimeLimits:
    totals = [LONGEST_SECONDS if t.total is None else t.total for t in timeouts]
    return TimeLimits(min(t.first_byte for t in timeouts), min(totals))


def _for_model(config: Config, declared: Experiment, timeouts: Timeouts) -> Timeouts:
    """``timeouts`` with the limits that the experiment's model has."""
    name = declared.model if declared.model is not None else config.models[0].name
    found = next((model for model in config.models if model.name == name), None)
    own = {limit: getattr(found, limit, None) for limit in ("first_byte", "total")}
    return timeouts.model_copy(update={k: v for k, v in own.items() if v is not None})


def _of_mirror(config: Config, declared: Experiment, mirror: Mirror) -> Timeouts:
    timeouts = mirror_timeouts(config, mirror)
    return timeouts if mirror.timeout is not None else _for_model(config, declared, timeouts)
