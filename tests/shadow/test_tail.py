"""The tail detector: evidence over thresholds, ramps, pairs, and what it is not valid for."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import special, stats

from understudy.shadow.sequential import (
    SequentialError,
    TailDetector,
    edges_around,
    tail_thresholds,
)
from understudy.shadow.sequential.histogram import bucket_counts
from understudy.shadow.sequential.tail import LEVELS, _effects

EDGES = edges_around(0.02, doublings=4.0)


def latencies(rng: np.random.Generator, n: int) -> np.ndarray:
    return 0.02 * np.exp(0.5 * rng.standard_normal(n))


def frozen(rng: np.random.Generator, n: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    return tail_thresholds(EDGES, bucket_counts(EDGES, latencies(rng, n)))


def test_formula_over_thresholds_bets_and_shares() -> None:
    thresholds, levels = [1.0, 2.0, 4.0], [0.5, 0.95, 0.999]
    detector = TailDetector(thresholds, levels)
    rng = np.random.default_rng(0)
    x, arm = rng.exponential(2.0, 500), rng.integers(0, 2, 500)
    share = np.where(np.arange(500) < 200, 0.1, 0.5)
    detector.update(arm, x, share)
    logs = []
    for t, level in zip(thresholds, levels, strict=True):
        for d in _effects(level):
            theta = special.expit(special.logit(share) + d)
            factor = np.where(arm == 1, theta / share, (1 - theta) / (1 - share))
            logs.append(np.log(factor[x > t]).sum())
    assert detector.log_e == pytest.approx(special.logsumexp(logs) - math.log(len(logs)), abs=1e-9)
    assert detector.exceeded.sum(axis=0).tolist() == [int((x > t).sum()) for t in thresholds]


def test_one_sided_factors_are_fair_at_the_margin_and_unfavourable_below() -> None:
    for share in (0.001, 0.05, 0.5, 0.99):
        for ratio in (1.0, 1.5):
            detector = TailDetector([1.0], [0.99], "greater", ratio=ratio)
            table = np.exp(detector._factors(share)[:, 0])
            edge = share * ratio / (share * ratio + 1 - share)
            assert edge * table[1] + (1 - edge) * table[0] == pytest.approx(1.0, abs=1e-12)
            less = 0.7 * edge
            assert (less * table[1] + (1 - less) * table[0] < 1.0).all()


def test_thresholds_come_from_the_champions_past() -> None:
    rng = np.random.default_rng(1)
    thresholds, levels = frozen(rng)
    truth = 0.02 * np.exp(0.5 * stats.norm.ppf(levels))
    assert levels.tolist() == list(LEVELS)
    assert np.abs(np.log(thresholds / truth)).max() < 0.25
    few, kept = tail_thresholds(EDGES, bucket_counts(EDGES, latencies(rng, 300)))
    assert few.size == kept.size < len(LEVELS)
    assert kept[-1] <= 0.985
    with pytest.raises(SequentialError, match="at least 20 records"):
        tail_thresholds(EDGES, bucket_counts(EDGES, latencies(rng, 19)))
    with pytest.raises(SequentialError, match="some records exceed"):
        tail_thresholds([0.0001], [0, 50], [0.9])
    with pytest.raises(SequentialError, match="levels"):
        tail_thresholds(EDGES, bucket_counts(EDGES, latencies(rng, 100)), [0.9, 0.5])


@pytest.mark.simulation
@pytest.mark.parametrize("share", [0.5, 0.05, 0.01])
@pytest.mark.parametrize("side", ["greater", "two-sided"])
def test_bursts_and_drift_common_to_both_arms_raise_no_alarm(share: float, side: str) -> None:
    """300 streams of 6,000, AR(.99) level and a drift, every record looked at: < 1e-6 to fail."""
    rng = np.random.default_rng(3)
    rejected = 0
    for _ in range(300):
        noise = rng.standard_normal(6000) * math.sqrt(1 - 0.99**2)
        level = np.zeros(6000)
        for i in range(1, 6000):
            level[i] = 0.99 * level[i - 1] + noise[i]
        x = latencies(rng, 6000) * np.exp(0.5 * level + np.linspace(0, 0.5, 6000))
        detector = TailDetector(0.02 * np.exp(0.5 * stats.norm.ppf(LEVELS)), LEVELS, side)
        detector.update(rng.random(6000) < share, x, share)
        rejected += detector.rejects(0.05)
        assert abs(detector.clustering) < 6.0
    assert rejected <= int(stats.binom.isf(1e-6, 300, 0.05))


def test_a_few_slow_requests_are_found_and_located() -> None:
    rng = np.random.default_rng(4)
    thresholds, levels = frozen(rng)
    for slow, by in ((0.02, 0.04), (0.005, 0.1)):
        detector = TailDetector(thresholds, levels)
        arm = rng.integers(0, 2, 60_000)
        x = latencies(rng, 60_000) + np.where((arm == 1) & (rng.random(60_000) < slow), by, 0.0)
        detector.update(arm, x, 0.5)
        assert detector.rejects(0.01)
        first = detector.findings()[0]
        assert first.log_e > detector.log_e
        assert first.level >= 0.9
        assert first.champion is not None
        assert first.challenger is not None
        assert first.challenger > first.champion
        better = TailDetector(thresholds, levels, "less")
        better.update(arm, x, 0.5)
        assert better.p_value > 0.05


def test_twice_as_many_exceedances_are_within_a_margin_of_twice() -> None:
    """200 streams at exactly the margin: < 1e-6 to fail; without a margin most are found."""
    rng = np.random.default_rng(5)
    rejected = found = 0
    for _ in range(200):
        arm = (rng.random(20_000) < 0.3).astype(float)
        x = (rng.random(20_000) < 0.01 * (1 + arm)) * 2.0
        for ratio in (2.0, 1.0):
            detector = TailDetector([1.0], [0.99], ratio=ratio)
            detector.update(arm, x, 0.3)
            rejected += ratio == 2.0 and detector.rejects(0.05)
            found += ratio == 1.0 and detector.rejects(0.05)
    assert rejected <= int(stats.binom.isf(1e-6, 200, 0.05))
    assert found >= 190


def test_mirrored_pairs_count_when_only_one_is_above() -> None:
    detector = TailDetector([1.0, 2.0], [0.9, 0.99])
    detector.update_pairs([0.5, 1.5, 3.0, 0.5], [1.5, 0.5, 3.0, 2.5])
    assert detector.exceeded.tolist() == [[1, 0], [2, 1]]
    assert detector.records.tolist() == [4, 4]
    split = TailDetector([1.0, 2.0], [0.9, 0.99])
    split.update([1, 0, 1], [1.5, 1.5, 2.5], 0.5)
    assert detector.log_e == pytest.approx(split.log_e, abs=1e-12)


def test_slow_episodes_of_one_arm_show_as_clustering() -> None:
    rng = np.random.default_rng(6)
    arm = rng.integers(0, 2, 40_000)
    episode = np.repeat(rng.integers(0, 40, 400), 100)  # each arm pauses now and then
    x = latencies(rng, 40_000) * np.where(episode == arm, 6.0, 1.0)
    detector = TailDetector(0.02 * np.exp(0.5 * stats.norm.ppf(LEVELS)))
    detector.update(arm, x, 0.5)
    assert detector.clustering > 6.0


def test_evidence_stays_finite_when_everything_is_above() -> None:
    detector = TailDetector([1.0], [0.999], "two-sided")
    for _ in range(20):
        detector.update(np.ones(50_000), np.full(50_000, 9.0), 1e-6)
    assert math.isfinite(detector.log_e)
    assert detector.log_e > 1e6
    assert detector.p_value == 0.0


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, math.nan])
def test_shares_outside_0_to_1_are_rejected(share: float) -> None:
    with pytest.raises(SequentialError, match="share"):
        TailDetector([1.0], [0.9]).update([1.0], [2.0], share)


def test_bad_settings_are_named() -> None:
    with pytest.raises(SequentialError, match="as many as thresholds"):
        TailDetector([1.0, 2.0], [0.9])
    with pytest.raises(SequentialError, match="ratio must be at least 1"):
        TailDetector([1.0], [0.9], ratio=0.9)
    with pytest.raises(SequentialError, match="1 to 16"):
        TailDetector(np.arange(17.0), np.linspace(0.1, 0.9, 17))
    with pytest.raises(SequentialError, match="share must be as long as arms"):
        TailDetector([1.0], [0.9]).update([1, 0], [2.0, 2.0], [0.5, 0.5, 0.5])


def test_evidence_does_not_depend_on_whether_the_peak_is_looked_for() -> None:
    rng = np.random.default_rng(6)
    thresholds, levels = np.array([0.5, 1.0, 2.0, 3.0]), np.array([0.7, 0.84, 0.97, 0.99])
    for pairs in (False, True):
        slow, fast = (TailDetector(thresholds, levels, ratio=1.1) for _ in range(2))
        for size in (1, 300, 2, 2_000, 77):
            arms = (rng.random(size) < 0.3).astype(float)
            share = np.where(rng.random(size) < 0.5, 0.3, 0.2) if size != 77 else 0.3
            x, y = rng.normal(size=(2, size))
            for test, peak in ((slow, True), (fast, False)):
                if pairs:
                    test.update_pairs(x, y + 0.2, peak=peak)
                else:
                    test.update(arms, x + 0.2 * arms, share, peak=peak)
            assert fast.log_e == pytest.approx(slow.log_e, abs=1e-9)
        assert fast.exceeded.tolist() == slow.exceeded.tolist()
        assert fast.dump_state()["runs"] == slow.dump_state()["runs"]
        assert fast.peak_log_e <= slow.peak_log_e + 1e-9
