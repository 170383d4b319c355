"""Run lengths against published figures and against the approximation in closed form."""

from __future__ import annotations

import math

import numpy as np
import pytest

from understudy.monitor.detectors.run_length import (
    average_run_length,
    chart,
    false_alarm_rate,
    siegmund,
    threshold_known,
)


@pytest.mark.parametrize(
    ("threshold", "slack", "length"),
    [
        (4.0, 0.5, 335.4),
        (5.0, 0.5, 930.9),
    ],  # Montgomery, Introduction to Statistical Quality Control
)
def test_published_run_lengths(threshold: float, slack: float, length: float) -> None:
    assert average_run_length(threshold, slack) == pytest.approx(length, abs=0.06)


@pytest.mark.parametrize(
    ("slack", "length", "threshold"),
    [
        (0.125, 1e5, 31.036), (0.25, 1e5, 17.705), (0.5, 1e5, 9.662),
        (0.125, 6e5, 38.193), (0.25, 6e5, 21.287), (0.5, 6e5, 11.453),
    ],
)  # fmt: skip
def test_thresholds_for_a_run_length(slack: float, length: float, threshold: float) -> None:
    assert threshold_known(slack, length) == pytest.approx(threshold, abs=6e-4)
    assert average_run_length(threshold, slack) == pytest.approx(length, rel=2e-3)


def test_the_closed_form_is_near_and_falls_with_a_shift() -> None:
    for slack in (0.125, 0.25, 0.5):
        for threshold in (5.0, 10.0, 20.0):
            exact = average_run_length(threshold, slack)
            assert siegmund(threshold, slack) == pytest.approx(exact, rel=0.08)
    assert average_run_length(5.0, 0.5, 1.0) == pytest.approx(10.4, abs=0.1)
    assert siegmund(5.0, 0.5, 0.5) == pytest.approx((5.0 + 1.166) ** 2)
    assert siegmund(1e5, 0.5) == math.inf
    with pytest.raises(ValueError, match="positive"):
        average_run_length(0.0, 0.5)
    with pytest.raises(ValueError, match="at least 2"):
        threshold_known(0.5, 1.0)


@pytest.mark.parametrize("rows", [300.0, 1000.0, 10_000.0, 1e6])
@pytest.mark.parametrize("slack", [0.125, 0.25, 0.5])
def test_thresholds_allow_for_the_error_of_a_baseline(slack: float, rows: float) -> None:
    wider, threshold = chart(slack, 6e5, rows)
    assert false_alarm_rate(threshold, wider, rows) * 6e5 <= 1.001
    assert wider >= slack
    assert threshold >= 0.999 * threshold_known(wider, 6e5)
    # And no more than that: with as good as no error the known threshold is enough.
    if rows == 1e6:
        assert (wider, threshold) == (slack, pytest.approx(threshold_known(slack, 6e5), rel=0.01))


def test_the_run_length_of_a_simulation() -> None:
    # 400 CUSUMs of 5,000 rows at a run length of 1,000: about 2,000 alarms, sd below 45.
    rng = np.random.default_rng(4)
    threshold = threshold_known(0.5, 1000.0)
    sums = np.zeros(400)
    alarms = 0
    for _ in range(5000):
        sums = np.maximum(0.0, sums + rng.normal(size=400) - 0.5)
        over = sums >= threshold
        alarms += int(over.sum())
        sums[over] = 0.0
    assert 1750 < alarms < 2250
