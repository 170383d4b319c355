"""`format: cloudevents`: an event for each request and each answer, for consumers of others."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.kafka_cluster import Cluster
from tests.support.kafka_reading import consumer_of
from tests.support.plane_process import WorkerEnd, encoded
from tests.support.publishing import batch, published, settled
from understudy.monitor.evidence.blocks import partition_of
from understudy.monitor.kafka.connect import Topics
from understudy.monitor.records import frames, record


def test_a_request_and_its_answer_are_two_events(kafka_cluster: Cluster, tmp_path: Path) -> None:
    more = {"format": "cloudevents"}
    with published(kafka_cluster, tmp_path, **more) as (kafka, plane):
        worker = WorkerEnd(plane)
        ids = [f"r-{n}" for n in range(30)]
        copy = encoded(None, {"score": [0.6]}, request_id="r-1", role=record.ROLE_MIRROR, arm=1)
        worker.batch(1, [*batch(ids), copy])
        worker.wait_for(frames.COMMIT, 1)
        told = settled(plane)
        assert told["taken"] == 31
        assert told["published"] == 30
        # A copy's answer would pass for the champion's.
        assert told["dropped"]["no_payload"] == 1
        consumer = consumer_of(kafka, Topics(kafka.prefix).records)
        messages = [message for _, message in zip(range(60), consumer, strict=False)]
        consumer.close()
        kinds: dict[str, list[str]] = {}
        for message in messages:
            headers = {key: value.decode() for key, value in message.headers}
            assert message.partition == partition_of(headers["ce_id"], 3)
            assert message.key == headers["ce_id"].encode()
            kinds.setdefault(headers["ce_id"], []).append(headers["ce_type"])
            body = json.loads(message.value)
            assert ("inputs" in body) == headers["ce_type"].endswith("request")
        assert sorted(kinds) == sorted(ids)
        assert {tuple(sorted(each)) for each in kinds.values()} == {
            ("org.kubeflow.serving.inference.request", "org.kubeflow.serving.inference.response")
        }
        worker.close()
