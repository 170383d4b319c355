"""Rows that nobody would send on purpose: a finding, and never a crash."""

from __future__ import annotations

import json
import math
import random
from typing import Any

import numpy as np
import pytest

from tests.support.sheets import sheet_of, take
from understudy.monitor.baseline.builder import Builder
from understudy.monitor.baseline.model import Baseline
from understudy.monitor.health.drift.signals import signals_of
from understudy.monitor.health.drift.summary import summary_of
from understudy.monitor.health.drift.watch import ModelWatch
from understudy.monitor.health.options import Options

NAMES = ("x", "city", "note", "face", "at")
CITIES = ("Rome", "Oslo", "Lima", "Bern")
WORDS = ("late", "bag", "gate", "crew", "food")
START = 1767571200.0


def usual(chance: random.Random) -> list[Any]:
    return [
        chance.gauss(0.0, 1.0),
        chance.choice(CITIES),
        " ".join(chance.choice(WORDS) for _ in range(chance.randint(3, 8))),
        [chance.gauss(0.0, 1.0) for _ in range(6)],
        START + 60.0 * chance.randrange(10**4),
    ]


@pytest.fixture(scope="module")
def baseline() -> Baseline:
    chance = random.Random(1)
    builder = Builder(model="m", model_version="1")
    rows = [usual(chance) for _ in range(2000)]
    builder.add(NAMES, [list(column) for column in zip(*rows, strict=True)])
    return builder.finish()


def feed(watch: ModelWatch, rows: list[list[Any]], times: list[float], alone: bool) -> None:
    take(watch, NAMES, rows, times, alone=alone)


def settled(watch: ModelWatch, baseline: Baseline) -> list[Any]:
    """What is found; and the state is whole JSON that another watch takes over."""
    found = signals_of(watch, "m", "1", watch.newest)
    json.dumps(summary_of(watch), allow_nan=False)
    state = json.loads(json.dumps(watch.dump_state(), allow_nan=False))
    again = ModelWatch(baseline, Options(kernel=True))
    again.load_state(state)
    assert again.rows == watch.rows
    return found


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf, None, 1e308, "NaN", [], {}, True])
def test_odd_values_in_every_cell_are_accepted(baseline: Baseline, odd: Any, alone: bool) -> None:
    watch = ModelWatch(baseline, Options(kernel=True))
    feed(watch, [[odd] * len(NAMES)] * 150, [START + n for n in range(150)], alone)
    found = settled(watch, baseline)
    assert watch.rows == 150
    assert any(signal.kind == "quality" for signal in found)
    # And it goes on: rows as usual are taken, and what was wrong is over after a while.
    chance = random.Random(2)
    feed(watch, [usual(chance) for _ in range(3000)], [START + 200 + n for n in range(3000)], False)
    assert watch.rows == 3150
    assert not [s for s in settled(watch, baseline) if s.kind == "quality"]


@pytest.mark.parametrize("alone", [True, False])
def test_clock_jumps_are_accepted(baseline: Baseline, alone: bool) -> None:
    chance = random.Random(3)
    jumps = [0.0, -1e9, 1e12, START, -1.0, 1e-300, 253402300799.0]
    times = [START + n if n % 20 else jumps[n // 20 % len(jumps)] for n in range(600)]
    watch = ModelWatch(baseline, Options())
    feed(watch, [usual(chance) for _ in range(600)], times, alone)
    assert watch.rows == 600
    assert settled(watch, baseline) == []
    assert watch.silence.longest <= 86400.0
    assert watch.silent_for(START) is None


def test_a_feature_that_changed_its_type_is_named(baseline: Baseline) -> None:
    chance = random.Random(4)
    for place, value in ((0, "12.5"), (1, [1, 2]), (3, "a text"), (4, {"now": 1})):
        rows = [usual(chance) for _ in range(300)]
        for row in rows[100:]:
            row[place] = value
        watch = ModelWatch(baseline, Options())
        feed(watch, rows, [START + n for n in range(300)], False)
        quality = [s for s in settled(watch, baseline) if s.kind == "quality"]
        assert quality, value
        assert quality[0].features[0].name == NAMES[place]
        assert quality[0].examples


def test_appearing_and_missing_columns_are_accepted(baseline: Baseline) -> None:
    watch = ModelWatch(baseline, Options())
    chance = random.Random(5)
    for number in range(400):
        names = tuple(chance.sample([*NAMES, "new", "other"], chance.randint(1, 7)))
        watch.take_rows(sheet_of(names, [[1.0] * len(names)], [START + number]), names, False)
    watch.flush()
    quality = [s for s in settled(watch, baseline) if s.kind == "quality"]
    assert all(len(one.features) == 1 for one in quality)
    assert len({one.key for one in quality}) == len(quality) > 1
    assert set(watch.quality.added) == {"new", "other"}
    assert np.isfinite(watch.cusum.evidence().statistic).all()
