"""Counts of events with a known share, and the check that the split was honoured."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import special

from understudy.shadow.sequential import RateTest, SequentialError, SplitCheck
from understudy.shadow.sequential.srm import log_dirichlet_mixture


def test_rate_formula() -> None:
    rho, k, w, n = 0.2, 20.0, 31, 90
    test = RateTest(concentration=k)
    test.update_counts(w, n - w, rho)
    expected = special.betaln(k * rho + w, k * (1 - rho) + n - w)
    expected -= special.betaln(k * rho, k * (1 - rho))
    expected -= w * math.log(rho) + (n - w) * math.log1p(-rho)
    assert test.log_e == pytest.approx(expected, abs=1e-10)


def test_a_null_ratio_moves_the_expected_share() -> None:
    # 1.5 times the rate at half the traffic: 3/5 of the events.
    shifted, plain = RateTest(1.5), RateTest()
    shifted.update_counts(66, 34, 0.5)
    plain.update_counts(66, 34, 0.6)
    assert shifted.log_e == pytest.approx(plain.log_e, abs=1e-10)


def test_direction_and_ratio_margin() -> None:
    worse, within = RateTest(1.0, "greater"), RateTest(2.0, "less")
    for test in (worse, within):
        test.update_counts(130, 100, 0.5)
    assert worse.log_e > 0.0
    assert within.log_e > 3.0  # "less than twice" is proven at 1.3
    assert RateTest(1.0, "less").log_e == 0.0


def test_epochs_multiply_and_interval_uses_all() -> None:
    ramp = RateTest()
    parts = []
    for rho, w, n in ((0.01, 5, 300), (0.05, 40, 500), (0.5, 700, 1200)):
        ramp.update_counts(w, n - w, rho)
        part = RateTest()
        part.update_counts(w, n - w, rho)
        parts.append(part)
    assert ramp.log_e == pytest.approx(sum(p.log_e for p in parts), abs=1e-9)
    assert ramp.estimate in ramp.interval()


def test_a_planned_ramp_pays_for_its_mixture_once() -> None:
    product, shared, last = RateTest(), RateTest(ramp=True), RateTest()
    for rho, w, n in ((0.01, 5, 300), (0.05, 40, 500), (0.5, 700, 1200)):
        product.update_counts(w, n - w, rho)
        shared.update_counts(w, n - w, rho)
    last.update_counts(700, 500, 0.5)
    assert shared.log_e > product.log_e + 1.0
    assert shared.interval().width < last.interval().width < product.interval().width
    # With a single epoch at 1/2 it is the same mixture, up to the quadrature.
    single = RateTest(ramp=True)
    single.update_counts(700, 500, 0.5)
    assert single.log_e == pytest.approx(last.log_e, abs=0.05)


@pytest.mark.parametrize("ramp", [False, True])
def test_interval_is_the_set_of_ratios_not_rejected(ramp: bool) -> None:
    probe = RateTest(ramp=ramp)
    probe.update_counts(60, 240, 0.25)
    interval = probe.interval(0.05)
    assert probe.estimate == pytest.approx(60 / 240 * 3)
    for ratio, rejected in (
        (interval.lower * 0.999, True),
        (interval.lower * 1.001, False),
        (interval.upper * 0.999, False),
        (interval.upper * 1.001, True),
    ):
        test = RateTest(ratio, ramp=ramp)
        test.update_counts(60, 240, 0.25)
        assert test.rejects(0.05) is rejected


def test_rate_extremes() -> None:
    empty = RateTest()
    assert empty.estimate is None
    assert empty.interval().to_list() == [0.0, None]
    none = RateTest()
    none.update_counts(0, 500, 0.5)
    assert none.estimate == 0.0
    assert none.interval().lower == 0.0
    assert none.interval().upper < 0.05
    every = RateTest()
    every.update_counts(500, 0, 0.5)
    assert every.estimate == math.inf
    assert every.interval().lower > 20.0
    for w, n, rho in ((10**9, 10**9, 1e-6), (0, 10**9, 1 - 1e-6), (10**6, 10**9, 0.001)):
        for side in ("two-sided", "greater", "less"):
            for ramp in (True, False):
                huge = RateTest(1.0, side, ramp=ramp)
                huge.update_counts(w, n - w, rho)
                assert math.isfinite(huge.log_e)
                interval = huge.interval()
                assert interval.lower <= interval.upper
    assert huge.interval().width < 0.02


def test_sequential_srm_examples() -> None:
    # The documented examples of ssrm-test: ln of the Bayes factor along two streams, prior (1,1,1).
    null, prior = np.array([0.4, 0.4, 0.2]), np.ones(3)
    units = np.cumsum([[1, 0, 0], [0, 1, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], axis=0)
    marginals = [
        (-1.0986122886681096, -0.916290731874155),
        (-2.4849066497880004, -1.83258146374831),
        (-3.401197381662155, -2.748872195622465),
        (-4.499809670330265, -3.66516292749662),
        (-6.4457198193855785, -5.27460083993072),
    ]
    assert log_dirichlet_mixture(units, null, prior) == pytest.approx(
        [a - b for a, b in marginals], abs=1e-8
    )
    hours = np.cumsum([[20, 17, 9], [18, 21, 8], [4, 6, 4], [18, 19, 11]], axis=0)
    marginals = [
        (-7.028201432058012, -4.0776406466061985),
        (-11.947847738358888, -8.265946861099877),
        (-15.471401950257842, -11.610743519545139),
        (-19.96484521090386, -15.781031228536165),
    ]
    assert log_dirichlet_mixture(hours, null, prior) == pytest.approx(
        [a - b for a, b in marginals], abs=1e-8
    )


def test_srm_mixes_over_concentrations() -> None:
    shares, counts = np.array([0.9, 0.1]), np.array([880, 120])
    parts = [float(log_dirichlet_mixture(counts, shares, k * shares)) for k in (100.0, 1e4)]
    check = SplitCheck(shares)
    check.update_counts(counts)
    assert check.log_e == pytest.approx(np.logaddexp(*parts) - math.log(2), abs=1e-10)
    assert check.deviation() == pytest.approx((-0.02, 0.02))


def test_srm_detects_a_broken_split_and_accepts_a_correct_one() -> None:
    rng = np.random.default_rng(0)
    broken, honest = SplitCheck([0.5, 0.5]), SplitCheck([0.5, 0.5])
    broken.update((rng.random(20_000) < 0.53).astype(int))
    honest.update((rng.random(20_000) < 0.5).astype(int))
    assert broken.rejects(0.001)
    assert not honest.rejects(0.05)
    gross = SplitCheck([0.5, 0.5])
    gross.update(np.ones(60))
    assert gross.rejects(1e-4)


def test_srm_follows_a_ramp() -> None:
    rng = np.random.default_rng(1)
    check = SplitCheck([0.99, 0.01])
    for share in (0.01, 0.05, 0.25):
        arms = (rng.random(10_000) < share).astype(int)
        check.update(arms, [1 - share, share])
    assert not check.rejects(0.05)
    assert max(abs(d) for d in check.deviation()) < 0.01
    unaware = SplitCheck([0.99, 0.01])
    unaware.update_counts(check.counts)
    assert unaware.rejects(1e-6)


def test_srm_at_a_thousand_million_records() -> None:
    exact = SplitCheck([0.5, 0.3, 0.2])
    exact.update_counts([500_000_000, 300_000_000, 200_000_000])
    assert -25.0 < exact.log_e < -10.0
    off = SplitCheck([0.5, 0.3, 0.2])
    off.update_counts([500_300_000, 299_850_000, 199_850_000])
    assert off.rejects(1e-6)
    nobody = SplitCheck([1 - 1e-9, 1e-9])
    nobody.update_counts([10**9, 0])
    assert math.isfinite(nobody.log_e)
    # Shares that miss 1 by rounding must not count as evidence.
    rounded = SplitCheck([0.3333333333, 0.3333333333, 0.3333333333])
    rounded.update_counts([333_333_333] * 3)
    assert not rounded.rejects(0.5)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: RateTest(0.0), "null"),
        (lambda: RateTest(concentration=-1.0), "concentration"),
        (lambda: RateTest().update([1], 1.0), "share"),
        (lambda: RateTest().update_counts(1, -1, 0.5), "champion"),
        (lambda: [(t := RateTest())] + [t.update([1], (i + 1) / 20) for i in range(17)], "share"),
        (lambda: SplitCheck([1.0]), "shares"),
        (lambda: SplitCheck([0.5, 0.6]), "shares"),
        (lambda: SplitCheck([1.0, 0.0]), "shares"),
        (lambda: SplitCheck([0.5, 0.5], k=()), "k"),
        (lambda: SplitCheck([0.5, 0.5]).update([2]), "arms"),
        (lambda: SplitCheck([0.5, 0.5]).update_counts([1, 2, 3]), "counts"),
        (lambda: SplitCheck([0.5, 0.5]).update_counts([1, 2], [0.2, 0.3, 0.5]), "shares"),
    ],
)
def test_errors_name_the_argument(make: object, name: str) -> None:
    with pytest.raises(SequentialError, match=rf"^{name} "):
        make()  # type: ignore[operator]
