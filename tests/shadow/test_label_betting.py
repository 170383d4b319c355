"""Betting on labels: the formula, the projection, fairness under every null hypothesis claimed."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import optimize

from understudy.shadow.sequential import LabelBetting, SequentialError, log_odds_effect
from understudy.shadow.sequential.label_betting import _BIN, _grid, _log_factors


def _settings(alternative: str, margin: float, effect: float = 0.4) -> tuple:
    return (effect, alternative, margin, 1.1, 0.5)


def test_formula_on_a_short_stream() -> None:
    rng = np.random.default_rng(4)
    arm, y = rng.integers(0, 2, 60).astype(float), rng.integers(0, 2, 60).astype(float)
    rho, effect, width = 0.3, 0.5, 1.5
    test = LabelBetting(effect, centre=0.0, width=width)
    test.update(arm, y, rho)
    delta = np.linspace(-3, 3, 21) * effect * width
    weight = np.exp(-0.5 * np.linspace(-3, 3, 21) ** 2)
    weight /= weight.sum()
    capital = np.ones(21)
    good = bad = 0
    for a, outcome in zip(arm, y, strict=True):
        beta = round(math.log((good + 0.5) / (bad + 0.5)) / _BIN) * _BIN
        p1 = 1 / (1 + np.exp(-(beta + delta * (1 - rho))))
        p0 = 1 / (1 + np.exp(-(beta - delta * rho)))
        f1, f0 = (p1, p0) if outcome else (1 - p1, 1 - p0)
        capital *= (f1 if a else f0) / (rho * f1 + (1 - rho) * f0)
        good, bad = good + int(outcome), bad + 1 - int(outcome)
    assert test.log_e == pytest.approx(math.log(weight @ capital), abs=1e-10)


@pytest.mark.parametrize("share", [0.5, 0.05, 0.99])
@pytest.mark.parametrize("margin", [0.0, 0.02, -0.05, 0.5])
@pytest.mark.parametrize("alternative", ["greater", "less", "two-sided"])
@pytest.mark.parametrize("bin_", [-110, -40, 0, 40])
def test_every_bet_is_fair_under_the_whole_null(
    alternative: str, margin: float, share: float, bin_: int
) -> None:
    f = np.exp(_log_factors(bin_, share, _settings(alternative, margin)))
    grid = np.concatenate(([0.0, 1e-6], np.linspace(0.001, 0.999, 60), [1 - 1e-6, 1.0]))
    theta1, theta0 = np.meshgrid(grid, grid)
    edge = np.linspace(max(0.0, margin), min(1.0, 1.0 + margin), 50)
    theta1, theta0 = (np.append(theta1, edge), np.append(theta0, np.clip(edge - margin, 0, 1)))
    if alternative == "greater":
        null = theta1 - theta0 <= margin + 1e-12
    elif alternative == "less":
        null = theta1 - theta0 >= margin - 1e-12
    else:
        null = np.abs(theta1 - theta0 - margin) <= 1e-12
    t1, t0 = theta1[null][:, None], theta0[null][:, None]
    mean = share * (t1 * f[3] + (1 - t1) * f[2]) + (1 - share) * (t0 * f[1] + (1 - t0) * f[0])
    assert mean.max() <= 1.0 + 1e-9


def test_projection_is_the_nearest_point_of_the_null() -> None:
    share, margin, bin_ = 0.2, -0.03, -24
    settings = _settings("greater", margin)
    f = np.exp(_log_factors(bin_, share, settings))
    delta, _ = _grid(0.4, 1.1, 0.5, "greater")
    rate = 1 / (1 + math.exp(-bin_ * _BIN))
    b1, b0 = rate + (1 - share) * margin, rate - share * margin
    for j in (0, 10, 20):
        p1 = 1 / (1 + math.exp(-(math.log(b1 / (1 - b1)) + delta[j] * (1 - share))))
        p0 = 1 / (1 + math.exp(-(math.log(b0 / (1 - b0)) - delta[j] * share)))

        def distance(q: float, p1: float = p1, p0: float = p0) -> float:
            return share * _kl(p1, q) + (1 - share) * _kl(p0, q - margin)

        best = optimize.minimize_scalar(
            distance, bounds=(1e-9, 1 + margin - 1e-9), method="bounded", options={"xatol": 1e-12}
        ).x
        assert f[3, j] == pytest.approx(p1 / best, rel=1e-6)
        assert f[1, j] == pytest.approx(p0 / (best - margin), rel=1e-6)


def _kl(p: float, q: float) -> float:
    return p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))


def test_a_ramp_changes_the_share_record_by_record() -> None:
    rng = np.random.default_rng(1)
    share = np.repeat([0.01, 0.05, 0.25, 0.5], 500)
    arm = (rng.random(2000) < share).astype(float)
    y = (rng.random(2000) < 0.2).astype(float)
    at_once, in_epochs = LabelBetting(0.3), LabelBetting(0.3)
    at_once.update(arm, y, share)
    for i in range(0, 2000, 500):
        in_epochs.update(arm[i : i + 500], y[i : i + 500], float(share[i]))
    assert at_once.dump_state() == in_epochs.dump_state()


def test_replicas_multiply_effect_by_effect() -> None:
    rng = np.random.default_rng(2)
    parts = []
    for _ in range(3):
        part = LabelBetting(0.5, "greater")
        arm = rng.integers(0, 2, 3000).astype(float)
        part.update(arm, (rng.random(3000) < 0.2 + 0.08 * arm).astype(float), 0.5)
        parts.append(part)
    merged = parts[0].merge(parts[1]).merge(parts[2])
    assert merged.rates() == pytest.approx((0.2, 0.28), abs=0.03)
    assert LabelBetting(0.5).rates() == (None, None)
    assert merged.records == [sum(p.records[a] for p in parts) for a in (0, 1)]
    assert merged.log_e > max(p.log_e for p in parts)
    assert merged.peak_log_e == max(0.0, merged.log_e)


def test_a_challenger_with_ten_times_the_errors_is_found_within_200_of_its_requests() -> None:
    effect = log_odds_effect(0.01, 0.01)
    needed = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        test = LabelBetting(effect, "greater")
        for _ in range(80):
            arm = (rng.random(100) < 0.05).astype(float)
            test.update(arm, (rng.random(100) < np.where(arm, 0.1, 0.01)).astype(float), 0.05)
            if test.rejects(0.05):
                break
        needed.append(test.records[1])
        assert test.rejects(0.05)
    assert np.median(needed) <= 200


def test_a_thousand_million_records_and_extreme_rates() -> None:
    test = LabelBetting(0.5)
    test.records, test.successes = [999_000_000, 1_000_000], [3, 0]
    test.update([1, 0, 1], [0, 0, 1], 0.001)
    test.update(1, 1, 0.001)
    assert math.isfinite(test.log_e)
    sure = LabelBetting(5.0, "two-sided", margin=0.9)
    sure.update(np.ones(5000), np.ones(5000), 1e-6)
    sure.update(np.zeros(5000), np.zeros(5000), 1 - 1e-6)
    assert math.isfinite(sure.log_e)


def test_log_odds_effect() -> None:
    assert log_odds_effect(0.1, 0.02) == pytest.approx(math.log(0.12 / 0.88 / (0.1 / 0.9)))
    assert log_odds_effect(0.1, -0.02) < 0
    with pytest.raises(SequentialError, match="difference"):
        log_odds_effect(0.9, 0.2)


@pytest.mark.parametrize("assignment", ["time-block", "sticky"])
def test_assignments_that_break_the_randomisation_are_refused(assignment: str) -> None:
    with pytest.raises(SequentialError, match=r"assignment .* is refused"):
        LabelBetting(0.3, assignment=assignment)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: LabelBetting(0.0), "effect"),
        (lambda: LabelBetting(11.0), "effect"),
        (lambda: LabelBetting(0.3, "both"), "alternative"),
        (lambda: LabelBetting(0.3, margin=1.0), "margin"),
        (lambda: LabelBetting(0.3, width=0.0), "width"),
        (lambda: LabelBetting(0.3, assignment="coin"), "assignment"),
        (lambda: LabelBetting(0.3).update([1], [1], 1.0), "share"),
        (lambda: LabelBetting(0.3).update(1, 1, 0.0), "share"),
        (lambda: LabelBetting(0.3).update([1, 0], [1, 1], [0.5] * 3), "share"),
        (lambda: LabelBetting(0.3).update([1, 0], [1], 0.5), "outcomes"),
        (lambda: LabelBetting(0.3).update([2], [1], 0.5), "arms"),
        (lambda: LabelBetting(0.3).update(0, 0.5, 0.5), "outcomes"),
    ],
)
def test_errors_name_the_argument(make: object, name: str) -> None:
    with pytest.raises(SequentialError, match=rf"^{name} "):
        make()  # type: ignore[operator]


def test_tests_that_are_fed_together_find_what_each_finds_alone() -> None:
    rng = np.random.default_rng(4)
    together, alone = (
        [
            LabelBetting(0.4, "less", margin=0.02),
            LabelBetting(0.9, "greater", margin=0.02),
            LabelBetting(0.4, "two-sided"),
        ]
        for _ in range(2)
    )
    # The last one has seen other records: it bets on another rate.
    for test in (together[2], alone[2]):
        test.update(np.ones(50), np.ones(50), 0.5)
    for size, rate in ((1, 0.5), (40, 0.5), (300, 0.0), (3_000, 0.01), (500, 1.0), (256, 0.02)):
        arms = (rng.random(size) < 0.3).astype(float)
        outcomes = (rng.random(size) < rate).astype(float)
        share = 0.3 if size != 500 else np.where(rng.random(size) < 0.5, 0.3, 0.1)
        LabelBetting.update_all(together, arms, outcomes, share)
        for test in alone:
            test.update(arms, outcomes, share)
        assert [t.log_e for t in together] == pytest.approx([t.log_e for t in alone], abs=1e-9)
        assert [t.records for t in together] == [t.records for t in alone]
        assert [t.successes for t in together] == [t.successes for t in alone]
