"""Bounded means: the hedged capital, its compact state, and the empirical Bernstein form."""

from __future__ import annotations

import math

import numpy as np
import pytest

from understudy.shadow.sequential import (
    BettingInterval,
    BettingTest,
    EmpiricalBernstein,
    SequentialError,
)


def _bets(x: np.ndarray, log_term: float) -> np.ndarray:
    t = np.arange(1, x.size + 1)
    mean = (0.5 + np.cumsum(x)) / (t + 1)
    variance = (0.25 + np.cumsum((x - mean) ** 2)) / (t + 1)
    before = np.concatenate(([0.25], variance[:-1]))
    return np.sqrt(2.0 * log_term / (before * t * np.log1p(t)))


def _hedged_on_a_dense_grid(x: np.ndarray, alpha: float) -> tuple[float, float]:
    """The set not rejected at any time, on 2,000 values of m around the mean."""
    reach = 8.0 * x.std() / math.sqrt(x.size) + 20.0 / x.size
    m = np.linspace(max(1e-6, x.mean() - reach), min(1 - 1e-6, x.mean() + reach), 2000)
    up, down = np.zeros(m.size), np.zeros(m.size)
    alive = np.ones(m.size, dtype=bool)
    for value, bet in zip(x, _bets(x, math.log(2 / alpha)), strict=True):
        up += np.log1p(np.minimum(bet, 0.5 / m) * (value - m))
        down += np.log1p(-np.minimum(bet, 0.5 / (1 - m)) * (value - m))
        alive &= np.maximum(up, down) < math.log(2 / alpha)
    return float(m[alive].min()), float(m[alive].max())


SAMPLES = {
    "coin": lambda rng, n: (rng.random(n) < 0.5).astype(float),
    "rare": lambda rng, n: (rng.random(n) < 0.01).astype(float),
    "skewed": lambda rng, n: rng.beta(10, 30, n),
    "narrow": lambda rng, n: rng.beta(250, 300, n),
    "near zero": lambda rng, n: 0.001 * rng.random(n),
    "near one": lambda rng, n: 1 - 0.01 * rng.random(n),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_the_compact_state_gives_the_interval_of_a_dense_grid(name: str) -> None:
    x = SAMPLES[name](np.random.default_rng(7), 3000)
    process = BettingInterval()
    process.update(x)
    interval = process.interval()
    lower, upper = _hedged_on_a_dense_grid(x, 0.05)
    assert interval.width == pytest.approx(upper - lower, rel=0.06)
    assert interval.lower == pytest.approx(lower, abs=0.05 * (upper - lower))
    assert interval.upper == pytest.approx(upper, abs=0.05 * (upper - lower))


def test_limits_are_never_tighter_than_the_capital_allows() -> None:
    # At one moment, with the cell's own cap, the exact ln K at the limit has reached the goal.
    rng = np.random.default_rng(3)
    for draw in SAMPLES.values():
        x = draw(rng, 512)
        process = BettingInterval()
        process.update(x)
        now = process._limits(process._logs[:, None, :])
        edges = process._edges
        bets = _bets(x, math.log(40.0))
        for m, sign in ((now.lower, 1.0), (now.upper, -1.0)):
            if m in (0.0, 1.0):
                continue
            cell = int(np.clip(np.searchsorted(edges, m) - 1, 0, process.cells - 1))
            cap = 0.5 / edges[cell + 1] if sign > 0 else 0.5 / (1.0 - edges[cell])
            exact = np.log1p(sign * np.minimum(bets, cap) * (x - m)).sum()
            assert exact >= math.log(40.0) - 1e-6


def test_interval_in_the_values_own_unit() -> None:
    rng = np.random.default_rng(0)
    x = rng.beta(2, 3, 500)
    plain, moved = BettingInterval(), BettingInterval(-5.0, 15.0)
    plain.update(x)
    moved.update(20.0 * x - 5.0)
    assert moved.interval().lower == pytest.approx(20.0 * plain.interval().lower - 5.0)
    assert moved.mean == pytest.approx(20.0 * plain.mean - 5.0)


@pytest.mark.parametrize(
    "make",
    [
        lambda: BettingInterval(0.0, 10.0),
        lambda: BettingTest(5.0, lower=0.0, upper=10.0),
        lambda: EmpiricalBernstein(0.0, 10.0),
    ],
)
def test_values_out_of_bounds_are_counted_and_left_out(make: object) -> None:
    clean, dirty = make(), make()  # type: ignore[operator]
    clean.update([1.0, 9.0, 10.0, 0.0])
    dirty.update([1.0, 11.0, 9.0, -0.5, 10.0, 0.0])
    assert (clean.out_of_bounds, dirty.out_of_bounds) == (0, 2)
    assert dirty.n == clean.n == 4
    assert dirty.moments.dump_state() == clean.moments.dump_state()
    both = dirty.merge(dirty)
    assert both.out_of_bounds == 4


def test_running_interval_only_narrows() -> None:
    rng = np.random.default_rng(12)
    for process in (BettingInterval(), EmpiricalBernstein()):
        before = process.interval()
        assert (before.lower, before.upper) == (0.0, 1.0)
        for _ in range(30):
            process.update(rng.random(50))
            after = process.interval()
            assert before.lower <= after.lower <= after.upper <= before.upper
            before = after
        assert before.width < 0.16


def test_merged_replicas_are_nearly_as_tight_as_one() -> None:
    rng = np.random.default_rng(2)
    x = rng.beta(2, 5, 8000)
    for cls in (BettingInterval, EmpiricalBernstein):
        whole, parts = cls(), [cls() for _ in range(4)]
        whole.update(x)
        for i, part in enumerate(parts):
            part.update(x[i::4])
        merged = parts[0].merge(parts[1]).merge(parts[2]).merge(parts[3])
        assert x.mean() in merged.interval()
        assert whole.interval().width < merged.interval().width < 1.6 * whole.interval().width


def test_betting_test_formula() -> None:
    x = np.random.default_rng(5).beta(3, 3, 200)
    m = 0.4
    for side, log_term in (("greater", math.log(20)), ("less", math.log(20)), ("two-sided", None)):
        bets = _bets(x, log_term or math.log(40))
        up = np.log1p(np.minimum(bets, 0.5 / m) * (x - m)).sum()
        down = np.log1p(-np.minimum(bets, 0.5 / (1 - m)) * (x - m)).sum()
        expected = {"greater": up, "less": down}.get(side, np.logaddexp(up, down) - math.log(2))
        test = BettingTest(m, side)
        test.update(x)
        assert test.log_e == pytest.approx(expected, abs=1e-9)
        assert test.peak_log_e >= test.log_e


def test_empirical_bernstein_formula() -> None:
    x = np.random.default_rng(5).beta(3, 3, 300)
    bets = np.minimum(_bets(x, math.log(40)), 0.5)
    t = np.arange(1, x.size + 1)
    before = np.concatenate(([0.5], ((0.5 + np.cumsum(x)) / (t + 1))[:-1]))
    v, psi = 4 * (x - before) ** 2, (-np.log1p(-bets) - bets) / 4
    total = np.cumsum(bets)
    centre = np.cumsum(bets * x) / total
    half = (math.log(40) + np.cumsum(v * psi)) / total
    process = EmpiricalBernstein()
    process.update(x)
    assert process.interval().lower == pytest.approx(max(0.0, (centre - half).max()))
    assert process.interval().upper == pytest.approx(min(1.0, (centre + half).min()))


def test_constant_and_extreme_values_stay_finite() -> None:
    for value in (0.0, 1.0, 0.5, 1e-12):
        for process in (BettingInterval(), EmpiricalBernstein()):
            process.update(np.full(20_000, value))
            interval = process.interval()
            assert value in interval
            assert interval.width < 0.01
        test = BettingTest(0.25)
        test.update(np.full(100_000, value))
        assert math.isfinite(test.log_e)
        assert test.log_e > 100.0


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: BettingInterval(1.0, 1.0), "upper"),
        (lambda: BettingInterval(alpha=0.0), "alpha"),
        (lambda: BettingInterval(cells=1000), "cells"),
        (lambda: BettingTest(1.0), "null"),
        (lambda: BettingTest(0.5, "up"), "alternative"),
        (lambda: EmpiricalBernstein(2.0, 1.0), "upper"),
        (lambda: BettingInterval().update([[1.0]]), "values"),
        (lambda: BettingInterval().merge(BettingInterval(0.0, 2.0)), "other"),
        (lambda: BettingInterval().merge(BettingInterval(alpha=0.1)), "other"),
    ],
)
def test_errors_name_the_argument(make: object, name: str) -> None:
    with pytest.raises(SequentialError, match=rf"^{name} "):
        make()  # type: ignore[operator]
