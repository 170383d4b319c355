"""Dependent rows and hours of the week: lengths, batch means, profiles, realised run lengths."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.monitor.detectors.autocorrelation import (
    BatchMeans,
    assumptions,
    batch_length,
    inflation,
    lag1,
)
from understudy.monitor.detectors.cusum import SLACKS, CusumUnion
from understudy.monitor.detectors.dependence import Dependence
from understudy.monitor.detectors.seasons import CELLS, Profile, ProfileBuilder, hour_of_week

BEGIN = datetime(2024, 3, 4, tzinfo=UTC).timestamp()  # a Monday


def ar1(rng: np.random.Generator, phi: float, rows: int, series: int) -> np.ndarray:
    x = np.empty((rows, series))
    x[0] = rng.normal(size=series)
    steps = rng.normal(size=(rows, series)) * np.sqrt(1.0 - phi**2)
    for row in range(1, rows):
        x[row] = phi * x[row - 1] + steps[row]
    return x


def test_the_correlation_and_what_follows_from_it() -> None:
    x = ar1(np.random.default_rng(1), 0.6, 20_000, 2)
    x[:, 1] = np.random.default_rng(2).normal(size=20_000)
    x[::9, 0] = np.nan
    found = lag1(x)
    assert found == pytest.approx([0.6, 0.0], abs=0.06)
    assert inflation(0.5) == pytest.approx(3.0)
    assert inflation(0.5, 1000.0) > 3.0
    assert inflation(0.02, 1000.0) == 1.0  # chance explains it
    assert inflation(-0.5) == inflation(None) == 1.0
    assert inflation(1.0) < 200.0
    assert lag1(np.ones((50, 1))).tolist() == [0.0]
    assert lag1(np.ones((2, 1))).tolist() == [0.0]
    assert batch_length(None) == batch_length(0.05) == 1
    assert batch_length(0.2) < batch_length(0.5) < batch_length(0.9) < batch_length(1.0) == 4096


def test_means_of_such_batches_are_nearly_independent_and_standard() -> None:
    phi = 0.7
    length = batch_length(phi)
    x = ar1(np.random.default_rng(3), phi, 200_000, 1)
    means = BatchMeans([length], [inflation(phi)]).update(x)
    assert len(means) == 200_000 // length
    assert lag1(means)[0] == pytest.approx(0.1, abs=0.04)
    # Of long sums the variance is 1; that of single means is below, by what neighbours share.
    assert means.var() < 1.0
    sums = means[: len(means) // 50 * 50].reshape(-1, 50).sum(axis=1) / np.sqrt(50.0)
    assert sums.var() == pytest.approx(1.0, abs=0.5)


@settings(max_examples=40)
@given(st.integers(0, 99), st.integers(1, 25), st.lists(st.integers(1, 9), min_size=1, max_size=4))
def test_batch_means_do_not_depend_on_batches(seed: int, cut: int, lengths: list[int]) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(60, len(lengths)))
    x[rng.random(x.shape) < 0.1] = np.nan
    x[rng.random(x.shape) < 0.1] = -np.inf
    factors = [1.0 + series for series in range(len(lengths))]
    parts = BatchMeans(lengths, factors)
    found: list[list[float]] = [[] for _ in lengths]
    for start in range(0, 60, cut):
        rows = x[start : start + cut]
        before = parts._rows.copy()
        means = parts.update(rows)
        for series, length in enumerate(lengths):
            complete = (int(before[series]) + len(rows)) // length
            found[series] += means[:complete, series].tolist()
            assert np.isnan(means[complete:, series]).all()
        again = BatchMeans(lengths, factors)
        again.load_state(json.loads(json.dumps(parts.dump_state())))
        parts = again
    for series, length in enumerate(lengths):
        wanted = []
        for start in range(0, 60 // length * length, length):
            values = x[start : start + length, series]
            values = values[np.isfinite(values)]
            scale = np.sqrt(len(values) * factors[series])
            wanted.append(values.sum() / scale if len(values) else np.nan)
        np.testing.assert_allclose(found[series], wanted, atol=1e-12)


def test_batch_means_reject_invalid_arguments() -> None:
    with pytest.raises(ValueError, match="length"):
        BatchMeans([0], [1.0])
    means = BatchMeans([4, 4], [1.0, 1.0])
    with pytest.raises(ValueError, match="shape"):
        means.update(np.zeros((3, 1)))
    means.update(np.ones((3, 2)))
    means.reset(np.array([True, False]))
    assert np.isnan(means.update(np.ones((1, 2)))[0]).tolist() == [True, False]


def alarms(union: CusumUnion, z: np.ndarray) -> int:
    found = 0
    for start in range(0, len(z), 100):
        hit = union.update(z[start : start + 100]).crossed >= 0
        found += int(hit.sum())
        union.reset(hit)
    return found


@pytest.mark.parametrize("phi", [0.2, 0.5])
def test_the_run_length_holds_for_dependent_rows(phi: float) -> None:
    # 100 streams × 20,000 rows at a run length of 5,000: 400 alarms stated, and at half of that
    # run length 800; the figure found is below 400, so 800 is 20 standard deviations away.
    rng = np.random.default_rng(4)
    baseline = ar1(rng, phi, 10_000, 100)
    z = (ar1(rng, phi, 20_000, 100) - baseline.mean(axis=0)) / baseline.std(axis=0)
    factors = np.array([inflation(value, 10_000.0) for value in lag1(baseline)])
    aware = alarms(CusumUnion(100, 5000.0, 10_000.0, inflation=factors), z)
    assert aware < 800
    assert alarms(CusumUnion(100, 5000.0, 10_000.0), z) > 1000


def test_the_run_length_holds_under_a_daily_cycle() -> None:
    rng = np.random.default_rng(5)
    times = BEGIN + 60.0 * np.arange(30_000)
    cycle = 0.7 * np.sin(2.0 * np.pi * times / 86_400.0)[:, None]
    x = ar1(rng, 0.3, 30_000, 60) + cycle
    builder = ProfileBuilder(60)
    for start in range(0, 10_000, 333):
        rows = slice(start, min(start + 333, 10_000))
        builder.add(x[rows], times[rows])
    profile = builder.finish()
    again = Profile.from_dict(json.loads(json.dumps(profile.to_dict())))
    z = again.subtract(x[10_000:], times[10_000:])
    dependence = Dependence(60)
    dependence.update(again.subtract(x[:10_000], times[:10_000]))
    inflation = np.array([[m.inflation(k) for k in SLACKS] for m in dependence.memories()])
    # 60 × 20,000 rows at a run length of 5,000: 240 stated, 480 allowed, far more without.
    assert alarms(CusumUnion(60, 5000.0, 10_000.0, inflation=inflation), z) < 480
    assert alarms(CusumUnion(60, 5000.0, 10_000.0), x[10_000:]) > 3000
    assert profile.strength == pytest.approx(0.2, abs=0.06)
    assert z.std() == pytest.approx(1.0, abs=0.05)


def test_a_series_without_a_cycle_loses_nothing() -> None:
    rng = np.random.default_rng(6)
    times = BEGIN + 60.0 * np.arange(12_000)
    builder = ProfileBuilder(40)
    builder.add(rng.normal(size=(12_000, 40)), times)
    profile = builder.finish()
    assert (np.abs(profile.means - profile.means.mean(axis=0)).max(axis=0) < 1e-9).sum() >= 30
    assert profile.scale == pytest.approx(1.0, abs=0.05)


def test_weekdays_are_distinguished_from_the_second_week_on() -> None:
    rng = np.random.default_rng(7)
    for weeks, apart in ((1, False), (4, True)):
        times = BEGIN + 120.0 * np.arange(weeks * 5040)
        weekend = (hour_of_week(times) >= 5 * 24).astype(np.float64)[:, None]
        x = rng.normal(size=(len(times), 2)) + 2.0 * weekend * np.array([1.0, 0.0])
        x[::11] = np.inf
        builder = ProfileBuilder(2)
        for start in range(0, len(times), 1000):
            builder.add(x[start : start + 1000], times[start : start + 1000])
        means = builder.finish().means
        gap = means[120:].mean(axis=0) - means[:120].mean(axis=0)
        assert (gap[0] > 1.5) == apart
        assert abs(gap[1]) < 0.3


def test_hours_and_empty_profiles() -> None:
    assert hour_of_week(np.array([BEGIN, BEGIN + 3600.0, BEGIN - 1.0])).tolist() == [0, 1, 167]
    builder = ProfileBuilder(2)
    builder.add(np.zeros((0, 2)), np.zeros(0))
    builder.add(np.full((5, 2), np.nan), BEGIN + np.arange(5.0))
    profile = builder.finish()
    assert profile.means.shape == (CELLS, 2)
    assert not profile.means.any()
    assert profile.scale.tolist() == [1.0, 1.0]
    with pytest.raises(ValueError, match="shape"):
        Profile(np.zeros((24, 2)), np.ones(2))
    with pytest.raises(ValueError, match="damaged"):
        Profile.from_dict({**profile.to_dict(), "means": "!"})


def test_assumptions_are_listed() -> None:
    bare = assumptions({"a": 1.0, "b": 1.01})
    assert "look independent" in bare[0]
    assert "no daily or weekly cycle is known" in bare[1]
    many = {f"x{number}": 2.0 + number for number in range(9)}
    aware = assumptions(many, seasonal=True, learned=["y"], unwatched={"id": "an identifier"})
    assert "x8 (10 times), x7 (9 times)" in aware[0]
    assert "and 4 more" in aware[0]
    assert "that of the baseline and learned from live rows for y" in aware[1]
    assert "id (looks like an identifier)" in aware[2]
