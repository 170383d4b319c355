"""Drift within a segment, while the whole looks as usual."""

from __future__ import annotations

import json
import random

from tests.support.sheets import take
from understudy.monitor.baseline.builder import Builder
from understudy.monitor.health.drift.signals import signals_of
from understudy.monitor.health.drift.watch import ModelWatch
from understudy.monitor.health.options import Options

NAMES = ("x", "y", "city")
CITIES, SHARES = ("Oslo", "Lima", "Rome"), (0.5, 0.38, 0.12)


def row(chance: random.Random, shift: float = 0.0) -> list[object]:
    city = chance.choices(CITIES, SHARES)[0]
    return [chance.gauss(shift if city == "Rome" else 0.0, 1.0), chance.gauss(0.0, 1.0), city]


def test_segment_drift_has_feature_time_size_and_examples() -> None:
    chance = random.Random(1)
    builder = Builder(model="m")
    known = [row(chance) for _ in range(20_000)]
    builder.add(NAMES, [list(column) for column in zip(*known, strict=True)])
    baseline = builder.finish()
    options = Options(segments=("city",))
    watch = ModelWatch(baseline, options)
    rows = [row(chance, 0.7 if number >= 12_000 else 0.0) for number in range(16_000)]
    cities = {f"r-{number}": cells[2] for number, cells in enumerate(rows)}
    ids = [b"r-%d" % number for number in range(16_000)]
    take(watch, NAMES, rows[:12_000], range(12_000), ids[:12_000])
    assert signals_of(watch, "m", "", watch.newest) == []
    take(watch, NAMES, rows[12_000:], range(12_000, 16_000), ids[12_000:])
    (signal,) = signals_of(watch, "m", "", watch.newest)
    assert signal.segment == "city=Rome"
    assert signal.title == "Inputs have changed where city is Rome: x"
    assert signal.features[0].name == "x"
    assert signal.since is not None
    assert 10_500.0 < signal.since < 13_500.0
    assert signal.size is not None
    assert signal.size.low is not None
    assert signal.size.high is not None
    assert signal.size.low > 0.3
    assert signal.size.high < 1.1
    assert signal.examples
    assert all(cities[one] == "Rome" for one in signal.examples)
    again = ModelWatch(baseline, options)
    again.load_state(json.loads(json.dumps(watch.dump_state())))
    (kept,) = signals_of(again, "m", "", again.newest)
    assert kept.since == signal.since
    assert (kept.title, kept.size is not None) == (signal.title, True)
