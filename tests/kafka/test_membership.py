"""Members of a group that take over for long, or are asked little, on a real broker."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaProducer, TopicPartition

from tests.support.evaluation import config_of
from tests.support.kafka_cluster import Cluster
from tests.support.kafka_world import create, options, with_kafka
from tests.support.patience import eventually
from understudy.monitor.config.model import Config
from understudy.monitor.kafka.committed import CommittedReader
from understudy.monitor.kafka.evaluator import topic_partitions
from understudy.monitor.kafka.member import Member
from understudy.monitor.kafka.options import Options
from understudy.monitor.kafka.retrying import RetryingConsumer

PARTITIONS = 4


@pytest.fixture
def config(tmp_path: Path, kafka_cluster: Cluster) -> Config:
    made = with_kafka(config_of(tmp_path), kafka_cluster.bootstrap, kafka_cluster.prefix())
    create(made)
    producer = KafkaProducer(**options(made).client())
    for number in range(100):
        producer.send(options(made).topics.dead, value=b"%d" % number, partition=0)
    producer.flush()
    producer.close()
    return made


class Slow(Member):
    """Takes its first share over for ever, or until ``enough``; further ones at once."""

    def __init__(self, config: Config, options: Options, partitions: dict[str, int]) -> None:
        self.taking = threading.Event()
        self.enough = threading.Event()
        super().__init__(config, options, partitions)

    def _take_over(
        self, tp: TopicPartition, begin: int, state: Any, committed: CommittedReader
    ) -> None:
        if not self.taking.is_set():
            self.taking.set()
            while not self.enough.is_set():
                list(committed.messages(TopicPartition(self.topics.dead, 0), 0))
        super()._take_over(tp, begin, state, committed)


@contextmanager
def kept(keeper: RetryingConsumer[Any]) -> Iterator[None]:
    thread = threading.Thread(target=keeper.run)
    thread.start()
    try:
        yield
    finally:
        keeper.stop()
        thread.join()  # else it goes on until the time-out of the test


def patient(config: Config, instance: str) -> Options:
    """With sessions that a busy machine does not end."""
    return options(config, instance, session_seconds=10.0)


def slow(config: Config) -> RetryingConsumer[Slow]:
    made = patient(config, "slow")
    return RetryingConsumer(lambda: Slow(config, made, topic_partitions(made)))


def taking(keeper: RetryingConsumer[Slow]) -> bool:
    return keeper.member is not None and keeper.member.taking.is_set()


def share(keeper: RetryingConsumer[Any]) -> set[int]:
    return set() if keeper.member is None else set(keeper.member.inputs)


def test_a_stopped_member_does_not_finish_taking_over(config: Config) -> None:
    keeper = slow(config)
    with kept(keeper):
        eventually(lambda: taking(keeper))
    assert keeper.failures == 0


def test_a_slow_takeover_stays_in_the_group(config: Config) -> None:
    """The client leaves the group by itself when nobody polls for five minutes."""
    keeper = slow(config)
    with kept(keeper):
        eventually(lambda: taking(keeper))
        assert keeper.member is not None
        heartbeat = keeper.member.consumer._coordinator.heartbeat
        polled = heartbeat.last_poll
        eventually(lambda: heartbeat.last_poll > polled + 3.0)
        assert share(keeper) == set()
        keeper.member.enough.set()
        eventually(lambda: share(keeper) == set(range(PARTITIONS)))
    assert keeper.failures == 0


def test_a_slow_takeover_does_not_block_other_members(config: Config) -> None:
    first = slow(config)
    other = patient(config, "other")
    second = RetryingConsumer(lambda: Member(config, other, topic_partitions(other)))
    with kept(first):
        eventually(lambda: taking(first))
        with kept(second):
            eventually(lambda: sorted([*share(first), *share(second)]) == list(range(PARTITIONS)))
            assert share(first)
            assert share(second)
    assert first.failures == second.failures == 0


def test_partitions_are_assigned_with_short_polls(config: Config) -> None:
    """A poll that ends while the group shares out is no reason to own nothing for ever."""
    for instance in range(2):
        made = patient(config, f"short-{instance}")
        member = Member(config, made, topic_partitions(made))
        try:

            def shared(member: Member = member) -> bool:
                member.step(0.02)
                return bool(member.inputs)

            eventually(shared)
        finally:
            member.abandon()
