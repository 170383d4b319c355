"""Categories that come in other shares are found by the live watch, named and explained."""

from __future__ import annotations

import json
import random

import numpy as np

from tests.support.sheets import take
from understudy.monitor.baseline.builder import Builder
from understudy.monitor.health.drift.signals import signals_of
from understudy.monitor.health.drift.summary import summary_of
from understudy.monitor.health.drift.watch import ModelWatch
from understudy.monitor.health.options import Options

NAMES = ("x", "airline")
BEFORE = {"AA": 0.4, "UA": 0.3, "DL": 0.2, "B6": 0.1}
LATER = {"AA": 0.34, "UA": 0.26, "DL": 0.16, "B6": 0.24}


def rows(chance: random.Random, shares: dict[str, float], count: int) -> list[list[object]]:
    names, weights = list(shares), list(shares.values())
    return [[chance.gauss(0.0, 1.0), chance.choices(names, weights)[0]] for _ in range(count)]


def feed(watch: ModelWatch, many: list[list[object]], start: float) -> None:
    times = [start + number for number in range(len(many))]
    take(watch, NAMES, many, times, [b"r-%d" % time for time in times])


def test_changed_shares_give_category_time_and_examples() -> None:
    chance = random.Random(7)
    builder = Builder(model="m")
    builder.add(NAMES, [list(c) for c in zip(*rows(chance, BEFORE, 5000), strict=True)])
    baseline = builder.finish()
    watch = ModelWatch(baseline, Options())
    feed(watch, rows(chance, BEFORE, 5000), 0.0)
    assert signals_of(watch, "m", "", watch.newest) == []
    assert summary_of(watch)["series"][1]["composition"] < 1.0
    many = rows(chance, LATER, 2000)
    feed(watch, many, 5000.0)
    (signal,) = signals_of(watch, "m", "", watch.newest)
    assert signal.features[0].name == "airline"
    assert "'B6'" in signal.features[0].detail
    assert signal.since is not None
    assert 4800.0 < signal.since < 5400.0
    size = signal.size
    assert size is not None
    assert size.low is not None
    assert size.high is not None
    assert size.low < 0.24 < size.high
    by_id = {f"r-{5000 + number}": row for number, row in enumerate(many)}
    assert signal.examples
    assert all(by_id[one][1] == "B6" for one in signal.examples)
    again = ModelWatch(baseline, Options())
    again.load_state(json.loads(json.dumps(watch.dump_state())))
    assert again.drifted().tolist() == watch.drifted().tolist() == [False, True]
    # A feature that may not be shown: the category is not named.
    (hidden,) = signals_of(watch, "m", "", watch.newest, lambda name: name == "airline")
    assert "B6" not in hidden.features[0].detail
    feed(watch, rows(chance, BEFORE, 4000), 7000.0)
    assert signals_of(watch, "m", "", watch.newest) == []


def test_the_state_of_twenty_categorical_features_stays_small() -> None:
    chance = random.Random(8)
    names = tuple(f"c{n}" for n in range(20))
    columns = [[f"v{chance.randrange(12)}" for _ in range(2000)] for _ in names]
    builder = Builder(model="m")
    builder.add(names, columns)
    watch = ModelWatch(builder.finish(), Options())
    take(watch, names, list(zip(*columns, strict=True)), range(2000))
    assert len(json.dumps(watch.dump_state())) <= 20_000
    assert np.isfinite(watch.categories.statistic).all()
