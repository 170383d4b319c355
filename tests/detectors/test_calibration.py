"""The calibration e-detector: finds what an error rate does not show, and keeps its run length."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.special import expit, logit

from understudy.monitor.baseline.calibration.curve import tabulate
from understudy.monitor.detectors.calibration import CalibrationDetector, Recalibration


def scores(rng: np.random.Generator, count: int) -> np.ndarray:
    return expit(rng.normal(-0.5, 1.8, count))


def test_a_prior_shift_is_detected_and_named() -> None:
    rng = np.random.default_rng(3)
    taken = []
    for _ in range(20):
        detector = CalibrationDetector(100_000.0)
        p = scores(rng, 4000)
        y = (rng.random(4000) < expit(logit(p) - 0.5)).astype(float)
        taken.append(detector.update(p, y))
        assert detector.words() == "scores are too high"
    assert min(taken) >= 0
    # The median is about 420; that of twenty has a standard deviation of about 50.
    assert np.median(taken) < 750


def test_calibrated_scores_raise_no_alarm() -> None:
    rng = np.random.default_rng(4)
    alarms = 0
    for _ in range(60):
        detector = CalibrationDetector(5000.0)
        p = scores(rng, 2000)
        alarms += detector.update(p, (rng.random(2000) < p).astype(float)) >= 0
    # At most 2,000 / 5,000 of sixty on average, which is 24; 50 is six sd away.
    assert alarms < 50


def test_a_miscalibrated_baseline_is_the_reference() -> None:
    rng = np.random.default_rng(5)
    p = scores(rng, 20_000)
    truth = expit(0.8 * logit(p) + 0.4)
    y = rng.random(20_000) < truth
    edges = np.quantile(p, np.linspace(0, 1, 101)[1:-1])
    place = edges.searchsorted(p)
    table = {
        "edges": edges,
        "counts": np.bincount(place, minlength=100),
        "positives": np.bincount(place, weights=y, minlength=100),
        "scores": np.bincount(place, weights=p, minlength=100),
    }
    fitted = Recalibration.fit(table)
    assert fitted.shift == pytest.approx(0.4, abs=0.1)
    assert fitted.slope == pytest.approx(0.8, abs=0.1)
    detector = CalibrationDetector(100_000.0, fitted)
    q = scores(rng, 5000)
    labels = (rng.random(5000) < expit(0.8 * logit(q) + 0.4)).astype(float)
    assert detector.update(q, labels) == -1
    again = CalibrationDetector(100_000.0, fitted)
    again.load_state(json.loads(json.dumps(detector.dump_state())))
    assert again.statistic == pytest.approx(detector.statistic)
    with pytest.raises(ValueError, match="one class"):
        Recalibration.fit({"edges": [], "counts": [5], "positives": [0], "scores": [2.0]})


def test_scores_that_were_rounded_to_certainty_raise_no_alarm() -> None:
    """A score of 0.00 or 1.00 is wrong once in a while, and the baseline's labels say how often."""
    rng = np.random.default_rng(8)

    def drawn(count: int) -> tuple[np.ndarray, np.ndarray]:
        p = expit(rng.normal(0.0, 8.0, count))
        y = (rng.random(count) < 0.02 + 0.96 * p).astype(float)
        return p.round(2), y

    fitted = Recalibration.fit(tabulate(*drawn(50_000)))
    alarms, plain = 0, 0
    for _ in range(20):
        p, y = drawn(15_000)
        alarms += CalibrationDetector(1_000_000.0, fitted).update(p, y) >= 0
        curve = Recalibration(fitted.shift, fitted.slope, fitted.errors)
        plain += CalibrationDetector(1_000_000.0, curve).update(p, y) >= 0
    # 0.3 on average at the stated run length; 6 or more has a probability below 1e-6.
    assert alarms < 6
    assert plain > alarms, "a logistic curve alone does not fit such scores"
