"""An evaluator, the topics that it needs, and its status."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from kafka import KafkaConsumer
from kafka.errors import KafkaError

from understudy.monitor.config.model import Config
from understudy.monitor.errors import KafkaAwayError, KafkaTroubleError, LostError
from understudy.monitor.kafka.client import describe_error, is_credentials_error
from understudy.monitor.kafka.importing import Importer
from understudy.monitor.kafka.member import Attach, Member
from understudy.monitor.kafka.options import Options
from understudy.monitor.kafka.partitions import evidence_partitions, scope_of
from understudy.monitor.kafka.retrying import RetryingConsumer

if TYPE_CHECKING:
    from prometheus_client.core import Metric


def topic_partitions(options: Options) -> dict[str, int]:
    """Number of partitions of each topic that an evaluator needs.

    Raises KafkaAwayError when no broker answers in time or topics are missing; KafkaTroubleError
    when their partition counts do not match, or the credentials are refused.
    """
    addresses = ", ".join(options.kafka.bootstrap)
    try:
        consumer = KafkaConsumer(**options.client(), enable_auto_commit=False)
    except (KafkaError, OSError, ValueError) as error:
        kind = KafkaTroubleError if is_credentials_error(error) else KafkaAwayError
        raise kind(
            f"Kafka cannot be reached at {addresses}: {describe_error(error)}; see kafka.bootstrap"
        ) from error
    topics = options.topics
    needed = (topics.records, topics.labels, topics.evidence, topics.state, topics.dead)
    try:
        there = consumer.topics()
        result = {t: len(consumer.partitions_for_topic(t) or ()) for t in needed if t in there}
    except (KafkaError, OSError) as error:
        raise KafkaAwayError(f"Kafka at {addresses} does not answer: {error}") from error
    finally:
        consumer.close(timeout_ms=1000)
    missing = [topic for topic in needed if not result.get(topic)]
    if missing:
        raise KafkaAwayError(
            f"topics are missing: {', '.join(missing)}; `understudy kafka init` creates them"
        )
    if result[topics.records] != result[topics.labels]:
        raise KafkaTroubleError(
            f"{topics.records} and {topics.labels} must have the same number of partitions, not "
            f"{result[topics.records]} and {result[topics.labels]}"
        )
    return result


class Evaluator(RetryingConsumer[Member]):
    """Evaluates records; imports the configured source topics as well, if there are any."""

    def __init__(self, config: Config, options: Options) -> None:
        self.options = options
        self._config = config
        self._partitions: dict[str, int] = {}
        self.attach: Attach | None = None
        """Called with each partition that is taken over, of the input or of the evidence, before
        anything is evaluated."""
        self.families: list[Callable[[], Iterator[Metric]]] = []
        """Metrics of what is attached."""
        self.config_error: str | None = None
        """Why the configuration file was rejected when it was read last, while this one ran."""
        super().__init__(self._member)
        self.importing: RetryingConsumer[Importer] | None = None
        if config.sources:
            self.importing = RetryingConsumer(lambda: Importer(config, options))

    def check(self) -> None:
        """Raises KafkaTroubleError for a cluster that cannot be used, and KafkaAwayError for one
        that may become usable; :meth:`run` retries."""
        try:
            self._partitions = topic_partitions(self.options)
        except KafkaAwayError as error:
            self.error = str(error)
            raise

    def _member(self) -> Member:
        if not self._partitions:
            self.check()
        return Member(self._config, self.options, self._partitions, self.attach)

    def stop(self) -> None:
        """Finish, commit and leave; from any thread."""
        super().stop()
        if self.importing is not None:
            self.importing.stop()


def status(evaluator: Evaluator) -> dict[str, Any]:
    """What an evaluator owns, its progress and its errors, as plain data. Call it from another
    thread than the consumer's."""
    member = evaluator.member
    result: dict[str, Any] = {
        "instance": evaluator.options.instance,
        "group": evaluator.options.group,
        "failures": evaluator.failures,
        "error": evaluator.error,
        "config_error": evaluator.config_error,
        "records": evaluator.counts()["records"],
        "imported": _importing_status(evaluator.importing),
        "partitions": [],
        "judges": [],
    }
    if member is not None:
        with contextlib.suppress(LostError):
            result |= member.commands.submit(lambda: _member_status(member), reads=True).result()
    return result


def _member_status(member: Member) -> dict[str, Any]:
    """In the consumer's thread."""
    return {
        "commits": member.commits,
        "dead": dict(member.dead),
        "snapshots_set_aside": member.snapshots_set_aside,
        "lag": member.lag(),
        "judged_at": {
            scope_of(number, member.evidence_partitions): member.owner(number)
            for number in evidence_partitions(member.evidence_partitions)
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
                "of": scope_of(number, member.evidence_partitions),
                "models": [model.name for model in one.config.models],
                "experiments": [declared.name for declared in one.config.experiments],
                "judged": one.now or None,
                "rows": one.rows,
                "late": one.late,
                "waiting": one.waiting,
            }
            for number, one in sorted(member.consumers.items())
        ],
    }


def _importing_status(importing: RetryingConsumer[Importer] | None) -> dict[str, Any] | None:
    if importing is None:
        return None
    counts, member = importing.counts(), importing.member
    return {
        "records": counts["records"],
        "labels": counts["labels"],
        "dead": counts["dead"],
        "snapshots_set_aside": member.snapshots_set_aside if member is not None else 0,
        "failures": importing.failures,
        "error": importing.error,
        "lag": member.lag() if member is not None else {},
    }
