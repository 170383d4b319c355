"""Performance problems of a model, as signals."""

from __future__ import annotations

from understudy.common.units import percent
from understudy.monitor.findings.finding import Contribution, Signal, Size
from understudy.monitor.health.corroborate import corroborations
from understudy.monitor.health.performance.declared import LargeGap
from understudy.monitor.health.performance.segments import WorseSegment
from understudy.monitor.health.performance.selection import ASSUMPTION
from understudy.monitor.health.performance.tested import MetricTest
from understudy.monitor.health.performance.watch import PerformanceWatch

_EXPECTED, _REALISED, _CALIBRATION = range(3)


_GAP_WORDS = {
    "error_rate": "wrong predictions",
    "positive_rate": "positive predictions",
    "true_positive_rate": "positives found (recall)",
}


def performance_signals(watch: PerformanceWatch, model: str, version: str) -> list[Signal]:
    """The present problems. While labels are not a fair sample of the predictions, only those that
    scores show without labels."""
    signals = []
    if watch.latches.alarmed[_EXPECTED]:
        signals.append(_expected(watch, model, version))
    selective = watch.selective is not None and watch.selective.reason == "selective"
    if selective or not watch.checked:
        return signals
    if watch.latches.alarmed[_REALISED]:
        signals.append(_realised(watch, model, version))
    signals += [
        _metric(watch, test, model, version) for test in watch.metrics or () if test.alarmed
    ]
    if watch.latches.alarmed[_CALIBRATION] and watch.calibration is not None:
        signals.append(
            Signal(
                key=f"performance/{model}/{version}//calibration",
                kind="performance",
                model=model,
                version=version,
                segment="",
                severity="warning",
                title=f"Scores are miscalibrated: {watch.calibration.words()}",
                rule="calibration e-detector on labelled scores",
                guarantee=_guarantee(watch),
                advice="The relation between inputs and outcomes changed, or another build is "
                "served. Recalibrate on recent labels, or retrain. Do not trust estimates without "
                "labels.",
                assumptions=_assumed(watch),
            )
        )
    if not watch.latches.alarmed[_REALISED]:  # a general loss is reported once
        signals += [
            _worse(watch, model, version, feature, one) for feature, one in watch.declared.worse()
        ]
    signals += [_apart(model, version, one) for one in watch.declared.apart()]
    signals += corroborations(watch.realised.corroborators, "performance", model, version)
    return signals


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
        title=f"Error rate where {where} rose to {percent(one.value, 3)}, was "
        f"{percent(one.reference, 3)} (measured by labels)",
        features=(Contribution(feature, 1.0, "the segment that got worse"),),
        size=Size("error rate", "", one.reference, one.value, None, None),
        rule="Shiryaev-Roberts e-detectors on the error rate of each segment",
        guarantee=_guarantee(watch),
        advice="Check this segment's inputs and clients. It is compared with its own first labels, "
        "so it got worse and was not just harder from the start.",
        assumptions=(
            "the first 500 labels of a segment are representative of it",
            *watch.assumptions(),
        ),
    )


def _apart(model: str, version: str, one: LargeGap) -> Signal:
    gap = one.gap
    rate = _GAP_WORDS.get(gap.metric, gap.metric)
    return Signal(
        key=f"performance/{model}/{version}/{one.feature}/gap-{gap.metric}",
        kind="performance",
        model=model,
        version=version,
        segment=one.feature,
        severity="warning",
        title=f"Share of {rate} differs by {gap.value * 100:.3g} percentage points between "
        f"{gap.highest} and {gap.lowest} of {one.feature}",
        features=(Contribution(one.feature, 1.0, rate),),
        size=Size(f"gap in {gap.metric}", "", None, gap.value, gap.low, gap.high),
        rule="confidence sequences of each group, simultaneous over all groups and metrics",
        guarantee="with a probability of 95 %, a gap within the allowed limit is never reported",
        advice="The cause can be the groups themselves, labels that are collected in different "
        "ways, or the model. Compare the groups' inputs and how they get labels.",
        assumptions=(ASSUMPTION,),
    )


def _expected(watch: PerformanceWatch, model: str, version: str) -> Signal:
    estimate = watch.estimate()
    known = watch.reference[0] if watch.reference is not None else None
    change = watch.history.estimate(0)
    title = "Estimated accuracy fell; no labels yet"
    size = None
    doubts: tuple[str, ...] = ()
    if estimate is not None:
        was = f", was {percent(known, 3)}" if known is not None else ""
        title = (
            f"Accuracy is estimated at {percent(estimate.value, 3)} "
            f"({percent(estimate.low, 3)} to {percent(estimate.high, 3)}){was}: no labels yet"
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
        title=title,
        since=change.time,
        size=size,
        rule="Shiryaev-Roberts e-detector on the errors expected from the scores",
        guarantee=_guarantee(watch),
        advice="Check which inputs changed: drift and quality findings name them. Labels will "
        "confirm or refute the estimate.",
        assumptions=(
            "scores have the same meaning as in the baseline; a change of that is only visible in "
            "labels",
            *doubts,
        ),
    )


def _realised(watch: PerformanceWatch, model: str, version: str) -> Signal:
    now = 1.0 - float(watch.latches.recent[_REALISED])
    known = watch.reference[0] if watch.reference is not None else None
    change = watch.history.estimate(1)
    if watch.realised.sampled is not None:
        # Weighted losses vary strongly: use the mean since the change.
        usual = watch.realised
        now = min(1.0, max(0.0, 1.0 - usual.usual - change.size * usual.deviation))
    was = f", was {percent(known, 3)}" if known is not None else ""
    retrain_advice = watch.retrain_advice()
    advice = "Check the examples, and the segments with the largest loss. "
    if watch.slices is not None and watch.slices.found:
        worst = watch.slices.found[0]
        advice += f"Worst slice: {worst['slice']}, with {percent(worst['loss'], 3)} errors. "
    if retrain_advice is not None:
        advice += f"Retraining: {retrain_advice.words}."
    return Signal(
        key=f"performance/{model}/{version}//realised",
        kind="performance",
        model=model,
        version=version,
        segment="",
        severity="critical",
        title=f"Accuracy fell to {percent(now, 3)}{was} (measured by labels)",
        since=change.time,
        size=Size("accuracy", "", known, now, None, None),
        rule=watch.realised.rule,
        guarantee=watch.realised.guarantee or _guarantee(watch),
        examples=tuple(reversed(watch.examples)),
        advice=advice,
        assumptions=_assumed(watch),
    )


def _metric(watch: PerformanceWatch, test: MetricTest, model: str, version: str) -> Signal:
    """A metric other than the error rate that labels show to be worse than its reference."""
    kind, since_change = test.kind, test.change()
    since, value, low, high = since_change
    name = f"{kind.title} of {test.label}" if test.label else kind.title
    known = test.usual or 0.0
    if kind.score:
        words = f"{name} fell to {percent(value, 3)}, was {percent(known, 3)}"
    elif kind.name == "bias":
        way = "high" if value > known else "low"
        words = (
            f"Predictions are {abs(value):.4g} too {way} on average: bias {value:+.4g}, was "
            f"{known:+.4g}"
        )
    else:
        words = f"{name} rose to {value:.4g}, was {known:.4g}"
    assumed = list(_assumed(watch))
    if test.reference is not None and test.reference.source == "first labels":
        rows = int(test.reference.rows)
        assumed.insert(0, f"the first {rows:,} {kind.rows} are representative")
    if not kind.bounded:
        assumed.append(f"a loss above {test.scale:.4g} counts as {test.scale:.4g}")
    if kind.name == "bias":
        assumed[-1] = f"errors are cut at {test.scale / 2.0:.4g} from the usual bias"
    part = f"/{test.label}" if test.label else ""
    return Signal(
        key=f"performance/{model}/{version}//{kind.name}{part}",
        kind="performance",
        model=model,
        version=version,
        segment="",
        severity="critical",
        title=f"{words} (measured by labels)",
        since=since,
        size=Size(name.lower(), "", known, value, low, high),
        rule=f"Shiryaev-Roberts e-detector on {kind.name.replace('_', ' ')}",
        guarantee=_guarantee(watch),
        examples=tuple(reversed(watch.examples)),
        advice="Compare with the other performance findings of this model, and check the examples. "
        f"The smallest loss that matters is {test.matters:.3g}.",
        assumptions=tuple(assumed),
    )


def _assumed(watch: PerformanceWatch) -> tuple[str, ...]:
    """What every finding by labels assumes."""
    rows = watch.first.rows
    of_first = (f"the first {rows:,} labels are representative",) if watch.first.done else ()
    return (*of_first, *watch.assumptions())


def _guarantee(watch: PerformanceWatch) -> str:
    return (
        f"on average at most one false alarm in {watch.run_length:,.0f} predictions or labels, "
        "across all performance tests, if the reference is right"
    )
