"""How an evaluator takes part in its group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from understudy.monitor.config.kafka import Kafka
from understudy.monitor.config.model import Config
from understudy.monitor.errors import ConfigError
from understudy.monitor.kafka.connect import Topics, connection


@dataclass(frozen=True, slots=True)
class Options:
    """Times are in seconds. ``instance`` names this evaluator among those of its group, and stays
    the same when it is started again, so that what its predecessor left undone is settled at once.
    """

    kafka: Kafka
    instance: str
    commit_seconds: float = 1.0
    session_seconds: float = 15.0
    transaction_seconds: float = 20.0
    most_messages: int = 500
    """That are read at once."""
    url: str = ""
    """Where the others reach this one's control API; empty: they cannot."""

    @property
    def topics(self) -> Topics:
        """Their names."""
        return Topics(self.kafka.prefix)

    @property
    def group(self) -> str:
        """The consumer group, and the beginning of transactional ids."""
        return self.kafka.prefix

    def client(self) -> dict[str, Any]:
        """As kafka-python takes it."""
        return {**connection(self.kafka), "metrics_enabled": False}


def kafka_of(config: Config) -> Kafka:
    """The cluster of a configuration. Raises ConfigError where there is none."""
    if config.kafka is None:
        raise ConfigError("configuration", [("kafka", "is missing: name the brokers")])
    return config.kafka
