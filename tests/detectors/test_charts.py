"""Shewhart's charts and the EWMA: published run lengths, the rules by hand, any batches."""

from __future__ import annotations

import json
import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.monitor.detectors.charts import (
    Ewma,
    Shewhart,
    ewma_limit,
    ewma_run_length,
    mean_points,
    rate_points,
    shewhart_limit,
)
from understudy.monitor.detectors.runs_rules import EIGHT, FOUR, SIMULATED, broken, runs_length


@pytest.mark.parametrize(
    ("rules", "length"),
    [
        ((1,), 370.40), ((1, 2), 225.44), ((1, 3), 166.05), ((1, 4), 152.73),
        ((1, 2, 3), 132.89), ((1, 2, 4), 122.05), ((1, 3, 4), 105.78), (FOUR, 91.75),
    ],
)  # fmt: skip
def test_run_lengths_of_the_rules_as_published(rules: tuple[int, ...], length: float) -> None:
    # Champ & Woodall, Technometrics 29 (1987), table 1.
    assert runs_length(rules) == pytest.approx(length, abs=0.006)


def test_run_lengths_of_the_four_rules_after_a_shift() -> None:
    found = [runs_length(FOUR, mean) for mean in (0.2, 0.4, 0.6, 1.0, 2.0)]
    assert found == pytest.approx([66.80, 36.61, 20.90, 9.22, 3.13], abs=0.011)
    assert runs_length(FOUR, -1.0) == pytest.approx(runs_length(FOUR, 1.0))
    with pytest.raises(ValueError, match="no chain"):
        runs_length((1, 5))


@pytest.mark.parametrize(
    ("weight", "limit", "lengths"),
    [
        (0.40, 3.054, (500.0, 224.0, 71.2, 28.4, 14.3)),
        (0.25, 2.998, (500.0, 170.0, 48.2, 20.1, 11.1)),
        (0.20, 2.962, (500.0, 150.0, 41.8, 18.2, 10.5)),
        (0.10, 2.814, (500.0, 106.0, 31.3, 15.9, 10.3)),
        (0.05, 2.615, (500.0, 84.1, 28.8, 16.4, 11.4)),
    ],
)
def test_run_lengths_of_the_ewma_as_published(
    weight: float, limit: float, lengths: tuple[float, ...]
) -> None:
    # Montgomery, Introduction to Statistical Quality Control, table 9.11 (Lucas & Saccucci 1990).
    found = [ewma_run_length(weight, limit, mean) for mean in (0.0, 0.25, 0.5, 0.75, 1.0)]
    assert found == pytest.approx(list(lengths), rel=0.004)
    assert ewma_limit(weight, 500.0) == pytest.approx(limit, abs=1.5e-3)


def test_limits_for_a_run_length() -> None:
    assert shewhart_limit(370.4) == pytest.approx(3.0, abs=1e-4)
    known = ewma_limit(0.1, 10_000.0)
    assert known < ewma_limit(0.1, 10_000.0, 10_000.0) < ewma_limit(0.1, 10_000.0, 500.0)
    assert ewma_run_length(0.1, 40.0) == math.inf
    with pytest.raises(ValueError, match="too few"):
        ewma_limit(0.01, 1e5, 3.0)
    for wrong in (ewma_limit, shewhart_limit):
        with pytest.raises(ValueError, match="at least 2"):
            wrong(*((0.1, 1.0) if wrong is ewma_limit else (1.0,)))
    with pytest.raises(ValueError, match="positive"):
        ewma_run_length(0.1, 0.0)


def by_hand(x: list[float], at: int) -> list[int]:
    """The rules that the point ``at`` breaks, as a person with a ruler would find them."""
    upto = x[: at + 1]
    found = []
    for sign in (1.0, -1.0):
        y = [sign * value for value in upto]
        if y[-1] > 3.0:
            found.append(1)
        if y[-1] > 2.0 and sum(v > 2.0 for v in y[-3:]) >= 2:
            found.append(2)
        if y[-1] > 1.0 and sum(v > 1.0 for v in y[-5:]) >= 4:
            found.append(3)
        if len(y) >= 8 and all(v > 0.0 for v in y[-8:]):
            found.append(4)
        if len(y) >= 6 and all(a < b for a, b in pairwise(y[-6:])):
            found.append(5)
    if len(upto) >= 15 and all(abs(v) < 1.0 for v in upto[-15:]):
        found.append(6)
    steps = [b - a for a, b in pairwise(upto[-14:])]
    if len(upto) >= 14 and all(a * b < 0.0 for a, b in pairwise(steps)):
        found.append(7)
    if len(upto) >= 8 and all(abs(v) > 1.0 for v in upto[-8:]):
        found.append(8)
    return sorted(found)


def test_the_rules_are_those_of_the_handbook() -> None:
    rng = np.random.default_rng(3)
    seen: set[int] = set()
    shapes = [rng.normal(size=4000), rng.normal(size=4000) * 0.5, rng.normal(size=4000) * 2.0]
    shapes.append(np.tile([0.4, -0.4], 30) + 0.01 * np.arange(60))
    for x in shapes:
        for rule in EIGHT:
            found = broken(x, (rule,)) > 0
            wanted = [rule in by_hand(x.tolist(), at) for at in range(min(len(x), 1200))]
            assert found[:1200].tolist() == wanted
            seen |= {rule} if any(wanted) else set()
    assert seen == set(EIGHT)


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.integers(1, 40), st.sampled_from([FOUR, EIGHT]))
def test_any_batches_give_the_same_alarms(seed: int, cut: int, rules: tuple[int, ...]) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(130, 2)) + np.array([0.0, 0.3])
    x[rng.random(x.shape) < 0.2] = np.nan
    x[rng.random(x.shape) < 0.05] = np.inf
    for make in (lambda: Shewhart(2, rules), lambda: Ewma(2, 0.1, 2.0)):
        whole, parts = make(), make()
        evidence = whole.update(x)
        first = [-1, -1]
        sides = [0, 0]
        for start in range(0, len(x), cut):
            last = parts.update(x[start : start + cut])
            for series in np.flatnonzero(last.crossed >= 0):
                if first[series] < 0:
                    first[series] = start + int(last.crossed[series])
                    sides[series] = int(last.direction[series])
            again = make()
            again.load_state(json.loads(json.dumps(parts.dump_state())))
            parts = again
        assert first == evidence.crossed.tolist()
        assert sides == evidence.direction.tolist()
        if isinstance(whole, Ewma):
            np.testing.assert_allclose(last.statistic, evidence.statistic, atol=1e-12)


def test_alarms_name_rule_and_side() -> None:
    x = np.zeros((8, 4))
    x[-1, 0] = 3.5
    x[-3:, 1] = [-2.5, 0.1, -2.5]
    x[:, 2] = 0.5
    x[:, 3] = [0.9, -0.8, 0.7, -0.6, 0.5, -0.5, 0.4, -0.3]
    chart = Shewhart(4)
    found = chart.update(x)
    assert chart.rule.tolist() == [1, 2, 4, 0]
    assert found.crossed.tolist() == [7, 7, 7, -1]
    assert found.direction.tolist() == [1, -1, 1, 0]
    assert found.alarms.tolist() == [True, True, True, False]
    chart.reset(np.array([True, True, True, False]))
    assert not chart.update(np.full((1, 4), 0.5)).alarms.any()
    ewma = Ewma(1, 0.2, 3.0)
    assert ewma.update(np.full((30, 1), -2.0)).direction.tolist() == [-1]
    ewma.reset(np.array([True]))
    assert ewma.update(np.zeros((1, 1))).statistic.tolist() == [0.0]


def test_invalid_arguments_are_rejected() -> None:
    with pytest.raises(ValueError, match="from 1 to 8"):
        Shewhart(1, (9,))
    with pytest.raises(ValueError, match="positive"):
        Shewhart(1, limit=0.0)
    with pytest.raises(ValueError, match="weight"):
        Ewma(1, 0.0, 3.0)
    for chart in (Shewhart(2), Ewma(2, 0.1, 3.0)):
        with pytest.raises(ValueError, match="shape"):
            chart.update(np.zeros((4, 3)))
        (field,) = chart.dump_state()
        with pytest.raises(ValueError, match=rf"^{field} must .*2"):
            chart.load_state({field: [[0.0]] if field == "recent" else [0.0]})


@pytest.mark.simulation
def test_run_lengths_of_simulations() -> None:
    # About 300 points for each alarm: 1,000 streams of 3,000 points, 10,000 alarms at most; with
    # these the mean is within 6 % but for a probability below 1e-6.
    rng = np.random.default_rng(8)
    ewma = Ewma(1000, 0.2, ewma_limit(0.2, 300.0))
    shewhart = Shewhart(300, FOUR)
    alarms, rules = 0, 0
    points = rng.normal(size=(3000, 1000))
    for start in range(0, 3000, 10):
        found = ewma.update(points[start : start + 10])
        alarms += int((found.crossed >= 0).sum())
        ewma.reset(found.crossed >= 0)
    for start in range(0, 600, 5):
        found = shewhart.update(points[start : start + 5, :300])
        rules += int((found.crossed >= 0).sum())
        shewhart.reset(found.crossed >= 0)
    # Up to the end of the batch of an alarm nothing is looked at: 5 and 2.5 points on average.
    assert 3_000_000 / alarms == pytest.approx(305.0, rel=0.06)
    assert 180_000 / rules == pytest.approx(runs_length(FOUR) + 2.0, rel=0.13)


def test_all_eight_rules_have_the_stated_run_length() -> None:
    # Some 3,000 alarms, whose mean has a standard error of 1.7 %.
    rng = np.random.default_rng(9)
    lengths = []
    x = rng.normal(size=200_000)
    at = 0
    while at < len(x) - 2000:
        lengths.append(int(np.argmax(broken(x[at : at + 2000], EIGHT) > 0)) + 1)
        at += lengths[-1]
    assert np.mean(lengths) == pytest.approx(SIMULATED[EIGHT], rel=0.09)


def test_rates_and_means_as_points() -> None:
    rng = np.random.default_rng(10)
    rates = np.array([0.02, 0.3, 0.5])
    counts = np.full((40_000, 3), 200.0)
    points = rate_points(counts, rng.binomial(200, rates, size=(40_000, 3)), rates)
    np.testing.assert_allclose(points.mean(axis=0), 0.0, atol=0.06)
    np.testing.assert_allclose(points.std(axis=0), 1.0, atol=0.06)
    rare = rate_points(np.full((40_000, 1), 100.0), rng.poisson(0.1, (40_000, 1)), np.array([1e-3]))
    assert abs(float(rare.mean())) < 0.1
    assert 0.5 < float(rare.std()) < 1.0
    far = rate_points(np.full((1, 2), 1e6), np.array([[1e6, 0.0]]), np.array([0.5, 0.5]))
    assert far.tolist() == [[38.0, -38.0]]
    # Beyond three: 1 in 370 for normal points; here no more than twice that, also for rare events.
    assert (np.abs(points) > 3.0).mean(axis=0).max() < 2.0 / 370.0
    means = mean_points(
        np.array([[4.0, 0.0]]), np.array([[12.0, 0.0]]), np.array([1.0, 1.0]), np.array([2.0, 2.0])
    )
    assert means[0, 0] == pytest.approx(2.0)
    assert np.isnan(means[0, 1])
    assert np.isnan(rate_points(np.zeros((1, 1)), np.zeros((1, 1)), np.array([0.1])))[0, 0]
