"""Labels where units are assigned: one unit is one observation, however many labels it has."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
from click.testing import CliRunner

from tests.support.live_experiment import (
    ARMS,
    NAMES,
    NOW,
    SPLIT,
    answer,
    assigned,
    division,
    live,
)
from understudy.common.codecs import Table
from understudy.monitor.cli.main import main
from understudy.monitor.config.experiment import Experiment as Declared
from understudy.monitor.evidence.block_columns import BlockColumns
from understudy.monitor.evidence.blocks import Builder
from understudy.monitor.evidence.layout import UNIT, unit_number
from understudy.monitor.experiments.replay import Replay
from understudy.monitor.labels.store import Joined
from understudy.shadow.experiment.batches import Split, Units
from understudy.shadow.experiment.labelled_units import LabelledUnits

BEGIN = 1e9
USER = {"by": "header", "name": "x-user"}
ACCURACY = [{"metric": "accuracy", "margin": "5 pp", "base_rate": 0.8}]


def declared(**changes: Any) -> Declared:
    return Declared.model_validate(
        {"name": "x", "challengers": ["challenger"], "metrics": ACCURACY, **SPLIT_OF, **changes}
    )


SPLIT_OF = {"mode": "split", "weights": {"challenger": 0.5}, "unit": USER}


def rows_of(
    seed: int, users: int, each: int, worse: float = 0.0, alone: bool = False
) -> list[dict[str, Any]]:
    """Requests of users for whom a model is nearly always right or nearly always wrong, with their
    labels, over two days; ``alone``: each request is called a unit of its own."""
    rng = np.random.default_rng(seed)
    arms = rng.integers(0, 2, users)
    skill = np.where(rng.random(users) < 0.6, 0.97, 0.1) - worse * arms
    who = rng.permutation(np.repeat(np.arange(users), each))
    at = BEGIN + np.sort(rng.random(len(who))) * 2 * 86_400.0
    right = rng.random(len(who)) < skill[who]
    return [
        {
            "time": t,
            "arm": int(arms[u]),
            "share": 0.5,
            "unit": f"r{n}" if alone else f"u{u}",
            "error": 0,
            "correct": int(ok),
        }
        for n, (t, u, ok) in enumerate(zip(at.tolist(), who.tolist(), right.tolist(), strict=True))
    ]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def replayed(path: Path, rows: list[dict[str, Any]], **changes: Any) -> tuple[str, dict[str, Any]]:
    replay = Replay(declared(**changes))
    decision = replay.read(write(path, rows))
    return decision.verdict, {item.name: item for item in decision.evidence}


def test_users_whose_labels_are_alike_never_look_like_another_model(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    metrics = [{"metric": "accuracy", "role": "success", "base_rate": 0.6}]
    wrong = {False: 0, True: 0}
    for seed in range(8):
        for alone in wrong:
            rows = rows_of(seed, 30, 200, alone=alone)
            _, evidence = replayed(file, rows, metrics=metrics)
            wrong[alone] += evidence["accuracy"].status in ("passed", "harmed")
    # Of valid runs, 7 or more of 8 are wrong, either way, with a probability of 7e-7.
    assert wrong[False] < 7
    # What taking labels as independent would make of the same rows.
    assert wrong[True] >= 5


def test_a_worse_model_is_found_by_units(tmp_path: Path) -> None:
    verdict, evidence = replayed(tmp_path / "rows.csv", rows_of(5, 600, 5, worse=0.09))
    assert evidence["accuracy"].records[0] + evidence["accuracy"].records[1] <= 600
    verdict, evidence = replayed(tmp_path / "rows.csv", rows_of(5, 600, 5, worse=0.45))
    assert (verdict, evidence["accuracy"].status) == ("rollback", "harmed")
    assert "after their first label" in evidence["accuracy"].note


def test_labels_of_a_file_that_one_arm_lacks_are_not_judged(tmp_path: Path) -> None:
    """The challenger's errors have no label: it must not look better than it is."""
    rng = np.random.default_rng(11)
    rows: list[dict[str, Any]] = []
    for _ in range(6_000):
        arm, right = int(rng.random() < 0.5), bool(rng.random() < 0.8)
        there = right or not arm or rng.random() < 0.5
        rows.append({"arm": arm, "share": 0.5, "error": 0, "correct": int(right) if there else ""})
    path = write(tmp_path / "rows.csv", rows)
    document = {"name": "x", "mode": "split", "weights": {"challenger": 0.5}}
    document |= {"challengers": ["challenger"]}
    document |= {"metrics": [{"metric": "accuracy", "role": "success", "base_rate": 0.8}]}
    file = tmp_path / "experiment.yaml"
    file.write_text(json.dumps(document))
    run = CliRunner().invoke
    result = run(main, ["experiment", "replay", str(path), "--experiment", str(file), "--json"])
    found = json.loads(result.output)
    assert found["decision"] != "promote"
    (accuracy,) = (one for one in found["metrics"] if one["metric"] == "accuracy")
    assert accuracy["note"].startswith("not judged: labels come for")
    # With all labels the same file shows that both are alike.
    every = [{**row, "correct": int(rng.random() < 0.8)} for row in rows]
    write(path, every)
    result = run(main, ["experiment", "replay", str(path), "--experiment", str(file), "--json"])
    (accuracy,) = (
        one for one in json.loads(result.output)["metrics"] if one["metric"] == "accuracy"
    )
    assert "not judged" not in accuracy["note"]


def labels(shares: list[float], units: list[float], arms: list[int], start: float = 0.0) -> Split:
    n = len(shares)
    at = start + np.arange(1.0, n + 1.0)
    return Split(
        np.array(arms, np.float64),
        np.array(shares),
        {"correct": np.ones(n)},
        np.zeros(n, np.bool_),
        at,
        at,
        unit=np.array(units),
    )


def test_labels_of_earlier_weights_are_left_out_once_later_ones_came() -> None:
    units = LabelledUnits(("correct",))
    steps = list(units.take(labels([0.1, 0.1, 0.5, 0.5], [1.0, 1.0, 1.0, 2.0], [0, 0, 1, 0])))
    ages = [s for s in steps if isinstance(s, Units)]
    # The unit of before is read at all ages, with its arm and share of then; then a new epoch.
    assert [(u.cutoff, u.arms.tolist(), u.share.tolist()) for u in ages] == [
        (cutoff, [0.0], [0.1]) for cutoff in range(5)
    ]
    assert all(u.columns["correct"][0].tolist() == [2.0] for u in ages)
    assert steps.count(None) == 1
    firsts = [s.unit.tolist() for s in steps if isinstance(s, Split) and s.unit is not None]
    assert firsts == [[1.0], [1.0, 2.0]]
    late = labels([0.1], [3.0], [0])
    assert list(units.take(late)) == []
    assert units.left_out == 1


def test_live_labels_are_summed_up_by_unit_whose_name_is_not_kept() -> None:
    one = live(**SPLIT, metrics=ACCURACY, unit=USER, label={"prediction": "p", "threshold": 0.5})
    builder = Builder("", "", 1)
    for number in range(40):
        unit = (b"bob", b"ada")[number % 2]
        record, arm = assigned(number, number % 2, unit=unit)
        record.arm = NAMES.arms.index(arm)
        builder.add(NAMES, record, Table(("a",), 1, [1]), answer(0.9), NOW)
    (block,) = builder.flush(NOW, everything=True)
    columns = BlockColumns(block, 0, "champion")
    one.collector.take(columns, division())
    kept = one.collector.covariates_of(columns, np.arange(40))
    assert kept[:2] == [{UNIT: [unit_number(b"bob")]}, {UNIT: [unit_number(b"ada")]}]
    for number, given in enumerate(kept):
        outputs = {"p": 0.9, **{name: cells[0] for name, cells in given.items()}}
        arm, at = ARMS[number % 2], NOW + 10.0
        joined = Joined(
            number, f"r{number}", arm, False, "m", 0.4, at, outputs, 0, 1, None, at + 1.0, 1.0
        )
        one.take_label(joined)
    one.flush()
    one.finish()
    (item,) = (
        i for i in one.look("split", NOW + 60.0)["candidate"].evidence if i.name == "accuracy"
    )
    assert item.records == (1, 1)
