"""An evaluator, what it needs of a cluster, and what it says of itself."""

from __future__ import annotations

import contextlib
from typing import Any

from kafka import KafkaConsumer
from kafka.errors import KafkaError

from understudy.monitor.config.model import Config
from understudy.monitor.errors import KafkaAwayError, KafkaTroubleError, LostError
from understudy.monitor.kafka.client import describe_error, refused
from understudy.monitor.kafka.importing import Importer
from understudy.monitor.kafka.inputs import Options
from understudy.monitor.kafka.member import Member
from understudy.monitor.kafka.partitions import name_of, places
from understudy.monitor.kafka.retrying import RetryingConsumer


def partitions_there(options: Options) -> dict[str, int]:
    """Number of partitions of each topic that an evaluator needs.

    Raises KafkaAwayError when no broker answers in time, or when topics are missing;
    KafkaTroubleError when they do not fit together.
    """
    addresses = ", ".join(options.kafka.bootstrap)
    try:
        consumer = KafkaConsumer(**options.client(), enable_auto_commit=False)
    except (KafkaError, OSError, ValueError) as error:
        kind = KafkaTroubleError if refused(error) else KafkaAwayError
        raise kind(
            f"Kafka cannot be reached at {addresses}: {describe_error(error)}; see kafka.bootstrap"
        ) from error
    topics = options.topics
    needed = (topics.records, topics.labels, topics.evidence, topics.state, topics.dead)
    try:
        there = consumer.topics()
        found = {t: len(consumer.partitions_for_topic(t) or ()) for t in needed if t in there}
    except (KafkaError, OSError) as error:
        raise KafkaAwayError(f"Kafka at {addresses} does not answer: {error}") from error
    finally:
        consumer.close(timeout_ms=1000)
    missing = [topic for topic in needed if not found.get(topic)]
    if missing:
        raise KafkaAwayError(
            f"topics are missing: {', '.join(missing)}; `understudy kafka init` creates them"
        )
    if found[topics.records] != found[topics.labels]:
        raise KafkaTroubleError(
            f"{topics.records} and {topics.labels} must have the same number of partitions, not "
            f"{found[topics.records]} and {found[topics.labels]}"
        )
    return found


class Evaluator(RetryingConsumer[Member]):
    """Evaluates; where the configuration has sources, it brings these in as well."""

    def __init__(self, config: Config, options: Options) -> None:
        self.options = options
        self._config = config
        self._partitions: dict[str, int] = {}
        super().__init__(self._member)
        self.importing: RetryingConsumer[Importer] | None = None
        if config.sources:
            self.importing = RetryingConsumer(lambda: Importer(config, options))

    def check(self) -> None:
        """Raises KafkaTroubleError for a cluster that cannot be used, and KafkaAwayError for one
        that may be usable later, as :meth:`run` finds out."""
        try:
            self._partitions = partitions_there(self.options)
        except KafkaAwayError as error:
            self.error = str(error)
            raise

    def _member(self) -> Member:
        if not self._partitions:
            self.check()
        return Member(self._config, self.options, self._partitions)

    def stop(self) -> None:
        """Finish, commit and leave; from any thread."""
        super().stop()
        if self.importing is not None:
            self.importing.stop()


def status(evaluator: Evaluator) -> dict[str, Any]:
    """What it owns, how far it is and what was wrong, as JSON; to be called from another thread
    than the consumer's."""
    member = evaluator.member
    found: dict[str, Any] = {
        "instance": evaluator.options.instance,
        "group": evaluator.options.group,
        "failures": evaluator.failures,
        "error": evaluator.error,
        "records": evaluator.taken()["records"],
        "imported": _imported(evaluator.importing),
        "partitions": [],
        "judges": [],
    }
    if member is not None:
        with contextlib.suppress(LostError):
            found |= member.commands.submit(lambda: _owned(member), reads=True).result()
    return found


def _owned(member: Member) -> dict[str, Any]:
    """In the consumer's thread."""
    return {
        "commits": member.commits,
        "dead": dict(member.dead),
        "snapshots_set_aside": member.snapshots_set_aside,
        "lag": member.lag(),
        "judged_at": {
            name_of(place, member.evidence): member.owner(place)
            for place in places(member.evidence)
        },
        "partitions": [
            {
                "partition": number,
                "records": one.records,
                "labels": one.labels,
                "complete": one.complete,
                "duplicates": one.sources.duplicates,
                "missing": one.sources.missing,
                "sources": len(one.sources.by_run),
            }
            for number, one in sorted(member.inputs.items())
        ],
        "judges": [
            {
                "place": number,
                "of": name_of(number, member.evidence),
                "models": [model.name for model in one.config.models],
                "experiments": [declared.name for declared in one.config.experiments],
                "judged": one.now or None,
                "rows": one.rows,
                "late": one.late,
                "waiting": one.waiting,
            }
            for number, one in sorted(member.judges.items())
        ],
    }


def _imported(importing: RetryingConsumer[Importer] | None) -> dict[str, Any] | None:
    if importing is None:
        return None
    taken, member = importing.taken(), importing.member
    return {
        "records": taken["records"],
        "labels": taken["labels"],
        "dead": taken["dead"],
        "snapshots_set_aside": member.snapshots_set_aside if member is not None else 0,
        "failures": importing.failures,
        "error": importing.error,
        "lag": member.lag() if member is not None else {},
    }
