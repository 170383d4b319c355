"""Asymptotic confidence sequences: the formulas, the gate, and what each remedy is for."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from understudy.shadow.sequential import (
    AdjustedDifference,
    BlockDifference,
    BoundedVariance,
    Gate,
    MeanDifference,
    MixtureSPRT,
    PairedMean,
    SequentialError,
    SpreadDifference,
    Status,
    UnitDifference,
    asymptotic_precision,
    asymptotic_radius,
    tune_tau,
)
from understudy.shadow.sequential.asymptotic import enough_per_block
from understudy.shadow.sequential.central_moments import CentralMoments

WIDE_OPEN = Gate(effective=1e-9, autocorrelation=0.99)


def ar1(rng: np.random.Generator, n: int, phi: float) -> np.ndarray:
    noise = rng.standard_normal(n) * math.sqrt(1 - phi**2)
    x = np.empty(n)
    x[0] = rng.standard_normal()
    for i in range(1, n):
        x[i] = phi * x[i - 1] + noise[i]
    return x


# --- moments ------------------------------------------------------------------------------------


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32), shift=st.sampled_from([0.0, 1e6]), n=st.integers(2, 300))
def test_moments_match_their_definitions(seed: int, shift: float, n: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.exponential(2.0, n) + shift
    m = CentralMoments()
    for part in np.array_split(x, rng.integers(1, n + 1)):
        m.add(part)
    assert m.n == n
    assert m.mean == pytest.approx(x.mean(), rel=1e-12)
    assert m.variance == pytest.approx(x.var(ddof=1), rel=1e-8)
    assert m.skewness == pytest.approx(stats.skew(x), rel=1e-6, abs=1e-6)
    assert m.effective == pytest.approx(n / stats.kurtosis(x, fisher=False), rel=1e-6)
    expected = 1 - np.square(np.diff(x)).mean() / 2 / x.var()
    assert m.autocorrelation == pytest.approx(expected, rel=1e-7, abs=1e-9)
    again = CentralMoments.from_state(json.loads(json.dumps(m.dump_state())))
    assert again.dump_state() == m.dump_state()


# --- the interval -------------------------------------------------------------------------------


def test_equations_9_and_134() -> None:
    r = asymptotic_precision(1000, 0.05)
    assert r == pytest.approx((-2 * math.log(0.05) + math.log(1 - 2 * math.log(0.05))) / 1000)
    n, s = 400.0, 3.0
    two = s * math.sqrt(2 * (n * r + 1) / (n * n * r) * math.log(math.sqrt(n * r + 1) / 0.05))
    one = s * math.sqrt(2 * (n * r + 1) / (n * n * r) * math.log1p(math.sqrt(n * r + 1) / 0.1))
    assert float(asymptotic_radius(n, s, 0.05, r)) == pytest.approx(two, rel=1e-12)
    assert float(asymptotic_radius(n, s, 0.05, r, sided=1)) == pytest.approx(one, rel=1e-12)


def test_evidence_and_interval_agree() -> None:
    rng = np.random.default_rng(0)
    m = MeanDifference(2000)
    arm = rng.integers(0, 2, 3000)
    m.update(arm, rng.standard_normal(3000) + 0.3 * arm)
    assert m.readiness.ready
    interval = m.interval(0.05)
    for end in (interval.lower, interval.upper):
        assert m.log_e(end) == pytest.approx(math.log(20), abs=1e-9)
    assert m.log_e(0.0) > math.log(20)
    assert m.rejects(0.05)
    assert m.rejects(0.05, margin=10.0)
    assert not m.rejects(0.05, margin=0.3)
    assert m.estimate == pytest.approx(interval.lower + interval.width / 2)
    for side, bounded in (("greater", "lower"), ("less", "upper")):
        one = MeanDifference(2000, side)
        one.update(arm, rng.standard_normal(3000) + 0.3 * arm)
        ends = one.interval(0.05)
        assert math.isfinite(getattr(ends, bounded))
        assert sum(math.isfinite(e) for e in (ends.lower, ends.upper)) == 1
        assert one.rejects(0.05) == (side == "greater")
        assert (one.log_e() > math.log(20)) == (side == "greater")


def test_the_interval_that_gbstats_computes() -> None:
    """gbstats 0.8.0, SequentialTwoSidedTTest with tuning parameter 600, on the same sums."""
    m = MeanDifference(600)
    for arm, n, total, squares in (
        (m.arms[0], 3001, 1396.87, 52377.9767),
        (m.arms[1], 3461, 2422.7, 134698.29),
    ):
        arm.n, arm.mean, arm.m2 = n, total / n, squares - total**2 / n
    interval = m.unguarded_interval(0.05)
    assert interval.lower == pytest.approx(-0.18759161669654129, abs=1e-12)
    assert interval.upper == pytest.approx(0.6566552621480575, abs=1e-12)


def test_tightest_at_the_planned_size() -> None:
    widths = [
        float(asymptotic_radius(10_000, 1.0, 0.05, asymptotic_precision(planned)))
        for planned in (1_000, 10_000, 100_000)
    ]
    assert widths[1] == min(widths)


def test_the_gate_names_its_reason_until_it_opens() -> None:
    rng = np.random.default_rng(1)
    m = MeanDifference(1000, gate=Gate(effective=50, records=600))
    assert m.readiness.status is Status.NOT_YET
    m.update(np.ones(500), rng.standard_normal(500))
    assert "500 of 600 records before the start" in m.readiness.reason
    m.update(np.zeros(40), rng.standard_normal(40))
    m.update(np.ones(100), rng.standard_normal(100))
    assert m.readiness.status is Status.NOT_YET
    assert m.readiness.reason.startswith("champion has ")
    assert "of the 50 needed" in m.readiness.reason
    assert m.interval() == MeanDifference().interval()
    assert m.log_e(1e9) == 0.0
    assert m.unguarded_interval().is_finite
    m.update(np.zeros(400), rng.standard_normal(400))
    assert m.readiness.ready
    assert m.readiness.reason == ""
    assert m.interval().is_finite
    m.update([0.0], [1e9])  # one record now carries the whole variance
    assert not m.readiness.ready


def test_a_rare_events_effective_number_is_its_count() -> None:
    m = CentralMoments()
    m.add(np.concatenate((np.ones(37), np.zeros(100_000))))
    assert m.effective == pytest.approx(37, rel=0.01)
    constant = MeanDifference()
    constant.update(np.arange(1000) % 2, np.full(1000, 3.0))
    assert not constant.readiness.ready
    assert constant.estimate is None


def _false_alarms(
    rng: np.random.Generator, share: float, sigma: float, gate: Gate, side: str, streams: int
) -> int:
    """Streams of 6,000 lognormal records ever rejected, looked at 300 times."""
    rejected = 0
    for _ in range(streams):
        m = MeanDifference(3000, side, gate=gate)
        for _ in range(300):
            m.update(rng.random(20) < share, np.exp(sigma * rng.standard_normal(20)))
            if m.rejects(0.05):
                rejected += 1
                break
    return rejected


@pytest.mark.simulation
def test_the_plain_form_fails_at_a_canary_with_heavy_tails_and_the_gate_repairs_it() -> None:
    """Plain: more than 20 % of 80 A/A streams (1e-6 to fail); gated: at most what 5 % allows."""
    plain = _false_alarms(np.random.default_rng(2), 0.05, 2.0, WIDE_OPEN, "two-sided", 80)
    assert plain > 0.2 * 80
    for side in ("two-sided", "greater", "less"):
        gated = _false_alarms(np.random.default_rng(2), 0.05, 2.0, Gate(), side, 80)
        assert gated <= int(stats.binom.isf(1e-6, 80, 0.05))


def test_correlated_traffic_is_rejected() -> None:
    rng = np.random.default_rng(3)
    for phi in (0.3, 0.6, 0.9):
        m = MeanDifference(4000)
        arm = rng.integers(0, 2, 6000)
        x = np.where(arm == 1, ar1(rng, 6000, phi**0.5), ar1(rng, 6000, phi**0.5))
        m.update(arm, x)
        assert m.readiness.status is Status.DEPENDENT
        assert "blocks of at least" in m.readiness.reason
        assert m.interval() == MeanDifference().interval()
        assert not m.rejects(0.05)


def test_blocks_restore_the_guarantee_under_correlation() -> None:
    """60 A/A streams of 20,000 per arm, AR(.9) in each arm: the plain form mostly fails."""
    rng = np.random.default_rng(4)
    block = enough_per_block(0.9)
    assert block == 48
    plain = blocked = ready = 0
    for _ in range(60):
        naive = MeanDifference(20_000, gate=WIDE_OPEN)
        batch = BlockDifference(block, 20_000)
        x = [ar1(rng, 20_000, 0.9), ar1(rng, 20_000, 0.9)]
        arm = np.repeat([0, 1], 500)
        out = [False, False]
        for i in range(0, 20_000, 500):
            values = np.concatenate((x[0][i : i + 500], x[1][i : i + 500]))
            naive.update(arm, values)
            batch.update(arm, values)
            out = [out[0] or naive.rejects(0.05), out[1] or batch.rejects(0.05)]
        plain, blocked = plain + out[0], blocked + out[1]
        ready += batch.readiness.ready
    assert plain > 30
    assert blocked <= int(stats.binom.isf(1e-6, 60, 0.05))
    assert ready >= 50


def test_blocks_that_are_too_short_are_refused() -> None:
    rng = np.random.default_rng(5)
    m = BlockDifference(2, 1000)
    m.update(np.repeat([0, 1], 5000), np.concatenate((ar1(rng, 5000, 0.9), ar1(rng, 5000, 0.9))))
    assert m.readiness.status is Status.DEPENDENT
    assert "blocks of 2" in m.readiness.reason


def test_a_block_is_the_mean_of_its_records() -> None:
    m = BlockDifference(3, gate=WIDE_OPEN)
    m.update(np.zeros(7), [1, 2, 3, 4, 5, 6, 100.0])
    assert m.arms[0].n == 2
    assert m.arms[0].mean == 3.5
    m.update(np.zeros(2), [1.0, 1.0])
    assert m.arms[0].n == 3
    assert m.arms[0].mean == pytest.approx((2 + 5 + 34) / 3)


# --- by unit and with covariates ----------------------------------------------------------------


def test_units_of_one_record_are_records() -> None:
    rng = np.random.default_rng(6)
    arm, x = rng.integers(0, 2, 900), rng.standard_normal(900) + 5
    records, units = MeanDifference(500), UnitDifference(500)
    records.update(arm, x)
    units.update(arm, x, np.ones(900))
    assert units.estimate == pytest.approx(records.estimate)
    ours, theirs = units.unguarded_interval(), records.unguarded_interval()
    assert ours.to_list() == pytest.approx(theirs.to_list())


def test_returning_users_are_one_unit() -> None:
    """A/A of 80 streams: by record too many rejections, by user at most what 5 % allows."""
    rng = np.random.default_rng(7)
    by_record = by_user = 0
    for _ in range(80):
        users = 600
        arm, visits = rng.integers(0, 2, users), 1 + rng.poisson(20, users)
        taste = rng.standard_normal(users)
        owner = np.repeat(np.arange(users), visits)
        x = taste[owner] + 0.3 * rng.standard_normal(owner.size)
        sums = np.bincount(owner, x)
        records, units = MeanDifference(4000, gate=WIDE_OPEN), UnitDifference(400)
        out = [False, False]
        for part in np.array_split(np.arange(users), 30):
            mine = np.isin(owner, part)
            records.update(arm[owner[mine]], x[mine])
            units.update(arm[part], sums[part], visits[part])
            out = [out[0] or records.rejects(0.05), out[1] or units.rejects(0.05)]
        by_record, by_user = by_record + out[0], by_user + out[1]
    assert by_record > 20
    assert by_user <= int(stats.binom.isf(1e-6, 80, 0.05))


def test_covariates_narrow_the_interval_as_much_as_they_explain() -> None:
    rng = np.random.default_rng(8)
    n = 8000
    arm, x = (rng.random(n) < 0.3).astype(float), rng.standard_normal((n, 2))
    y = x @ [2.0, -1.0] + rng.standard_normal(n) + 0.12 * arm
    adjusted, plain = AdjustedDifference(2, n), MeanDifference(n)
    adjusted.update(arm, y, x, 0.3)
    plain.update(arm, y)
    assert adjusted.readiness.ready
    assert adjusted.explained == pytest.approx(5 / 6, abs=0.03)
    ratio = adjusted.interval().width / plain.interval().width
    assert ratio == pytest.approx(math.sqrt(1 / 6), rel=0.1)
    assert 0.12 in adjusted.interval()
    assert 0.0 not in adjusted.interval()
    assert 0.0 in plain.interval()


def test_wrong_fits_leave_the_mean_unbiased() -> None:
    """A covariate of no use, an outcome far from linear, a canary of 10 %: 60 A/A streams."""
    rng = np.random.default_rng(9)
    rejected = 0
    for _ in range(60):
        m = AdjustedDifference(1, 3000)
        for _ in range(30):
            x = rng.standard_normal(200)
            y = np.where(x > 1, 3.0, np.abs(x)) + rng.standard_normal(200)
            m.update(rng.random(200) < 0.1, y, x, 0.1)
            if m.rejects(0.05):
                rejected += 1
                break
    assert rejected <= int(stats.binom.isf(1e-6, 60, 0.05))


def test_fits_use_the_past_only() -> None:
    rng = np.random.default_rng(10)
    m = AdjustedDifference(1, 100)
    arm, x = rng.integers(0, 2, 256), rng.standard_normal(256)
    m.update(arm, 5 * x, x, 0.5)
    assert m.terms.n == 0
    assert "fitted once both arms have" in AdjustedDifference(1, 100).readiness.reason
    m.update([1, 0], [7.0, 1.0], [0.0, 0.0], 0.5)
    assert m.terms.n == 2
    assert m.terms.mean == pytest.approx((7 / 0.5 - 1 / 0.5) / 2, abs=1e-4)


# --- normal data with known variance ------------------------------------------------------------


def test_msprt_formula_and_interval() -> None:
    rng = np.random.default_rng(11)
    n, sigma, tau = 400, 2.0, 0.3
    test = MixtureSPRT(sigma, tau)
    arm, x = np.repeat([0, 1], n), rng.normal(0, sigma, 2 * n)
    test.update(arm, x)
    d = x[n:].mean() - x[:n].mean()
    direct = 0.5 * math.log(2 * sigma**2 / (2 * sigma**2 + n * tau**2))
    direct += n**2 * tau**2 * d**2 / (4 * sigma**2 * (2 * sigma**2 + n * tau**2))
    assert test.log_e == pytest.approx(direct, abs=1e-10)
    interval = test.interval(0.05)
    for end in (interval.lower, interval.upper):
        moved = MixtureSPRT(sigma, tau, null=end)
        moved.update(arm, x)
        assert moved.log_e == pytest.approx(math.log(20), abs=1e-9)
    assert MixtureSPRT(1.0, 1.0).interval().to_list() == [None, None]
    widths = []
    for factor in (0.3, 1.0, 3.0):
        tuned = MixtureSPRT(sigma, factor * tune_tau(sigma, n))
        tuned.update(arm, x)
        widths.append(tuned.interval().width)
    assert widths[1] == min(widths)


def test_msprt_seldom_rejects_when_nothing_differs() -> None:
    """400 streams with arms of 1:4, 60 looks: failing by chance has probability < 1e-6."""
    rng = np.random.default_rng(12)
    rejected = 0
    for _ in range(400):
        test = MixtureSPRT(1.0, 0.2)
        for _ in range(60):
            test.update(rng.random(50) < 0.2, rng.standard_normal(50))
        rejected += test.rejects(0.05)
    assert rejected <= int(stats.binom.isf(1e-6, 400, 0.05))


# --- spread -------------------------------------------------------------------------------------


def test_squares_about_the_past_mean_add_up_to_the_variance() -> None:
    rng = np.random.default_rng(13)
    x = rng.standard_normal(500) + 1e5
    m = SpreadDifference()
    for part in np.array_split(x, 40):
        m.update(np.zeros(part.size), part)
    assert m.variances()[0] == pytest.approx(x.var(ddof=1), rel=1e-9)
    assert m.variances()[1] is None


def test_a_larger_spread_is_found_and_an_equal_one_is_not() -> None:
    rng = np.random.default_rng(14)
    arm = rng.integers(0, 2, 30_000)
    for factor in (1.0, 1.2):
        m = SpreadDifference(20_000)
        m.update(arm, rng.standard_normal(30_000) * np.where(arm == 1, factor, 1.0))
        assert m.readiness.ready
        assert m.rejects(0.05) == (factor > 1)
        assert factor**2 - 1 in m.interval()


def test_bounded_variance_covers_and_closes_in() -> None:
    """60 streams of Beta(2, 5) looked at 15 times: failing by chance has probability < 1e-6."""
    rng = np.random.default_rng(15)
    truth = 9.0 * float(stats.beta(2, 5).var())
    misses = 0
    for _ in range(60):
        v = BoundedVariance(-1.0, 2.0)
        for _ in range(15):
            v.update(3.0 * rng.beta(2, 5, 201) - 1.0)
        interval = v.interval()
        misses += truth not in interval
        assert interval.width < 0.5 * truth
        assert v.deviation().upper == pytest.approx(math.sqrt(interval.upper))
        assert v.estimate in interval
    assert misses <= int(stats.binom.isf(1e-6, 60, 0.05))
    v.update([5.0, -3.0])
    assert v.out_of_bounds == 2


# --- arguments ----------------------------------------------------------------------------------


def test_bad_settings_are_named() -> None:
    with pytest.raises(SequentialError, match="planned"):
        MeanDifference(0)
    with pytest.raises(SequentialError, match="alternative"):
        PairedMean(10, "better")
    with pytest.raises(SequentialError, match="effective must be above 0"):
        Gate(effective=0)
    with pytest.raises(SequentialError, match="block must be at least 2"):
        BlockDifference(1)
    with pytest.raises(SequentialError, match="1 to 8"):
        AdjustedDifference(9)
    with pytest.raises(SequentialError, match="shape"):
        AdjustedDifference(2).update([1, 0], [1.0, 2.0], [1.0, 2.0], 0.5)
    with pytest.raises(SequentialError, match="counts must hold whole numbers"):
        UnitDifference().update([1], [1.0], [0])
    with pytest.raises(SequentialError, match="deviation"):
        MixtureSPRT(0.0, 1.0)
    with pytest.raises(SequentialError, match="sided"):
        asymptotic_radius(1, 1, 0.05, 1, sided=3)
