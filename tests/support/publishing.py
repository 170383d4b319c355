"""A sidecar's evaluation plane that publishes to Kafka."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.kafka_cluster import Cluster
from tests.support.kafka_reading import create_topics, kafka_of
from tests.support.patience import eventually
from tests.support.plane_process import PlaneProcess, encoded
from understudy.monitor.config.kafka import Kafka

TOKEN = {"UNDERSTUDY_TEST_TOKEN": "t"}


def sidecar(folder: Path, kafka: Kafka, **more: Any) -> PlaneProcess:
    told = kafka.model_dump(mode="json")
    return PlaneProcess(folder, evaluation={"mode": "kafka"}, kafka={**told, **more})


@contextmanager
def published(cluster: Cluster, folder: Path, **more: Any) -> Iterator[tuple[Kafka, PlaneProcess]]:
    """A sidecar of its own topics."""
    kafka = kafka_of(cluster.bootstrap, cluster.prefix(), **more)
    create_topics(kafka)
    with sidecar(folder, kafka) as plane:
        plane.start(**TOKEN)
        yield kafka, plane


def batch(ids: list[str], size: int = 1) -> list[bytes]:
    return [
        encoded({"x": [float(n)] * size}, {"score": [0.5]}, request_id=one)
        for n, one in enumerate(ids)
    ]


def settled(plane: PlaneProcess) -> dict[str, Any]:
    """The account once nothing waits."""

    def nothing_waits() -> dict[str, Any] | None:
        told: dict[str, Any] = plane.status()["kafka"]
        return told if told["waiting"] == 0 and told["state"] == "sending" else None

    found: dict[str, Any] = eventually(nothing_waits)
    return found
