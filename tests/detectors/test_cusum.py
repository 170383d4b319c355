"""The union of CUSUMs: exact, in batches of any size, in blocks from any number of replicas."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from understudy.monitor.detectors.cusum import CusumUnion
from understudy.monitor.detectors.run_length import average_run_length, counted_once

NOTHING = [float("nan"), float("inf"), float("-inf")]
VALUES = st.one_of(st.floats(-6.0, 6.0), st.sampled_from(NOTHING))
BATCHES = arrays.arrays(np.float64, st.tuples(st.integers(1, 150), st.just(3)), elements=VALUES)


def by_hand(union: CusumUnion, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The recursion as the textbooks have it: sums (2, S, charts), first crossing (S,)."""
    sums = np.zeros((2, *union.slack.shape))
    crossed = np.full(union.series, -1)
    for number, row in enumerate(z):
        for side, sign in enumerate((1.0, -1.0)):
            step = np.where(np.isfinite(row)[:, None], sign * row[:, None] - union.slack, 0.0)
            sums[side] = np.maximum(0.0, sums[side] + step)
        over = (sums >= union.threshold).any(axis=(0, 2))
        crossed[over & (crossed < 0)] = number
    return sums, crossed


@settings(max_examples=40)
@given(BATCHES, st.integers(1, 60))
def test_batches_are_the_recursion_row_by_row(z: np.ndarray, cut: int) -> None:
    union = CusumUnion(3, 2000.0)
    wanted, crossed = by_hand(union, z)
    found = union.update(z)
    assert found.crossed.tolist() == crossed.tolist()
    height = (wanted / union.threshold).max(axis=(0, 2))
    np.testing.assert_allclose(found.statistic, height, atol=1e-9)
    parts = CusumUnion(3, 2000.0)
    for start in range(0, len(z), cut):
        last = parts.update(z[start : start + cut])
    np.testing.assert_allclose(last.statistic, height, atol=1e-9)
    again = CusumUnion(3, 2000.0)
    again.load_state(json.loads(json.dumps(parts.dump_state())))
    np.testing.assert_allclose(again.evidence().statistic, height, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("replicas", [1, 2, 4, 8])
def test_replicas_that_add_up_their_blocks_alarm_in_the_same_block(replicas: int) -> None:
    rng = np.random.default_rng(9)
    z = np.round(rng.normal(size=(6400, 2)) * 64) / 64  # sums of these are exact in any order
    z[3200:, 1] += 0.5
    union = CusumUnion(2, 100_000.0)
    first = [-1, -1]
    for block, start in enumerate(range(0, len(z), 64)):
        parts = [z[start : start + 64][replica::replicas] for replica in range(replicas)]
        counts = np.sum([np.full(2, float(len(part))) for part in parts], axis=0)
        found = union.update_blocks(counts, np.sum([part.sum(0) for part in parts], axis=0))
        for series in np.flatnonzero(found.crossed >= 0):
            if first[series] < 0:
                first[series] = block
    assert first == [-1, 51]


def test_direction_reset_and_factors() -> None:
    union = CusumUnion(2, 10_000.0, factors=np.array([[1.0] * 3, [2.0] * 3]))
    np.testing.assert_allclose(union.threshold[1], 2.0 * union.threshold[0])
    found = union.update(np.tile([2.0, -2.0], (60, 1)))
    assert found.direction.tolist() == [1, -1]
    assert 0 <= found.crossed[0] < found.crossed[1]
    assert found.alarms.all()
    union.reset(np.array([True, False]))
    assert union.evidence().statistic[0] == 0.0
    assert union.evidence().alarms.tolist() == [False, True]
    with pytest.raises(ValueError, match="shape"):
        union.update(np.zeros((3, 5)))


def test_run_length_holds_with_an_estimated_baseline() -> None:
    # 600 streams of 2,000 rows at a run length of 2,000: about 600 alarms at most are to be
    # expected; 800 are more than eight standard deviations away.
    rng = np.random.default_rng(12)
    for rows in (np.inf, 1000.0):
        union = CusumUnion(600, 2000.0, baseline_rows=rows)
        off = rng.normal(size=600) / np.sqrt(rows) if np.isfinite(rows) else np.zeros(600)
        alarms = 0
        for _ in range(50):
            found = union.update(rng.normal(size=(40, 600)) + off)
            alarms += int(found.alarms.sum())
            union.reset(found.alarms)
        assert 100 < alarms < 800


def alarms_of(union: CusumUnion, rng: np.random.Generator, rows: int, off: np.ndarray) -> int:
    """How many alarms there are in rows of a mean that is ``off`` (S,)."""
    alarms = 0
    for _ in range(rows // 40):
        found = union.update(rng.normal(size=(40, union.series)) + off)
        alarms += int(found.alarms.sum())
        union.reset(found.alarms)
    return alarms


def test_live_rows_refine_a_small_baseline_and_speed_up_detection() -> None:
    rng = np.random.default_rng(17)
    rows, streams = 300.0, 400
    off = rng.normal(size=streams) / np.sqrt(rows)
    refined = CusumUnion(streams, 2000.0, rows, refine=True)
    # 400 streams of 4,000 rows at a run length of 2,000: 800 alarms are to be expected at most.
    assert 300 < alarms_of(refined, rng, 4000, off) < 1000
    plain = CusumUnion(streams, 2000.0, rows)
    assert (refined.slack <= plain.slack).all()
    assert (refined.threshold[:, 0] + 200 * refined.slack[:, 0] < plain.threshold[:, 0] + 200
            * plain.slack[:, 0]).all()  # fmt: skip
    # What is left of the error is smaller than what the baseline had.
    assert refined._refinement is not None
    assert np.std(off - refined._refinement.mean) < 0.5 * np.std(off)


def test_a_drift_does_not_become_the_new_normal() -> None:
    rng = np.random.default_rng(18)
    union = CusumUnion(50, 1e5, 1000.0, refine=True)
    first = np.full(50, -1)
    for batch in range(400):
        z = rng.normal(size=(50, 50)) + 0.5 * batch / 400  # half a deviation in 20,000 rows
        found = union.update(z)
        first[(found.crossed >= 0) & (first < 0)] = batch
    assert (first >= 0).all()
    assert union._refinement is not None
    assert (np.abs(union._refinement.mean) <= 3.0 / np.sqrt(1000.0) + 1e-12).all()


def test_refined_means_are_part_of_the_state() -> None:
    rng = np.random.default_rng(19)
    union, whole = (CusumUnion(3, 1e5, 200.0, refine=True) for _ in range(2))
    z = rng.normal(size=(900, 3))
    z[5, 1] = np.nan
    for start in range(0, 600, 50):
        union.update(z[start : start + 50])
        whole.update(z[start : start + 50])
    again = CusumUnion(3, 1e5, 200.0, refine=True)
    again.load_state(json.loads(json.dumps(union.dump_state())))
    np.testing.assert_allclose(
        again.update(z[600:]).statistic, whole.update(z[600:]).statistic, rtol=1e-4, atol=1e-5
    )


def test_the_charts_of_a_series_share_its_false_alarms() -> None:
    for slacks in ((0.5,), (0.25, 0.5), (0.125, 0.25, 0.5)):
        union = CusumUnion(1, 50_000.0, slacks=slacks)
        rates = [
            2.0 / average_run_length(float(h), k)
            for h, k in zip(union.threshold[0], slacks, strict=True)
        ]
        # A row at which two of them alarm counts once.
        once = counted_once(slacks, 50_000.0)
        assert once == 1.0 if len(slacks) < 3 else 0.85 < once < 1.0
        assert sum(rates) * once == pytest.approx(1.0 / 50_000.0, rel=1e-3)
    # Rows that depend on each other: a standard deviation of the root of the inflation.
    wide = CusumUnion(1, 50_000.0, slacks=(0.5,), inflation=4.0)
    same = CusumUnion(1, 50_000.0, slacks=(0.25,))
    assert wide.slack[0, 0] == pytest.approx(0.5)
    assert wide.threshold[0, 0] == pytest.approx(2.0 * same.threshold[0, 0])
