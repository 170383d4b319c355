"""The topics of a prefix: wanted settings, actual settings, creation and changes."""

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
"""Maximum size of a message. Blocks are much smaller, except for rows with thousands of columns."""
_DAY = 86_400.0
_LEAST_SECONDS = 3600.0
_PATIENCE_MS = 30_000


@dataclass(frozen=True, slots=True)
class Topic:
    """The wanted settings of a topic. ``config`` uses Kafka's names."""

    name: str
    partitions: int
    replication: int
    config: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Difference:
    """A setting that differs. ``what`` is ``partitions``, ``replication`` or the name of a setting;
    ``is_`` the actual value; ``fixable`` whether ``init --alter`` can change it."""

    topic: str
    what: str
    is_: str
    wanted: str
    fixable: bool


def wanted(kafka: Kafka, horizon: float) -> list[Topic]:
    """The topics of a configuration; labels may arrive for ``horizon`` seconds."""
    names, replication = Topics(kafka.prefix), kafka.replication
    in_sync = {"min.insync.replicas": str(max(1, min(2, replication - 1)))}
    common = {**in_sync, "max.message.bytes": str(MOST_MESSAGE_BYTES)}
    # A restarted evaluator reads what may still get a label, and one day more.
    retention = str(round((max(horizon, _LEAST_SECONDS) + _DAY) * 1000))
    retained = {**common, "cleanup.policy": "delete", "retention.ms": retention}
    compacted = {
        **common,
        "cleanup.policy": "compact",
        "min.cleanable.dirty.ratio": "0.1",
        "segment.ms": "3600000",
    }
    return [
        Topic(names.records, kafka.partitions, replication, retained),
        Topic(names.labels, kafka.partitions, replication, retained),
        # One partition for experiments, whose owner controls the routes, and one for model health.
        Topic(
            names.evidence, 2, replication, {**retained, "retention.ms": str(round(_DAY * 1000))}
        ),
        Topic(names.state, kafka.partitions, replication, compacted),
        # A sidecar that was down for a week must still learn that an experiment has ended.
        Topic(
            names.routes,
            1,
            replication,
            {**compacted, "delete.retention.ms": str(round(7 * _DAY * 1000))},
        ),
        Topic(names.dead, 1, replication, retained),
    ]


class Admin:
    """An admin connection. Raises KafkaTroubleError when no broker can be reached."""

    def __init__(self, kafka: Kafka) -> None:
        self._kafka = kafka
        try:
            # A busy controller may need longer to create topics than kafka.timeout.
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
        """Number of brokers in the cluster."""
        return len(self._client.describe_cluster()["brokers"])

    def partitions(self, names: list[str]) -> dict[str, list[dict[str, Any]]]:
        """Partitions of the topics that exist, by name, as Kafka describes them."""
        return {
            topic["name"]: sorted(topic["partitions"], key=lambda one: int(one["partition_index"]))
            for topic in self._client.describe_topics(names)
            if not topic["error_code"]
        }

    def missing(self, topics: list[Topic]) -> list[Topic]:
        """The topics that do not exist."""
        existing = self.partitions([topic.name for topic in topics])
        return [topic for topic in topics if topic.name not in existing]

    def create(self, topics: list[Topic]) -> None:
        """Create topics; those that exist are skipped. Raises KafkaTroubleError."""
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
        """Differences between existing topics and the wanted ones."""
        existing = self.partitions([topic.name for topic in topics])
        topics = [topic for topic in topics if topic.name in existing]
        settings = self._settings([topic.name for topic in topics])
        return [
            result
            for topic in topics
            for result in _differences(topic, existing[topic.name], settings.get(topic.name, {}))
        ]

    def alter(self, differences: list[Difference]) -> None:
        """Apply the differences that are fixable. Raises KafkaTroubleError."""
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
        existing = self.partitions(everything)
        tps = [
            TopicPartition(name, one["partition_index"])
            for name, partitions in existing.items()
            for one in partitions
            if one["leader_id"] >= 0
        ]
        first = self._client.list_partition_offsets(dict.fromkeys(tps, OffsetSpec.EARLIEST))
        last = self._client.list_partition_offsets(dict.fromkeys(tps, OffsetSpec.LATEST))
        group = self._kafka.prefix
        committed, members = self._group(group)
        topics: list[dict[str, Any]] = []
        for name in everything:
            topic_tps = [tp for tp in tps if tp.topic == name]
            read = name in (names.records, names.labels)
            lags = {
                tp.partition: last[tp].offset - committed.get(tp, first[tp].offset)
                for tp in topic_tps
            }
            topics.append(
                {
                    "topic": name,
                    "partitions": len(existing[name]) if name in existing else None,
                    "messages": sum(last[p].offset - first[p].offset for p in topic_tps),
                    "lag": sum(lags.values()) if read and name in existing else None,
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
            "problems": list(self._problems(everything, existing)),
        }

    def _group(self, group: str) -> tuple[dict[TopicPartition, int], int]:
        try:
            offsets = self._client.list_group_offsets(group)[group]
            described = self._client.describe_groups([group])
        except KafkaError:  # the group does not exist yet
            return {}, 0
        members = described[group]["members"] if group in described else []
        return {tp: result.offset for tp, result in offsets.items()}, len(members or ())

    def _problems(
        self, wanted_names: list[str], existing: Mapping[str, list[dict[str, Any]]]
    ) -> Iterator[str]:
        for name in wanted_names:
            if name not in existing:
                yield f"{name}: there is no such topic; `understudy kafka init` creates it"
                continue
            for one in existing[name]:
                replication, in_sync = len(one["replica_nodes"]), len(one["isr_nodes"])
                if one["leader_id"] < 0:
                    yield f"{name}: partition {one['partition_index']} has no leader"
                elif in_sync < replication:
                    where = f"{name}: partition {one['partition_index']}"
                    yield f"{where} has {in_sync} of {replication} copies in sync"

    def _settings(self, names: list[str]) -> dict[str, dict[str, str]]:
        if not names:
            return {}
        describe_error = self._client.describe_configs(
            [ConfigResource(ConfigResourceType.TOPIC, name) for name in names], config_filter="all"
        )
        return {
            name: {key: str(result["value"]) for key, result in settings.items()}
            for name, settings in describe_error.get("topic", {}).items()
        }


def _differences(
    topic: Topic, partitions: list[dict[str, Any]], settings: Mapping[str, Any]
) -> Iterator[Difference]:
    if len(partitions) != topic.partitions:
        yield Difference(
            topic.name, "partitions", str(len(partitions)), str(topic.partitions), False
        )
    replication = min(len(one["replica_nodes"]) for one in partitions)
    if replication != topic.replication:
        yield Difference(topic.name, "replication", str(replication), str(topic.replication), False)
    for name, value in topic.config.items():
        result = settings.get(name)
        if result is not None and result != value:
            yield Difference(topic.name, name, str(result), value, True)
