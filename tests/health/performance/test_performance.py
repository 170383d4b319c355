"""Performance by labels and without: figures against definitions, alarms against simulations."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit

from tests.support.performance import baseline, scores
from understudy.monitor.config.performance import Performance
from understudy.monitor.health.performance.estimate import ConfidenceEstimator, isotonic
from understudy.monitor.health.performance.retrain import Point, retrain_advice
from understudy.monitor.health.performance.signals import performance_signals
from understudy.monitor.health.performance.tallies import BinaryTally, ClassTally, NumberTally
from understudy.monitor.health.performance.watch import PerformanceWatch
from understudy.monitor.labels.store import Joined

DAY = 86400.0


def joined(score: float, label: float, number: int) -> Joined:
    return Joined(
        number, f"r-{number}", "champion", False, "m", 0.0, float(number), {"p": score}, 0, label,
        None, float(number), 1.0,
    )  # fmt: skip


SETTINGS = Performance(prediction="p", threshold=0.5)


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0.1, 5)), min_size=1, max_size=40))
def test_isotonic_rises_and_keeps_the_mean(pairs: list[tuple[float, float]]) -> None:
    values, weights = (np.array(column) for column in zip(*pairs, strict=True))
    found = isotonic(values, weights)
    assert (np.diff(found) >= -1e-12).all()
    assert found @ weights == pytest.approx(values @ weights)
    assert isotonic(np.sort(values), weights) == pytest.approx(np.sort(values))


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.integers(1, 200))
def test_binary_metrics_are_their_definitions(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    # In the middle of the bins, so that what is equal shares a bin and nothing else does.
    p = (rng.integers(0, 100, count) + 0.5) / 100.0
    y = rng.integers(0, 2, count).astype(float)
    tally, parts = BinaryTally(0.5), BinaryTally(0.5)
    tally.add(p, y)
    for start in range(0, count, 7):
        one = BinaryTally(0.5)
        one.add(p[start : start + 7], y[start : start + 7])
        parts.merge(one)
    found = tally.metrics()
    assert parts.metrics() == pytest.approx(found)
    again = BinaryTally(0.5)
    again.load_state(json.loads(json.dumps(tally.dump_state())))
    assert again.metrics() == pytest.approx(found)
    said = p > 0.5
    assert found["accuracy"] == pytest.approx(float((said == (y > 0.5)).mean()))
    assert found["brier"] == pytest.approx(float(((p - y) ** 2).mean()))
    if said.any():
        assert found["precision"] == pytest.approx(float(y[said].mean()))
    if y.any() and not y.all():
        pairs = p[y > 0.5][:, None] - p[y < 0.5][None, :]
        exact = float(((pairs > 0) + 0.5 * (pairs == 0)).mean())
        # Only the top bin holds two values of this grid, 0.99 and 1; their pairs count as ties.
        one, other = p[y > 0.5][:, None], p[y < 0.5][None, :]
        blurred = (one >= 0.99) & (other >= 0.99) & (one != other)
        assert found["auc"] == pytest.approx(exact, abs=float(blurred.mean()) / 2.0 + 1e-9)


def test_metrics_of_classes_and_numbers() -> None:
    classes = ClassTally(most=3)
    classes.add(["a", "b", "a", "c", "z"], ["a", "a", "b", "c", "q"])
    found = classes.metrics()
    assert found["accuracy"] == pytest.approx(3 / 5)  # z and q are both "other"
    other = ClassTally(most=3)
    other.load_state(json.loads(json.dumps(classes.dump_state())))
    other.merge(classes)
    assert other.metrics() == pytest.approx(found)
    assert other.count == 10
    numbers = NumberTally(0.5)
    numbers.add(np.array([1.0, 2.0, math.nan, 4.0]), np.array([1.0, 1.0, 1.0, 6.0]))
    found = numbers.metrics()
    assert found["mae"] == pytest.approx(1.0)
    assert found["rmse"] == pytest.approx(math.sqrt(5 / 3))
    assert found["bias"] == pytest.approx(-1 / 3)
    assert found["accuracy"] == pytest.approx(1 / 3)
    assert ClassTally().metrics() == NumberTally().metrics() == BinaryTally().metrics() == {}


def test_the_estimate_follows_a_change_of_the_inputs() -> None:
    rng = np.random.default_rng(1)
    table = baseline(rng).calibration
    assert table is not None
    estimator = ConfidenceEstimator(table)
    inside = 0
    for mean in (-1.0, 0.0, 1.0, -3.0):
        for _ in range(10):
            p = scores(rng, 2000, mean)
            y = rng.random(2000) < p
            truth = float(((p > 0.5) == y).mean())
            found = estimator.accuracy(p)
            inside += found.low <= truth <= found.high
            assert found.value == pytest.approx(truth, abs=0.06)
    # 95 % of forty are to be expected; fewer than 28 has a probability below 1e-6.
    assert inside >= 28
    few = {k: v if k == "prediction" else np.array(v) / 100.0 for k, v in table.items()}
    few["edges"] = table["edges"]
    assert "based on only" in ConfidenceEstimator(few).accuracy(scores(rng, 50)).doubts[0]
    with pytest.raises(ValueError, match="no score"):
        estimator.accuracy(np.array([math.nan]))


def test_a_loss_is_estimated_first_and_confirmed_by_labels() -> None:
    rng = np.random.default_rng(2)
    watch = PerformanceWatch(SETTINGS, baseline(rng), 1e6)
    number = 0

    def send(count: int, mean: float, labels: bool, bend: float = 0.0) -> None:
        nonlocal number
        p = scores(rng, count, mean)
        y = (rng.random(count) < expit(logit(p) + bend)).astype(float)
        for score, label in zip(p.tolist(), y.tolist(), strict=True):
            number += 1
            watch.take([score], [float(number)])
            if labels:
                watch.take_label(joined(score, label, number))
        watch.flush()

    def kinds() -> list[str]:
        return sorted(s.key.rpartition("/")[2] for s in performance_signals(watch, "m", ""))

    send(3000, -1.0, labels=True)
    assert kinds() == []
    assert watch.summary()["realised"]["accuracy"] == pytest.approx(0.84, abs=0.05)
    send(2500, 0.0, labels=False)
    assert kinds() == ["estimated"]
    signal = performance_signals(watch, "m", "")[0]
    assert "no labels yet" in signal.title
    assert signal.since == pytest.approx(3000, abs=700)
    send(4000, 0.0, labels=True)
    assert {"estimated", "realised", "log_loss"} <= set(kinds())
    assert "calibration" not in kinds(), "the scores still mean what they say"
    state = json.loads(json.dumps(watch.dump_state()))
    again = PerformanceWatch(SETTINGS, baseline(np.random.default_rng(2)), 1e6)
    again.load_state(state)
    assert again.summary()["labels"] == watch.summary()["labels"]
    send(6000, -1.0, labels=True)
    assert kinds() == [], "it is over"
    send(3000, -1.0, labels=True, bend=-1.0)
    assert "calibration" in kinds()
    assert "too high" in watch.calibration.words()


def test_quiet_streams_do_not_alarm() -> None:
    rng = np.random.default_rng(3)
    alarms = 0
    for _ in range(12):
        watch = PerformanceWatch(SETTINGS, baseline(rng, 4000), 10_000.0)
        p = scores(rng, 3000)
        y = (rng.random(3000) < p).astype(float)
        watch.take(p.tolist(), list(range(3000)))
        for number, (score, label) in enumerate(zip(p, y, strict=True)):
            watch.take_label(joined(float(score), float(label), number))
        watch.flush()
        alarms += bool(performance_signals(watch, "m", ""))
    # At most 0.3 on average for each of twelve; 11 or more has a probability below 1e-4 at that
    # bound, and the nulls are widened, so that it is far below 1e-6 in truth.
    assert alarms <= 10


def test_retrain_advice_depends_on_the_trend() -> None:
    rng = np.random.default_rng(4)

    def points(slope: float, days: int = 40) -> list[Point]:
        return [
            Point(day * DAY, 0.90 + slope * day + rng.normal(0, 0.003), 0.003)
            for day in range(days)
        ]

    falling = retrain_advice(points(-0.001), 0.83)
    assert falling.earliest is not None
    assert falling.latest is not None
    assert falling.earliest <= 70 * DAY <= falling.latest
    assert "will fall" in falling.words
    flat = retrain_advice(points(0.0), 0.85)
    assert (flat.earliest, "not enough evidence" in flat.words) == (None, True)
    assert "8 are required" in retrain_advice(points(-0.001, 5), 0.85).words
    assert "already below the floor" in retrain_advice(points(-0.004), 0.85).words
    assert "too far ahead to predict" in retrain_advice(points(-0.0004), 0.2).words
