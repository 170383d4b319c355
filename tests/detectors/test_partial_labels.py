"""Risks with some labels: without bias, with the run length, and sooner than labels alone."""

from __future__ import annotations

import json

import numpy as np
import pytest

from understudy.monitor.detectors.edetector import SrDetector
from understudy.monitor.detectors.partial_labels import PartialLabelDetector, filled


def rows(
    rng: np.random.Generator, count: int, series: int, rate: float, share: float
) -> tuple[np.ndarray, np.ndarray]:
    """Predicted losses that tell .02 from the rest, and losses of which a share is known."""
    hard = rng.random((count, series)) < 0.2
    mean = np.where(hard, (rate - 0.016) / 0.2, 0.02)
    losses = (rng.random((count, series)) < mean).astype(float)
    losses[rng.random((count, series)) >= share] = np.nan
    return np.where(hard, 0.42, 0.02), losses


def test_filled_losses_have_the_mean_of_the_loss_whatever_was_predicted() -> None:
    rng = np.random.default_rng(1)
    losses = (rng.random(200_000) < 0.3).astype(float)
    seen = np.where(rng.random(200_000) < 0.2, losses, np.nan)
    for predicted in (0.0, 0.3, 0.9):
        x = filled(np.full(200_000, predicted), seen, 0.2)
        assert abs(x.mean() - losses.mean()) < 6.0 * x.std() / np.sqrt(200_000)
    assert np.isnan(filled(np.array([np.nan]), np.array([1.0]), 0.5)).all()


def test_with_every_label_it_is_the_plain_detector() -> None:
    rng = np.random.default_rng(2)
    predicted, losses = rows(rng, 3000, 2, 0.1, 1.0)
    null = np.full(2, 0.1)
    partial = PartialLabelDetector(null, 1000.0, 1.0, np.zeros(2))
    # Where all losses are seen, predictions say nothing, and the bets are those of a variance.
    plain = SrDetector(null, 1000.0, variance=null * (1.0 - null))
    found, wanted = partial.update(predicted, losses), plain.update(losses)
    np.testing.assert_allclose(found.statistic, wanted.statistic, rtol=1e-9)
    np.testing.assert_array_equal(found.crossed, wanted.crossed)


def test_the_run_length_holds() -> None:
    rng = np.random.default_rng(3)
    detector = PartialLabelDetector(np.full(300, 0.1), 2000.0, 0.1)
    alarms = 0
    for _ in range(50):
        found = detector.update(*rows(rng, 40, 300, 0.1, 0.1))
        alarms += int(found.alarms.sum())
        detector.reset(found.alarms)
    # 600,000 rows at 2,000: at most 300 on average, and 405 is six sd above.
    assert alarms < 405


def test_predictions_bring_the_alarm_forward() -> None:
    rng = np.random.default_rng(4)
    null = np.full(200, 0.1)
    predicted, losses = rows(rng, 8_000, 200, 0.18, 0.1)
    residual = np.full(200, 0.8 * 0.02 * 0.98 + 0.2 * 0.42 * 0.58)
    partial = PartialLabelDetector(null, 100_000.0, 0.1, residual).update(predicted, losses)
    alone = SrDetector(null, 10_000.0).update(losses)  # as long, counted in labels
    assert (partial.crossed >= 0).all()
    assert (partial.direction == 1).all()
    assert (alone.crossed >= 0).all()
    # About 1,300 and 1,700 rows, each with a standard deviation of some 60 for the median.
    assert np.median(partial.crossed) < np.median(alone.crossed)


def test_state_survives_and_invalid_input_is_rejected() -> None:
    rng = np.random.default_rng(5)
    null = np.array([0.05, 0.2])
    one = PartialLabelDetector(null, 1000.0, 0.25)
    predicted, losses = rows(rng, 500, 2, 0.1, 0.25)
    one.update(predicted[:200], losses[:200])
    two = PartialLabelDetector(null, 1000.0, 0.25)
    two.load_state(json.loads(json.dumps(one.dump_state())))
    np.testing.assert_allclose(
        one.update(predicted[200:], losses[200:]).statistic,
        two.update(predicted[200:], losses[200:]).statistic,
        rtol=1e-5,
    )
    with pytest.raises(ValueError, match="share of labels"):
        PartialLabelDetector(null, 1000.0, 0.0)
    with pytest.raises(ValueError, match=r"between 0\.25 and 1"):
        one.update(predicted, losses, 0.1)
    with pytest.raises(ValueError, match="predicted losses lie"):
        one.update(predicted + 1.0, losses)
    with pytest.raises(ValueError, match="bets must lie"):
        SrDetector(np.array([0.5]), 100.0, bets=np.array([[2.0]]))
