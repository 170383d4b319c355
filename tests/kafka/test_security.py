"""SASL and TLS against a broker that asks for them, and what is said when they are wrong."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.kafka_cluster import Cluster
from tests.support.kafka_reading import create_topics, kafka_of, read
from tests.support.patience import eventually
from tests.support.plane_process import encoded
from tools.parts import jars
from understudy.common.codecs import Table
from understudy.monitor.config.kafka import Kafka
from understudy.monitor.kafka.publisher import Publisher
from understudy.monitor.records.handoff import Names
from understudy.monitor.records.record import ROLE_PRIMARY, Record, decode_batch


@pytest.fixture(scope="module")
def secure() -> Iterator[Cluster]:
    with Cluster(nodes=1, secure=True) as cluster:
        yield cluster


def secured(cluster: Cluster, protocol: str, mechanism: str = "SCRAM-SHA-512") -> Kafka:
    assert cluster.certificates is not None
    said: dict[str, Any] = {"protocol": protocol, "mechanism": mechanism}
    if protocol.startswith("SASL"):
        said |= {"username": jars.USER, "password_env": "KAFKA_PASSWORD"}
    if protocol.endswith("SSL"):
        said["tls"] = {"ca": str(cluster.certificates.ca)}
    if protocol == "SSL":
        said["tls"]["certificate"] = str(cluster.certificates.client)
        said["tls"]["key"] = str(cluster.certificates.client_key)
    prefix = f"{protocol}-{mechanism}".lower().replace("_", "-")
    return kafka_of(cluster.listener(protocol), prefix, replication=1, security=said)


def one_record() -> Record:
    found = decode_batch(encoded({"x": [1.0]}, {"score": [0.5]}, request_id="r"))[0]
    assert found.role == ROLE_PRIMARY
    return found


def publish(kafka: Kafka, folder: Path, trouble: str = "") -> Publisher:
    """Hand over a record, and wait until Kafka has it or there is (this) trouble."""

    def over() -> bool:
        error = publisher.sender.figures.error
        return publisher.spool.pending == 0 or (error is not None and trouble in error)

    publisher = Publisher(kafka, folder, "run")

    async def run() -> Publisher:
        publisher.start()
        names = Names(1, (("delays", "1", "auto"),), ("champion",))
        table = Table(("x",), 1, [1.0])
        publisher.extend(names, [(one_record(), table, table)], time.time())
        await publisher.flush()
        await asyncio.to_thread(eventually, over)
        await publisher.stop(0.0)
        return publisher

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("protocol", "mechanism"),
    [
        ("SASL_PLAINTEXT", "PLAIN"),
        ("SASL_PLAINTEXT", "SCRAM-SHA-256"),
        ("SASL_SSL", "SCRAM-SHA-512"),
        ("SSL", "SCRAM-SHA-512"),
    ],
)
def test_each_way_in(
    secure: Cluster, tmp_path: Path, protocol: str, mechanism: str, monkeypatch: Any
) -> None:
    monkeypatch.setenv("KAFKA_PASSWORD", jars.PASSWORD)
    kafka = secured(secure, protocol, mechanism)
    create_topics(kafka)
    publisher = publish(kafka, tmp_path)
    assert publisher.sender.figures.error is None
    assert publisher.sender.figures.records == 1
    assert read(kafka).ids == ["r"]


def test_a_wrong_password_and_a_stranger_are_said(
    secure: Cluster, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setenv("KAFKA_PASSWORD", "wrong")
    publisher = publish(
        secured(secure, "SASL_PLAINTEXT", "PLAIN"), tmp_path / "one", "uthentication"
    )
    assert publisher.waiting == 1
    # Who has no certificate is no client; who trusts other authorities has no broker.
    kafka = secured(secure, "SSL")
    tls = kafka.security.tls.model_copy(update={"certificate": None, "key": None})
    nobody = kafka.model_copy(update={"security": kafka.security.model_copy(update={"tls": tls})})
    publisher = publish(nobody, tmp_path / "two")
    assert publisher.sender.figures.error
    assert "uthentication" not in publisher.sender.figures.error
    assert publisher.waiting == 1
