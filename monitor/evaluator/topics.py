"""Names of the topics, and what else an evaluator has to know of a cluster."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Topics:
    """By the prefix of a configuration; ``foreign`` are topics of others that are read as well."""

    prefix: str
    foreign: tuple[str, ...] = ()

    @property
    def records(self) -> str:
        """Blocks of records."""
        return f"{self.prefix}.records"

    @property
    def labels(self) -> str:
        """Blocks of labels."""
        return f"{self.prefix}.labels"

    @property
    def evidence(self) -> str:
        """From the first stage to the second."""
        return f"{self.prefix}.evidence"

    @property
    def state(self) -> str:
        """States of both; compacted."""
        return f"{self.prefix}.state"

    @property
    def dead(self) -> str:
        """What could not be read."""
        return f"{self.prefix}.dead"

    @property
    def inputs(self) -> tuple[str, ...]:
        """What the first stage reads."""
        return (self.records, self.labels, *self.foreign)


@dataclass(frozen=True, slots=True)
class Options:
    """``client`` is how the brokers are reached, as kafka-python takes it. Times in seconds.

    ``instance`` names this evaluator among those of its group, and stays the same when it is
    started again, so that what its predecessor left undone is settled at once.
    """

    client: Mapping[str, Any]
    topics: Topics
    group: str
    instance: str
    commit_seconds: float = 1.0
    session_seconds: float = 15.0
    transaction_seconds: float = 20.0
    request_seconds: float = 10.0
    most_records: int = 500
    """Messages that are read at once."""
    extra: Mapping[str, Any] = field(default_factory=dict)
