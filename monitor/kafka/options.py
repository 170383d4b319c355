"""Options of a member of a consumer group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from understudy.monitor.config.kafka import Kafka
from understudy.monitor.config.model import Config
from understudy.monitor.errors import ConfigError
from understudy.monitor.kafka.connect import Topics, connection


@dataclass(frozen=True, slots=True)
class Options:
    """Times are in seconds. ``instance`` names this evaluator within its group. It stays the same
    over restarts, so that a restart at once aborts the transaction that was left open.
    """

    kafka: Kafka
    instance: str
    commit_seconds: float = 1.0
    session_seconds: float = 15.0
    transaction_seconds: float = 20.0
    most_messages: int = 500
    """Maximum number of messages of one poll."""
    url: str = ""
    """Address of this member's control API for other members; empty if they cannot reach it."""

    @property
    def topics(self) -> Topics:
        """Names of the topics."""
        return Topics(self.kafka.prefix)

    @property
    def group(self) -> str:
        """The consumer group, and the prefix of transactional ids."""
        return self.kafka.prefix

    def client(self) -> dict[str, Any]:
        """Arguments for kafka-python's clients."""
        return {**connection(self.kafka), "metrics_enabled": False}


def kafka_of(config: Config) -> Kafka:
    """The cluster of a configuration. Raises ConfigError if ``kafka`` is missing."""
    if config.kafka is None:
        raise ConfigError("configuration", [("kafka", "is missing: name the brokers")])
    return config.kafka
