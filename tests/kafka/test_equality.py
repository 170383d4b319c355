"""However records are spread and cut up, the evaluation comes to the same."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.support.evaluated import REQUESTS, evaluated
from tests.support.evaluation import (
    SHADOW,
    SPLIT,
    config_of,
    differences,
    items,
    published,
)
from tests.support.source import saved
from understudy.monitor.config.model import Config
from understudy.monitor.evidence.batch import together
from understudy.monitor.evidence.partition import Partition


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    folder = tmp_path_factory.mktemp("state")
    return config_of(folder, saved(folder, 4000))


@pytest.fixture(scope="module")
def whole(config: Config) -> Any:
    return evaluated(config, 1, 256, None)


@settings(
    max_examples=6,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.reuse, Phase.generate),  # a smaller case says no more
)
@given(
    partitions=st.integers(1, 7),
    most=st.sampled_from((1, 7, 256)),
    seed=st.integers(0, 2**31),
    judges=st.integers(1, 3),
)
def test_states_do_not_depend_on_partitions_batches_and_places(
    config: Config, whole: Any, partitions: int, most: int, seed: int, judges: int
) -> None:
    found = evaluated(config, partitions, most, seed, judges=judges)
    assert differences(whole, found) == []


def test_who_takes_a_partition_over_counts_labels_on(config: Config) -> None:
    blocks = [(of_labels, block) for _, _, of_labels, block in published(items(3, 40), 1, 16)]
    first, second = Partition(config, "records/0"), Partition(config, "records/0")
    for offset, (of_labels, block) in enumerate(blocks):
        first.take(block, offset, of_labels)
    first.drain()
    restoring = second.restore(json.loads(json.dumps(first.to_dict())))
    for labels_too in (False, True):  # one topic after the other
        for offset, (of_labels, block) in enumerate(blocks):
            if of_labels == labels_too:
                restoring.take(block, offset)
    restoring.done()
    told = first.feedback()
    assert told is not None
    assert told["labels"]["joined"] > 5
    assert second.feedback() == told
    first.close()
    second.close()


def test_no_more_is_read_again_than_is_kept(config: Config) -> None:
    """Of a horizon of days only as many predictions wait as there is room for."""
    feedback = config.feedback.model_copy(update={"max_rows": 150})
    config = config.model_copy(update={"feedback": feedback})
    blocks = list(published(items(3, 500, seconds=3600.0), 1, 16, beat=20.0))
    first, second = Partition(config, "records/0"), Partition(config, "records/0")
    for offset, (_, _, of_labels, block) in enumerate(blocks):
        first.take(block, offset, of_labels)
        if offset % 20 == 0:
            first.drain()
    first.drain()
    restoring = second.restore(json.loads(json.dumps(first.to_dict())))
    again = [one for one in enumerate(blocks) if one[1][3].head.created >= restoring.since]
    assert len(again) < 0.7 * len(blocks)
    for labels_too in (False, True):
        for offset, (_, _, of_labels, block) in again:
            if of_labels == labels_too:
                restoring.take(block, offset)
    restoring.done()
    told, after = first.feedback(), second.feedback()
    assert told is not None
    assert after is not None
    assert told["purged"]["size"] > 100
    # Labels of nobody that are older than all predictions are forgotten.
    assert after["waiting"]["predictions"] == told["waiting"]["predictions"]
    assert after["labels"] == told["labels"]
    first.close()
    second.close()


def test_there_is_something_to_compare(whole: Any) -> None:
    shadowed = whole["experiments"]["shadowed"]
    divided = whole["experiments"]["divided"]
    assert shadowed["evidence"]["contests"]["candidate"]["pairs"] > 150
    assert min(divided["evidence"]["contests"]["other"]["served"]) > 20
    assert divided["carried_over"] > 0
    assert shadowed["contestants"]["candidate"]["noise"][""][2] > 20
    assert shadowed["contestants"]["candidate"]["worst"]["entries"]
    (watch,) = whole["judge"]["watches"]["watches"]
    assert watch["state"]["rows"] > 300
    assert watch["performance"]["labels"] > 50
    assert any(part == "request" for *_, part, _, _ in whole["undecodable"])


def _comparable(config: Config, by_columns: bool, most: int, of: int) -> Any:
    """The evidence of a partition, in order, as plain data."""
    partition = Partition(config, "records/0")
    partition.by_columns = by_columns
    sheets = []
    for offset, (_, _, of_labels, block) in enumerate(published(items(of, REQUESTS), 1, most)):
        partition.take(block, offset, of_labels)
        if offset % 7 == 0:
            sheets += partition.drain()
    waiting = partition.to_dict()["waiting"]
    partition.close()
    found = {
        repr(sheet.key): [
            (
                sheet.ids[n],
                float(sheet.at[n]),
                int(sheet.side[n]),
                *(_plain(column[n]) for column in sheet.columns),
            )
            for n in range(len(sheet))
        ]
        for sheet in together(sheets + partition.drain())
    }
    return found, waiting


def _plain(cell: Any) -> Any:
    if isinstance(cell, float) and cell != cell:
        return None
    return cell.item() if hasattr(cell, "item") else cell


@pytest.mark.parametrize(("most", "of"), [(256, 1), (16, 2), (3, 3), (1, 4)])
def test_columns_say_what_records_say_one_by_one(config: Config, most: int, of: int) -> None:
    field = {"metric": "prediction", "field": "p", "margin": "0.2 units", "better": "higher"}
    kind = {"metric": "prediction", "field": "kind", "margin": "0.2 units", "better": "higher"}
    cost = {"candidate": {"per_request": 0.1, "per_second": 2.0}, "champion": {"per_request": 0.2}}
    plain = [
        {**SHADOW, "compare": {}, "cost": cost, "metrics": [*SHADOW["metrics"][:3], field, kind]},
        {**SPLIT, "metrics": [*SPLIT["metrics"][:2], field, kind]},
    ]
    for one in plain:
        one.pop("label")
    document = config.model_dump(mode="json", by_alias=True, exclude_unset=True)
    document["models"][0].pop("performance")
    changed = Config.model_validate({**document, "experiments": plain})
    slow, slow_waits = _comparable(changed, False, most, of)
    fast, fast_waits = _comparable(changed, True, most, of)
    assert slow.keys() == fast.keys()
    for key in slow:
        assert _same_rows(slow[key], fast[key]), key
    for name, challengers in slow_waits.items():
        for challenger, places in challengers.items():
            assert sorted(places) == sorted(fast_waits[name][challenger])


def _same_rows(a: Any, b: Any) -> bool:
    return len(a) == len(b) and all(
        len(x) == len(y)
        and all(
            v == w or (isinstance(v, float) and isinstance(w, float) and abs(v - w) < 1e-12)
            for v, w in zip(x, y, strict=True)
        )
        for x, y in zip(a, b, strict=True)
    )
