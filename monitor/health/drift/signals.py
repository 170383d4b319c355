"""The problems that a model's watch sees, as signals."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from understudy.common.units import percent
from understudy.monitor.baseline.rules import ADVICE, WORDS, Rule
from understudy.monitor.findings.finding import Contribution, Signal, Size
from understudy.monitor.health.corroborate import corroborations
from understudy.monitor.health.drift.categories import Shifted
from understudy.monitor.health.drift.watch import ModelWatch
from understudy.monitor.health.latches import SPAN

_MOST = 10
_DRIFT_ADVICE = (
    "Compare these features with their source: a unit, a join, an encoding or the population may "
    "have changed. If the change is permanent, build a new baseline."
)
_PREDICTION_ADVICE = (
    "The inputs are as usual, the predictions are not: check whether another build of the model is "
    "served, or whether the relation between features has changed."
)


@dataclass(slots=True)
class _Problem:
    """A problem of a column: ``weight`` is the log-likelihood ratio against no change."""

    name: str
    weight: float
    detail: str
    since: float | None
    size: Size | None = None
    examples: tuple[str, ...] = ()


Hides = Callable[[str], bool]
"""Whether values of a feature may not be shown."""


def nothing_hidden(_: str) -> bool:
    """Values of every feature may be shown."""
    return False


def signals_of(
    watch: ModelWatch, model: str, version: str, now: float, hides: Hides = nothing_hidden
) -> list[Signal]:
    """All problems at ``now``, unix seconds, one signal for each cause: a column and a rule. Empty
    when everything is normal. Signals contain no values of features for which ``hides`` is true."""
    watch.flush_joint()
    stale = _stale(watch, model, version, now)
    return [
        *([stale] if stale is not None else []),
        *_quality(watch, model, version, hides),
        *_drift(watch, model, version, hides),
        *_joint(watch, model, version),
        *_segments(watch, model, version),
        *corroborations([d for _, d in watch.corroborators], "drift", model, version),
    ]


def _stale(watch: ModelWatch, model: str, version: str, now: float) -> Signal | None:
    silent = watch.silent_for(now)
    if silent is None:
        return None
    return Signal(
        key=f"quality/{model}/{version}//stale",
        kind="quality",
        model=model,
        version=version,
        segment="",
        severity="warning",
        title="No traffic for longer than usual",
        since=watch.newest,
        rule="five times the longest gap so far, in half hours that had traffic a week ago"
        if watch.options.stale is None
        else "the limit in the configuration",
        guarantee="none: a limit, not a statistical test",
        advice=ADVICE[Rule.STALE],
    )


def _drift(watch: ModelWatch, model: str, version: str, hides: Hides) -> list[Signal]:
    """One signal for each column that has drifted, the most certain first."""
    encoder = watch.encoder
    series = len(encoder.series)
    columns: dict[int, _Problem] = {}
    # Of a column's alarms the first one counts as long as it lasts, so that a finding stays what it
    # was when it was acknowledged.
    alarmed = np.flatnonzero(watch.shifts.alarmed)
    for index in alarmed[np.argsort(watch.shifts.at[alarmed], kind="stable")]:
        number = int(index) % series
        column = encoder.column_of[number]
        if column in columns:
            continue
        estimate = watch.change(int(index))
        moved = "shifted"
        if not hides(encoder.names[column]):
            moved = _moved(watch, number, int(index) >= series, estimate.size)
        size = Size(
            f"{encoder.series[number]} ({'spread' if index >= series else 'location'})",
            "standard deviations of its ranks",
            0.0,
            estimate.size,
            estimate.low,
            estimate.high,
        )
        name = encoder.names[column]
        furthest = tuple(reversed(watch.examples.furthest.get(int(index), ())))
        columns[column] = _Problem(name, estimate.weight, moved, estimate.time, size, furthest)
    for one in watch.categories.shifted():
        column = encoder.column_of[one.series]
        item = _composed(watch, one, encoder.names[column], encoder.series[one.series], hides)
        if column not in columns or columns[column].weight < item.weight:
            columns[column] = item
    total = sum(item.weight for item in columns.values()) or 1.0
    any_input = any(encoder.is_feature[column] for column in columns)
    result = []
    for column, item in sorted(columns.items(), key=lambda pair: -pair[1].weight):
        is_input = bool(encoder.is_feature[column])
        change = "Inputs have changed" if is_input else "Predictions have changed"
        detail = "" if item.detail == "shifted" else f", {item.detail}"
        result.append(
            Signal(
                key=f"drift/{model}/{version}//{'input' if is_input else 'prediction'}/{item.name}",
                kind="drift",
                model=model,
                version=version,
                segment="",
                severity="warning",
                title=f"{change}: {item.name}{detail}",
                since=item.since,
                features=(Contribution(item.name, item.weight / total, item.detail),),
                size=item.size,
                rule="two-sided CUSUMs of normal scores (location and spread), "
                "and an e-detector of category shares",
                guarantee=_guarantee(watch),
                examples=item.examples,
                advice=_DRIFT_ADVICE if any_input else _PREDICTION_ADVICE,
                assumptions=watch.assumptions,
            )
        )
    return result


def _composed(watch: ModelWatch, one: Shifted, name: str, series: str, hides: Hides) -> _Problem:
    """A categorical column whose shares have changed."""
    label = watch.window.phrase(one.series, one.group, hidden=hides(name))
    low, high = one.interval
    size = Size(f"{series}: share of {label}", "", one.before, one.now, low, high)
    words = f"share of {label} is {percent(one.now, 3)}, was {percent(one.before, 3)}"
    return _Problem(name, one.weight, words, one.since, size, one.examples)


def _moved(watch: ModelWatch, series: int, spread: bool, size: float) -> str:
    common = watch.window.commonest(series)
    if common is not None:
        group, before, now = common
        label = watch.window.phrase(series, group)
        return f"share of {label} is {percent(now, 3)}, was {percent(before, 3)}"
    if spread:
        return f"varies {'more' if size > 0 else 'less'} than before"
    middle = watch.window.middle(series)
    if middle is None:
        return "rose" if size > 0 else "fell"
    before, now = middle
    if before == now:
        return f"{'rose' if size > 0 else 'fell'} slightly, median about {now:.4g}"
    return f"median {now:.4g}, was {before:.4g}"


def _quality(watch: ModelWatch, model: str, version: str, hides: Hides) -> list[Signal]:
    """One signal for each column and rule, the most certain first."""
    result: list[tuple[Rule, str, _Problem]] = []
    for index in np.flatnonzero(watch.broken.alarmed):
        rule = watch.rules[int(index)]
        rate = min(1.0, float(watch.broken.recent[index]))
        began = float(watch.rising[index])
        size = Size(f"share of rows: {rule.feature} {rule.rule}", "", rule.null, rate, None, None)
        words = f"{WORDS[rule.rule]} in {percent(rate, 3)} of the rows"
        if rule.rule is Rule.UNSEEN and not hides(rule.feature):
            values = watch.examples.unseen.get(rule.feature, ())
            words += f": {', '.join(map(repr, values))}" if values else ""
        if rule.rule is Rule.ADDED:
            words = f"{WORDS[rule.rule]}: {', '.join(list(watch.quality.added)[:5])}"
        elif not rule.feature:
            words = f"{WORDS[rule.rule]}: {percent(rate, 3)}"
        weight = SPAN * _divergence(rate, rule.null)
        since = began if math.isfinite(began) else None
        problem = _Problem(rule.feature or str(rule.rule), weight, words, since, size)
        result.append((rule.rule, rule.feature, problem))
    for column in np.flatnonzero(watch.stuck()):
        name = watch.encoder.names[int(column)]
        length = int(watch.runs.length[column])
        words = f"{WORDS[Rule.CONSTANT]} for {length:,} rows"
        result.append((Rule.CONSTANT, name, _Problem(name, float(length), words, None)))
    total = sum(item.weight for _, _, item in result) or 1.0
    return [
        Signal(
            key=f"quality/{model}/{version}//{rule}/{feature}",
            kind="quality",
            model=model,
            version=version,
            segment="",
            severity="critical" if item.size is not None and item.size.value >= 0.5 else "warning",
            title=f"Data quality: {item.name} {item.detail}"
            if feature
            else f"Data quality: {item.detail}",
            since=item.since,
            features=(Contribution(item.name, item.weight / total, item.detail),),
            size=item.size,
            rule="longest run of one value that chance and the baseline explain"
            if rule is Rule.CONSTANT
            else "Shiryaev-Roberts e-detector on the rate of rows that violate a rule",
            guarantee=_guarantee(watch),
            examples=tuple(reversed(watch.examples.broken.get(rule, {}).get(item.name, []))),
            advice=ADVICE[rule],
        )
        for rule, feature, item in sorted(result, key=lambda one: -one[2].weight)
    ]


def _joint(watch: ModelWatch, model: str, version: str) -> list[Signal]:
    """Only when no single feature has drifted or is broken: that changes the joint distribution
    too."""
    if watch.together is None or watch.drifted().any():
        return []
    broken = [watch.rules[number].feature for number in np.flatnonzero(watch.broken.alarmed)]
    if any(broken) or watch.stuck().any():
        return []
    rules = {
        "reconstruction": "CUSUMs of the reconstruction error of principal components",
        "discrepancy": "maximum mean discrepancy between blocks of rows, by random Fourier "
        "features",
    }
    result = []
    for one in watch.together.alarms():
        weights = sorted(one.weights.items(), key=lambda item: -item[1])[:_MOST]
        named = ", ".join(name for name, weight in weights[:3] if weight > 0.1)
        result.append(
            Signal(
                key=f"drift/{model}/{version}//joint/{one.rule}",
                kind="drift",
                model=model,
                version=version,
                segment="",
                severity="warning",
                title="The relation between inputs changed"
                + (f": {named}" if named else "")
                + "; each single feature is as usual",
                features=tuple(
                    Contribution(name, weight, "no longer fits the other features")
                    for name, weight in weights
                    if weight > 0.0
                ),
                rule=rules[one.rule],
                guarantee=_guarantee(watch),
                advice="Check for a join on the wrong key, swapped columns, or a source that fills "
                "features independently of each other.",
                assumptions=watch.assumptions,
            )
        )
    return result


def _segments(watch: ModelWatch, model: str, version: str) -> list[Signal]:
    """Only when no series of the whole has drifted: a general drift is reported once."""
    if watch.drifted().any():
        return []
    result = []
    for number, (feature, value) in enumerate(watch.segments.names):
        alarmed = watch.segments.alarmed[number]
        if not alarmed.any():
            continue
        ranked = _in_segment(watch, number, np.flatnonzero(alarmed).tolist())
        first: dict[str, _Problem] = {}
        for item in ranked:
            first.setdefault(item.name, item)
        total = sum(item.weight for item in first.values()) or 1.0
        segment = f"{feature}={value}"
        for name, item in first.items():
            result.append(
                Signal(
                    key=f"drift/{model}/{version}/{segment}/input/{name}",
                    kind="drift",
                    model=model,
                    version=version,
                    segment=segment,
                    severity="info",
                    title=f"Inputs have changed where {feature} is {value}: {name}",
                    since=item.since,
                    features=(Contribution(name, item.weight / total, item.detail),),
                    size=item.size,
                    rule="block CUSUMs of normal scores against the segment's first rows",
                    guarantee=_guarantee(watch),
                    examples=tuple(reversed(watch.segments.examples.get(number, ()))),
                    advice=_DRIFT_ADVICE,
                    assumptions=watch.assumptions,
                )
            )
    return result


def _in_segment(watch: ModelWatch, number: int, indices: list[int]) -> list[_Problem]:
    """The changes in a segment, the most certain first."""
    encoder = watch.encoder
    series = len(encoder.series)
    result = []
    for index in indices:
        moved = watch.segments.moved(number, index)
        kind = "spread" if index >= series else "location"
        size = Size(
            f"{encoder.series[index % series]} ({kind})",
            "standard deviations of its ranks",
            0.0,
            moved.size,
            moved.low,
            moved.high,
        )
        weight = (moved.size / max(moved.high - moved.low, 1e-9)) ** 2
        name = encoder.names[encoder.column_of[index % series]]
        result.append(_Problem(name, weight, "shifted", moved.since, size))
    return sorted(result, key=lambda item: -item.weight)


def _guarantee(watch: ModelWatch) -> str:
    rows = watch.options.run_length
    return (
        f"on average at most one false alarm in {rows:,.0f} rows, across all features, rules and "
        "segments of the model"
    )


def _divergence(rate: float, null: float) -> float:
    """Kullback-Leibler divergence of a share from the null's, in nats."""
    rate = min(max(rate, 1e-12), 1.0 - 1e-12)
    return rate * math.log(rate / null) + (1.0 - rate) * math.log((1.0 - rate) / (1.0 - null))
