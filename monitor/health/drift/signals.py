"""The problems that a model's watch sees, as signals."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

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
    """All problems at ``now``, unix seconds; empty when everything is normal. Signals contain no
    values of features for which ``hides`` is true."""
    watch.flush_joint()
    result = [
        _stale(watch, model, version, now),
        _quality(watch, model, version, hides),
        _drift(watch, model, version, hides),
    ]
    result += _joint(watch, model, version)
    result += _segments(watch, model, version)
    result += corroborations([d for _, d in watch.corroborators], "drift", model, version)
    return [signal for signal in result if signal is not None]


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
        rule="five times the longest gap so far"
        if watch.options.stale is None
        else "the limit in the configuration",
        guarantee="none: a limit, not a statistical test",
        advice=ADVICE[Rule.STALE],
    )


def _drift(watch: ModelWatch, model: str, version: str, hides: Hides) -> Signal | None:
    encoder = watch.encoder
    series = len(encoder.series)
    columns: dict[int, _Problem] = {}
    for index in np.flatnonzero(watch.shifts.alarmed):
        number = int(index) % series
        column = encoder.column_of[number]
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
        item = _Problem(name, estimate.weight, moved, estimate.time, size, furthest)
        if column not in columns or columns[column].weight < item.weight:
            columns[column] = item
    for one in watch.categories.shifted():
        column = encoder.column_of[one.series]
        item = _composed(watch, one, encoder.names[column], encoder.series[one.series], hides)
        if column not in columns or columns[column].weight < item.weight:
            columns[column] = item
    if not columns:
        return None
    features = [item for column, item in columns.items() if encoder.is_feature[column]]
    answers = [item for column, item in columns.items() if not encoder.is_feature[column]]
    ranked = sorted(features or answers, key=lambda item: -item.weight)
    what = "Inputs have changed" if features else "Predictions have changed"
    also = f"; predictions have changed as well ({answers[0].name})" if features and answers else ""
    return Signal(
        key=f"drift/{model}/{version}//",
        kind="drift",
        model=model,
        version=version,
        segment="",
        severity="warning",
        title=f"{what}: {_listed(ranked)}{also}",
        since=_earliest(ranked),
        features=_contributions(ranked),
        size=ranked[0].size,
        rule="two-sided CUSUMs of normal scores (location and spread), "
        "and an e-detector of category shares",
        guarantee=_guarantee(watch),
        examples=ranked[0].examples,
        advice=_DRIFT_ADVICE if features else _PREDICTION_ADVICE,
        assumptions=watch.assumptions,
    )


def _composed(watch: ModelWatch, one: Shifted, name: str, series: str, hides: Hides) -> _Problem:
    """A categorical column whose shares have changed."""
    label = watch.window.phrase(one.series, one.group, hidden=hides(name))
    low, high = one.interval
    size = Size(f"{series}: share of {label}", "", one.before, one.now, low, high)
    words = f"share of {label} is {one.now * 100:.3g} %, was {one.before * 100:.3g} %"
    return _Problem(name, one.weight, words, one.since, size, one.examples)


def _moved(watch: ModelWatch, series: int, spread: bool, size: float) -> str:
    common = watch.window.commonest(series)
    if common is not None:
        group, before, now = common
        label = watch.window.phrase(series, group)
        return f"share of {label} is {now * 100:.3g} %, was {before * 100:.3g} %"
    if spread:
        return f"varies {'more' if size > 0 else 'less'} than before"
    middle = watch.window.middle(series)
    if middle is None:
        return "rose" if size > 0 else "fell"
    before, now = middle
    if before == now:
        return f"{'rose' if size > 0 else 'fell'} slightly, median about {now:.4g}"
    return f"median {now:.4g}, was {before:.4g}"


def _quality(watch: ModelWatch, model: str, version: str, hides: Hides) -> Signal | None:
    result: list[_Problem] = []
    rules: list[Rule] = []
    for index in np.flatnonzero(watch.broken.alarmed):
        rule = watch.rules[int(index)]
        rate = min(1.0, float(watch.broken.recent[index]))
        began = float(watch.rising[index])
        size = Size(f"share of rows: {rule.feature} {rule.rule}", "", rule.null, rate, None, None)
        words = f"{WORDS[rule.rule]} in {rate * 100:.3g} % of the rows"
        if rule.rule is Rule.UNSEEN and not hides(rule.feature):
            values = watch.examples.unseen.get(rule.feature, ())
            words += f": {', '.join(map(repr, values))}" if values else ""
        if rule.rule is Rule.ADDED:
            words = f"{WORDS[rule.rule]}: {', '.join(list(watch.quality.added)[:5])}"
        elif not rule.feature:
            words = f"{WORDS[rule.rule]}: {rate * 100:.3g} %"
        name = rule.feature or str(rule.rule)
        weight = SPAN * _divergence(rate, rule.null)
        since = began if math.isfinite(began) else None
        result.append(_Problem(name, weight, words, since, size))
        rules.append(rule.rule)
    for column in np.flatnonzero(watch.stuck()):
        name = watch.encoder.names[int(column)]
        length = int(watch.runs.length[column])
        words = f"{WORDS[Rule.CONSTANT]} for {length:,} rows"
        result.append(_Problem(name, float(length), words, None))
        rules.append(Rule.CONSTANT)
    if not result:
        return None
    order = sorted(range(len(result)), key=lambda n: -result[n].weight)
    ranked = [result[n] for n in order]
    leading = rules[order[0]]
    examples = watch.examples.broken.get(leading, {}).get(ranked[0].name, [])
    worst = max((item.size.value for item in ranked if item.size is not None), default=0.0)
    return Signal(
        key=f"quality/{model}/{version}//",
        kind="quality",
        model=model,
        version=version,
        segment="",
        severity="critical" if worst >= 0.5 else "warning",
        title=f"Data quality: {ranked[0].name} {ranked[0].detail}"
        + (f", and {len(ranked) - 1} more" if len(ranked) > 1 else ""),
        since=_earliest(ranked),
        features=_contributions(ranked),
        size=ranked[0].size,
        rule="Shiryaev-Roberts e-detector on the rate of rows that violate a rule",
        guarantee=_guarantee(watch),
        examples=tuple(reversed(examples)),
        advice=ADVICE[leading],
        assumptions=(),
    )


def _joint(watch: ModelWatch, model: str, version: str) -> list[Signal]:
    """Only when no single feature has drifted: a drift of one changes the joint distribution
    too."""
    if watch.together is None or watch.drifted().any():
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
                key=f"drift/{model}/{version}//{one.rule}",
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
        names = dict.fromkeys(item.name for item in ranked)
        segment = f"{feature}={value}"
        result.append(
            Signal(
                key=f"drift/{model}/{version}/{segment}/",
                kind="drift",
                model=model,
                version=version,
                segment=segment,
                severity="info",
                title=f"Inputs have changed where {feature} is {value}: {', '.join(names)}",
                since=_earliest(ranked),
                features=_contributions(ranked),
                size=ranked[0].size,
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


def _contributions(ranked: list[_Problem]) -> tuple[Contribution, ...]:
    best: dict[str, _Problem] = {}
    for item in ranked:
        best.setdefault(item.name, item)
    total = sum(item.weight for item in best.values()) or 1.0
    return tuple(
        Contribution(item.name, item.weight / total, item.detail)
        for item in list(best.values())[:_MOST]
    )


def _listed(ranked: list[_Problem]) -> str:
    names = list(dict.fromkeys(item.name for item in ranked))
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def _earliest(ranked: list[_Problem]) -> float | None:
    """The start according to the strongest evidence that has one."""
    return next((item.since for item in ranked if item.since is not None), None)


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
