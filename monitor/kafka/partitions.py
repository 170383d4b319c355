"""What the partitions of the evidence topic are for.

One partition carries the evidence of experiments: its owner evaluates them and controls the
routes. The other carries the evidence about the health of models (statistics, quality, drift,
performance, findings). They are independent, so two evaluators share the work. A topic with a
single partition carries everything.
"""

from __future__ import annotations

from understudy.monitor.config.model import Config

EXPERIMENTS = 0
HEALTH = 1
EVIDENCE_PARTITIONS = 2
COSTS = (1.4, 2.3)
"""Measured cost of evaluating each evidence partition; stage one of all input costs 1."""
COSTS_WITH_LABELS = (0.15, 0.25)
"""The same where stage one works record by record: with labels, or a repeated champion request."""


def evidence_partition(is_experiment: bool, partitions: int) -> int:
    """The evidence partition of a row; ``partitions`` is how many the topic has."""
    return EXPERIMENTS if is_experiment or partitions < EVIDENCE_PARTITIONS else HEALTH


def evidence_partitions(partitions: int) -> range:
    """The evidence partitions that are used, of a topic that has ``partitions``."""
    return range(min(partitions, EVIDENCE_PARTITIONS))


def scope_of(partition: int, partitions: int) -> str:
    """What an evidence partition carries: ``all``, ``experiments`` or ``models``."""
    return "all" if partitions < EVIDENCE_PARTITIONS else ("experiments", "models")[partition]


def costs(config: Config, partitions: int) -> dict[int, float]:
    """Cost of evaluating each evidence partition, relative to stage one of all input."""
    one_by_one = any(model.performance is not None for model in config.models) or any(
        declared.label is not None or declared.compare.noise for declared in config.experiments
    )
    experiments_cost, health_cost = COSTS_WITH_LABELS if one_by_one else COSTS
    result = dict.fromkeys(evidence_partitions(partitions), 0.0)
    if config.experiments:
        result[evidence_partition(True, partitions)] += experiments_cost
    result[evidence_partition(False, partitions)] += health_cost
    return result


def partition_config(config: Config, partition: int, partitions: int) -> Config:
    """``config`` with only the models and experiments that an evidence partition carries."""
    first = config.models[0].name if config.models else ""
    experiments = [
        declared.model_copy(update={"model": declared.model or first})
        for declared in config.experiments
        if partition == evidence_partition(True, partitions)
    ]
    models = config.models if partition == evidence_partition(False, partitions) else []
    return config.model_copy(update={"models": models, "experiments": experiments})
