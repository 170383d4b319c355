"""Confidence sequences on a risk: never an alarm but with probability alpha, and an alarm at last."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy.stats import binom

from understudy.monitor.detectors.risk_sequence import RiskSequence, source_bound


@pytest.mark.parametrize(("count", "rows"), [(0, 50), (3, 50), (100, 1000), (999, 1000)])
def test_the_baselines_limit_covers(count: int, rows: int) -> None:
    bound = source_bound(count, rows, 0.01)
    assert bound > count / rows
    # So few would come with a probability of at most alpha, if the mean were that large.
    assert binom.cdf(count, rows, bound) <= 0.01
    assert bound - count / rows < 3.1 / math.sqrt(rows)


def test_extreme_limits_and_invalid_arguments() -> None:
    assert source_bound(0.0, 0.0, 0.1) == 1.0
    assert source_bound(10.0, 10.0, 0.1) == 1.0
    with pytest.raises(ValueError, match="alpha"):
        source_bound(1.0, 10.0, 0.0)
    with pytest.raises(ValueError, match="a sum"):
        source_bound(11.0, 10.0, 0.1)
    with pytest.raises(ValueError, match="tolerance"):
        RiskSequence(np.array([1.0]), np.array([10.0]), -0.1)
    risks = RiskSequence(np.array([100.0]), np.array([1000.0]))
    with pytest.raises(ValueError, match="between 0 and 1"):
        risks.update(np.array([[1.5]]))
    with pytest.raises(ValueError, match="shape"):
        risks.update(np.zeros((2, 2)))


def test_alarms_are_rare_at_the_baselines_rate() -> None:
    rng = np.random.default_rng(6)
    ever = 0
    for _ in range(40):
        # Each alone at alpha = 0.2; the baselines are drawn as well.
        risks = RiskSequence(np.array([float(rng.binomial(2000, 0.1))]), np.array([2000.0]), 0, 0.2)
        found = risks.update((rng.random((2000, 1)) < 0.1).astype(float))
        ever += bool(found.alarms[0])
    # At most 8 of 40 on average; 24 and more have a probability below 1e-6.
    assert ever < 24


def test_a_rise_is_detected_and_stays() -> None:
    rng = np.random.default_rng(7)
    x = (rng.random((3000, 2)) < np.array([0.1, 0.2])).astype(float)
    x[::7] = np.nan
    risks = RiskSequence(np.full(2, 1000.0), np.full(2, 10_000.0), 0.01)
    found = risks.update(x)
    assert found.alarms.tolist() == [False, True]
    assert found.direction.tolist() == [0, 1]
    row = int(found.crossed[1])
    assert 20 < row < 2000
    assert not np.isnan(x[row, 1])

    # In other batches it is the same row, up to the values that make up the four.
    again = RiskSequence(np.full(2, 1000.0), np.full(2, 10_000.0), 0.01)
    rows = []
    for start in range(0, 3000, 90):
        part = again.update(x[start : start + 90])
        rows += [start + int(part.crossed[1])] if part.crossed[1] >= 0 else []
        again.load_state(json.loads(json.dumps(again.dump_state())))
    assert rows == [row]
    np.testing.assert_allclose(part.statistic, found.statistic, rtol=1e-6)
    lower, upper = again.intervals()[0].lower, again.intervals()[0].upper
    assert lower < 0.1 < upper
    again.reset(np.array([False, True]))
    assert not again.update(np.full((1, 2), np.nan)).alarms[1]
