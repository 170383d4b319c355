"""Labels that depend on what was predicted, or that stop, are not judged."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from tests.support.performance import Stream, baseline, scores
from understudy.monitor.baseline.model import Baseline
from understudy.monitor.config.performance import Performance
from understudy.monitor.health.performance.selection import LabelSelection
from understudy.monitor.health.performance.watch import PerformanceWatch

Floats = np.ndarray
BY_LABELS = {"realised", "recall", "precision", "auc", "log_loss", "calibration"}


def binary(rng: np.random.Generator, count: int, mean: float = -1.0) -> tuple[Floats, Floats]:
    p = scores(rng, count, mean)
    return p, (rng.random(count) < p).astype(float)


def watched(known: Baseline | None, **settings: object) -> Stream:
    declared = Performance(prediction="p", threshold=0.5, floor=0.95, **settings)
    return Stream(PerformanceWatch(declared, known, 1e6))


def only(mask: Floats) -> Floats:
    """Delays of a second for the rows of the mask, and no label for the others."""
    return np.where(mask, 1.0, math.nan)


@pytest.mark.parametrize("with_file", [True, False])
@pytest.mark.parametrize("way", ["alerts", "approved", "chargebacks", "half of the positives"])
def test_selective_labels_are_named_and_not_judged(way: str, with_file: bool) -> None:
    rng = np.random.default_rng(1)
    stream = watched(baseline(rng) if with_file else None)
    p, y = binary(rng, 4000)
    which = {
        "alerts": p > 0.5,
        "approved": p <= 0.5,
        "chargebacks": y == 1.0,
        "half of the positives": (y == 0.0) | (rng.random(4000) < 0.5),
    }[way]
    stream.send(p.tolist(), y.tolist(), only(which))
    assert stream.first["selective"] <= 1000
    if way != "half of the positives":
        assert not BY_LABELS & set(stream.first), "the figures of a biased sample"
    assert not BY_LABELS & set(stream.findings())
    (untested,) = stream.watch.untested()
    assert untested.reason == "selective"
    assert "labels depend on the prediction: " in untested.words
    advice = stream.watch.retrain_advice()
    assert advice is not None
    assert advice.words.startswith("not judged: labels depend on the prediction")
    assert stream.watch.windows == []
    assert stream.watch.summary()["judged"] is False
    again = watched(baseline(np.random.default_rng(1)) if with_file else None)
    again.watch.load_state(json.loads(json.dumps(stream.watch.dump_state())))
    assert again.watch.untested() == stream.watch.untested()


def test_a_fair_sample_is_judged_whatever_the_mix_does() -> None:
    """A third of the labels, late by chance, while scores drift up and down."""
    wrong = 0
    for seed in range(6):
        rng = np.random.default_rng(seed)
        p = np.concatenate([scores(rng, 500, mean) for mean in (-2, -1, 0.5, 2, 0.5, -1, -2, -3)])
        y = (rng.random(len(p)) < p).astype(float)
        delays = np.where(rng.random(len(p)) < 0.3, rng.exponential(400.0, len(p)), math.nan)
        stream = watched(None).send(p.tolist(), y.tolist(), delays)
        stream.labels()
        wrong += "selective" in stream.first
    # One in a million labels on average, of 1,200 in each: 2 of 6 have a probability of 2e-5, and
    # the null allows odds of 1.25, so that it is far below 1e-6 in truth.
    assert wrong < 2


def test_labels_that_only_come_later_for_some_are_judged_in_the_end() -> None:
    """Frauds are reported after a minute, everything else is confirmed after half an hour."""
    rng = np.random.default_rng(2)
    stream = watched(None)
    p, y = binary(rng, 12_000)
    stream.send(p.tolist(), y.tolist(), np.where(y == 1.0, 60.0, 1800.0))
    assert stream.first["selective"] <= 1500
    assert stream.watch.selective is None
    assert stream.watch.reference is not None
    assert stream.watch.reference[0] == pytest.approx(0.84, abs=0.05)
    assert not BY_LABELS & set(stream.first)
    p, y = binary(rng, 6000)
    stream.send(p.tolist(), (1.0 - y).tolist(), np.where(y == 1.0, 60.0, 1800.0))
    assert "realised" in stream.findings()


def test_labels_that_stop_are_named_and_judged_again_when_they_are_back() -> None:
    rng = np.random.default_rng(3)
    stream = watched(None)
    p, y = binary(rng, 3000)
    stream.send(p.tolist(), y.tolist())
    p, y = binary(rng, 3000)
    stream.send(p.tolist(), y.tolist(), only(rng.random(3000) < 0.02))
    (untested,) = stream.watch.untested()
    assert untested.reason == "coverage"
    assert "where 100 % had one before" in untested.words
    p, y = binary(rng, 3000)
    stream.send(p.tolist(), y.tolist())
    assert stream.watch.untested() == []
    assert not BY_LABELS & set(stream.first)


def test_classes_are_told_apart() -> None:
    rng = np.random.default_rng(4)
    names = np.array(["a", "b", "c"])[rng.integers(0, 3, 3000)]
    which = (names != "b") | (rng.random(3000) < 0.2)
    stream = Stream(PerformanceWatch(Performance(prediction="p"), None, 1e6))
    stream.send(names.tolist(), names.tolist(), only(which))
    assert stream.watch.selective is not None
    assert "of the predictions of b have one" in stream.watch.selective.words
    hidden = Stream(PerformanceWatch(Performance(prediction="p"), None, 1e6, hidden=True))
    hidden.send(names.tolist(), names.tolist(), only(which))
    assert hidden.watch.selective is not None
    assert "predictions of one class have" in hidden.watch.selective.words


def test_cohorts_are_bounded_however_many_predictions_there_are() -> None:
    selection = LabelSelection(False, 0.5, 1e9, 1e6)
    rng = np.random.default_rng(5)
    for start in range(0, 300_000, 5000):
        selection.predicted(rng.random(5000), np.arange(start, start + 5000.0))
    assert len(json.dumps(selection.dump_state())) < 20_000
    selection.labelled(rng.random(1000), rng.integers(0, 300_000, 1000).astype(float))
    assert selection.labels == 1000
    assert selection.statistic < 1.0


def test_the_assumption_stands_beside_the_figures() -> None:
    rng = np.random.default_rng(6)
    stream = watched(baseline(rng))
    p, y = binary(rng, 2000)
    stream.send(p.tolist(), y.tolist(), only(rng.random(2000) < 0.6))
    assumption = "assumes that whether a label arrives does not depend on the outcome"
    assert stream.watch.summary()["assumptions"] == [assumption]
    p, y = binary(rng, 2000)
    stream.send(p.tolist(), (1.0 - y).tolist(), only(rng.random(2000) < 0.6))
    found = stream.findings()["realised"]
    assert assumption in found.assumptions
    assert any("of the labels are positive" in one for one in found.assumptions)
    whole = watched(baseline(rng))
    whole.send(p.tolist(), y.tolist())
    assert whole.watch.summary()["assumptions"] == []
