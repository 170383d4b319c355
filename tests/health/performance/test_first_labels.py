"""Without figures in the baseline, the first labels are the reference of every metric."""

from __future__ import annotations

import json
import math
import re

import numpy as np
import pytest

from tests.support.performance import Stream, scores
from understudy.monitor.baseline.builder import Builder
from understudy.monitor.baseline.model import Baseline
from understudy.monitor.config.performance import Performance
from understudy.monitor.detectors.packed import exactly
from understudy.monitor.health.performance.watch import PerformanceWatch

Floats = np.ndarray
OF_SCORES = Performance(prediction="p", threshold=0.5)
CLASSES = ("a", "b", "c", "rare")


def binary(rng: np.random.Generator, count: int) -> tuple[Floats, Floats]:
    p = scores(rng, count)
    return p, (rng.random(count) < p).astype(float)


def numbers(rng: np.random.Generator, count: int) -> tuple[Floats, Floats]:
    """Delays in minutes, and predictions with heavy-tailed errors."""
    y = rng.gamma(2.0, 15.0, count)
    return y + 6.0 * rng.standard_t(3.0, count), y


def classes(rng: np.random.Generator, count: int) -> tuple[list[str], list[str]]:
    y = rng.choice(4, count, p=[0.5, 0.3, 0.16, 0.04])
    p = np.where(rng.random(count) < 0.95, y, rng.integers(0, 4, count))
    return [CLASSES[i] for i in p], [CLASSES[i] for i in y]


def watched(settings: Performance = OF_SCORES, known: Baseline | None = None) -> Stream:
    return Stream(PerformanceWatch(settings, known, 1e6))


def test_accuracy_that_collapses_is_found_without_a_labelled_baseline() -> None:
    rng = np.random.default_rng(1)
    stream = watched()
    p, y = binary(rng, 2000)
    stream.send(p.tolist(), y.tolist())
    assert stream.first == {}
    assert stream.watch.untested() == []
    p, y = binary(rng, 500)
    stream.send(p.tolist(), (1.0 - y).tolist())
    found = stream.findings()
    assert {"realised", "calibration", "recall", "precision", "auc", "log_loss"} <= set(found)
    assert found["realised"].severity == "critical"
    assert found["realised"].size is not None
    assert found["realised"].size.baseline == pytest.approx(0.84, abs=0.06)
    assert found["realised"].size.value < 0.3
    assert "the first 1,0" in " ".join(found["realised"].assumptions)
    assert stream.first["realised"] - 2000 <= 150


def test_scores_are_estimated_without_labels_once_the_first_labels_say_what_they_mean() -> None:
    rng = np.random.default_rng(2)
    stream = watched()
    p, y = binary(rng, 1500)
    stream.send(p.tolist(), y.tolist())
    p = scores(rng, 3000, 0.0)  # less sure, and no label comes any more
    stream.send(p.tolist(), [0.0] * 3000, np.full(3000, math.nan))
    assert set(stream.findings()) == {"estimated"}
    estimate = stream.watch.estimate()
    assert estimate is not None
    assert estimate.value == pytest.approx(np.maximum(p, 1.0 - p).mean(), abs=0.06)


@pytest.mark.parametrize("kind", ["scores", "numbers", "classes"])
def test_unchanged_models_are_left_alone(kind: str) -> None:
    make = {"scores": binary, "numbers": numbers, "classes": classes}[kind]
    settings = OF_SCORES if kind == "scores" else Performance(prediction="p")
    wrong = 0
    for seed in range(6):
        predicted, labels = make(np.random.default_rng(seed), 6000)
        stream = watched(settings).send(list(predicted), list(labels))
        assert stream.watch.kind == kind
        wrong += bool(stream.first)
    # At most 0.05 for the reference of any test, 0.006 for chance: 5 or 6 of 6 below 1e-6.
    assert wrong < 5


@pytest.mark.parametrize(
    ("minutes", "wanted", "title"),
    [
        (40.0, "bias", "Predictions are 40.* too high on average: bias"),
        (-40.0, "bias", "Predictions are .* too low on average"),
        (40.0, "mae", "Mean absolute error rose to 40"),
        (40.0, "mse", "Mean squared error rose to"),
    ],
)
def test_a_regression_that_is_off_is_found(minutes: float, wanted: str, title: str) -> None:
    rng = np.random.default_rng(3)
    stream = watched(Performance(prediction="p"))
    p, y = numbers(rng, 2000)
    stream.send(p.tolist(), y.tolist())
    assert stream.first == {}
    p, y = numbers(rng, 400)
    stream.send((p + minutes).tolist(), y.tolist())
    found = stream.findings()[wanted]
    assert stream.first[wanted] <= 2100
    assert re.match(title, found.title), found.title
    assert found.size is not None
    assert found.size.low is not None
    assert found.size.low < found.size.value


def near_perfect(rng: np.random.Generator, count: int) -> tuple[Floats, Floats]:
    """2 % are frauds; 99.8 % of the predictions are right."""
    x = rng.normal(size=count)
    y = (x > 2.05).astype(float)
    y = np.where(rng.random(count) < 0.0005, 1.0 - y, y)
    return np.clip(1.0 / (1.0 + np.exp(-12.0 * (x - 2.05))), 0.0, 1.0).round(4), y


def baseline_of(p: Floats, y: Floats, threshold: float = 0.5) -> Baseline:
    roles = {"p": "prediction", "y": "target"}
    builder = Builder(model="m", roles=roles, threshold=threshold)
    builder.add(("p", "y"), [p.tolist(), y.tolist()])
    return Baseline.from_dict(json.loads(json.dumps(builder.finish().to_dict())))


@pytest.mark.parametrize("with_file", [True, False])
def test_half_of_the_frauds_missed_is_found_where_accuracy_hardly_moves(with_file: bool) -> None:
    rng = np.random.default_rng(4)
    known = baseline_of(*near_perfect(rng, 10_000)) if with_file else None
    stream = watched(known=known)
    p, y = near_perfect(rng, 4000)
    stream.send(p.tolist(), y.tolist())
    assert stream.first == {}
    p, y = near_perfect(rng, 8000)
    missed = (y == 1.0) & (rng.random(8000) < 0.5)
    stream.send(np.where(missed, 0.01, p).tolist(), y.tolist())
    found = stream.findings()
    assert "realised" not in found, "1 percentage point of accuracy is lost, as much as allowed"
    assert found["recall"].title.startswith("Recall fell to")
    assert stream.watch.metrics is not None
    reference = stream.watch.metrics.tests["recall"].reference
    assert reference is not None
    assert reference.source == ("baseline" if with_file else "first labels")


def test_the_smallest_loss_may_be_relative_to_the_usual_error_rate() -> None:
    rng = np.random.default_rng(5)
    known = baseline_of(*near_perfect(rng, 20_000))
    streams = {
        loss: watched(Performance(prediction="p", threshold=0.5, smallest_loss=loss), known)
        for loss in (0.01, "100 %")
    }
    p, y = near_perfect(rng, 12_000)
    y = np.where(rng.random(12_000) < 0.008, 1.0 - y, y)  # errors from 0.2 to 1 %
    for stream in streams.values():
        stream.send(p.tolist(), y.tolist())
    assert "realised" not in streams[0.01].first
    assert "realised" in streams["100 %"].first


def test_a_class_that_is_missed_is_named() -> None:
    rng = np.random.default_rng(6)
    stream = watched(Performance(prediction="p"))
    p, y = classes(rng, 3000)
    stream.send(p, y)
    p, y = classes(rng, 9000)
    p = ["a" if t == "rare" and rng.random() < 0.6 else s for s, t in zip(p, y, strict=True)]
    stream.send(p, y)
    assert "recall/rare" in stream.findings()
    assert not {"recall/a", "recall/b", "recall/c"} & set(stream.first)
    hidden = PerformanceWatch(Performance(prediction="p"), None, 1e6, hidden=True)
    again = Stream(hidden).send(p[:200], y[:200])
    assert "rare" not in json.dumps(again.watch.summary())


def test_what_is_missing_is_said() -> None:
    rng = np.random.default_rng(7)
    stream = watched(Performance(prediction="p", threshold=0.5, reference_labels=200))
    (nothing,) = stream.watch.untested()
    assert (nothing.reason, nothing.check) == ("no_labels", "performance")
    p, y = binary(rng, 500)
    stream.send(p[:72].tolist(), y[:72].tolist())
    found = {one.check: one for one in stream.watch.untested()}
    assert found["error_rate"].words == "Error rate: 72 of 200 labels for the reference"
    assert (found["error_rate"].have, found["error_rate"].need) == (72, 200)
    assert found["calibration"].reason == "reference"
    stream.send(p[72:].tolist(), y[72:].tolist())
    left = {one.check for one in stream.watch.untested()}
    assert left <= {"auc"}, "only blocks of 20 labels are still missing"
    assert stream.watch.reference is not None


def test_a_rate_on_rare_rows_waits_for_enough_of_them() -> None:
    rng = np.random.default_rng(8)
    p, y = near_perfect(rng, 1500)
    stream = watched().send(p.tolist(), y.tolist())
    recall = next(one for one in stream.watch.untested() if one.check == "recall")
    positives = int(y.sum())
    assert recall.words == f"Recall: {positives} of 50 positive labels for the reference"
    assert positives < 50


@pytest.mark.parametrize("kind", ["scores", "numbers", "classes"])
def test_the_reference_survives_a_restart(kind: str) -> None:
    make = {"scores": binary, "numbers": numbers, "classes": classes}[kind]
    settings = OF_SCORES if kind == "scores" else Performance(prediction="p")
    predicted, labels = make(np.random.default_rng(9), 3000)
    for cut in (40, 700, 1800):
        whole = watched(settings).send(list(predicted[:cut]), list(labels[:cut]))
        with exactly():
            state = json.loads(json.dumps(whole.watch.dump_state()))
        again = watched(settings)
        again.watch.load_state(state)
        again.number = whole.number
        with exactly():
            assert json.loads(json.dumps(again.watch.dump_state())) == state
        for stream in (whole, again):
            stream.send(list(predicted[cut:]), list(labels[cut:]))
        assert again.watch.reference == whole.watch.reference
        assert again.watch.untested() == whole.watch.untested() == []
        tests = [{**t.summary()} for t in again.watch.metrics or ()]
        assert tests == [{**t.summary()} for t in whole.watch.metrics or ()]


def test_a_file_of_another_threshold_gives_no_reference() -> None:
    rng = np.random.default_rng(10)
    p, y = binary(rng, 5000)
    settings = Performance(prediction="p", threshold=0.3)
    assert PerformanceWatch(settings, baseline_of(p, y), 1e6).reference is None
    watch = PerformanceWatch(settings, baseline_of(p, y, 0.3), 1e6)
    assert watch.reference is not None
    assert watch.reference[0] == pytest.approx(float(((p > 0.3) == (y > 0.5)).mean()))
    merged = baseline_of(p, y).merge(baseline_of(p, y, 0.3))
    assert "accuracy" not in (merged.performance or {})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"smallest_loss": "5 ms"}, "does not fit|not a valid unit|does not"),
        ({"smallest_loss": 0.0}, "greater than 0|above 0"),
        ({"metrics": [{"metric": "mae"}], "threshold": 0.5}, "for numbers"),
        ({"metrics": [{"metric": "auc"}]}, "needs a threshold"),
        ({"metrics": [{"metric": "recall"}, {"metric": "recall"}]}, "twice"),
        ({"metrics": [{"metric": "recall", "smallest_loss": "much"}]}, "not a valid margin"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Performance(prediction="p", **settings)
