"""Shiryaev-Roberts e-detectors: the recursion, the guarantee, the blocks of replicas."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from understudy.monitor.detectors.edetector import SrBlocks, SrDetector, bets_for, null_rate

VALUES = st.sampled_from([0.0, 0.0, 0.0, 1.0, 0.25, float("nan")])
BATCHES = arrays.arrays(np.float64, st.tuples(st.integers(1, 80), st.just(3)), elements=VALUES)
NULL = np.array([0.01, 0.1, 0.6])


def by_hand(detector: SrDetector, x: np.ndarray) -> np.ndarray:
    """Mixtures of M, (S,), by the recursion as it is written."""
    m = np.zeros(detector.bets.shape)
    for row in x:
        for series, value in enumerate(row):
            if not math.isnan(value):
                bets = detector.bets[series]
                m[series] = (1.0 + bets * (value - detector.null[series])) * (1.0 + m[series])
    return m.mean(axis=1)


@settings(max_examples=60)
@given(BATCHES, st.integers(1, 30))
def test_batches_are_the_recursion_row_by_row(x: np.ndarray, cut: int) -> None:
    detector = SrDetector(NULL, 1000.0)
    wanted = by_hand(detector, x)
    for start in range(0, len(x), cut):
        found = detector.update(x[start : start + cut])
    with np.errstate(divide="ignore"):
        np.testing.assert_allclose(found.statistic, np.log(wanted), rtol=1e-9, atol=1e-9)
    again = SrDetector(NULL, 1000.0)
    again.load_state(json.loads(json.dumps(detector.dump_state())))
    np.testing.assert_allclose(again._m.sum(axis=1), detector._m.sum(axis=1), rtol=1e-5)


def test_bets_stay_positive_for_any_null() -> None:
    null = np.array([1e-9, 1e-4, 0.01, 0.3, 0.5, 0.9, 0.999])
    bets = bets_for(null)
    assert (bets > 0.0).all()
    assert (bets * null[:, None] <= 0.95 + 1e-12).all()
    assert (np.diff(bets, axis=1) >= 0.0).all()


def test_the_run_length_holds_under_any_dependence() -> None:
    # Bursts: the rate is 0 for a while and then double, with a mean of mu0 given the past is what
    # the theorem asks for; here the mean given the past is at most mu0 throughout.
    rng = np.random.default_rng(2)
    detector = SrDetector(np.full(400, 0.1), 2000.0)
    alarms = 0
    for block in range(50):
        rate = 0.1 if block % 2 else 0.03
        found = detector.update((rng.random((40, 400)) < rate).astype(float))
        alarms += int(found.alarms.sum())
        detector.reset(found.alarms)
    # 800,000 rows at a run length of 2,000: at most 400 on average; 520 is six sd above that.
    assert alarms < 520


@pytest.mark.parametrize(("rate", "rows"), [(0.12, 6000), (0.15, 1500), (0.2, 500)])
def test_a_rise_is_detected(rate: float, rows: int) -> None:
    rng = np.random.default_rng(3)
    detector = SrDetector(np.full(40, 0.1), 100_000.0)
    found = detector.update((rng.random((rows, 40)) < rate).astype(float))
    # The medians are about 1,950, 450 and 150 rows: that less than half of forty streams are found
    # in three times as long has a probability below 1e-8.
    assert (found.crossed >= 0).sum() > 20
    assert (found.direction[found.crossed >= 0] == 1).all()


def first_blocks(replicas: int) -> list[int]:
    """In which block each of two risks alarms, when that many replicas share the rows."""
    rng = np.random.default_rng(8)
    x = (rng.random((8000, 2)) < np.array([0.05, 0.05])).astype(float)
    x[4000:, 1] = (rng.random(4000) < 0.12).astype(float)
    blocks = SrBlocks(np.full(2, 0.055), 100_000.0, 100)
    first = [-1, -1]
    for block, start in enumerate(range(0, len(x), 100)):
        parts = [x[start : start + 100][replica::replicas] for replica in range(replicas)]
        counts = np.sum([np.full(2, float(len(part))) for part in parts], axis=0)
        found = blocks.update(counts, np.sum([part.sum(0) for part in parts], axis=0))
        for series in np.flatnonzero(found.crossed >= 0):
            first[series] = first[series] if first[series] >= 0 else block
    return first


def test_replicas_that_add_up_their_counts_alarm_in_the_same_block() -> None:
    alone = first_blocks(1)
    assert alone[0] == -1
    assert 40 <= alone[1] < 60
    assert [first_blocks(replicas) for replicas in (2, 4, 8)] == [alone] * 3


def test_the_null_of_a_baseline() -> None:
    assert null_rate(100, 1000) == pytest.approx(
        0.1 + 1.6449 * math.sqrt(0.1008 * 0.8992 / 1000), rel=1e-3
    )
    assert 0.0 < null_rate(0, 10_000) < 1e-3
    assert null_rate(0, 10_000, 0.005) > 0.005
    assert null_rate(1000, 1000) < 1.0
    with pytest.raises(ValueError, match="between 0 and 1"):
        SrDetector(np.array([0.0]), 100.0)
    with pytest.raises(ValueError, match="shape"):
        SrDetector(np.array([0.1]), 100.0).update(np.zeros((2, 2)))
