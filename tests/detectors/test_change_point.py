"""The history: bounded, the same in batches of any size, and right about the moment."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.monitor.detectors.change_point import ChangePoint


@settings(max_examples=30)
@given(st.integers(1, 700), st.integers(1, 90))
def test_any_batches_give_the_same_history(rows: int, cut: int) -> None:
    x = np.random.default_rng(rows).normal(size=(rows, 2))
    x[::5, 1] = np.nan
    times = np.arange(float(rows))
    whole, parts = ChangePoint(2), ChangePoint(2)
    whole.update(x, times)
    for start in range(0, rows, cut):
        parts.update(x[start : start + cut], times[start : start + cut])
    assert whole.dump_state()["times"] == parts.dump_state()["times"]
    for series in (0, 1):
        a, b = whole.estimate(series), parts.estimate(series)
        assert (a.time, a.rows) == (b.time, b.rows)
        assert a.size == pytest.approx(b.size)


@pytest.mark.parametrize("shift", [0.3, -1.0, 2.0])
@pytest.mark.parametrize("later", [300, 1000, 3000])
def test_time_and_size_of_a_change_are_estimated(shift: float, later: int) -> None:
    rng = np.random.default_rng(1)
    before = 6000
    x = rng.normal(size=(before + later, 20))
    x[before:] += shift
    history = ChangePoint(20)
    for start in range(0, len(x), 150):
        history.update(x[start : start + 150], np.arange(start, start + 150.0)[: len(x) - start])
    found = [history.estimate(series) for series in range(20)]
    off = [abs(float(e.time or 0.0) - before) for e in found]
    # A quarter of its age, and about 6 / shift^2 rows of chance.
    assert np.median(off) <= 0.3 * later + 6.0 / shift**2
    assert np.median([e.size for e in found]) == pytest.approx(shift, abs=0.1)
    assert sum(e.low <= shift <= e.high for e in found) >= 10
    again = ChangePoint(20)
    again.load_state(json.loads(json.dumps(history.dump_state())))
    assert again.estimate(3).time == pytest.approx(history.estimate(3).time)


def test_the_history_is_bounded() -> None:
    history = ChangePoint(40)
    rng = np.random.default_rng(6)
    for start in range(0, 400_000, 1000):
        history.update(rng.normal(size=(1000, 40)), np.full(1000, float(start)))
    assert len(json.dumps(history.dump_state())) < 12_000
    history.reset(np.arange(40) < 20)
    assert history.estimate(3).time is None
    assert history.estimate(30).rows > 0
