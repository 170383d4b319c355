"""Quantiles of one arm and of two, and the histograms they are read from."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import special, stats

from understudy.shadow.sequential import (
    KolmogorovSmirnov,
    QuantileComparison,
    QuantileSequence,
    SequentialError,
    edges_around,
    fold,
    quantile_ab_p_value,
    quantile_shapes,
)
from understudy.shadow.sequential.histogram import (
    TwoHistograms,
    bucket_counts,
    pack_counts,
    pack_edges,
    unpack_counts,
    unpack_edges,
)
from understudy.shadow.sequential.two_quantiles import _joined, _log_e_between

SKETCH = 2.0 ** (np.arange(-20 * 64, 12 * 64 + 1) / 64)


def lognormal(rng: np.random.Generator, n: int, shift: float = 0.0) -> np.ndarray:
    return 0.02 * np.exp(0.5 * rng.standard_normal(n) + shift)


# --- histograms ---------------------------------------------------------------------------------


@settings(max_examples=50)
@given(st.lists(st.integers(0, 2**50), min_size=1, max_size=40))
def test_counts_survive_packing(values: list[int]) -> None:
    counts = np.array(values, dtype=np.int64)
    assert (unpack_counts("c", pack_counts(counts), counts.size) == counts).all()
    with pytest.raises(SequentialError, match=f"hold {counts.size + 1} counts"):
        unpack_counts("c", pack_counts(counts), counts.size + 1)


def test_logarithmic_edges_are_three_integers_and_others_are_exact() -> None:
    assert pack_edges(SKETCH) == {"per_doubling": 64, "first": -1280, "last": 768}
    odd = np.array([-1.0, 0.1, 0.30000000000000004, 7.0])
    for edges in (SKETCH, odd, edges_around(0.031, per_doubling=17)):
        assert np.array_equal(unpack_edges(json.loads(json.dumps(pack_edges(edges)))), edges)


def test_edges_around_are_edges_of_the_sketch_and_folding_is_exact() -> None:
    rng = np.random.default_rng(0)
    near = edges_around(0.05)
    assert near.size == 257
    assert np.isin(np.round(np.log2(near) * 64), np.round(np.log2(SKETCH) * 64)).all()
    x = lognormal(rng, 5000)
    assert (fold(bucket_counts(SKETCH, x), SKETCH, near) == bucket_counts(near, x)).all()
    with pytest.raises(SequentialError, match="subset"):
        fold(bucket_counts(SKETCH, x), SKETCH, near * 1.001)


def test_upper_edges_are_inclusive() -> None:
    both = TwoHistograms([1.0, 2.0])
    both.update([0, 0, 1, 1], [1.0, 1.5, 2.0, 2.5])
    assert both.counts.tolist() == [[1, 1, 0], [0, 1, 1]]


@pytest.mark.parametrize("edges", [[], [1.0, 1.0], [2.0, 1.0], [math.inf], [[1.0]], ["a"]])
def test_edges_that_do_not_increase_are_rejected(edges: object) -> None:
    with pytest.raises(SequentialError, match="edges"):
        TwoHistograms(edges)  # type: ignore[arg-type]


@pytest.mark.parametrize("counts", [[1, 2], [1, 2, -1], [1, 2, 0.5], [1, 2, math.nan]])
def test_invalid_counts_are_rejected(counts: list[float]) -> None:
    with pytest.raises(SequentialError, match="counts"):
        QuantileSequence([1.0, 2.0], 0.5).update_counts(counts)


# --- one arm ------------------------------------------------------------------------------------


def test_formula_of_the_beta_binomial_mixture() -> None:
    q = QuantileSequence([1.0, 2.0, 3.0], 0.9, planned=500)
    q.update_counts([300, 500, 120, 80])
    a, b = quantile_shapes(0.9, 500)
    for x, k in ((1.0, 300), (2.0, 800), (3.0, 920)):
        direct = special.betaln(a + k, b + 1000 - k) - special.betaln(a, b)
        direct -= k * math.log(0.9) + (1000 - k) * math.log(0.1)
        assert q.log_e(x) == pytest.approx(direct, abs=1e-9)
    assert q.log_e_at_edges() == pytest.approx([q.log_e(x) for x in (1.0, 2.0, 3.0)])
    # Within the bucket (2, 3] lies the count 900 that fits best: nothing is excluded there.
    assert q.log_e(2.5) < q.log_e(3.0)
    assert q.log_e(2.5) < 0.0


def test_p99_is_finite_from_1500_requests_on() -> None:
    """With 15 expected above p99, fewer than one stream in 100 lacks an upper end at 95 %."""
    rng = np.random.default_rng(2)
    ends = {1_500: 0, 10_000: 0}
    for _ in range(200):
        for planned in ends:
            q = QuantileSequence(SKETCH, 0.99, planned=planned)
            q.update(lognormal(rng, 1500))
            ends[planned] += q.interval(0.05).is_finite
    # P(no finite end) for a stream is that of a count which leaves log E below ln 20; counted here.
    for planned, finite in ends.items():
        a, b = quantile_shapes(0.99, planned)
        above = np.arange(0, 60)
        k = 1500 - above
        log_e = special.betaln(a + k, b + above) - special.betaln(a, b)
        log_e -= k * math.log(0.99) + above * math.log(0.01)
        # The edge above all records has no record above it, so it is excluded whatever was seen.
        assert log_e[0] >= math.log(20)
        assert finite == 200


@pytest.mark.simulation
def test_quantile_interval_covers_at_every_time() -> None:
    """150 streams, looked at 40 times: failing by chance has probability < 1e-6."""
    rng = np.random.default_rng(11)
    streams = 150
    limit = int(stats.binom.isf(1e-6, streams, 0.05))
    for p in (0.5, 0.99):
        truth = 0.02 * math.exp(0.5 * stats.norm.ppf(p))
        misses = 0
        for _ in range(streams):
            q = QuantileSequence(SKETCH, p, planned=2_000)
            out = False
            for _ in range(40):
                q.update(lognormal(rng, 100))
                out = out or truth not in q.interval(0.05)
            misses += out
        assert misses <= limit


def test_interval_narrows_around_the_estimate() -> None:
    rng = np.random.default_rng(3)
    q = QuantileSequence(SKETCH, 0.95, planned=20_000)
    widths = []
    for n in (1_000, 9_000, 90_000):
        q.update(lognormal(rng, n))
        interval = q.interval(0.05)
        assert q.estimate is not None
        assert q.estimate in interval
        widths.append(interval.width)
    assert widths[0] > 2 * widths[1] > 4 * widths[2]


def test_a_quantile_outside_the_edges_has_an_infinite_end() -> None:
    q = QuantileSequence([0.001, 0.002], 0.5)
    q.update(np.full(1000, 0.01))
    assert q.interval().lower == 0.002
    assert q.interval().upper == math.inf
    assert q.estimate is None
    q = QuantileSequence([0.1, 0.2], 0.5)
    q.update(np.full(1000, 0.01))
    assert q.interval().lower == -math.inf
    assert q.interval().upper == 0.1
    assert QuantileSequence([0.1], 0.5).interval() == QuantileSequence([0.2], 0.5).interval()


# --- two arms -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("p", "offset", "printed"),
    [(0.5, 70, 0.814704), (0.5, 85, 0.0838055), (0.5, 100, 0.0054947), (0.9, 55, 0.0340463)],
)
def test_published_p_values_of_quantile_ab_tests(p: float, offset: int, printed: float) -> None:
    a = np.arange(1, 1001)
    got = quantile_ab_p_value(a, a + offset, p)
    assert got == pytest.approx(printed, abs=0.51e-6 if printed > 0.5 else 0.51e-7)
    assert quantile_ab_p_value(a + offset, a, p) == pytest.approx(got, rel=1e-12)


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32),
    side=st.sampled_from(["two-sided", "greater", "less"]),
    p=st.sampled_from([0.1, 0.5, 0.99]),
    margin=st.sampled_from([0.0, 0.003, -0.003]),
    ratio=st.sampled_from([1.0, 1.05, 0.8]),
    independent=st.booleans(),
)
@example(seed=3838, side="two-sided", p=0.99, margin=0.0, ratio=0.8, independent=False)
def test_the_shortcuts_find_the_minimum_over_all_buckets(
    seed: int, side: str, p: float, margin: float, ratio: float, independent: bool
) -> None:
    rng = np.random.default_rng(seed)
    edges = edges_around(0.03 * math.exp(rng.normal()), per_doubling=int(rng.integers(3, 65)))
    q = QuantileComparison(
        edges, p, side, margin=margin, ratio=ratio, planned=300, independent=independent
    )
    n = int(10 ** rng.uniform(0.5, 4))
    arm = rng.integers(0, 2, n)
    x = lognormal(rng, n, 0.0) * np.where(arm == 1, rng.choice([0.5, 1.0, 1.1, 2.0]), 1.0)
    peak = 0.0
    for part in np.array_split(np.arange(n), 5):
        q.update(arm[part], x[part])
        peak = max(peak, q.log_e)
        assert q.peak_log_e == pytest.approx(peak, abs=1e-9)
    n0, n1, counts, _, _ = q._candidates()
    if not (n0 and n1):
        assert q.log_e == 0.0
        return
    sign = {"two-sided": 0, "greater": 1, "less": -1}[side]
    e0 = _log_e_between(counts[0], counts[1], n0, p, q._shapes, sign)
    e1 = _log_e_between(counts[2], counts[3], n1, p, q._shapes, -sign)
    everywhere = _joined(e0, e1, q.independent)
    assert q.log_e == pytest.approx(float(everywhere.min()), abs=1e-9)


def test_interval_by_inversion_equals_that_of_all_pairs() -> None:
    rng = np.random.default_rng(5)
    edges = edges_around(0.02, doublings=1.5, per_doubling=16)
    for independent in (True, False):
        q = QuantileComparison(edges, 0.5, planned=300, independent=independent)
        arm = rng.integers(0, 2, 3000)
        q.update(arm, lognormal(rng, 3000, 0.0) * (1 + 0.3 * arm))
        ends = np.concatenate(([-math.inf], edges, [math.inf]))
        below = [np.concatenate(([0.0], np.cumsum(q.arms.counts[a]))) for a in (0, 1)]
        e = [_log_e_between(b[:-1], b[1:], b[-1], 0.5, q._shapes, 0) for b in below]
        kept = _joined(e[0][:, None], e[1][None, :], independent) < math.log(20)
        i, j = np.nonzero(kept)
        interval = q.difference(0.05)
        assert interval.lower == pytest.approx((ends[j] - ends[i + 1]).min())
        assert interval.upper == pytest.approx((ends[j + 1] - ends[i]).max())
        ratio = q.ratio_interval(0.05)
        assert ratio.lower == pytest.approx((ends[j] / ends[i + 1]).min())
        assert ratio.upper == pytest.approx((ends[j + 1] / ends[i]).max())
        assert 1.3 in ratio
        assert 1.0 not in ratio
        assert not interval.lower <= 0.0 <= interval.upper


def test_difference_is_infinite_while_an_arm_is_empty() -> None:
    q = QuantileComparison(edges_around(0.02), 0.5)
    q.update(np.zeros(1000), np.full(1000, 0.02))
    assert q.difference().to_list() == [None, None]
    assert q.ratio_interval().to_list() == [0.0, None]
    assert q.log_e == 0.0


@pytest.mark.simulation
@pytest.mark.parametrize("side", ["two-sided", "greater", "less"])
@pytest.mark.parametrize("challenger", [0.5, 0.1])
def test_equal_quantiles_are_rarely_distinguished(side: str, challenger: float) -> None:
    """400 A/A streams, 40 looks: failing by chance has probability < 1e-6."""
    rng = np.random.default_rng(17)
    rejected = 0
    for _ in range(400):
        q = QuantileComparison(edges_around(0.03), 0.9, side, planned=1_000)
        for _ in range(40):
            arm = rng.random(100) < challenger
            q.update(arm, lognormal(rng, 100))
        rejected += q.rejects(0.05)
    assert rejected <= int(stats.binom.isf(1e-6, 400, 0.05))


@pytest.mark.simulation
def test_margin_and_ratio_at_the_edge_of_the_null() -> None:
    """The challenger is exactly 10 % slower, which is allowed: 200 streams, < 1e-6 to fail."""
    rng = np.random.default_rng(23)
    rejected, found = 0, 0
    for _ in range(200):
        arm = rng.integers(0, 2, 8000)
        x = lognormal(rng, 8000) * np.where(arm == 1, 1.1, 1.0)
        allowed = QuantileComparison(edges_around(0.02), 0.5, "greater", ratio=1.1, planned=4_000)
        strict = QuantileComparison(edges_around(0.02), 0.5, "greater", planned=4_000)
        for part in np.array_split(np.arange(8000), 20):
            allowed.update(arm[part], x[part])
            strict.update(arm[part], x[part])
        rejected += allowed.rejects(0.05)
        found += strict.rejects(0.05)
    assert rejected <= int(stats.binom.isf(1e-6, 200, 0.05))
    assert found >= 190


def test_bad_settings_are_named() -> None:
    with pytest.raises(SequentialError, match="ratio"):
        QuantileComparison([-1.0, 1.0], 0.5, ratio=1.1)
    with pytest.raises(SequentialError, match="alternative"):
        QuantileComparison([1.0], 0.5, "slower")
    with pytest.raises(SequentialError, match="independent"):
        QuantileComparison([1.0], 0.5, independent=1)  # type: ignore[arg-type]
    with pytest.raises(SequentialError, match="p must"):
        QuantileSequence([1.0], 99)
    with pytest.raises(SequentialError, match="edges must be above 0"):
        QuantileComparison([-1.0, 1.0], 0.5).ratio_interval()
    with pytest.raises(SequentialError, match="values must be as long as arms"):
        QuantileComparison([1.0], 0.5).update([1, 0], [1.0])
    with pytest.raises(SequentialError, match="arms must hold only 0 and 1"):
        QuantileComparison([1.0], 0.5).update([2], [1.0])


def test_numbers_stay_finite_at_a_billion_records() -> None:
    edges = edges_around(0.02, per_doubling=32)
    shape = np.exp(-0.5 * (np.log(edges / 0.02) / 0.5) ** 2)
    counts = np.concatenate((np.rint(1e9 * shape / shape.sum()), [5.0]))
    moved = np.concatenate(([0.0] * 10, counts[:-10]))
    for side in ("two-sided", "greater", "less"):
        q = QuantileComparison(edges, 0.99, side, planned=1e6)
        q.update_counts(counts, moved)
        assert math.isfinite(q.log_e)
        assert (q.log_e > 1e4) == (side != "less")
        assert q.p_value == (0.0 if side != "less" else 1.0)
    assert q.difference().is_finite


# --- the whole distribution ---------------------------------------------------------------------


def test_only_different_distributions_are_distinguished() -> None:
    """200 A/A streams, 20 looks: < 1e-6 to fail; a shift of 0.3 in log time is found in 3,000."""
    rng = np.random.default_rng(29)
    rejected = 0
    for _ in range(200):
        ks = KolmogorovSmirnov(edges_around(0.02), 100)
        best = 1.0
        for _ in range(20):
            ks.update(rng.integers(0, 2, 200), lognormal(rng, 200))
            best = min(best, ks.p_value)
        rejected += best <= 0.05
    assert rejected <= int(stats.binom.isf(1e-6, 200, 0.05))
    arm = rng.integers(0, 2, 3000)
    ks.update(arm, lognormal(rng, 3000) * np.exp(0.3 * arm))
    assert ks.rejects(0.05)
    gap, where = ks.distance
    assert where is not None
    assert gap > 0.05
    lower0, upper0, lower1, upper1 = ks.band(0.05)
    assert (lower0 <= upper0).all()
    assert (lower0 > upper1).any() or (lower1 > upper0).any()
