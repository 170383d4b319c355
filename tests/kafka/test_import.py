"""Topics of others come to the evaluators exactly once, also when an importer is killed."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml
from kafka import KafkaAdminClient, KafkaProducer
from kafka.admin import NewTopic

from tests.support.kafka_cluster import Cluster
from tests.support.kafka_reading import consumer_of, create_topics, kafka_of, read
from tests.support.patience import patient
from tests.support.ports import free_port
from understudy.monitor.evidence.blocks import partition_of
from understudy.monitor.ingest.cloudevents import REQUEST, RESPONSE
from understudy.monitor.kafka.connect import Topics, connection

ROOT = Path(__file__).parents[2]
MODEL = {"name": "delays", "version": "1", "protocol": "kserve-v1"}


def importer(config: Path, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "understudy", "kafka", "import", str(config), "--json"]
    return subprocess.Popen(
        [*command, "--instance", "one", "--session", "4", *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        text=True,
    )


def event(kind: str, id_: str) -> list[tuple[str, bytes]]:
    attributes = {
        "ce_specversion": "1.0", "ce_id": id_, "ce_type": kind, "ce_source": "s",
        "ce_time": "2026-01-31T12:00:00Z", "ce_inferenceservicename": "delays",
    }  # fmt: skip
    return [(name, text.encode()) for name, text in attributes.items()]


def _evaluator_brings_in(config: Path, records: int) -> None:
    """An evaluator does the same, and says so."""
    listen = f"127.0.0.1:{free_port()}"
    command = [
        sys.executable,
        "-m",
        "understudy",
        "evaluate",
        "-c",
        str(config),
        "--listen",
        listen,
    ]
    child = subprocess.Popen([*command, "--session", "4"], cwd=ROOT)
    try:
        until = time.monotonic() + patient(120)
        taken: dict[str, Any] = {}
        while taken.get("records") != records:
            assert time.monotonic() < until, taken
            time.sleep(0.2)
            try:
                with urllib.request.urlopen(
                    f"http://{listen}/v1/evaluator", timeout=patient(10)
                ) as reply:
                    taken = json.load(reply)["imported"]
            except OSError:
                continue
        with urllib.request.urlopen(f"http://{listen}/metrics", timeout=patient(30)) as reply:
            assert (
                f'evaluator_imported_total{{what="records"}} {records}.0' in reply.read().decode()
            )
    finally:
        child.terminate()
        assert child.wait(patient(60)) == 0


@pytest.mark.timeout(400)
def test_every_message_counts_once_when_importers_are_killed(
    kafka_cluster: Cluster, tmp_path: Path
) -> None:
    kafka = kafka_of(kafka_cluster.bootstrap, kafka_cluster.prefix())
    create_topics(kafka)
    plain, events = f"{kafka.prefix}-plain", f"{kafka.prefix}-events"
    admin = KafkaAdminClient(**connection(kafka))
    admin.create_topics([NewTopic(plain, 2, 1), NewTopic(events, 2, 1)])
    admin.close()
    mapping = {"request_id": "/id", "features": "/x", "predictions": "/y", "label": "/truth"}
    config = tmp_path / "understudy.yaml"
    document: dict[str, Any] = {
        "version": 1,
        "listen": "127.0.0.1:0",
        "models": [MODEL],
        "champion": {"url": "http://127.0.0.1:1"},
        "kafka": kafka.model_dump(mode="json"),
        "sources": [
            {"topic": plain, "format": "json", "model": "delays", "version": "1", "json": mapping},
            {"topic": events, "format": "cloudevents"},
        ],
    }
    config.write_text(yaml.safe_dump(document))
    producer = KafkaProducer(**connection(kafka), acks="all")

    def send(first: int, last: int) -> None:
        for number in range(first, last):
            value = {"id": f"p-{number}", "x": {"a": number}, "y": {"p": 0.5}, "truth": 1}
            producer.send(plain, json.dumps(value).encode(), partition=number % 2)
            # The answer of a request comes in the next lot: halves wait for each other meanwhile.
            for kind, body, which in (
                (REQUEST, {"instances": [[number]]}, number),
                (RESPONSE, {"predictions": [0.25]}, number - 50),
            ):
                if which >= 0:
                    id_ = f"e-{which}"
                    producer.send(
                        events, json.dumps(body).encode(), id_.encode(), headers=event(kind, id_)
                    )
        producer.flush(60)

    send(0, 100)
    producer.send(plain, b"{poison", partition=0)
    child = importer(config)
    until = time.monotonic() + patient(120)  # it has to start, and to join its group
    while len(read(kafka).rows) <= 20:
        assert child.poll() is None, child.communicate()
        assert time.monotonic() < until
        time.sleep(0.2)
    send(100, 200)
    child.kill()
    child.communicate(timeout=patient(60))
    send(200, 300)
    child = importer(config, "--once")
    try:
        said, errors = child.communicate(timeout=patient(100))
    except subprocess.TimeoutExpired:
        child.kill()
        pytest.fail(f"the importer did not come to an end: {child.communicate()[1][-4000:]}")
    assert child.returncode == 0, errors
    assert json.loads(said)["records"] > 0
    send(300, 350)
    _evaluator_brings_in(config, 100)
    producer.close()
    found = read(kafka)
    wanted = [f"p-{n}" for n in range(350)] + [f"e-{n}" for n in range(300)]
    assert found.ids == sorted(wanted)
    assert sorted(label.request_id for label in found.labels) == sorted(wanted[:350])
    assert (found.lost, found.copies) == (0, 0)
    assert found.places == {one: {partition_of(one, 3)} for one in wanted}
    assert found.heartbeats
    dead = consumer_of(kafka, Topics(kafka.prefix).dead)
    graves = [m for batch in dead.poll(timeout_ms=10_000).values() for m in batch]
    dead.close()
    assert [(m.value, dict(m.headers)["reason"]) for m in graves] == [(b"{poison", b"not_json")]
