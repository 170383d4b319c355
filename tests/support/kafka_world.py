"""Topics on a real cluster, blocks published into them, and what is committed in the end."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from tests.support.evaluation import joined
from tests.support.patience import patient
from understudy.monitor.config.model import Config
from understudy.monitor.evidence.blocks import Block, encode
from understudy.monitor.kafka.options import Options
from understudy.monitor.kafka.partitions import EVIDENCE_PARTITIONS
from understudy.monitor.kafka.snapshots import Pointer, read_state
from understudy.monitor.kafka.topics import Admin, wanted

QUICK = {"commit_seconds": 0.5, "session_seconds": 3.0, "transaction_seconds": 8.0}


def with_kafka(config: Config, bootstrap: str, prefix: str, partitions: int = 4) -> Config:
    """The same over a cluster."""
    kafka = {
        "bootstrap": bootstrap.split(","),
        "prefix": prefix,
        "partitions": partitions,
        "timeout": "4s",
    }
    document = config.model_dump(mode="json", by_alias=True, exclude_unset=True)
    return Config.model_validate({**document, "kafka": kafka})


def create(config: Config) -> None:
    assert config.kafka is not None
    admin = Admin(config.kafka.model_copy(update={"timeout": 60.0}))  # the machine may be busy
    try:
        admin.create(wanted(config.kafka, config.feedback.horizon))
    finally:
        admin.close()


def options(config: Config, instance: str = "one", **changes: Any) -> Options:
    assert config.kafka is not None
    return Options(config.kafka, instance, **{**QUICK, **changes})


def publish(
    config: Config, blocks: Iterable[tuple[float, int, bool, Block]], pause: float = 0.0
) -> int:
    """Send blocks in their order, and wait until the brokers have them; how many."""
    made = options(config)
    producer = KafkaProducer(**made.client(), acks="all", linger_ms=5, enable_idempotence=True)
    count = 0
    for _, partition, of_labels, block in blocks:
        topic = made.topics.labels if of_labels else made.topics.records
        producer.send(topic, value=encode(block), partition=partition)
        count += 1
        if pause:
            time.sleep(pause)
    producer.flush(60)
    producer.close(timeout=patient(10))
    return count


def committed_state(config: Config) -> dict[str, Any] | None:
    """The committed state of all evidence partitions: ``pipeline``, the number of ``late`` rows, and
    the offset of the next message of each partition (``read``)."""
    states = [_committed_state(config, number) for number in range(EVIDENCE_PARTITIONS)]
    whole = [state for state in states if state is not None]
    if len(whole) < EVIDENCE_PARTITIONS:
        return None
    return {
        "pipeline": joined([state["pipeline"] for state in whole]),
        "late": sum(state["late"] for state in whole),
        "read": [state["next_offset"] for state in whole],
    }


def _committed_state(config: Config, number: int) -> dict[str, Any] | None:
    made = options(config)
    consumer = KafkaConsumer(
        **made.client(),
        group_id=made.group,
        isolation_level="read_committed",
        enable_auto_commit=False,
    )
    try:
        found = consumer.committed(TopicPartition(made.topics.evidence, number), metadata=True)
        pointer = Pointer.parse(found.metadata or "") if found is not None else None
        if pointer is None:
            return None

        def pairs(partition: int, begin: int) -> Any:
            place = TopicPartition(made.topics.state, partition)
            consumer.assign([place])
            consumer.seek(place, begin)
            end = consumer.end_offsets([place])[place]
            while consumer.position(place) < end:
                for messages in consumer.poll(timeout_ms=500).values():
                    for message in messages:
                        yield message.key, message.value

        return read_state(f"{made.topics.evidence}/{number}", pointer, pairs)
    finally:
        consumer.close()
