"""However records are spread and cut up, the evaluation comes to the same."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.support.evaluated import REQUESTS, evaluated
from tests.support.evaluation import (
    SHADOW,
    SPLIT,
    Item,
    config_of,
    differences,
    items,
    published,
)
from tests.support.source import saved
from understudy.common.codecs import Table
from understudy.monitor.config.model import Config
from understudy.monitor.evidence.batch import merge
from understudy.monitor.evidence.blocks import RecordBlock
from understudy.monitor.evidence.layout import NOTES, PAIRS
from understudy.monitor.evidence.partition import Partition
from understudy.shadow.experiment.fates import PENDING


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
    outputs=st.integers(1, 3),
)
def test_states_do_not_depend_on_partitions_batches_and_places(
    config: Config, whole: Any, partitions: int, most: int, seed: int, outputs: int
) -> None:
    found = evaluated(config, partitions, most, seed, outputs=outputs)
    assert differences(whole, found) == []


def test_a_takeover_continues_counting_labels(config: Config) -> None:
    blocks = [(of_labels, block) for _, _, of_labels, block in published(items(3, 40), 1, 16)]
    first, second = Partition(config, "records/0"), Partition(config, "records/0")
    for offset, (of_labels, block) in enumerate(blocks):
        first.take(block, offset, of_labels)
    first.drain()
    second.load_state(json.loads(json.dumps(first.dump_state())))
    restoring = second.restoring()
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


def test_a_takeover_reports_a_request_that_hangs_once(config: Config) -> None:
    blocks = [
        (of_labels, block)
        for _, _, of_labels, block in published(items(3, 400, seconds=40.0), 1, 1)
    ]
    middle = len(blocks) * 2 // 3
    first, second = Partition(config, "records/0"), Partition(config, "records/0")

    def reported(partition: Partition, begin: int, end: int) -> list[bytes]:
        found: list[bytes] = []
        for offset in range(begin, end):
            of_labels, block = blocks[offset]
            partition.take(block, offset, of_labels)
            for batch in partition.drain():
                if batch.kind[0] == PAIRS:
                    fates = batch.floats("b.fate")
                    found += [key for key, f in zip(batch.ids, fates, strict=True) if f == PENDING]
        return found

    before = reported(first, 0, middle)
    second.load_state(json.loads(json.dumps(first.dump_state())))
    restoring = second.restoring()
    for labels_too in (False, True):  # one topic after the other
        for offset, (of_labels, block) in enumerate(blocks[:middle]):
            if of_labels == labels_too:
                restoring.take(block, offset)
    restoring.done()
    after = reported(second, middle, len(blocks))
    assert after == reported(first, middle, len(blocks))
    assert min(len(before), len(after)) >= 3
    assert len({*before, *after}) == len(before) + len(after)
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
    second.load_state(json.loads(json.dumps(first.dump_state())))
    restoring = second.restoring()
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
    shadowed = whole["experiments"]["shadowed"]["live"]
    divided = whole["experiments"]["divided"]["live"]
    assert shadowed["evidence"]["contests"]["candidate"]["pairs"] > 150
    assert min(divided["evidence"]["contests"]["other"]["served"]) > 20
    assert divided["carried_over"] > 0
    assert shadowed["contestants"]["candidate"]["noise"]["tests"][""][2] > 20
    assert shadowed["contestants"]["candidate"]["worst"]["entries"]
    (watch,) = whole["judge"]["watches"]["watches"]
    assert watch["state"]["rows"] > 300
    (performance,) = whole["judge"]["watches"]["performance"]
    assert performance["state"]["labels"] > 50
    assert any(part == "request" for (_, _, _, part, _), _ in whole["undecodable"])


def _several_rows(of_all: list[Item]) -> list[Item]:
    """Every third request or so has several rows; a few answers have another number of them."""
    chance = random.Random(len(of_all))
    rows: dict[bytes, int] = {}
    found = []
    for item in of_all:
        if item.record is not None:
            count = rows.setdefault(item.record.request_id, chance.choice((1, 1, 2, 3)))
            answered = count + (chance.random() < 0.05)
            item = replace(
                item,
                of_request=_repeated(item.of_request, count),
                answer=_repeated(item.answer, answered),
            )
        found.append(item)
    return found


def _repeated(decoded: Any, count: int) -> Any:
    if not isinstance(decoded, Table):
        return decoded
    values = [
        cell * (0.9**row) if isinstance(cell, float) else cell
        for row in range(count)
        for cell in decoded.values
    ]
    return Table(decoded.names, count, values)


def _evidence(config: Config, most: int, of: int) -> Any:
    """The evidence of a partition, in order, as plain data; where records wait, by time and id."""
    partition = Partition(config, "records/0")
    batches = []
    origins = {}
    of_all = _several_rows(items(of, REQUESTS))
    for offset, (_, _, of_labels, block) in enumerate(published(of_all, 1, most)):
        if isinstance(block, RecordBlock):
            for number, (_, one, _, _) in enumerate(block.rows()):
                origins[offset, number] = (one.request_id, one.arm)
        partition.take(block, offset, of_labels)
        if offset % 7 == 0:
            batches += partition.drain()
    waiting = {
        (name, challenger): sorted(origins[tuple(place)] for place in places)
        for name, one in partition.dump_state()["waiting"].items()
        for challenger, places in one.items()
    }
    batches += partition.drain()
    partition.close()
    found = {
        repr(batch.key): [
            (
                batch.ids[n],
                float(batch.at[n]),
                int(batch.side[n]),
                *(_plain(column[n]) for column in batch.columns),
            )
            for n in range(len(batch))
        ]
        for batch in merge(batches)
        # Which of the worst are told depends on what came before.
        if batch.kind[0] != NOTES
    }
    assert not partition.faults
    return found, waiting


def _plain(cell: Any) -> Any:
    if isinstance(cell, float) and cell != cell:
        return None
    return cell.item() if hasattr(cell, "item") else cell


@pytest.mark.parametrize(("most", "of"), [(256, 1), (16, 2), (3, 3)])
def test_a_record_in_a_block_of_its_own_gives_the_same_evidence(
    config: Config, most: int, of: int
) -> None:
    field = {"metric": "prediction", "field": "p", "margin": "0.2 units", "better": "higher"}
    cost = {"candidate": {"per_request": 0.1, "per_second": 2.0}, "champion": {"per_request": 0.2}}
    plain = {**SHADOW, "name": "plain", "compare": {}, "challengers": ["candidate", "other"]}
    plain.pop("label")
    experiments = [
        {**SHADOW, "cost": cost, "metrics": [*SHADOW["metrics"], field]},
        {**SPLIT, "metrics": [*SPLIT["metrics"], field]},
        {**plain, "metrics": SHADOW["metrics"][:4]},
    ]
    document = config.model_dump(mode="json", by_alias=True, exclude_unset=True)
    document["challengers"][1]["mirror"] = {"rate": 0.5}
    changed = Config.model_validate({**document, "experiments": experiments})
    alone, waits_alone = _evidence(changed, 1, of)
    many, waits = _evidence(changed, most, of)
    assert {"rows", "pairs", "assigned", "labels", "told"} <= {key.split("'")[1] for key in many}
    assert alone.keys() == many.keys()
    for key in alone:
        assert _same_rows(alone[key], many[key]), key
    assert waits_alone == waits
    assert any(waits.values())


def _same_rows(a: Any, b: Any) -> bool:
    return len(a) == len(b) and all(
        len(x) == len(y)
        and all(
            v == w or (isinstance(v, float) and isinstance(w, float) and abs(v - w) < 1e-12)
            for v, w in zip(x, y, strict=True)
        )
        for x, y in zip(a, b, strict=True)
    )
