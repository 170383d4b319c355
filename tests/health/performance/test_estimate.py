"""Estimates without labels: gradients, intervals, regions, doubts; and what a few labels add."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy.special import expit, logit

from understudy.monitor.baseline.calibration.codes import OTHER, FeatureCode, FeatureCodes
from understudy.monitor.baseline.calibration.curve import Curve, tabulate
from understudy.monitor.baseline.calibration.regions import RegionalCalibration
from understudy.monitor.baseline.calibration.trees import Growth
from understudy.monitor.health.performance.estimate import ConfidenceEstimator, Estimate
from understudy.monitor.health.performance.expected import METRICS, expected
from understudy.monitor.health.performance.partial import Follower, augmented, departs
from understudy.monitor.health.performance.tallies import BinaryTally

SMALL = Growth(depth=3, most=60, patience=10)


def scores(rng: np.random.Generator, count: int, mean: float = -0.5) -> np.ndarray:
    return expit(rng.normal(mean, 1.5, count))


def realised(p: np.ndarray, y: np.ndarray) -> dict[str, float]:
    tally = BinaryTally(0.5)
    tally.add(p, y)
    found = tally.metrics()
    order = p[y > 0.5][:, None] - p[y < 0.5][None, :]
    found["auc"] = float(((order > 0) + 0.5 * (order == 0)).mean())
    return found


def test_gradients_are_derivatives() -> None:
    rng = np.random.default_rng(1)
    s, p = rng.random(40).round(1), rng.random(40)  # with ties
    found = expected(s, p, 0.5)
    assert set(found) == set(METRICS)
    for row in (0, 7, 23):
        step = np.zeros(40)
        step[row] = 1e-6
        up, down = expected(s, p + step, 0.5), expected(s, p - step, 0.5)
        for name, (_, gradient) in found.items():
            slope = (up[name][0] - down[name][0]) / 2e-6
            assert gradient[row] == pytest.approx(slope, abs=1e-6), name


def test_expected_metrics_of_certain_labels_are_the_realised_ones() -> None:
    rng = np.random.default_rng(2)
    s = rng.random(60)
    y = (rng.random(60) < s).astype(float)
    wanted = realised(s, y)
    for name, (value, _) in expected(s, y, 0.5).items():
        assert value == pytest.approx(wanted[name], abs=1e-5), name


def test_intervals_hold_for_every_metric_also_when_inputs_change() -> None:
    rng = np.random.default_rng(3)
    inside = dict.fromkeys(METRICS, 0)
    rounds = 60
    for _ in range(rounds):
        p = scores(rng, 5000)
        y = (rng.random(5000) < expit(1.3 * logit(p) + 0.2)).astype(float)
        estimator = ConfidenceEstimator(tabulate(p, y))
        new = scores(rng, 800, 0.5)
        truth = realised(new, (rng.random(800) < expit(1.3 * logit(new) + 0.2)).astype(float))
        for name, found in estimator.estimate(new).items():
            inside[name] += found.low <= truth[name] <= found.high
    # 95 % of sixty; 43 or fewer has a probability below 1e-8.
    assert min(inside.values()) >= 44, inside


def test_doubtful_estimates_list_their_doubts() -> None:
    rng = np.random.default_rng(4)
    p = scores(rng, 20_000)
    estimator = ConfidenceEstimator(tabulate(p, (rng.random(20_000) < p).astype(float)))
    assert estimator.accuracy(scores(rng, 1000)).doubts == ()
    beyond = estimator.accuracy(np.concatenate([scores(rng, 500), np.full(500, 0.99999)]))
    assert any("outside" in doubt for doubt in beyond.doubts)
    gathered = estimator.accuracy(rng.uniform(0.90, 0.905, 1000))
    assert any("few labels" in doubt for doubt in gathered.doubts)
    assert any("differs strongly" in doubt for doubt in gathered.doubts)
    few = ConfidenceEstimator(tabulate(p[:200], (rng.random(200) < p[:200]).astype(float)))
    assert "only 200 labels" in few.accuracy(p[:100]).doubts[0]
    # The fewer labels, the wider.
    wide, narrow = few.accuracy(p[:1000]), estimator.accuracy(p[:1000])
    assert wide.own > 3.0 * narrow.own
    for broken in ({"counts": [], "edges": []}, {"counts": [0.0], "edges": []}):
        table = {"positives": broken["counts"], "scores": broken["counts"], **broken}
        with pytest.raises(ValueError, match="table"):
            ConfidenceEstimator(table)


def world(rng: np.random.Generator, count: int, share: float) -> tuple:
    """In group b scores are much too sure; ``share`` of the rows are of b."""
    group = np.where(rng.random(count) < share, "b", "a")
    p = scores(rng, count)
    y = (rng.random(count) < expit(np.where(group == "b", 0.2, 1.2) * logit(p))).astype(float)
    cells = {"group": group.tolist(), "noise": rng.normal(size=count).tolist()}
    return p, y, cells


def test_regions_calibrate_scores_by_part_of_the_data() -> None:
    rng = np.random.default_rng(5)
    p, y, cells = world(rng, 12_000, 0.2)
    regions = RegionalCalibration.fit(p, y, cells, seed=1, how=SMALL)
    assert regions.worthwhile
    assert regions.gain > 0.005
    table = tabulate(p, y)
    plain, ours = ConfidenceEstimator(table), ConfidenceEstimator(table, 0.5, regions)
    new, truth, features = world(rng, 6000, 0.8)  # the mix has changed, nothing else
    wanted = float(((new > 0.5) == (truth > 0.5)).mean())
    codes = regions.codes.encode(features, len(new))
    found = ours.accuracy(new, codes)
    assert abs(found.value - wanted) < 0.03  # the realised one has an error of 0.006
    assert plain.accuracy(new).value - wanted > 0.07
    assert found.low <= wanted <= found.high or abs(found.value - wanted) < 0.02
    # Without features, the curve.
    assert ours.accuracy(new) == plain.accuracy(new)
    again = RegionalCalibration.from_dict(json.loads(json.dumps(regions.to_dict())))
    assert again.probability(new, codes) == pytest.approx(regions.probability(new, codes), abs=1e-6)
    same = RegionalCalibration.fit(p, y, cells, seed=1, how=SMALL)
    assert (same.probability(new, codes) == regions.probability(new, codes)).all()


def test_features_that_add_nothing_are_not_used() -> None:
    rng = np.random.default_rng(6)
    p = scores(rng, 6000)
    y = (rng.random(6000) < p).astype(float)
    cells = {"noise": rng.normal(size=6000).tolist(), "more": rng.integers(0, 5, 6000).tolist()}
    regions = RegionalCalibration.fit(p, y, cells, how=SMALL)
    assert not regions.worthwhile
    assert ConfidenceEstimator(tabulate(p, y), 0.5, regions).regions is None


def test_regions_reject_data_without_enough_labels() -> None:
    p, y = np.linspace(0.1, 0.9, 3000), np.arange(3000.0) % 2
    x = {"x": list(range(3000))}
    with pytest.raises(ValueError, match="regions"):
        RegionalCalibration.fit(p[:50], y[:50], {"x": list(range(50))})
    with pytest.raises(ValueError, match="one class"):
        RegionalCalibration.fit(p, np.ones(3000), x)
    with pytest.raises(ValueError, match="same rows"):
        RegionalCalibration.fit(p, y, {"x": [1.0]})
    learned = RegionalCalibration.fit(p, (np.arange(3000.0) > 1500) * 1.0, x, how=SMALL)
    data = learned.to_dict()
    for name, value in (("features", []), ("models", []), ("edges", [0.5])):
        with pytest.raises((ValueError, KeyError)):
            RegionalCalibration.from_dict({**data, name: value})


def test_codes_accept_any_value() -> None:
    number = FeatureCode.learn("n", [float(v) for v in range(100)])
    assert number.ordered
    cells = [-1e9, 50.0, 1e9, math.nan, None, "x", math.inf, True]
    codes = number.encode(cells)
    assert codes.max() < number.size
    assert [number.name_of(int(c)) for c in codes[3:6]] == ["missing"] * 3
    assert number.name_of(int(codes[0])).startswith("<=")
    texts = FeatureCode.learn("t", ["a"] * 500 + ["b"] * 499 + ["rare"])
    assert texts.values == ("a", "b")
    assert texts.name_of(int(texts.encode(["rare"])[0])) == OTHER
    many = FeatureCode.learn("m", [f"v{k % 400}" for k in range(4000)])
    assert many.size <= 41
    empty = FeatureCode.learn("e", [None] * 10)
    assert empty.encode([None, 1.0]).max() < empty.size
    both = FeatureCodes([number, texts])
    again = FeatureCodes.from_dict(json.loads(json.dumps(both.to_dict())))
    assert (again.encode({"n": cells}, 8) == both.encode({"n": cells}, 8)).all()
    assert (both.encode({"n": cells}, 8)[:, 1] == texts.size - 1).all()


def test_a_curve_measures_how_far_scores_have_moved() -> None:
    rng = np.random.default_rng(7)
    p = scores(rng, 20_000)
    curve = Curve.of_rows(p, (rng.random(20_000) < p).astype(float))
    same = [curve.moved(scores(rng, 500)) for _ in range(20)]
    assert np.mean(same) < 0.02, "so many rows of the same do not count as moved"
    assert curve.moved(scores(rng, 500, 1.0)) > 0.4
    assert curve.labels_behind(p) == pytest.approx(20_000, rel=0.05)


@pytest.mark.parametrize("bias", [0.0, -0.1])
def test_augmented_is_unbiased_for_any_estimate(bias: float) -> None:
    rng = np.random.default_rng(8)
    off, inside = [], 0
    for _ in range(200):
        p = rng.beta(6, 2, 2000)
        outcome = (rng.random(2000) < p).astype(float)
        share = np.where(p > 0.7, 0.05, 0.3)  # labels are sought where they tell most
        seen = np.where(rng.random(2000) < share, outcome, math.nan)
        found = augmented(np.clip(p + bias, 0.0, 1.0), seen, share)
        off.append(found.value - outcome.mean())
        inside += found.low <= outcome.mean() <= found.high
    assert abs(np.mean(off)) < 5.5 * np.std(off) / math.sqrt(200)
    # 95 % of 200; 166 or fewer has a probability below 1e-9.
    assert inside >= 167
    whole = augmented(p, outcome, 1.0)
    assert whole.low == whole.high == pytest.approx(outcome.mean())
    with pytest.raises(ValueError, match="no label"):
        augmented(p, np.full(2000, math.nan), 0.5)
    with pytest.raises(ValueError, match="shares"):
        augmented(p, outcome, 0.0)


def test_the_follower_collects_labels_over_windows() -> None:
    rng = np.random.default_rng(9)

    def follow(bias: float, windows: int) -> Follower:
        follower = Follower(0.002)
        for _ in range(windows):
            p = rng.beta(6, 2, 250)
            outcome = (rng.random(250) < np.clip(p + bias, 0.0, 1.0)).astype(float)
            follower.update(p, outcome)
        return follower

    steady = follow(0.0, 40).now()
    assert abs(steady.error) < 0.02
    moved = follow(-0.08, 40)
    assert moved.now().error == pytest.approx(-0.08, abs=0.03)
    again = Follower(0.002)
    again.load_state(json.loads(json.dumps(moved.dump_state())))
    assert again.now() == moved.now()
    before = moved.now()
    assert moved.update(np.zeros(0), np.zeros(0)).deviation > before.deviation, "time goes by"
    with pytest.raises((KeyError, ValueError)):
        again.load_state({**moved.dump_state(), "level": [0.0]})


def test_departures_are_measured_in_the_spread_of_the_estimate() -> None:
    rng = np.random.default_rng(10)
    p = scores(rng, 50_000)
    estimator = ConfidenceEstimator(tabulate(p, (rng.random(50_000) < p).astype(float)))
    reference = float(np.maximum(p, 1.0 - p).mean())
    raised = [departs(estimator.accuracy(scores(rng, 1000)), reference) for _ in range(300)]
    # At three deviations 0.8 of 300 on average; 12 has a probability below 1e-9.
    assert np.count_nonzero(raised) < 12
    worse = [departs(estimator.accuracy(expit(rng.normal(0.0, 1.0, 1000))), reference)]
    assert worse == [-1]
    still = Estimate("accuracy", 0.9, 0.8, 1.0, 10, (), 0.0, 0.0)
    assert departs(still, 0.9) == 0
