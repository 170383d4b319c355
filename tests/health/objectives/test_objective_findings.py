"""Missed objectives of a configuration become findings, which open, update and close."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from tests.support.evaluation import BEGAN, Item, published
from understudy.common.codecs import Reason, Undecodable
from understudy.monitor.config.model import Config
from understudy.monitor.evidence.settings import Settings
from understudy.monitor.findings.changes import Change
from understudy.monitor.health.findings_loop import FindingsLoop
from understudy.monitor.kafka.offline import Offline
from understudy.monitor.kafka.partitions import HEALTH
from understudy.monitor.pipeline.pipeline import Pipeline
from understudy.monitor.records import record
from understudy.monitor.records.encode import encode as encode_record
from understudy.monitor.records.handoff import Names

NAMES = Names(1, (("delays", "1", "auto"),), ("champion", "candidate"))
P99 = "objective/delays/1//champion/latency_p99"


def config_of(folder: Path, objectives: dict[str, str], **changes: Any) -> dict[str, Any]:
    return {
        "version": 1,
        "listen": "127.0.0.1:0",
        "state_dir": str(folder),
        "models": [{"name": "delays", "version": "1", "read": False}],
        "champion": {"url": "http://127.0.0.1:9"},
        "challengers": [{"name": "candidate", "url": "http://127.0.0.1:8"}],
        "objectives": objectives,
        **changes,
    }


def _encoded(
    number: int, at: float, seconds: float, arm: int, role: int = 0, failed: bool = False
) -> bytes:
    outcome, status = (record.SERVER_ERROR, 500) if failed else (record.OK, 200)
    _, parts = encode_record(
        0, arm, status, role, outcome, at, int(seconds * 1e9), 0, 0, 0, 0,
        f"r-{number}".encode(), b"", b"", b"/", b"", b"", None, None,
    )  # fmt: skip
    return b"".join(parts)


def _request(number: int, at: float, seconds: float, arm: int) -> record.Record:
    (found,) = record.decode_batch(_encoded(number, at, seconds, arm))
    return found


class Sidecar:
    """A pipeline with its findings, whose requests come at times of a clock of the test."""

    def __init__(self, folder: Path, objectives: dict[str, str], **changes: Any) -> None:
        document = config_of(folder, objectives, **changes)
        self.config = Config.model_validate(document)
        self.pipeline = Pipeline(Settings.from_json(document))
        self.loop = FindingsLoop(self.config, None, lambda: 0.0)
        self.pipeline.findings_loop = self.loop
        self.now = BEGAN
        self.random = random.Random(3)
        self.number = 0
        self.changes: list[Change] = []

    def minutes(self, minutes: float, slow: float, rate: int = 10, **more: Any) -> None:
        """Traffic of ``rate`` requests a second, of which a share is ``slow``."""
        for _ in range(round(minutes * 6)):
            records = []
            for step in range(10 * rate):
                seconds = 0.492 if self.random.random() < slow else 0.012
                records.append(self._record(self.now + step / rate, seconds, **more))
            self.pipeline.take(NAMES, len(records), b"".join(records))
            self.now += 10.0
            self.pipeline.flush()
            self.changes += self.loop.tick(self.now)

    def _record(
        self,
        at: float,
        seconds: float,
        arm: int = 0,
        role: int = record.ROLE_PRIMARY,
        failing: float = 0.0,
    ) -> bytes:
        self.number += 1
        failed = self.random.random() < failing
        return _encoded(self.number, at - seconds, seconds, arm, role, failed)

    def open(self) -> dict[str, Any]:
        return {f.signal.key: f.signal for f in self.loop.service.ledger.open()}


def test_a_p99_far_above_its_objective_is_a_finding_until_it_is_met_again(tmp_path: Path) -> None:
    sidecar = Sidecar(tmp_path, {"latency_p99": "<= 50ms"})
    sidecar.minutes(15, slow=0.002)
    assert sidecar.open() == {}
    began = sidecar.now
    sidecar.minutes(2, slow=0.9)
    (signal,) = sidecar.open().values()
    assert signal.key == P99
    assert signal.kind == "objective"
    assert signal.severity == "critical"
    assert signal.title.startswith("Objective missed: latency_p99 of champion is 49")
    assert "the limit is 50 ms" in signal.title
    assert "% of the requests take longer" in signal.title
    assert signal.size is not None
    assert (signal.size.unit, signal.size.baseline) == ("s", 0.05)
    assert signal.size.value == pytest.approx(0.492, rel=0.011)
    assert signal.size.low is not None
    assert signal.size.low <= 0.492
    assert abs((signal.since or 0.0) - began) <= 20.0
    assert "1,000,000 blocks" in signal.guarantee
    # It gets milder, which is an update of the same finding, then it ends.
    sidecar.minutes(12, slow=0.05)
    (signal,) = sidecar.open().values()
    assert signal.severity == "warning"
    sidecar.minutes(15, slow=0.001)
    assert sidecar.open() == {}
    events = [change.finding.event for change in sidecar.changes]
    assert events[0] == "opened"
    assert set(events[1:-1]) == {"updated"}
    assert events[-1] == "closed"
    assert len({change.finding.id for change in sidecar.changes}) == 1


def test_errors_of_a_mirrored_challenger_are_a_finding_about_it_alone(tmp_path: Path) -> None:
    sidecar = Sidecar(tmp_path, {"error_rate": "<= 1 %"}, monitoring={"enabled": False})
    for _ in range(24):
        sidecar.minutes(1 / 6, slow=0.0)
        sidecar.now -= 10.0
        sidecar.minutes(1 / 6, slow=0.0, arm=1, role=record.ROLE_MIRROR, failing=0.2)
    (signal,) = sidecar.open().values()
    assert signal.key == "objective/delays/1//candidate/mirrored/error_rate"
    assert signal.severity == "warning"  # clients are not affected
    assert signal.title.startswith("Objective missed: error_rate of candidate on mirrored requests")
    assert signal.title.endswith("the limit is 1 %")
    assert signal.size is not None
    assert (signal.size.low or 1.0) < 0.2 < (signal.size.high or 0.0)


def test_requests_that_were_not_sent_say_nothing_about_an_arm(tmp_path: Path) -> None:
    sidecar = Sidecar(tmp_path, {"latency_p50": "<= 50ms"})
    sidecar.minutes(5, slow=1.0)
    assert len(sidecar.open()) == 1
    sidecar = Sidecar(tmp_path, {"latency_p50": "<= 50ms"})
    names = dict(zip(record.OUTCOMES, range(len(record.OUTCOMES)), strict=True))
    for outcome in ("queue_full", "breaker_open", "body_too_large", "fell_behind", "not_rewritten"):
        for _ in range(2000):
            _, parts = encode_record(
                0, 1, 0, record.ROLE_MIRROR, names[outcome], sidecar.now, int(9e9), 0, 0, 0, 0,
                b"r", b"", b"", b"/", b"", b"", None, None,
            )  # fmt: skip
            sidecar.pipeline.take(NAMES, 1, b"".join(parts))
            sidecar.now += 0.1
        sidecar.pipeline.flush()
    sidecar.loop.tick(sidecar.now)
    assert sidecar.open() == {}


def test_an_arm_without_requests_misses_nothing_after_an_hour(tmp_path: Path) -> None:
    sidecar = Sidecar(tmp_path, {"latency_p99": "<= 50ms"})
    sidecar.minutes(5, slow=1.0)
    assert sidecar.open().keys() == {P99}
    for _ in range(70):
        sidecar.now += 60.0
        sidecar.loop.tick(sidecar.now)
    assert sidecar.open() == {}


def test_the_evidence_outlives_a_restart_and_not_another_limit(tmp_path: Path) -> None:
    sidecar = Sidecar(tmp_path, {"latency_p99": "<= 50ms"})
    sidecar.minutes(5, slow=1.0)
    state = json.loads(json.dumps(sidecar.pipeline.dump_state()))
    again = Sidecar(tmp_path, {"latency_p99": "<= 50ms"})
    again.pipeline.load_state(state)
    again.now = sidecar.now + 1.0
    again.loop.tick(again.now)
    assert again.open().keys() == {P99}
    other = Sidecar(tmp_path, {"latency_p99": "<= 600ms"})
    other.pipeline.load_state(state)
    other.minutes(8, slow=1.0)
    assert other.open() == {}


@pytest.mark.parametrize("limit", ["<= 50ms", "<= 5s"])
def test_evaluators_of_kafka_find_the_same(tmp_path: Path, limit: str) -> None:
    config = Config.model_validate(config_of(tmp_path, {"latency_p99": limit}))
    offline = Offline(config, 2, 1)
    unread = Undecodable(Reason.NOT_READ)
    sent = (_request(number, BEGAN + 0.1 * number, 0.492, 0) for number in range(1500))
    items = [
        Item(one.started + 0.492, number % 2, NAMES, one, unread, unread)
        for number, one in enumerate(sent)
    ]
    try:
        for _, partition, of_labels, block in published(items, 2, 256):
            offline.take(partition, [block], of_labels)
        for partition in range(2):
            offline.send_evidence(partition)
        offline.advance()
        offline.finish()
        consumer = offline.consumers[min(HEALTH, len(offline.consumers) - 1)]
        found = [f.signal for f in consumer.findings_loop.service.ledger.open()]
        if limit == "<= 5s":
            assert found == []
        else:
            (signal,) = found
            assert signal.key == P99
            assert signal.size is not None
            assert signal.size.value == pytest.approx(0.492, rel=0.011)
    finally:
        offline.close()
