"""Where evidence is judged: each partition of its topic is a place with a judge of its own.

Experiments are judged, and traffic steered, at one place; what watches the models (statistics,
quality, drift, performance, findings) has another. Neither needs anything of the other, so that two
evaluators share the work. Where the topic has a single partition everything is judged there.
"""

from __future__ import annotations

from monitor.config.model import Config

EXPERIMENTS = 0
WATCHES = 1
PLACES = 2
EXPERIMENTS_COST = 1.0
WATCHES_COST = 1.5
"""Of judging everything there, where 1 is what preparing everything costs. Measured without labels,
which make preparing dearer, and rounded towards that."""


def place_of(of_experiment: bool, partitions: int) -> int:
    """The partition that a row of evidence goes to."""
    return EXPERIMENTS if of_experiment or partitions < PLACES else WATCHES


def places(partitions: int) -> range:
    """Those that there are."""
    return range(min(partitions, PLACES))


def costs(config: Config, partitions: int) -> dict[int, float]:
    """What judging costs, by place."""
    found = dict.fromkeys(places(partitions), 0.0)
    if config.experiments:
        found[place_of(True, partitions)] += EXPERIMENTS_COST
    found[place_of(False, partitions)] += WATCHES_COST
    return found


def owned(config: Config, place: int, partitions: int) -> Config:
    """What of a configuration is judged at a place: models, experiments, or both."""
    first = config.models[0].name if config.models else ""
    experiments = [
        declared.model_copy(update={"model": declared.model or first})
        for declared in config.experiments
        if place == place_of(True, partitions)
    ]
    models = config.models if place == place_of(False, partitions) else []
    return config.model_copy(update={"models": models, "experiments": experiments})
