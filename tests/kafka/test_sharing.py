"""Who of the group gets what."""

from __future__ import annotations

from pathlib import Path

from tests.support.evaluation import config_of
from understudy.monitor.kafka.assignor import shared
from understudy.monitor.kafka.partitions import EXPERIMENTS, WATCHES, costs, owned

COUNTS = {"records": 12, "labels": 12, "evidence": 2}


def share(members: list[str], of: dict[int, float]) -> dict[str, dict[str, list[int]]]:
    return shared(members, COUNTS, ("records", "labels"), "evidence", of)


def test_everything_goes_to_one_and_only_one() -> None:
    for count in range(1, 12):
        members = [f"m-{n}" for n in range(count)]
        found = share(members, {EXPERIMENTS: 1.4, WATCHES: 2.3})
        for topic, partitions in COUNTS.items():
            of_all = sorted(p for one in found.values() for p in one.get(topic, ()))
            assert of_all == list(range(partitions))
        # What has the same request id meets, labels too.
        assert all(one.get("records") == one.get("labels") for one in found.values())


def test_who_judges_prepares_less() -> None:
    found = share(["a", "b"], {EXPERIMENTS: 1.4, WATCHES: 2.3})
    steers, watches = found["a"], found["b"]
    assert (steers["evidence"], watches["evidence"]) == ([EXPERIMENTS], [WATCHES])
    assert len(watches["records"]) < len(steers["records"]) < 12
    third = share(["a", "b", "c"], {EXPERIMENTS: 1.4, WATCHES: 2.3})["c"]
    assert "evidence" not in third
    assert len(third["records"]) == 12


def test_labels_make_preparing_the_larger_part(tmp_path: Path) -> None:
    config = config_of(tmp_path)  # with labels, and a champion that is asked twice
    of_all = costs(config, 2)
    assert sum(of_all.values()) < 1.0
    plain = config.model_copy(update={"experiments": [], "models": []})
    assert costs(plain, 2)[EXPERIMENTS] == 0.0
    assert costs(config, 1).keys() == {0}


def test_a_topic_of_one_partition_has_everything_in_one_place(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    assert owned(config, 0, 1) == config
    steers, watches = owned(config, EXPERIMENTS, 2), owned(config, WATCHES, 2)
    assert (steers.models, watches.experiments) == ([], [])
    assert (watches.models, len(steers.experiments)) == (config.models, len(config.experiments))
