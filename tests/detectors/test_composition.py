"""Shares of categories: any change of them is found, and none is dreamed up."""

from __future__ import annotations

import json

import numpy as np
import pytest

from understudy.monitor.detectors.composition import Composition

SHARES = np.array([0.4, 0.3, 0.2, 0.1])
GROUPS = 6
Codes = np.ndarray


def draw(rng: np.random.Generator, shares: np.ndarray, rows: int, series: int) -> Codes:
    return np.searchsorted(np.cumsum(shares)[:-1], rng.random((rows, series))).astype(np.int64)


def counts_of(codes: Codes) -> np.ndarray:
    return np.array([np.bincount(c, minlength=GROUPS) for c in codes.T], np.float64)


@pytest.mark.parametrize("rows", [10_000, 1_000])
def test_run_length_holds_with_an_estimated_baseline(rows: int) -> None:
    rng = np.random.default_rng(rows)
    detector = Composition(counts_of(draw(rng, SHARES, rows, 200)), 2000.0)
    alarms = 0
    for _ in range(10):
        hit = detector.update(draw(rng, SHARES, 400, 200), np.zeros(400)).crossed >= 0
        alarms += int(hit.sum())
        detector.reset(hit)
    # 800,000 rows at a run length of 2,000: at most 400; 600 is ten standard deviations above.
    assert alarms < 600


def test_a_change_of_shares_is_detected_with_its_time() -> None:
    rng = np.random.default_rng(2)
    detector = Composition(counts_of(draw(rng, SHARES, 10_000, 20)), 1e5)
    quiet = draw(rng, SHARES, 2000, 20)
    assert (detector.update(quiet, np.arange(2000.0)).crossed < 0).all()
    # One doubles at the expense of all the others: no rank moves.
    later = np.array([0.4, 0.3, 0.2, 0.0]) * 8 / 9 + np.array([0.0, 0.0, 0.0, 0.2])
    found = detector.update(draw(rng, later, 1500, 20), 2000.0 + np.arange(1500.0))
    assert (found.crossed >= 0).all()
    began = [detector.began(number) or 0.0 for number in range(20)]
    assert 1900.0 < np.median(began) < 2200.0
    shares, rows = detector.now(0)
    assert shares[3] == pytest.approx(0.2, abs=0.08)
    assert 200.0 < rows < 300.0
    assert not detector.usual().any()
    for _ in range(3):
        detector.update(draw(rng, SHARES, 1000, 20), np.zeros(1000))
    assert detector.usual().mean() > 0.6


def test_missing_values_are_ignored_and_the_state_is_complete() -> None:
    rng = np.random.default_rng(3)
    counts = counts_of(draw(rng, SHARES, 5000, 2))
    detector, whole = Composition(counts, 1e5), Composition(counts, 1e5)
    codes = draw(rng, SHARES, 640, 2)
    codes[:, 1] = GROUPS
    detector.update(codes, np.zeros(640))
    assert np.isneginf(detector.evidence().statistic[1]) or detector.evidence().statistic[1] < 7.0
    assert detector.now(1)[1] == 0.0
    whole.update(codes, np.zeros(640))
    again = Composition(counts, 1e5)
    again.load_state(json.loads(json.dumps(detector.dump_state())))
    more = draw(rng, SHARES, 640, 2)
    one, other = again.update(more, np.zeros(640)), whole.update(more, np.zeros(640))
    np.testing.assert_allclose(one.statistic, other.statistic, rtol=1e-4)
    with pytest.raises(ValueError, match="since must be 6 times, not 1"):
        again.load_state({**detector.dump_state(), "since": [None]})
