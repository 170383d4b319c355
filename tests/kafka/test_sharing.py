"""Who of the group gets what."""

from __future__ import annotations

from pathlib import Path

from tests.support.evaluation import config_of
from understudy.monitor.kafka.assignor import assign_partitions
from understudy.monitor.kafka.partitions import EXPERIMENTS, HEALTH, costs, partition_config

COUNTS = {"records": 12, "labels": 12, "evidence": 2}


def share(members: list[str], of: dict[int, float]) -> dict[str, dict[str, list[int]]]:
    return assign_partitions(members, COUNTS, ("records", "labels"), "evidence", of)


def test_every_partition_is_assigned_once() -> None:
    for count in range(1, 12):
        members = [f"m-{n}" for n in range(count)]
        shares = share(members, {EXPERIMENTS: 1.4, HEALTH: 2.3})
        for topic, partitions in COUNTS.items():
            assigned = sorted(p for one in shares.values() for p in one.get(topic, ()))
            assert assigned == list(range(partitions))
        # What has the same request id meets, labels too.
        assert all(one.get("records") == one.get("labels") for one in shares.values())


def test_owners_of_evidence_get_fewer_inputs() -> None:
    shares = share(["a", "b"], {EXPERIMENTS: 1.4, HEALTH: 2.3})
    steers, watches = shares["a"], shares["b"]
    assert (steers["evidence"], watches["evidence"]) == ([EXPERIMENTS], [HEALTH])
    assert len(watches["records"]) < len(steers["records"]) < 12
    third = share(["a", "b", "c"], {EXPERIMENTS: 1.4, HEALTH: 2.3})["c"]
    assert "evidence" not in third
    assert len(third["records"]) == 12


def test_labels_make_preparing_the_larger_part(tmp_path: Path) -> None:
    config = config_of(tmp_path)  # with labels, and a champion that is asked twice
    assigned = costs(config, 2)
    assert sum(assigned.values()) < 1.0
    plain = config.model_copy(update={"experiments": [], "models": []})
    assert costs(plain, 2)[EXPERIMENTS] == 0.0
    assert costs(config, 1).keys() == {0}


def test_a_topic_of_one_partition_has_everything_in_one_place(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    assert partition_config(config, 0, 1) == config
    steers, watches = partition_config(config, EXPERIMENTS, 2), partition_config(config, HEALTH, 2)
    assert (steers.models, watches.experiments) == ([], [])
    assert (watches.models, len(steers.experiments)) == (config.models, len(config.experiments))
