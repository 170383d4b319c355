"""Assignments come back over Kafka, and two controllers cannot both steer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from kafka import KafkaProducer

from tests.support.kafka_cluster import Cluster
from tests.support.kafka_reading import create_topics, kafka_of
from tests.support.patience import eventually
from tests.support.publishing import TOKEN, sidecar
from understudy.monitor.config.kafka import Kafka
from understudy.monitor.errors import FencedError
from understudy.monitor.kafka.connect import Topics, connection
from understudy.monitor.kafka.routes import RouteReader, RouteTable, RouteWriter
from understudy.monitor.routing.routes import Assignment, Routes
from understudy.shadow.assignment import Allocation


def assignment(at: float) -> Assignment:
    return Assignment(
        ("champion", "candidate"), Allocation((0,), (0,)).reweighed((0.9, 0.1)), 1.0, at, {}
    )


@pytest.fixture
def topics(kafka_cluster: Cluster) -> Kafka:
    kafka = kafka_of(kafka_cluster.bootstrap, kafka_cluster.prefix())
    create_topics(kafka)
    return kafka


class Following(RouteReader):
    """Keeps what it was told to apply."""

    def __init__(self, kafka: Kafka) -> None:
        self.told: list[Routes] = []
        super().__init__(kafka, self._keep)

    def _keep(self, routes: Routes) -> bool:
        self.told.append(routes)
        return len(self.told) != 1  # the first time it cannot be done

    @property
    def times(self) -> dict[str, float]:
        """When each assignment in force was decided."""
        return {name: one.divided_at for name, one in self.told[-1].assignments.items()}


def test_only_the_newest_controller_steers(topics: Kafka) -> None:
    reader = Following(topics)
    reader.start()
    first = RouteWriter(topics, "first")
    with pytest.raises(FencedError, match="has not claimed"):
        first.publish({"a": assignment(1)})
    before = first.claim()
    first.publish({"a": assignment(1), "b": assignment(1)}, declared={"b": {"name": "b"}})
    eventually(lambda: len(reader.told) == 2)  # it was tried again
    assert reader.told[-1].declared == ({"name": "b"},)
    second = RouteWriter(topics, "second")
    assert second.claim() > before
    # The broker refuses the one before, whatever it believes.
    with pytest.raises(FencedError):
        first.publish({"a": assignment(2)})
    second.publish({"a": assignment(3)})  # knows nothing of b
    eventually(lambda: reader.times == {"a": 3})
    # One that is not fenced by the broker is refused by who reads: its epoch is over.
    stale = {"version": 1, "epoch": before, "who": "first", "assignment": assignment(4).to_dict()}
    free = KafkaProducer(**connection(topics))
    headers = [("epoch", str(before).encode())]
    free.send(Topics(topics.prefix).routes, json.dumps(stale).encode(), b"a", headers=headers)
    free.send(Topics(topics.prefix).routes, b"no json", b"a", headers=headers)
    free.close()
    second.publish({"c": assignment(5)})
    eventually(lambda: reader.times == {"a": 3, "c": 5})
    assert (reader.table.refused, reader.table.faulty) == (1, 1)
    assert reader.table.who == "second"
    # Who was away reads all of it, and comes to the same.
    late = Following(topics)
    late.start()
    eventually(lambda: late.told and late.times == {"a": 3, "c": 5})
    assert late.table.refused == 1
    for one in (reader, late):
        one.stop()
    first.close()
    second.close()


def test_a_sidecar_catches_up_and_survives_without_kafka(topics: Kafka, tmp_path: Path) -> None:
    writer = RouteWriter(topics, "judge")
    writer.claim()
    writer.publish({"canary": assignment(1)})
    with sidecar(tmp_path, topics) as plane:
        plane.start(**TOKEN)

        def told() -> dict[str, float]:
            asked = plane.listen()
            assert asked["ask"] == "routes"
            found = Routes.load(plane.state_dir).assignments
            plane.tell({"reply": asked["id"], "ok": True, "generation": 2})
            return {name: one.divided_at for name, one in found.items()}

        assert told() == {"canary": 1}
        writer.publish({"canary": assignment(2)})
        assert told() == {"canary": 2}
        plane.kill()
        writer.publish({"canary": assignment(3)})
        writer.publish({"canary": assignment(4)})
        plane.start(**TOKEN)
        assert told() == {"canary": 4}
        eventually(lambda: plane.status()["kafka"]["routes"]["controller"] == "judge")
        assert plane.metric("understudy_kafka_routes_caught_up") == 1
        plane.kill()
        plane.config["kafka"]["bootstrap"] = ["127.0.0.1:1"]
        plane.start(**TOKEN)
        eventually(lambda: plane.status()["kafka"]["routes"]["error"])
        assert Routes.load(plane.state_dir).assignments["canary"].divided_at == 4
    writer.close()


def test_epochs_never_go_back() -> None:
    board = RouteTable()
    claim = json.dumps({"version": 1, "who": "x"}).encode()

    def message(epoch: int, at: float) -> bytes:
        return json.dumps(
            {"version": 1, "epoch": epoch, "assignment": assignment(at).to_dict()}
        ).encode()

    board.take(3, b"\x00controller", claim, {})
    assert board.names is None  # nobody has said yet which experiments there are
    index = {"version": 1, "epoch": 3, "experiments": ["a"]}
    assert board.take(4, b"\x00experiments", json.dumps(index).encode(), {})
    assert board.take(4, b"a", message(3, 1), {})
    assert not board.take(5, b"a", message(3, 1), {})  # nothing new
    board.take(6, b"\x00controller", claim, {})
    assert not board.take(7, b"a", message(3, 2), {})
    assert not board.take(8, b"a", None, {"epoch": b"3"})
    assert board.refused == 2
    assert board.routes().assignments["a"].divided_at == 1
    # A controller that knows nothing of an experiment leaves it out.
    index = {"version": 1, "epoch": 6, "experiments": []}
    assert board.take(8, b"\x00experiments", json.dumps(index).encode(), {})
    assert board.routes().assignments == {}
    assert board.take(9, b"a", None, {"epoch": b"6"})
    assert board.assignments == {}
