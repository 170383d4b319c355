"""Dependence of rows is measured as it is: blocks, and what charts did."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import lfilter

from understudy.monitor.detectors.cusum import SLACKS, CusumUnion
from understudy.monitor.detectors.dependence import (
    GRID,
    LEVELS,
    BlockVariance,
    Dependence,
    Memory,
)
from understudy.monitor.detectors.run_length import threshold_known

Floats = np.ndarray


def ar1(rng: np.random.Generator, phi: float, rows: int, series: int) -> Floats:
    steps = rng.standard_normal((rows, series)) * np.sqrt(1.0 - phi * phi)
    steps[0] = rng.standard_normal(series)
    return np.asarray(lfilter([1.0], [1.0, -phi], steps, axis=0))


def sessions(rng: np.random.Generator, rows: int, series: int) -> Floats:
    """Each session has eight rows on average, which share half of their variance."""
    lengths = rng.geometric(1.0 / 8.0, rows)
    number = np.repeat(np.arange(rows), lengths)[:rows]
    shared = rng.standard_normal((rows, series))[number]
    own = rng.standard_normal((rows, series))
    return np.asarray(np.sqrt(0.5) * (shared + own))


def measured(x: Floats) -> list[Memory]:
    dependence = Dependence(x.shape[1])
    for start in range(0, len(x), 777):
        dependence.update(x[start : start + 777])
    return dependence.memories()


def test_independent_rows_raise_nothing() -> None:
    # A size of blocks has to be four standard errors above, and a peak one of 1e5 times the rows:
    # of 100 series, one that is above by chance has a probability of about 1 %, and ten of 1e-20.
    found = measured(np.random.default_rng(1).standard_normal((8_000, 100)))
    raised = [m for m in found if m.span > 1 or max(m.inflation(k) for k in SLACKS) > 1.2]
    assert len(raised) < 10


def test_sessions_are_seen_where_the_lag_one_correlation_sees_half_of_them() -> None:
    # Long sums vary 1 + 0.5 (E n^2 / E n - 1) = 8 times as much, an AR(1) of that lag 1 2.6 times.
    found = measured(sessions(np.random.default_rng(2), 20_000, 40))
    wide = np.array([m.long_run for m in found])
    assert 7.5 < np.median(wide) < 16.0
    assert (wide > 5.0).all()


def test_a_level_that_alternates_raises_charts_by_what_they_did() -> None:
    rng = np.random.default_rng(3)
    source = (np.arange(20_000) // 500) % 2
    x = rng.standard_normal((20_000, 20)) + 0.5 * source[:, None] - 0.25
    found = measured(x)
    wide = np.median([m.long_run for m in found])
    slow, fast = (np.median([m.inflation(k) for m in found]) for k in (0.125, 0.5))
    assert wide > 15.0  # of sums of 500 rows
    assert 3.0 < slow < 0.7 * wide
    assert fast < 4.0  # its slack is above the level


def test_rare_bursts_raise_charts_that_averages_do_not() -> None:
    rng = np.random.default_rng(4)
    x = rng.standard_normal((20_000, 2))
    x[7_000:7_080] += 3.0
    (first, second) = measured(x)
    assert first.peaks[GRID.index(0.5)] > 150.0
    assert first.inflation(0.5) > 5.0
    assert second.inflation(0.5) > 5.0


@settings(max_examples=25)
@given(st.integers(0, 99), st.lists(st.integers(1, 150), min_size=1, max_size=8))
def test_blocks_do_not_depend_on_batches(seed: int, cuts: list[int]) -> None:
    x = np.random.default_rng(seed).standard_normal((sum(cuts), 2))
    x[::17, 0] = np.nan
    whole, parts = BlockVariance(2), BlockVariance(2)
    whole.update(x)
    start = 0
    for cut in cuts:
        parts.update(x[start : start + cut])
        start += cut
        again = BlockVariance(2)
        again.load_state(json.loads(json.dumps(parts.dump_state())))
        parts = again
    assert whole.weight == parts.weight
    np.testing.assert_allclose(whole.variance, parts.variance, atol=1e-4)
    assert whole.variance.shape == (LEVELS, 2)


def test_live_rows_teach_what_a_shuffled_baseline_hides() -> None:
    rng = np.random.default_rng(5)
    live = BlockVariance(40, [Memory(10_000)] * 40)
    assert live.long_run().upper.tolist() == [1.0] * 40
    rows = sessions(rng, 4_000, 40)
    for start in range(0, len(rows), 250):
        live.update(rows[start : start + 250])
    found = live.long_run()
    assert 4.5 < np.median(found.estimate) < 10.0
    assert (found.upper > 2.5).all()


def test_a_step_does_not_look_like_dependence() -> None:
    rng = np.random.default_rng(6)
    x = rng.standard_normal((12_000, 40))
    x[6_000:] += 1.0
    live = BlockVariance(40, [Memory(10_000)] * 40)
    for start in range(0, len(x), 250):
        live.update(x[start : start + 250])
    assert (live.long_run().upper > 1.0).sum() < 8


@pytest.mark.simulation
@pytest.mark.parametrize("phi", [0.3, 0.6, 0.9])
def test_the_run_length_holds_for_what_is_measured(phi: float) -> None:
    # 40 streams of 20,000 rows at a run length of 5,000: 160 alarms are stated. They come in
    # clusters of one stream; 400 would be more than ten standard deviations away.
    rng = np.random.default_rng(7)
    baseline = ar1(rng, phi, 20_000, 40)
    z = (ar1(rng, phi, 20_000, 40) - baseline.mean(axis=0)) / baseline.std(axis=0)
    memories = measured((baseline - baseline.mean(axis=0)) / baseline.std(axis=0))
    inflation = np.array([[m.inflation(k) for k in SLACKS] for m in memories])
    wide = np.array([m.long_run for m in memories])
    union = CusumUnion(40, 5_000.0, 20_000.0, inflation=inflation, long_run=wide)
    alarms = 0
    for start in range(0, len(z), 100):
        hit = union.update(z[start : start + 100]).crossed >= 0
        alarms += int(hit.sum())
        union.reset(hit)
    assert alarms < 400


def test_a_memory_is_kept_in_a_file_and_merged() -> None:
    (first, second) = measured(ar1(np.random.default_rng(8), 0.5, 4_000, 2))
    again = Memory.from_dict(json.loads(json.dumps(first.to_dict())))
    assert again.inflation(0.125) == pytest.approx(first.inflation(0.125), rel=0.05)
    merged = first.merge(second)
    assert merged.rows == 8_000
    assert merged.long_run == max(first.long_run, second.long_run)
    assert Memory.of_correlation(0.5, 10_000).long_run == pytest.approx(3.0, abs=0.1)
    for damaged in ({"peaks": [1.0]}, {"long_run": 0.5}, {"peaks": [-1.0] * len(GRID)}):
        with pytest.raises(ValueError, match="must be"):
            Memory.from_dict({**first.to_dict(), **damaged})


def test_thresholds_of_very_slow_charts_are_finite() -> None:
    assert 300.0 < threshold_known(0.015, 1e9) < 500.0
