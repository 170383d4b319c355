"""What a consumer gets, read as evaluators read it: what was seen before is skipped."""

from __future__ import annotations

from dataclasses import dataclass, field

from kafka import KafkaConsumer, TopicPartition

from understudy.monitor.config.kafka import Kafka
from understudy.monitor.evidence.blocks import Heartbeat, LabelBlock, Row, decode
from understudy.monitor.kafka.connect import Topics, connection
from understudy.monitor.kafka.topics import Admin, wanted
from understudy.monitor.labels.label import Label


def kafka_of(bootstrap: str, prefix: str, **more: object) -> Kafka:
    """A configuration that is quick to notice."""
    told = {"bootstrap": bootstrap, "prefix": prefix, "partitions": 3, "timeout": "5s", **more}
    return Kafka.model_validate({"linger": "100ms", **told})


def create_topics(kafka: Kafka) -> None:
    """As `understudy kafka init` does."""
    admin = Admin(kafka)
    admin.create(wanted(kafka, 3600.0))
    admin.close()


@dataclass
class Reading:
    """``lost`` counts numbers that are missing, ``copies`` blocks that came again."""

    rows: list[Row] = field(default_factory=list)
    labels: list[Label] = field(default_factory=list)
    heartbeats: list[Heartbeat] = field(default_factory=list)
    places: dict[str, set[int]] = field(default_factory=dict)
    """Partitions by request id."""
    copies: int = 0
    lost: int = 0

    @property
    def ids(self) -> list[str]:
        """Of the records, in order."""
        return sorted(record.request_id.decode() for _, record, _, _ in self.rows)


def consumer_of(kafka: Kafka, *topics: str) -> KafkaConsumer:
    """Of all partitions of topics, from their beginnings."""
    consumer = KafkaConsumer(
        **connection(kafka),
        group_id=None,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
        enable_auto_commit=False,
    )
    places = [
        TopicPartition(topic, number)
        for topic in topics
        for number in sorted(consumer.partitions_for_topic(topic) or ())
    ]
    consumer.assign(places)
    consumer.seek_to_beginning(*places)
    return consumer


def read(kafka: Kafka) -> Reading:
    """All that is in the topics now."""
    names = Topics(kafka.prefix)
    consumer = consumer_of(kafka, names.records, names.labels)
    ends = consumer.end_offsets(list(consumer.assignment()))
    found = Reading()
    last: dict[tuple[TopicPartition, str, str], int] = {}
    try:
        while any(consumer.position(place) < end for place, end in ends.items()):
            for place, messages in consumer.poll(timeout_ms=500).items():
                for message in messages:
                    block = decode(message.value)
                    assert block.head.partition == place.partition
                    if isinstance(block, Heartbeat):
                        found.heartbeats.append(block)
                        continue
                    key = place, block.head.source, block.head.run
                    before = last.get(key, 0)
                    if block.head.seq <= before:
                        found.copies += 1
                        continue
                    found.lost += block.head.seq - before - 1
                    last[key] = block.head.seq
                    if isinstance(block, LabelBlock):
                        found.labels += (label for _, label in block.labels)
                        ids = [label.request_id for _, label in block.labels]
                    else:
                        rows = list(block.rows())
                        found.rows += rows
                        ids = [row[1].request_id.decode() for row in rows]
                    for one in ids:
                        found.places.setdefault(one, set()).add(place.partition)
    finally:
        consumer.close()
    return found
