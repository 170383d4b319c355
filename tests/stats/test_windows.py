"""Windows are exact sums of what happened inside them."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from understudy.monitor.stats.distribution import Distribution, Words
from understudy.monitor.stats.reader import Series, Snapshot
from understudy.monitor.stats.shared import SKETCH_WORDS
from understudy.monitor.stats.sketch import observe
from understudy.monitor.stats.windows import Windows, group, since_start

SERIES: Series = ("duration", (("arm", "a"), ("outcome", "ok")))
OTHER: Series = ("duration", (("arm", "b"), ("outcome", "ok")))


class Source:
    """A cumulative source with its own clock."""

    def __init__(self) -> None:
        self.now = 0.0
        self.sketches: dict[Series, Words] = {}
        self.counters: dict[Series, int] = {}

    def observe(self, series: Series, seconds: float) -> None:
        words = self.sketches.setdefault(series, np.zeros(SKETCH_WORDS, np.uint64))
        observe(words.data.cast("B").cast("Q"), 0, int(seconds * 1e9))
        name = ("requests", series[1])
        self.counters[name] = self.counters.get(name, 0) + 1

    def snapshot(self) -> Snapshot:
        return Snapshot(
            self.now, dict(self.counters), {}, {k: v.copy() for k, v in self.sketches.items()}
        )


def test_the_first_snapshot_is_older_than_every_window() -> None:
    source, windows = Source(), Windows()
    source.observe(SERIES, 0.5)
    windows.add(source.snapshot())
    assert windows.sketches("duration", 10.0) == {}
    assert windows.covered(10.0) == 0.0
    assert since_start(source.snapshot(), "duration")[SERIES[1]].count == 1


@given(st.lists(st.lists(st.floats(1e-5, 100.0), max_size=5), min_size=1, max_size=60))
def test_a_window_holds_exactly_the_last_seconds(ticks: list[list[float]]) -> None:
    source, windows = Source(), Windows()
    windows.add(source.snapshot())
    for values in ticks:
        for value in values:
            source.observe(SERIES, value)
        source.now += 1.0
        windows.add(source.snapshot())
    expected = [value for values in ticks[-10:] for value in values]
    got = windows.sketches("duration", 10.0).get(SERIES[1], Distribution())
    assert np.array_equal(got.counts, Distribution.of(expected).counts)
    assert got.sum_ns == sum(int(value * 1e9) for value in expected)
    assert windows.covered(10.0) == min(10.0, len(ticks))
    assert windows.counters("requests", 10.0).get(SERIES[1], 0) == len(expected)
    if expected:
        assert got.maximum == pytest.approx(max(expected), rel=0.01)
        quantiles = got.quantiles([0.99])
        assert quantiles is not None
        exact = sorted(expected)[math.ceil(0.99 * len(expected)) - 1]
        assert quantiles[0] == pytest.approx(exact, rel=0.01)


def test_long_windows_are_exact_over_the_time_they_cover_and_memory_is_bounded() -> None:
    rng = random.Random(1)
    source, windows = Source(), Windows()
    windows.add(source.snapshot())
    history: list[tuple[float, float]] = []
    for _ in range(900):
        source.now += 1.0
        for _ in range(rng.randint(0, 4)):
            value = rng.lognormvariate(-4, 1)
            history.append((source.now, value))
            source.observe(SERIES, value)
        windows.add(source.snapshot())
        assert len(windows._fine) <= 15
        assert len(windows._coarse) <= 61
    for seconds in (60.0, 300.0):
        covered = windows.covered(seconds)
        assert seconds - 5 <= covered <= seconds + 5
        expected = [value for at, value in history if at > source.now - covered]
        got = windows.sketches("duration", seconds)[SERIES[1]]
        assert np.array_equal(got.counts, Distribution.of(expected).counts)
        assert windows.counters("requests", seconds)[SERIES[1]] == len(expected)


def test_an_old_maximum_leaves_the_window() -> None:
    source, windows = Source(), Windows()
    windows.add(source.snapshot())
    source.observe(SERIES, 9.0)
    source.now += 1
    windows.add(source.snapshot())
    assert windows.sketches("duration", 10.0)[SERIES[1]].maximum == pytest.approx(9.0)
    for _ in range(12):
        source.observe(SERIES, 0.25)
        source.now += 1
        windows.add(source.snapshot())
    assert windows.sketches("duration", 10.0)[SERIES[1]].maximum == pytest.approx(0.25, rel=0.01)


def test_a_late_tick_keeps_the_rate_right() -> None:
    source, windows = Source(), Windows()
    windows.add(source.snapshot())
    for _ in range(300):
        source.observe(SERIES, 0.01)
    source.now += 30.0
    windows.add(source.snapshot())
    count = windows.sketches("duration", 10.0)[SERIES[1]].count
    assert count / windows.covered(10.0) == 10.0


def test_a_torn_read_is_corrected_by_the_next() -> None:
    source, windows = Source(), Windows()
    source.observe(SERIES, 0.01)
    windows.add(source.snapshot())
    torn = source.snapshot()
    torn.time += 1
    torn.sketches[SERIES][0] += np.uint64(1)  # the count is there, its bucket is not yet
    windows.add(torn)
    source.observe(SERIES, 0.01)
    source.now += 2
    windows.add(source.snapshot())
    assert windows.sketches("duration", 10.0)[SERIES[1]].count == 1


def test_grouping_merges_over_the_other_labels() -> None:
    source, windows = Source(), Windows()
    windows.add(source.snapshot())
    source.observe(SERIES, 0.1)
    source.observe(OTHER, 0.2)
    source.observe(("duration", (("arm", "a"), ("outcome", "timeout"))), 5.0)
    source.now += 1
    windows.add(source.snapshot())
    found = windows.sketches("duration", 10.0)
    by_arm = group(found, ("arm",))
    assert {key: value.count for key, value in by_arm.items()} == {("a",): 2, ("b",): 1}
    assert group(found, ())[()].count == 3
    assert group(found, ("model", "outcome"))[("", "timeout")].count == 1
