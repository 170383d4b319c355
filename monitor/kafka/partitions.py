"""Where evidence is judged: each partition of its topic is a place with a judge of its own.

Experiments are judged, and traffic steered, at one place; what watches the models (statistics,
quality, drift, performance, findings) has another. Neither needs anything of the other, so that two
evaluators share the work. Where the topic has a single partition everything is judged there.
"""

from __future__ import annotations

from understudy.monitor.config.model import Config

EXPERIMENTS = 0
WATCHES = 1
PLACES = 2
COSTS = (1.4, 2.3)
"""Of judging everything at a place, where 1 is what preparing everything costs, as measured."""
COSTS_WITH_LABELS = (0.15, 0.25)
"""The same where records are prepared one by one: for labels, or a champion that is asked twice."""


def place_of(of_experiment: bool, partitions: int) -> int:
    """The partition that a row of evidence goes to."""
    return EXPERIMENTS if of_experiment or partitions < PLACES else WATCHES


def places(partitions: int) -> range:
    """Those that there are."""
    return range(min(partitions, PLACES))


def name_of(place: int, partitions: int) -> str:
    """What is judged at a place, in a word."""
    return "all" if partitions < PLACES else ("experiments", "models")[place]


def costs(config: Config, partitions: int) -> dict[int, float]:
    """What judging costs, by place."""
    one_by_one = any(model.performance is not None for model in config.models) or any(
        declared.label is not None or declared.compare.noise for declared in config.experiments
    )
    of_experiments, of_watches = COSTS_WITH_LABELS if one_by_one else COSTS
    found = dict.fromkeys(places(partitions), 0.0)
    if config.experiments:
        found[place_of(True, partitions)] += of_experiments
    found[place_of(False, partitions)] += of_watches
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
