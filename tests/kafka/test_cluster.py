"""The fixture itself: nodes die, fall silent and come back, and nothing acknowledged is gone."""

from __future__ import annotations

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer

from tests.support.kafka_cluster import Cluster
from understudy.monitor.kafka.patches import Client


def test_a_transaction_survives_its_coordinator_and_a_silent_broker(kafka_cluster: Cluster) -> None:
    topic = kafka_cluster.prefix()
    admin = KafkaAdminClient(bootstrap_servers=kafka_cluster.bootstrap)
    admin.create_topics({topic: {"num_partitions": 3, "replication_factor": 3}})
    admin.close()
    producer = KafkaProducer(
        bootstrap_servers=kafka_cluster.bootstrap,
        transactional_id=topic,
        request_timeout_ms=3000,
        kafka_client=Client,
    )
    producer.init_transactions()
    sent = []

    def transact(value: bytes) -> None:
        producer.begin_transaction()
        for partition in range(3):
            producer.send(topic, value, partition=partition)
            sent.append((partition, value))
        producer.commit_transaction()

    transact(b"before")
    first, second, _ = kafka_cluster.nodes
    first.kill()
    transact(b"without 1")
    first.start()
    kafka_cluster.wait()
    second.pause()
    transact(b"while 2 is silent")
    second.resume()
    producer.close()
    consumer = KafkaConsumer(
        topic,
        bootstrap_servers=kafka_cluster.bootstrap,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
        group_id=topic,
    )
    seen = [(record.partition, record.value) for _, record in zip(sent, consumer, strict=False)]
    consumer.close()
    assert sorted(seen) == sorted(sent)
