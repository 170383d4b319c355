"""Snapshots of another version, and damaged ones, are set aside on a real broker."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from kafka import TopicPartition

from tests.support.evaluation import config_of, items, published
from tests.support.kafka_cluster import Cluster
from tests.support.kafka_world import create, options, publish, with_kafka
from tests.support.patience import eventually
from understudy.monitor.config.model import Config
from understudy.monitor.kafka.evaluator import topic_partitions
from understudy.monitor.kafka.member import Member
from understudy.monitor.kafka.membership import State
from understudy.monitor.kafka.partitions import EXPERIMENTS
from understudy.monitor.kafka.snapshots import Pointer

PARTITIONS = 2


class Older(Member):
    """Commits states of version 1."""

    def _write(self) -> dict[TopicPartition, tuple[int, State | None]]:
        return {
            tp: (offset, state if state is None else {**state, "version": 1})
            for tp, (offset, state) in super()._write().items()
        }


class Damaged(Member):
    """Commits states whose checksum is wrong."""

    def _pointer(self, future: Any, chunks: int, checksum: int) -> Pointer:
        pointer = super()._pointer(future, chunks, checksum)
        return replace(pointer, checksum=pointer.checksum ^ 1)


class Odd(Member):
    """Commits states of this version in another format."""

    def _write(self) -> dict[TopicPartition, tuple[int, State | None]]:
        written = super()._write()
        for _, state in written.values():
            if state is not None:
                state["pipeline" if "pipeline" in state else "sources"] = []
        return written


@pytest.fixture
def config(tmp_path: Path, kafka_cluster: Cluster) -> Config:
    prefix = kafka_cluster.prefix()
    made = with_kafka(config_of(tmp_path), kafka_cluster.bootstrap, prefix, PARTITIONS)
    create(made)
    return made


@contextmanager
def joined(config: Config, kind: type[Member], name: str) -> Iterator[Member]:
    """A member that has taken everything over; it commits when it leaves."""
    made = options(config, name, session_seconds=10.0)
    member = kind(config, made, topic_partitions(made))
    try:

        def shared() -> bool:
            member.step(0.1)
            return len(member.inputs) == PARTITIONS

        eventually(shared)
        yield member
    except BaseException:
        member.abandon()
        raise
    member.leave()


def read_all(member: Member, records: int) -> None:
    def done() -> bool:
        member.step(0.1)
        return sum(one.records for one in member.inputs.values()) >= records

    eventually(done)
    member.commit()  # hands the evidence over
    eventually(
        lambda: member.step(0.1) == 0 and all(one.next_offset for one in member.consumers.values())
    )
    member.commit()


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (Older, ("version 1 found, version 2 expected", "version of Partition must be 2, not 1")),
        (Damaged, ("incomplete or damaged", "incomplete or damaged")),
        (Odd, ("Pipeline must be an object", "Sources must be an object")),
    ],
)
def test_a_snapshot_that_cannot_be_used_is_set_aside_once(
    config: Config, kind: type[Member], expected: tuple[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    blocks = list(published(items(3, 100), PARTITIONS, 16))
    half = len(blocks) // 2
    publish(config, blocks[:half])
    with joined(config, kind, "before") as before:
        read_all(before, 50)
        positions = dict(before.positions)
        count = len(before.inputs) + len(before.consumers)
        live = before.consumers[EXPERIMENTS].experiments.live
        started = {name: one.started for name, one in live.items()}
    publish(config, blocks[half:])
    caplog.set_level(logging.ERROR)
    with joined(config, Member, "after") as after:
        said = [one.getMessage() for one in caplog.records if "set aside" in one.getMessage()]
        topics = after.topics
        for number in after.consumers:
            (line,) = [one for one in said if one.startswith(f"{topics.evidence}/{number}:")]
            assert expected[0] in line
        for number, partition in after.inputs.items():
            (line,) = [one for one in said if one.startswith(f"{topics.records}/{number}:")]
            assert expected[1] in line
            assert partition.records == 0
            tp = TopicPartition(topics.records, number)
            assert after.positions[tp] == positions[tp]
        assert after.snapshots_set_aside == len(said) == count
        if kind is not Damaged:
            # Rollouts have a format of their own, and go on.
            live = after.consumers[EXPERIMENTS].experiments.live
            assert {name: one.started for name, one in live.items()} == started
        read_all(after, 20)
    caplog.clear()
    with joined(config, Member, "later") as later:
        assert later.snapshots_set_aside == 0
        assert sum(one.records for one in later.inputs.values()) >= 20
    assert not caplog.records
