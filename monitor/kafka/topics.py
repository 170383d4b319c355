"""The topics of a prefix: what they should be like, what they are, and how to get there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from kafka import KafkaAdminClient, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, OffsetSpec
from kafka.errors import KafkaError, TopicAlreadyExistsError

from understudy.monitor.config.kafka import Kafka
from understudy.monitor.errors import KafkaTroubleError
from understudy.monitor.kafka.client import describe_error
from understudy.monitor.kafka.connect import Topics, connection

MOST_MESSAGE_BYTES = 8 * 1024 * 1024
"""Of one message. Blocks are much smaller, except for rows with thousands of columns."""
_DAY = 86_400.0
_LEAST_SECONDS = 3600.0
_PATIENCE_MS = 30_000


@dataclass(frozen=True, slots=True)
class Topic:
    """What a topic should be like. ``config`` are settings as Kafka names them."""

    name: str
    partitions: int
    replication: int
    config: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Difference:
    """``what`` is partitions, replication or a setting; ``fixed`` whether init can change it."""

    topic: str
    what: str
    is_: str
    wanted: str
    fixable: bool


def wanted(kafka: Kafka, horizon: float) -> list[Topic]:
    """The topics of a configuration; labels may come for ``horizon`` seconds."""
    names, copies = Topics(kafka.prefix), kafka.replication
    in_sync = {"min.insync.replicas": str(max(1, min(2, copies - 1)))}
    common = {**in_sync, "max.message.bytes": str(MOST_MESSAGE_BYTES)}
    # An evaluator that begins anew reads what may still get a label, and a day for being late.
    kept = str(round((max(horizon, _LEAST_SECONDS) + _DAY) * 1000))
    events = {**common, "cleanup.policy": "delete", "retention.ms": kept}
    table = {
        **common,
        "cleanup.policy": "compact",
        "min.cleanable.dirty.ratio": "0.1",
        "segment.ms": "3600000",
    }
    return [
        Topic(names.records, kafka.partitions, copies, events),
        Topic(names.labels, kafka.partitions, copies, events),
        # One for experiments, whose owner steers, and one for what watches the models.
        Topic(names.evidence, 2, copies, {**events, "retention.ms": str(round(_DAY * 1000))}),
        Topic(names.state, kafka.partitions, copies, table),
        # Who was away for a week must still learn that an experiment has ended.
        Topic(
            names.routes, 1, copies, {**table, "delete.retention.ms": str(round(7 * _DAY * 1000))}
        ),
        Topic(names.dead, 1, copies, events),
    ]


class Admin:
    """A connection for looking after topics. Raises KafkaTroubleError where there is none."""

    def __init__(self, kafka: Kafka) -> None:
        self._kafka = kafka
        try:
            # A controller that creates topics may be busy; whether one is there shows sooner.
            patience = {"request_timeout_ms": max(_PATIENCE_MS, round(kafka.timeout * 1000))}
            self._client = KafkaAdminClient(**{**connection(kafka), **patience})
        except KafkaError as error:
            brokers = ", ".join(kafka.bootstrap)
            raise KafkaTroubleError(
                f"Kafka cannot be reached at {brokers}: {describe_error(error)}"
            ) from error

    def close(self) -> None:
        """Disconnect."""
        self._client.close()

    def brokers(self) -> int:
        """How many there are."""
        return len(self._client.describe_cluster()["brokers"])

    def partitions(self, names: list[str]) -> dict[str, list[dict[str, Any]]]:
        """Partitions of the topics that there are, by name."""
        return {
            topic["name"]: sorted(topic["partitions"], key=lambda one: int(one["partition_index"]))
            for topic in self._client.describe_topics(names)
            if not topic["error_code"]
        }

    def missing(self, topics: list[Topic]) -> list[Topic]:
        """Those that are not there."""
        there = self.partitions([topic.name for topic in topics])
        return [topic for topic in topics if topic.name not in there]

    def create(self, topics: list[Topic]) -> None:
        """Create them. Raises KafkaTroubleError that names what Kafka did not like."""
        for topic in topics:
            try:
                self._client.create_topics(
                    {
                        topic.name: {
                            "num_partitions": topic.partitions,
                            "replication_factor": topic.replication,
                            "configs": dict(topic.config),
                        }
                    }
                )
            except TopicAlreadyExistsError:
                continue
            except KafkaError as error:
                raise KafkaTroubleError(f"{topic.name}: cannot be created: {error}") from error

    def differences(self, topics: list[Topic]) -> list[Difference]:
        """Where topics that are there are not as they should be."""
        there = self.partitions([topic.name for topic in topics])
        topics = [topic for topic in topics if topic.name in there]
        settings = self._settings([topic.name for topic in topics])
        return [
            found
            for topic in topics
            for found in _differences(topic, there[topic.name], settings.get(topic.name, {}))
        ]

    def alter(self, differences: list[Difference]) -> None:
        """Change settings to what is wanted, as far as that can be done."""
        by_topic: dict[str, dict[str, str]] = {}
        for one in differences:
            if one.fixable:
                by_topic.setdefault(one.topic, {})[one.what] = one.wanted
        if by_topic:
            try:
                self._client.alter_configs(
                    [
                        ConfigResource(ConfigResourceType.TOPIC, name, configs=settings)
                        for name, settings in by_topic.items()
                    ],
                    incremental=True,
                )
            except KafkaError as error:
                raise KafkaTroubleError(f"settings cannot be changed: {error}") from error

    def status(self) -> dict[str, Any]:
        """Topics, partitions, and the lag of the group of evaluators, as plain data."""
        names = Topics(self._kafka.prefix)
        everything = [topic.name for topic in wanted(self._kafka, 0.0)]
        there = self.partitions(everything)
        places = [
            TopicPartition(name, one["partition_index"])
            for name, partitions in there.items()
            for one in partitions
            if one["leader_id"] >= 0
        ]
        first = self._client.list_partition_offsets(dict.fromkeys(places, OffsetSpec.EARLIEST))
        last = self._client.list_partition_offsets(dict.fromkeys(places, OffsetSpec.LATEST))
        group = self._kafka.prefix
        committed, members = self._group(group)
        topics: list[dict[str, Any]] = []
        for name in everything:
            mine = [place for place in places if place.topic == name]
            read = name in (names.records, names.labels)
            lags = {
                place.partition: last[place].offset - committed.get(place, first[place].offset)
                for place in mine
            }
            topics.append(
                {
                    "topic": name,
                    "partitions": len(there[name]) if name in there else None,
                    "messages": sum(last[p].offset - first[p].offset for p in mine),
                    "lag": sum(lags.values()) if read and name in there else None,
                    "lags": lags if read else None,
                }
            )
        return {
            "prefix": group,
            "group": group,
            "brokers": self.brokers(),
            "members": members,
            "topics": topics,
            "lag": sum(topic["lag"] or 0 for topic in topics),
            "problems": list(self._problems(everything, there)),
        }

    def _group(self, group: str) -> tuple[dict[TopicPartition, int], int]:
        try:
            offsets = self._client.list_group_offsets(group)[group]
            described = self._client.describe_groups([group])
        except KafkaError:  # nobody has ever joined
            return {}, 0
        members = described[group]["members"] if group in described else []
        return {place: found.offset for place, found in offsets.items()}, len(members or ())

    def _problems(
        self, wanted_names: list[str], there: Mapping[str, list[dict[str, Any]]]
    ) -> Iterator[str]:
        for name in wanted_names:
            if name not in there:
                yield f"{name}: there is no such topic; `understudy kafka init` creates it"
                continue
            for one in there[name]:
                copies, in_sync = len(one["replica_nodes"]), len(one["isr_nodes"])
                if one["leader_id"] < 0:
                    yield f"{name}: partition {one['partition_index']} has no leader"
                elif in_sync < copies:
                    where = f"{name}: partition {one['partition_index']}"
                    yield f"{where} has {in_sync} of {copies} copies in sync"

    def _settings(self, names: list[str]) -> dict[str, dict[str, str]]:
        if not names:
            return {}
        describe_error = self._client.describe_configs(
            [ConfigResource(ConfigResourceType.TOPIC, name) for name in names], config_filter="all"
        )
        return {
            name: {key: str(found["value"]) for key, found in settings.items()}
            for name, settings in describe_error.get("topic", {}).items()
        }


def _differences(
    topic: Topic, partitions: list[dict[str, Any]], settings: Mapping[str, Any]
) -> Iterator[Difference]:
    if len(partitions) != topic.partitions:
        yield Difference(
            topic.name, "partitions", str(len(partitions)), str(topic.partitions), False
        )
    copies = min(len(one["replica_nodes"]) for one in partitions)
    if copies != topic.replication:
        yield Difference(topic.name, "replication", str(copies), str(topic.replication), False)
    for name, value in topic.config.items():
        found = settings.get(name)
        if found is not None and found != value:
            yield Difference(topic.name, name, str(found), value, True)
