"""What cannot be read is counted and found over Kafka as it is within one process."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.support.plane_process import ARMS, MODEL, encoded
from understudy.common.codecs import Reason
from understudy.monitor.config.model import Config
from understudy.monitor.evidence.blocks.codec import decode, encode
from understudy.monitor.evidence.settings import Settings
from understudy.monitor.health.findings_loop import FindingsLoop
from understudy.monitor.kafka.offline import Offline
from understudy.monitor.kafka.publisher import Publisher
from understudy.monitor.kafka.publishing import PublishingPipeline
from understudy.monitor.pipeline.pipeline import Pipeline
from understudy.monitor.records.handoff import Names
from understudy.monitor.records.record import ROLE_MIRROR

NAMES = Names(1, (("delays", "1", "open-inference-v2"),), tuple(ARMS))
GOOD = {"a": [1.0]}
BINARY = {
    "outputs": [
        {"name": "p", "datatype": "BF16", "shape": [1], "parameters": {"binary_data_size": 2}}
    ]
}
MIXED = {
    "outputs": [
        *BINARY["outputs"],
        {"name": "q", "datatype": "FP32", "shape": [1], "data": [0.5]},
    ]
}


def config_of(folder: Path, **more: Any) -> dict[str, Any]:
    return {
        "version": 1,
        "listen": "127.0.0.1:0",
        "state_dir": str(folder),
        "models": [MODEL],
        "champion": {"name": ARMS[0], "url": "http://127.0.0.1:1"},
        "challengers": [{"name": ARMS[1], "url": "http://127.0.0.1:2"}],
        **more,
    }


def records(count: int) -> list[bytes]:
    """Requests that can be read, answers of the champion of which a part can, and mirrored ones
    that cannot."""
    found = []
    for number in range(count):
        name = f"r-{number}"
        found.append(encoded(GOOD, orjson.dumps(MIXED), request_id=name))
        found.append(encoded(None, orjson.dumps(BINARY), request_id=name, arm=1, role=ROLE_MIRROR))
    return found


@pytest.mark.anyio
async def test_both_ways_count_the_same_and_open_the_same_finding(tmp_path: Path) -> None:
    own = config_of(tmp_path / "own")
    embedded = Pipeline(Settings.from_json(own))
    loop = FindingsLoop(Config.model_validate(own), None, lambda: 0.0)
    embedded.findings_loop = loop

    kafka = {"bootstrap": ["127.0.0.1:1"], "prefix": "blind", "partitions": 1}
    other = config_of(tmp_path / "other", evaluation={"mode": "kafka"}, kafka=kafka)
    validated = Config.model_validate(other)
    assert validated.kafka is not None
    publisher = Publisher(validated.kafka, tmp_path / "other", "run-1")
    publishing = PublishingPipeline(Settings.from_json(other), publisher)

    for begin in range(0, 200, 50):
        data = b"".join(records(200)[2 * begin : 2 * begin + 100])
        for pipeline in (embedded, publishing):
            pipeline.take(NAMES, 100, data)
            pipeline.flush()
    assert embedded.undecodable == publishing.undecodable
    # Each answer of the champion lost a tensor, and each of the challenger all of it.
    assert embedded.undecodable == {
        ("delays", "1", ARMS[0], "response", Reason.BINARY): 200,
        ("delays", "1", ARMS[1], "response", Reason.BINARY): 200,
    }
    loop.tick(60.0)

    offline = Offline(validated)
    try:
        now = time.time()
        blocks = [*publisher._closed, *publisher._builder.flush(now, everything=True)]
        offline.take(0, (decode(encode(block)) for block in blocks))
        offline.finish()
        (consumer,) = offline.consumers
        of_evaluator = consumer.pipeline.findings_loop
        assert of_evaluator is not None
        watches = of_evaluator.watches
        assert watches.warnings() == loop.watches.warnings()
        assert watches.untested() == loop.watches.untested()
        signals = [(one.key, one.title, one.examples) for one in watches.signals(now)]
        assert signals == [(one.key, one.title, one.examples) for one in loop.watches.signals(now)]
        ((key, title, _),) = signals
        assert key == f"blind/delays/1//answers/{ARMS[1]}"
        assert title.startswith(f"Blind: 0 of 200 answers of {ARMS[1]!r} could be read (binary: ")
    finally:
        offline.close()
        publisher.spool.close()
