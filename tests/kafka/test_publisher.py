"""The sidecar publishes to a real cluster, whatever happens to either."""

from __future__ import annotations

import random
from pathlib import Path

from tests.support.kafka_cluster import Cluster
from tests.support.kafka_reading import read
from tests.support.patience import eventually
from tests.support.plane_process import WorkerEnd, encoded
from tests.support.publishing import TOKEN, batch, published, settled
from understudy.monitor.evidence.blocks import partition_of
from understudy.monitor.records import frames, record


def test_records_copies_and_labels_meet_in_a_partition(
    kafka_cluster: Cluster, tmp_path: Path
) -> None:
    with published(kafka_cluster, tmp_path, evaluators="http://evaluators:9090") as (kafka, plane):
        worker = WorkerEnd(plane)
        ids = [f"r-{n}" for n in range(40)]
        copies = [
            encoded(None, {"score": [0.6]}, request_id=one, role=record.ROLE_MIRROR, arm=1)
            for one in ids
        ]
        worker.batch(1, batch(ids) + copies)
        worker.wait_for(frames.COMMIT, 1)
        posted = plane.post_labels([{"request_id": one, "label": 1} for one in ids])
        assert posted.status_code == 202
        worker.batch(2, [encoded(b"no json", None, request_id="odd")])
        worker.wait_for(frames.COMMIT, 2)
        told = settled(plane)
        assert (told["taken"], told["published"], told["published_labels"]) == (81, 81, 40)
        assert plane.metric("understudy_kafka_published_records_total") == 81
        assert plane.metric("understudy_undecodable_total", part="request") == 1
        answer = plane.get("/v1/experiments")
        assert answer.status_code == 404
        assert "http://evaluators:9090" in answer.text
        assert "http://evaluators:9090" in plane.get("/v1/findings").text
        eventually(lambda: (plane.metric("understudy_kafka_heartbeats_total") or 0) > 6)
        worker.batch(3, batch(["last"]))
        worker.wait_for(frames.ACK, 3)
        worker.close()
        assert plane.drain() == 0  # what was handed over last is published as well
        found = read(kafka)
        assert found.ids == sorted([*ids, *ids, "odd", "last"])
        assert sorted(label.request_id for label in found.labels) == sorted(ids)
        assert found.places == {one: {partition_of(one, 3)} for one in [*ids, "odd", "last"]}
        assert (found.lost, found.copies) == (0, 0)
        assert {beat.head.partition for beat in found.heartbeats} == {0, 1, 2}
        assert all(beat.complete < beat.clock for beat in found.heartbeats)


def test_nothing_is_lost_while_kafka_is_away_and_the_sidecar_is_killed(
    kafka_cluster: Cluster, tmp_path: Path
) -> None:
    chance = random.Random(7)
    with published(kafka_cluster, tmp_path) as (kafka, plane):
        sent: dict[int, list[str]] = {}
        committed = 0

        def hand_over(batches: int) -> None:
            """As a worker does: what is not committed is sent again after a crash."""
            nonlocal committed
            worker = WorkerEnd(plane)
            assert committed <= worker.welcome["last_seq"]
            for seq in range(worker.welcome["last_seq"] + 1, len(sent) + 1):
                worker.batch(seq, batch(sent[seq]))
            for _ in range(batches):
                seq = len(sent) + 1
                sent[seq] = [f"{seq}-{n}" for n in range(chance.randrange(1, 60))]
                worker.batch(seq, batch(sent[seq]))
            worker.wait_for(frames.ACK, len(sent))
            if chance.random() < 0.5:
                worker.wait_for(frames.COMMIT, len(sent))
                committed = len(sent)
            worker.close()

        hand_over(5)
        for node in kafka_cluster.nodes[:2]:
            node.kill()
        for _ in range(4):
            hand_over(5)
            plane.kill()
            plane.start(**TOKEN)
        eventually(lambda: plane.status()["kafka"]["state"] in ("stalled", "error", "connecting"))
        hand_over(3)
        kafka_cluster.heal()
        for _ in range(2):
            hand_over(5)
            plane.kill()
            plane.start(**TOKEN)
        hand_over(1)
        settled(plane)
        found = read(kafka)
        assert found.ids == sorted(one for ids in sent.values() for one in ids)
        assert found.lost == 0


def test_a_full_spool_drops_the_oldest_and_the_account_is_exact(
    kafka_cluster: Cluster, tmp_path: Path
) -> None:
    chance = random.Random(3)
    spool = {"max_size": 8 * 1024 * 1024}
    with published(kafka_cluster, tmp_path, spool=spool) as (kafka, plane):
        for node in kafka_cluster.nodes:
            node.pause()
        worker = WorkerEnd(plane)
        total = 0
        for seq in range(1, 41):
            rows = [
                encoded(
                    {"x": [chance.random() for _ in range(500)]},
                    {"score": [0.5]},
                    request_id=f"{seq}-{n}",
                )
                for n in range(80)
            ]
            worker.batch(seq, rows)
            worker.wait_for(frames.COMMIT, seq)
            total += len(rows)
        assert plane.status()["kafka"]["dropped"]["spool_full"] > 0
        assert plane.status()["kafka"]["spool_bytes"] <= spool["max_size"]
        kafka_cluster.heal()
        told = settled(plane)
        dropped = sum(told["dropped"].values())
        assert told["taken"] == total == told["published"] + dropped
        found = read(kafka)
        ids = set(found.ids)
        assert len(ids) == len(found.ids)
        assert total - dropped <= len(ids) < total
        assert "40-79" in ids
        assert found.lost > 0
        worker.close()
