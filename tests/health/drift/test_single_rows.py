"""Rows that come one at a time are evaluated as those of a batch are."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import orjson

from tests.support.sheets import take
from understudy.monitor.baseline.buckets import Buckets
from understudy.monitor.baseline.builder import Builder
from understudy.monitor.baseline.model import Baseline
from understudy.monitor.health.drift.signals import signals_of
from understudy.monitor.health.drift.summary import summary_of
from understudy.monitor.health.drift.watch import ModelWatch
from understudy.monitor.health.options import Options

NAMES = ("x", "count", "city", "member")
Row = list[Any]


def rows_of(seed: int, count: int) -> list[Row]:
    chance = random.Random(seed)
    return [
        [
            chance.gauss(0.0, 1.0),
            chance.randrange(100),
            chance.choice(["Rome", "Oslo", "Lima"]),
            chance.random() < 0.3,
        ]
        for _ in range(count)
    ]


def baseline() -> Baseline:
    builder = Builder(model="m")
    builder.add(NAMES, [list(column) for column in zip(*rows_of(1, 3000), strict=True)])
    return builder.finish()


def unusual(rows: list[Row]) -> list[Row]:
    """Every now and then something that a batch has a rule for, and a shift at the end."""
    for number, row in enumerate(rows):
        if number % 97 == 5:
            row[number % 4] = None
        elif number % 131 == 7:
            row[:] = rows[number - 3]
        elif number % 151 == 11:
            row[0] = [1e9, "text", float("inf"), float("nan")][number % 4]
        elif number % 173 == 13:
            row[2] = "Atlantis"
        if number > 900 and isinstance(row[0], float):
            row[0] += 1.0
    return rows


def watched(rows: list[Row], together: int) -> ModelWatch:
    watch = ModelWatch(baseline(), Options())
    for start in range(0, len(rows), together):
        numbers = range(start, min(start + together, len(rows)))
        codes = np.array([float(number % 211 == 17) for number in numbers])
        watch.requests(codes, np.array(numbers, np.float64))
        ids = [b"r-%d" % number for number in numbers]
        take(watch, NAMES, [rows[number] for number in numbers], numbers, ids)
    return watch


def test_single_rows_are_evaluated_like_batches() -> None:
    rows = unusual(rows_of(2, 1200))
    alone, many = watched(rows, 1), watched(rows, 200)
    first, second = summary_of(alone), summary_of(many)
    assert first["rows"] == second["rows"] == 1200
    for one, other in zip(first["series"], second["series"], strict=True):
        # Not to the last digit: what a small baseline learns ends with the alarm, be it amid a batch.
        for key in ("statistic", "spread", "location"):
            assert abs(one[key] - other[key]) < 0.06 * max(1.0, abs(other[key])), (one, other)
        assert one["psi"] == other["psi"]
        assert one["drifted"] == other["drifted"]
    assert alone.violations.tolist() == many.violations.tolist()
    # Of a batch only its newest example is kept.
    kept = [{r: set(of) for r, of in w.examples.broken.items() if of} for w in (alone, many)]
    assert kept[0] == kept[1]
    np.testing.assert_allclose(alone.rates.evidence().statistic, many.rates.evidence().statistic)
    found = signals_of(alone, "m", "", alone.newest)
    assert [s.key for s in found] == [s.key for s in signals_of(many, "m", "", many.newest)]
    assert any(s.kind == "drift" and s.features[0].name == "x" for s in found)


def test_alarms_do_not_wait_for_more_rows() -> None:
    watch = ModelWatch(baseline(), Options())
    for number, row in enumerate(rows_of(3, 700)):
        shift = 3.0 if number >= 600 else 0.0
        take(watch, NAMES, [[row[0] + shift, *row[1:]]], [number])
        if watch.shifts.alarmed.any():
            break
    assert 600 < number < 625
    place = int(np.flatnonzero(watch.shifts.alarmed)[0])
    assert watch.shifts.at[place] == number
    assert watch.shifts.direction[place] == 1


def test_buffered_rows_are_part_of_the_state() -> None:
    rows = rows_of(4, 300)
    watch, again = (ModelWatch(baseline(), Options()) for _ in range(2))
    take(watch, NAMES, rows, range(300), alone=True)
    # By the same means as in the file of the state, which knows no types of numpy.
    again.load_state(orjson.loads(orjson.dumps(watch.dump_state())))
    assert again.rows == 300
    assert summary_of(again)["series"][0] == summary_of(watch)["series"][0]


def test_buckets_equal_those_of_a_search_per_value() -> None:
    rng = np.random.default_rng(5)
    strange = [np.inf, -np.inf, np.nan, 0.0, 1.0]
    for _ in range(50):
        edges = [
            np.unique(rng.integers(-5, 5, rng.integers(0, 256)).astype(float))
            if rng.random() < 0.4
            else np.sort(rng.normal(size=rng.integers(0, 256)))
            for _ in range(rng.integers(1, 5))
        ]
        x = rng.normal(size=(len(edges), 40)).round(1)
        x = np.where(rng.random(x.shape) < 0.1, rng.choice(strange), x)
        for one, values, found in zip(edges, x, Buckets(edges).find(x), strict=True):
            wanted = np.where(np.isnan(values), 0, one.searchsorted(values))
            assert found.tolist() == wanted.tolist()
