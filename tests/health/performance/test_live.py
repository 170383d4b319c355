"""What the performance watch does with labels: few, many, by segment, and in the worst slices."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy.special import expit, logit

from tests.support.performance import baseline, scores
from understudy.monitor.baseline.builder import Builder
from understudy.monitor.baseline.model import Baseline
from understudy.monitor.config.detectors import ErrorDetector
from understudy.monitor.config.performance import Performance
from understudy.monitor.evidence.pending import PREFIX, segment_columns
from understudy.monitor.health.performance.signals import performance_signals
from understudy.monitor.health.performance.watch import PerformanceWatch
from understudy.monitor.labels.store import Joined

Floats = np.ndarray


def judged(**settings: object) -> Performance:
    return Performance(prediction="p", threshold=0.5, **settings)


def label(watch: PerformanceWatch, number: int, score: float, y: float, **features: object) -> None:
    outputs = {"p": score, **{PREFIX + name: value for name, value in features.items()}}
    watch.take_label(
        Joined(number, f"r-{number}", "champion", False, "m", 0.0, float(number), outputs, 0,
               float(y), None, float(number), 1.0)
    )  # fmt: skip


def stream(
    watch: PerformanceWatch, rng: np.random.Generator, count: int, share: float, slope: float,
    start: int = 0,
) -> None:  # fmt: skip
    """Predictions, a ``share`` of which get a label; scores mean ``slope`` times what they say."""
    p = scores(rng, count)
    y = rng.random(count) < expit(slope * logit(p))
    for number, (score, truth) in enumerate(zip(p.tolist(), y.tolist(), strict=True), start):
        watch.take([score], [float(number)], None, f"r-{number}")
        if rng.random() < share:
            label(watch, number, score, truth)
    watch.flush()


def keys(watch: PerformanceWatch) -> list[str]:
    return sorted(s.key.rpartition("/")[2] for s in performance_signals(watch, "m", ""))


def test_a_twentieth_of_the_labels_detects_a_worse_model() -> None:
    rng = np.random.default_rng(1)
    settings = judged(label_share=0.05, label_wait="100s")
    known = baseline(rng)
    watch = PerformanceWatch(settings, known, 100_000.0)
    stream(watch, rng, 20_000, 0.05, 1.0)
    assert keys(watch) == []
    summary = watch.summary()["sampled"]
    assert summary["share"] == pytest.approx(0.05, abs=0.01)
    assert 90 <= summary["waiting"] <= 101
    # Scores turn round: a third of the predictions is wrong, and no score tells.
    stream(watch, rng, 15_000, 0.05, 0.1, 20_000)
    assert "realised" in keys(watch)
    found = next(s for s in performance_signals(watch, "m", "") if s.key.endswith("realised"))
    assert "expected for the rest" in found.rule
    assert found.size is not None
    assert found.size.value < 0.8
    again = PerformanceWatch(settings, known, 100_000.0)
    again.load_state(json.loads(json.dumps(watch.dump_state())))
    assert keys(again) == keys(watch)


def test_sampled_labels_count_once_each_and_only_in_time() -> None:
    rng = np.random.default_rng(2)
    watch = PerformanceWatch(judged(label_share=0.5, label_wait="10s"), baseline(rng), 1e5)
    for number in range(100):
        watch.take([0.9], [float(number)], None, f"r-{number}")
    label(watch, 95, 0.9, 0.0)
    label(watch, 10, 0.9, 0.0)
    label(watch, 12_345, 0.9, 0.0)  # of no prediction
    watch.flush()
    sampled = watch.realised.sampled
    assert sampled is not None
    assert (sampled.settled, sampled.labelled, sampled.lost) == (90, 1, 0)
    watch.take([0.9], [200.0], None, "late")
    label(watch, 20, 0.9, 1.0)  # that one has gone on without
    watch.flush()
    assert (sampled.settled, sampled.labelled) == (100, 2)


def test_a_client_that_repeats_its_id_holds_up_no_other_predictions() -> None:
    watch = PerformanceWatch(
        judged(label_share=0.5, label_wait="10s"), baseline(np.random.default_rng(2)), 1e5
    )
    for number in range(100):
        watch.take([0.9], [float(number)], None, "always-the-same")
        watch.take([0.9], [float(number)], None, f"r-{number}")
    watch.flush()
    sampled = watch.realised.sampled
    assert sampled is not None
    # The repeated id waits for a label from its first request on, like any other.
    assert (sampled.settled, sampled.lost) == (90 + 1, 0)


def test_the_probability_of_any_false_alarm_is_bounded() -> None:
    rng = np.random.default_rng(3)
    known = baseline(rng, 50_000)
    settings = judged(guarantee="ever", alpha=0.05)
    watch = PerformanceWatch(settings, known, 1e5)
    stream(watch, rng, 4000, 1.0, 1.0)
    assert keys(watch) == []
    stream(watch, rng, 6000, 1.0, 0.1, 4000)
    (found,) = [s for s in performance_signals(watch, "m", "") if s.key.endswith("realised")]
    assert "any false alarm is at most 0.05" in found.guarantee
    assert "confidence sequence" in found.rule
    with pytest.raises(ValueError, match="run_length only"):
        judged(guarantee="ever", label_share=0.1)
    with pytest.raises(ValueError, match="threshold"):
        Performance(prediction="p", label_share=0.1)


def segmented(
    watch: PerformanceWatch, rng: np.random.Generator, count: int, worse: str, start: int
) -> None:
    for number in range(start, start + count):
        group = "abc"[number % 3]
        p = float(scores(rng, 1)[0])
        y = rng.random() < expit((0.1 if group == worse else 1.0) * logit(p))
        label(watch, number, p, y, group=group)
    watch.flush()


def test_a_worse_segment_and_a_large_gap_are_reported() -> None:
    rng = np.random.default_rng(4)
    settings = judged(largest_gap=0.05)
    known = baseline(rng)
    watch = PerformanceWatch(settings, known, 1e5, ("group",))
    segmented(watch, rng, 3000, "", 0)
    assert keys(watch) == []
    segmented(watch, rng, 6000, "c", 3000)
    signals = {s.key.rpartition("/")[2]: s for s in performance_signals(watch, "m", "")}
    gap = signals["gap-error_rate"]
    assert (gap.segment, gap.size is not None) == ("group", True)
    assert "between c and" in gap.title
    assert gap.size is not None
    assert gap.size.low is not None
    assert gap.size.low > 0.05
    worse = watch.declared.worse()
    assert [(feature, one.name) for feature, one in worse] == [("group", "c")]
    summary = watch.summary()["segments"]["group"]
    assert {rate["name"] for rate in summary["groups"]["error_rate"]} == {"a", "b", "c"}
    again = PerformanceWatch(settings, known, 1e5, ("group",))
    again.load_state(json.loads(json.dumps(watch.dump_state())))
    assert keys(again) == keys(watch)


def test_equal_groups_raise_no_alarm() -> None:
    alarms = 0
    for seed in range(8):
        rng = np.random.default_rng(50 + seed)
        watch = PerformanceWatch(judged(largest_gap=0.01), baseline(rng), 1e4, ("group",))
        segmented(watch, rng, 3000, "", 0)
        alarms += bool(watch.declared.worse() or watch.declared.apart())
    # A gap with probability 0.05, an alarm in 3,000 of 40,000 labels: 8 of 8 below 1e-7.
    assert alarms < 7


def test_the_worst_slices_of_labelled_predictions_are_found() -> None:
    rng = np.random.default_rng(5)
    watch = PerformanceWatch(judged(slices=True), baseline(rng), 1e6)
    for number in range(4000):
        p = float(scores(rng, 1)[0])
        age, plan = float(rng.integers(18, 90)), str(rng.choice(["basic", "plus", "gold"]))
        bad = plan == "gold" and age > 60
        y = rng.random() < expit((-1.0 if bad else 1.0) * logit(p))
        label(watch, number, p, y, age=age, plan=plan)
    watch.flush()
    worst = watch.summary()["worst_slices"]
    assert "plan = gold" in worst[0]["slice"]
    assert "age" in worst[0]["slice"]
    assert worst[0]["low"] > 0.1
    again = PerformanceWatch(judged(slices=True), watch_baseline(rng), 1e6)
    again.load_state(json.loads(json.dumps(watch.dump_state())))
    assert again.summary()["worst_slices"] == worst


def watch_baseline(rng: np.random.Generator) -> Baseline:
    return baseline(rng, 3000)


def test_features_are_stored_with_predictions_by_name() -> None:
    kept = segment_columns(("b", "none"), ("a", "b"), [1, 2, 3, 4])
    assert kept == {"@b": [2, 4]}


@pytest.mark.parametrize("kind", ["shewhart", "ewma", "ddm", "hddm_a", "adwin"])
def test_detectors_of_wrong_predictions(kind: str) -> None:
    if kind not in ("shewhart", "ewma"):
        pytest.importorskip(
            "river", reason="river is an extra: pip install 'understudy-serving[river]'"
        )
    rng = np.random.default_rng(6)
    watch = PerformanceWatch(judged(detectors=[ErrorDetector(kind=kind)]), baseline(rng), 1e6)
    stream(watch, rng, 1000, 1.0, 1.0)
    stream(watch, rng, 3000, 1.0, -1.0, 1000)
    (shown,) = watch.summary()["detectors"]
    assert (shown["kind"], shown["alarms"] > 0) == (kind, True)


def test_regions_of_a_baseline_are_used_where_features_come() -> None:
    rng = np.random.default_rng(7)

    def world(count: int, share: float) -> tuple[Floats, Floats, list[str]]:
        group = np.where(rng.random(count) < share, "b", "a")
        p = scores(rng, count)
        y = rng.random(count) < expit(np.where(group == "b", 0.2, 1.2) * logit(p))
        return p, y.astype(float), group.tolist()

    p, y, group = world(12_000, 0.2)
    builder = Builder(
        model="m", roles={"p": "prediction", "y": "target"}, sample=20_000, regions=True
    )
    builder.add(("p", "y", "group"), [p.tolist(), y.tolist(), group])
    found = Baseline.from_dict(json.loads(json.dumps(builder.finish().to_dict())))
    assert found.calibration is not None
    assert "regions" in found.calibration
    watch = PerformanceWatch(judged(), found, 1e6)
    assert watch.uses_features
    new, truth, features = world(3000, 0.8)
    for start in range(0, 3000, 100):
        cells = new[start : start + 100].tolist()
        part = {"group": features[start : start + 100]}
        watch.take(cells, [float(start)] * 100, part, f"r-{start}")
    watch.flush()
    estimate = watch.estimate()
    assert estimate is not None
    wanted = float(((new[-1000:] > 0.5) == (truth[-1000:] > 0.5)).mean())
    assert abs(estimate.value - wanted) < 0.06, "five standard errors of a thousand labels"
    plain = PerformanceWatch(judged(), found, 1e6)
    plain.take(new.tolist(), [0.0] * 3000)
    plain.flush()
    without = plain.estimate()
    assert without is not None
    assert abs(without.value - wanted) > abs(estimate.value - wanted)
    assert not math.isnan(estimate.low)
