"""What was committed is read as a whole, or not at all."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaProducer, TopicPartition
from kafka.errors import KafkaTimeoutError

from tests.support.evaluation import config_of
from tests.support.kafka_cluster import Cluster
from tests.support.kafka_world import create, options, with_kafka
from understudy.monitor.kafka.committed import CommittedReader
from understudy.monitor.kafka.options import Options

MESSAGES = 400


@pytest.fixture
def made(tmp_path: Path, kafka_cluster: Cluster) -> Iterator[Options]:
    config = with_kafka(config_of(tmp_path), kafka_cluster.bootstrap, kafka_cluster.prefix())
    create(config)
    yield options(config)
    kafka_cluster.heal()


def written(made: Options) -> TopicPartition:
    """Messages in transactions, of which the last one is aborted."""
    place = TopicPartition(made.topics.records, 0)
    producer = KafkaProducer(**made.client(), transactional_id=f"{made.group}.writer")
    producer.init_transactions()
    for aborted in (False, True):
        producer.begin_transaction()
        for number in range(MESSAGES):
            producer.send(place.topic, value=f"{number}".encode(), partition=0)
        producer.flush()
        if aborted:
            producer.abort_transaction()
        else:
            producer.commit_transaction()
    producer.close()
    return place


def committed(
    made: Options, pulse: Callable[[], None] = lambda: None, patience: float = 30.0
) -> CommittedReader:
    return CommittedReader(made.client(), made.group, made.topics.state, pulse, patience)


def test_reading_ends_behind_what_was_aborted(made: Options) -> None:
    place = written(made)
    with committed(made) as reader:
        values = [message.value for message in reader.messages(place, 0)]
    assert values == [f"{number}".encode() for number in range(MESSAGES)]


def test_reading_begins_where_nothing_is_missed(made: Options) -> None:
    begun = time.time()
    place = written(made)
    with committed(made) as reader:
        assert reader.at(place, begun - 1.0) == 0
        # Nobody says whether there is nothing so late, or nobody to say it: all is read then.
        assert reader.at(place, time.time() + 3600.0) == 0
        assert reader.at(place, float("-inf")) == 0


def test_silence_is_not_taken_for_the_end(made: Options, kafka_cluster: Cluster) -> None:
    place = written(made)
    with committed(made, patience=1.5) as reader:
        asked = reader._consumer.end_offsets

        def asked_last(places: list[TopicPartition]) -> Any:
            found = asked(places)
            for node in kafka_cluster.nodes:
                node.pause()
            return found

        reader._consumer.end_offsets = asked_last
        with pytest.raises(KafkaTimeoutError, match="silent at offset 0"):
            list(reader.messages(place, 0))
    for node in kafka_cluster.nodes:
        node.resume()
    with committed(made) as reader:
        assert len(list(reader.messages(place, 0))) == MESSAGES


def test_a_long_read_can_be_interrupted(made: Options) -> None:
    place = written(made)

    class Enough(Exception):
        pass

    read: list[Any] = []

    def pulse() -> None:
        if len(read) == 3:
            raise Enough

    with committed(made, pulse) as reader, pytest.raises(Enough):
        read += reader.messages(place, 0)
    assert len(read) == 3
