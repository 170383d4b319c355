"""Sequential McNemar and its form with a margin."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import special

from understudy.shadow.sequential import (
    PairedMargin,
    PairedTest,
    SequentialError,
    pair_differences,
    tune_concentration,
)


def test_formula() -> None:
    test = PairedTest(concentration=5.0)
    test.update_counts(wins=30, losses=12, ties=500)
    expected = special.betaln(35, 17) - special.betaln(5, 5) + 42 * math.log(2)
    assert test.log_e == pytest.approx(expected, abs=1e-10)
    assert test.estimate == pytest.approx(18 / 542)


def test_pair_differences_favour_the_challenger_when_only_it_is_right() -> None:
    d = pair_differences([1, 1, 0, 0], [1, 0, 1, 0])
    assert d.tolist() == [0.0, -1.0, 1.0, 0.0]
    with pytest.raises(SequentialError, match="challenger"):
        pair_differences([1, 0], [1])
    with pytest.raises(SequentialError, match="champion"):
        pair_differences([2, 0], [1, 0])


@pytest.mark.parametrize("side", ["two-sided", "greater", "less"])
def test_margin_zero_is_the_plain_test(side: str) -> None:
    plain, margin = PairedTest(5.0, side), PairedMargin(0.0, side, 5.0)
    for wins, losses in ((10, 2), (60, 40), (300, 360), (4000, 3500)):
        plain.update_counts(wins, losses, 100)
        margin.update_counts(wins, losses, 100)
        assert margin.log_e == pytest.approx(plain.log_e, abs=0.15)


def test_ties_do_not_matter_without_a_margin_and_help_against_one() -> None:
    for ties in (0, 10_000):
        zero, inferior = PairedMargin(0.0), PairedMargin(-0.01)
        zero.update_counts(10, 10, ties)
        inferior.update_counts(10, 10, ties)
        if not ties:
            before = zero.log_e, inferior.log_e
    assert zero.log_e == pytest.approx(before[0], abs=1e-9)
    assert inferior.log_e > before[1] + 3.0


def test_direction() -> None:
    better, worse = PairedTest(5.0, "greater"), PairedTest(5.0, "less")
    for test in (better, worse):
        test.update_counts(80, 30)
    assert better.log_e > 5.0 > 0.0 > worse.log_e
    up, down = PairedMargin(0.1, "greater"), PairedMargin(0.1, "less")
    for margin in (up, down):
        margin.update_counts(80, 30, 40)
    assert up.log_e > 3.0 > 0.0 > down.log_e


def test_interval_is_the_set_of_differences_not_rejected() -> None:
    counts = (90, 40, 870)
    probe = PairedMargin()
    probe.update_counts(*counts)
    interval = probe.interval(0.05)
    assert 0.05 in interval
    for end, side, inside in (
        (interval.lower, "greater", 1e-6),
        (interval.upper, "less", -1e-6),
    ):
        for shift, rejected in ((-inside, True), (inside, False)):
            test = PairedMargin(end + shift, side)
            test.update_counts(*counts)
            assert test.rejects(0.025) is rejected
    assert probe.interval(0.2).width < interval.width


def test_interval_at_the_edges() -> None:
    assert PairedMargin().interval().to_list() == [-1.0, 1.0]
    all_won = PairedMargin()
    all_won.update_counts(1000, 0)
    assert all_won.interval().upper == 1.0
    assert 0.95 < all_won.interval().lower < 1.0
    tied = PairedMargin()
    tied.update_counts(0, 0, 10**6)
    assert tied.interval().within(-1e-4, 1e-4)


@pytest.mark.parametrize("counts", [(5 * 10**8, 5 * 10**8, 0), (10**9, 0, 0), (3, 1, 10**9)])
@pytest.mark.parametrize("side", ["two-sided", "greater", "less"])
def test_a_thousand_million_pairs(counts: tuple[int, int, int], side: str) -> None:
    for test in (PairedTest(5.0, side), PairedMargin(-0.01, side)):
        test.update_counts(*counts)
        assert math.isfinite(test.log_e)
        assert 0.0 <= test.p_value <= 1.0


def test_peak_is_kept_and_is_what_rejects() -> None:
    test = PairedTest(3.0, "greater")
    test.update([1.0] * 20)
    peak = test.log_e
    test.update([-1.0] * 40)
    assert test.log_e < 0.0 < peak
    assert test.peak_log_e == pytest.approx(peak)
    assert test.rejects(0.05)
    assert test.p_value == pytest.approx(math.exp(-peak))


def test_tuned_concentration_is_near_the_best() -> None:
    gap, goal = 0.1, math.log(20.0)

    def pairs_needed(a: float) -> int:
        n = np.arange(1, 2000)
        k = n * (0.5 + gap)
        e = special.betaln(a + k, a + n - k) - special.betaln(a, a) + n * math.log(2)
        return int(n[np.argmax(e >= goal)])

    best = tune_concentration(gap, 0.05, sided=2)
    assert pairs_needed(best) <= min(pairs_needed(best * f) for f in (0.3, 0.5, 2.0, 3.0))
    assert tune_concentration(0.02) > tune_concentration(0.2)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: PairedTest(0.0), "concentration"),
        (lambda: PairedTest(5.0, "up"), "alternative"),
        (lambda: PairedMargin(1.0), "null"),
        (lambda: PairedMargin(0.0, concentration=1e9), "concentration"),
        (lambda: PairedTest().update([0.5]), "differences"),
        (lambda: PairedTest().update_counts(-1, 0), "wins"),
        (lambda: PairedMargin().interval(0.0), "alpha"),
        (lambda: tune_concentration(0.5), "effect"),
        (lambda: tune_concentration(0.1, sided=3), "sided"),
    ],
)
def test_errors_name_the_argument(make: object, name: str) -> None:
    with pytest.raises(SequentialError, match=rf"^{name} "):
        make()  # type: ignore[operator]
