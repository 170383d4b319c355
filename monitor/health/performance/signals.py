"""What the performance of a model says, in words."""

from __future__ import annotations

from understudy.monitor.findings.finding import Contribution, Signal, Size
from understudy.monitor.health.corroborate import corroborations
from understudy.monitor.health.performance.declared import LargeGap
from understudy.monitor.health.performance.segments import WorseSegment
from understudy.monitor.health.performance.watch import PerformanceWatch

_EXPECTED, _REALISED, _CALIBRATION = range(3)


_GAP_WORDS = {
    "error_rate": "wrong predictions",
    "positive_rate": "positive answers",
    "true_positive_rate": "positives found",
}


def performance_signals(watch: PerformanceWatch, model: str, version: str) -> list[Signal]:
    """What is wrong at present."""
    found = []
    if watch.latches.alarmed[_REALISED]:
        found.append(_realised(watch, model, version))
    if watch.latches.alarmed[_EXPECTED]:
        found.append(_expected(watch, model, version))
    if watch.latches.alarmed[_CALIBRATION] and watch.calibration is not None:
        found.append(
            Signal(
                key=f"performance/{model}/{version}//calibration",
                kind="performance",
                model=model,
                version=version,
                segment="",
                severity="warning",
                title=f"Scores have changed their meaning: {watch.calibration.words()}",
                rule="calibration e-detector on labelled scores",
                guarantee=_guarantee(watch),
                advice="Inputs and outcomes relate in another way, or another build is served. "
                "Recalibrate on recent labels, or retrain; do not trust estimates without labels.",
            )
        )
    if not watch.latches.alarmed[_REALISED]:  # what is wrong everywhere is said once
        found += [
            _worse(watch, model, version, feature, one) for feature, one in watch.declared.worse()
        ]
    found += [_apart(model, version, one) for one in watch.declared.apart()]
    found += corroborations(watch.realised.corroborators, "performance", model, version)
    return found


def _worse(
    watch: PerformanceWatch, model: str, version: str, feature: str, one: WorseSegment
) -> Signal:
    where = f"{feature} = {one.name}"
    return Signal(
        key=f"performance/{model}/{version}/{where}/realised",
        kind="performance",
        model=model,
        version=version,
        segment=where,
        severity="warning",
        title=f"Where {where}, {one.value * 100:.1f} % of predictions are wrong, "
        f"{one.reference * 100:.1f} % before: labels say so",
        features=(Contribution(feature, 1.0, "the segment that has become worse"),),
        size=Size("error rate", "", one.reference, one.value, None, None),
        rule="Shiryaev-Roberts e-detectors on the share of wrong predictions of each segment",
        guarantee=_guarantee(watch),
        advice="Look at this segment's inputs and at who uses it. It is compared with its own "
        "first labels, so it has become worse, not only been harder from the start.",
        assumptions=("the first 500 labels of a segment are what is usual for it",),
    )


def _apart(model: str, version: str, one: LargeGap) -> Signal:
    gap = one.gap
    what = _GAP_WORDS.get(gap.metric, gap.metric)
    return Signal(
        key=f"performance/{model}/{version}/{one.feature}/gap-{gap.metric}",
        kind="performance",
        model=model,
        version=version,
        segment=one.feature,
        severity="warning",
        title=f"Share of {what} differs by {gap.value * 100:.1f} points between "
        f"{gap.highest} and {gap.lowest} of {one.feature}",
        features=(Contribution(one.feature, 1.0, what),),
        size=Size(f"gap in {gap.metric}", "", None, gap.value, gap.low, gap.high),
        rule="confidence sequences of each group, at one level for all groups and metrics",
        guarantee="with a probability of 95 % no gap is ever reported where there is none as "
        "large as is allowed",
        advice="A gap can come from the groups themselves, from labels that are measured in "
        "different ways, or from the model. Compare the groups' inputs and how they get labels.",
        assumptions=("which predictions get a label does not depend on the outcome",),
    )


def _expected(watch: PerformanceWatch, model: str, version: str) -> Signal:
    estimate = watch.estimate()
    known = watch.reference[0] if watch.reference is not None else None
    change = watch.history.estimate(0)
    said = "Accuracy is estimated to have fallen, before any label"
    size = None
    doubts: tuple[str, ...] = ()
    if estimate is not None:
        was = f", was {known * 100:.1f} %" if known is not None else ""
        said = (
            f"Accuracy is estimated at {estimate.value * 100:.1f} % "
            f"({estimate.low * 100:.1f} to {estimate.high * 100:.1f} %){was}: no labels yet"
        )
        size = Size("accuracy", "", known, estimate.value, estimate.low, estimate.high)
        doubts = estimate.doubts
    return Signal(
        key=f"performance/{model}/{version}//estimated",
        kind="performance",
        model=model,
        version=version,
        segment="",
        severity="warning",
        title=said,
        since=change.time,
        size=size,
        rule="Shiryaev-Roberts e-detector on the errors to be expected from the scores",
        guarantee=_guarantee(watch),
        advice="See which inputs have changed: the drift and quality findings name them. Labels "
        "will tell whether it is so.",
        assumptions=(
            "scores mean what they meant in the baseline; a change of that itself shows only in "
            "labels",
            *doubts,
        ),
    )


def _realised(watch: PerformanceWatch, model: str, version: str) -> Signal:
    now = 1.0 - float(watch.latches.recent[_REALISED])
    known = watch.reference[0] if watch.reference is not None else None
    change = watch.history.estimate(1)
    if watch.realised.sampled is not None:
        # Losses that stand for those without a label stray far: the mean since the change is meant.
        usual = watch.realised
        now = min(1.0, max(0.0, 1.0 - usual.usual - change.size * usual.deviation))
    was = f", was {known * 100:.1f} %" if known is not None else ""
    outlook = watch.outlook()
    advice = "Look at the examples, and at the segments with the largest loss. "
    if watch.slices is not None and watch.slices.found:
        worst = watch.slices.found[0]
        advice += f"Worst where {worst['slice']}: {worst['loss'] * 100:.1f} % are wrong. "
    if outlook is not None:
        advice += f"Retraining: {outlook.words}."
    return Signal(
        key=f"performance/{model}/{version}//realised",
        kind="performance",
        model=model,
        version=version,
        segment="",
        severity="critical",
        title=f"Accuracy has fallen to {now * 100:.1f} %{was}: labels say so",
        since=change.time,
        size=Size("accuracy", "", known, now, None, None),
        rule=watch.realised.rule,
        guarantee=watch.realised.guarantee or _guarantee(watch),
        examples=tuple(reversed(watch.examples)),
        advice=advice,
    )


def _guarantee(watch: PerformanceWatch) -> str:
    return (
        f"on average at most one false alarm in {watch.run_length:,.0f} predictions or labels, of "
        "all tests of the performance together, if the baseline is right"
    )
