"""What the sender does when a producer fails; against real brokers see tests/kafka."""

from __future__ import annotations

import logging
from typing import ClassVar

import pytest
from kafka.errors import (
    KafkaTimeoutError,
    RequestTimedOutError,
    SaslAuthenticationFailedError,
    UnknownError,
)
from kafka.future import Future

from tests.support.patience import eventually
from understudy.monitor.config.kafka import Kafka
from understudy.monitor.kafka import sender as sending
from understudy.monitor.kafka.outbox import RECORDS, OutboxMessage
from understudy.monitor.kafka.sender import Sender
from understudy.monitor.records.log import Spool

KAFKA = Kafka.model_validate({"bootstrap": ["127.0.0.1:1"], "prefix": "p", "partitions": 2})


class Thread:
    """Of a producer."""

    def __init__(self):
        self.ended = False

    def force_close(self):
        self.ended = True


class Producer:
    """The first one answers nothing for partition 0 and fails for partition 1."""

    made: ClassVar[list[Producer]] = []

    def __init__(self, **options):
        self.made.append(self)
        self._sender = Thread()
        self.sent = []

    def partitions_for(self, topic):
        return {0, 1}

    def send(self, topic, value, key=None, partition=None, headers=None):
        self.sent.append(value)
        answer = Future()
        if len(self.made) > 1:
            answer.success(None)
        elif partition == 1:
            answer.failure(UnknownError("no"))
        return answer

    def close(self, timeout=None):
        if len(self.made) == 1:
            raise KafkaTimeoutError("something is under way")


@pytest.fixture
def spool(tmp_path):
    found = Spool(tmp_path, 1_000_000)
    yield found
    found.close()


def test_a_failure_while_another_message_is_under_way_begins_anew(spool, monkeypatch):
    monkeypatch.setattr(Producer, "made", [])
    monkeypatch.setattr(sending, "KafkaProducer", Producer)
    spool.append([OutboxMessage(RECORDS, n, b"%d" % n).pack() for n in (0, 1)])
    sender = Sender(KAFKA, spool, lambda now: [])
    sender.start()
    eventually(lambda: spool.cursor == spool.end)
    assert sender.figures.records == 2
    sender.stop()
    first, second = Producer.made
    assert first._sender.ended
    assert sorted(second.sent) == [b"0", b"1"]


def test_wrong_credentials_are_said_until_a_connection_comes_about(spool, monkeypatch):
    reasons = [
        SaslAuthenticationFailedError("wrong password"),
        RequestTimedOutError("slow"),
        RequestTimedOutError("slow"),
        None,
        RequestTimedOutError("slow"),
    ]
    said = []

    def connect(self):
        said.append(self.figures.error)
        reason = reasons[len(said) - 1]
        if reason is None:
            return Producer()
        logging.getLogger("kafka.net.manager").error("Connection failed: %s", reason)
        raise KafkaTimeoutError("unable to bootstrap")

    def serve(self, producer):
        raise UnknownError("lost")

    monkeypatch.setattr(Producer, "made", [])
    monkeypatch.setattr(sending, "_PAUSES", (0.01, 0.01))
    monkeypatch.setattr(Sender, "_connect", connect)
    monkeypatch.setattr(Sender, "_serve", serve)
    sender = Sender(KAFKA, spool, lambda now: [])
    sender.start()
    eventually(lambda: len(said) > len(reasons))
    sender.stop()
    assert said[0] is None
    assert all("wrong password" in error for error in said[1:4])
    assert "lost" in said[4]
    assert "slow" in said[5]
