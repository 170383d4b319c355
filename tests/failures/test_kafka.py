"""The whole service publishes while Kafka and its own processes fail: clients see nothing of it."""

from __future__ import annotations

import signal
from collections import Counter
from pathlib import Path

from tests.support.kafka_cluster import Cluster
from tests.support.kafka_reading import create_topics, kafka_of, read
from tests.support.patience import eventually
from tests.support.world import Load, Model, World


def test_kafka_is_down_and_the_evaluation_plane_is_killed(
    kafka_cluster: Cluster, tmp_path: Path
) -> None:
    kafka = kafka_of(kafka_cluster.bootstrap, kafka_cluster.prefix())
    create_topics(kafka)
    told = kafka.model_dump(mode="json", exclude_unset=True)
    with World(tmp_path, Model(), evaluation="kafka", kafka=told) as world:
        load = Load(world.service.url, clients=4, pause=0.01)
        load.answered(100)
        for node in kafka_cluster.nodes[:2]:
            node.kill()
        load.answered(100)
        world.kill("understudy.monitor.service")
        load.answered(100)
        eventually(lambda: world.total("understudy_evaluation_restarts_total") == 1)
        eventually(lambda: world.total("understudy_kafka_waiting_records") > 0)
        load.answered(100)
        kafka_cluster.heal()
        load.answered(100)
        seen = load.stop()
        assert set(seen) == {"200"}, "no client notices"
        found = world.settled()
        assert found["records"]["eligible"] == 2 * seen["200"]
        assert found["records"]["lost"] == 0
        world.service.signal(signal.SIGTERM)
        assert world.service.wait() == 0, world.service.log
        # Each request and its copy once, in one partition, and nothing waits on disk any more.
        dropped = sum(found["records"]["dropped"].values())
        in_kafka = read(kafka)
        assert len(in_kafka.ids) == 2 * seen["200"] - dropped
        assert set(in_kafka.ids) <= {f"c{c}-{n}" for c in range(4) for n in range(1, 10_000)}
        assert max(Counter(in_kafka.ids).values()) == 2
        assert {len(places) for places in in_kafka.places.values()} == {1}
        assert in_kafka.lost == 0
