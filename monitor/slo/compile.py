"""Compiles our file of objectives to SLOs with burn-rate alerts."""

from __future__ import annotations

from collections.abc import Callable

from understudy.monitor.config.hours import weekly
from understudy.monitor.config.slo import Alerting, Objective, SloFile
from understudy.monitor.errors import ConfigError
from understudy.monitor.slo import sli
from understudy.monitor.slo.burn import (
    Burn,
    PeriodError,
    UnreachableError,
    Window,
    burns,
    windows_of,
)
from understudy.monitor.slo.catalogue import alerts_of, installation_alerts, service_alerts
from understudy.monitor.slo.compiled import Compiled
from understudy.monitor.slo.model import Events, Slices, Slo, Stream
from understudy.monitor.slo.promql import either_edge, matching, plain_sum
from understudy.monitor.slo.scope import Scope
from understudy.monitor.slo.trials import severities_of, step_of


def compiled(file: SloFile, source: str) -> Compiled:
    """Compile a file; ``source`` names it in errors.

    Raises ConfigError with every objective that cannot be compiled.
    """
    reasons, problems = _unmatched_labels(file)
    if problems:
        raise ConfigError(source, problems)
    slos: list[Slo] = []
    notices: list[str] = []
    for number, one in enumerate(file.slos):
        where = f"slos[{number}]"
        try:
            slo = _slo(file, one)
        except UnreachableError as error:
            problems.append((f"{where}.objective", str(error)))
            continue
        except PeriodError as error:
            problems.append((f"{where}.period" if one.period else "period", str(error)))
            continue
        except ValueError as error:
            problems.append((f"{where}.{one.kind}", str(error)))
            continue
        slos.append(slo)
        notices += notices_of(slo)
        if slo.kind in _LABELS:
            notices += [
                f"objective {slo.name}: its series have no label {label}; it counts those of every "
                f"{label} {slo.scope.describe_scrape()}"
                for label in scope_of(file, one).unused(*_LABELS[slo.kind])
            ]
    whole = scope_of(file)
    wanted = file.alerts == "all" and file.slos
    own = service_alerts(whole, file.scrape_interval, weekly(file.traffic_hours)) if wanted else ()
    alerts = (*own, *(installation_alerts(whole) if file.installation else ()))
    names = {alert.name for alert in alerts_of(whole)}
    problems += [
        (f"without[{n}]", f"{name!r} is not one of {', '.join(sorted(names))}")
        for n, name in enumerate(file.without)
        if name not in names
    ]
    if problems:
        raise ConfigError(source, problems)
    return Compiled(
        service=file.service,
        slos=tuple(slos),
        alerts=tuple(alert for alert in alerts if alert.name not in file.without),
        notices=(*notices, *(f"no unit tests: {one}" for one in reasons)),
        tried=not reasons,
        runbooks=file.runbooks.url,
        link=file.link,
        interval=file.interval,
        labels=dict(file.labels),
        scope=whole,
    )


def scope_of(file: SloFile, one: Objective | None = None) -> Scope:
    """The scope of a file, or of one of its objectives."""
    model = None if one is None else one.model
    version = None if one is None else one.version
    arm = None if one is None else one.arm
    return Scope(
        scrape=file.matchers,
        models=tuple(file.model if model is None else model),
        version=file.version_of_model if version is None else version,
        arm=file.arm if arm is None else arm,
        identity=tuple(file.identity),
    )


def _unmatched_labels(file: SloFile) -> tuple[list[str], list[tuple[str, str]]]:
    """Reasons why no example series matches the scrape's matchers, and the invalid matchers."""
    reasons: list[str] = []
    problems: list[tuple[str, str]] = []
    for key, value in file.matchers.items():
        try:
            result = matching(key, value)
        except ValueError as error:
            problems.append(("scrape", str(error)))
            continue
        if result is None:
            reasons.append(f"no value was found that matches scrape.{key} {value!r}")
    return reasons, problems


def notices_of(slo: Slo) -> list[str]:
    """Notices about the alerts of an objective."""
    results = [
        f"{slo.name}: {burn.window.severity}: {burn.reason}" for burn in slo.burns if burn.reason
    ]
    if not slo.sli.trial:
        results.append(f"{slo.name}: no unit tests: its expressions have no example series")
        return results
    results += [
        f"{slo.name}: no unit tests of its {severity}: its shortest window is too short compared "
        "with its longest"
        for severity in severities_of(slo)
        if step_of(slo, severity) is None
    ]
    return results


def alerting_of(settings: Alerting, objective: float, period: float) -> tuple[Burn, ...]:
    """The alerts of an objective. Raises UnreachableError and PeriodError."""
    declared = settings.windows
    windows = windows_of(
        period,
        None
        if declared is None
        else [Window(one.severity, one.budget, one.long, one.short) for one in declared],
    )
    return burns(
        objective,
        period,
        windows,
        highest=settings.highest_threshold,
        refuse=settings.unreachable == "refuse",
    )


def _slo(file: SloFile, one: Objective) -> Slo:
    period = one.period or file.period
    alerting = one.alerting or file.alerting
    scope = scope_of(file, one)
    all_burns = alerting_of(alerting, one.target, period) if one.severities else ()
    return Slo(
        service=file.service,
        name=one.name,
        kind=one.kind,
        objective=one.target,
        period=period,
        sli=_INDICATORS[one.kind](scope, one),
        burns=tuple(burn for burn in all_burns if burn.window.severity in one.severities),
        description=" ".join(one.description.split()),
        least_bad=alerting.least_bad,
        labels={**file.labels, **one.labels},
        rate=one.rate,
        scope=scope.only(*_LABELS.get(one.kind, ("model", "version", "arm"))),
    )


def _availability(scope: Scope, one: Objective) -> Events:
    assert one.availability is not None
    outcomes = one.availability.outcomes
    return sli.availability(scope, tuple(outcomes) if outcomes else sli.ERRORS)


def _latency(scope: Scope, one: Objective) -> Events:
    settings = one.latency
    assert settings is not None
    return sli.latency(scope, settings.within, settings.by, tuple(settings.edges))


def _quantile(scope: Scope, one: Objective) -> Slices:
    settings = one.quantile
    assert settings is not None
    return sli.latency_quantile(scope, settings.quantile, settings.at_most, settings.window)


def _features(scope: Scope, one: Objective) -> Events:
    assert one.features is not None
    return sli.complete_features(scope, one.features.feature)


def _rules(scope: Scope, one: Objective) -> Events:
    assert one.rules is not None
    return sli.kept_rules(scope, one.rules.feature, one.rules.rule)


def _performance(scope: Scope, one: Objective) -> Slices:
    settings = one.performance
    assert settings is not None
    return sli.performance(
        scope, settings.metric, settings.bound, settings.at_least, settings.at_most
    )


def _freshness(scope: Scope, one: Objective) -> Slices:
    assert one.freshness is not None
    return sli.freshness(scope, one.freshness.within)


def _cost(scope: Scope, one: Objective) -> Slices:
    assert one.cost is not None
    return sli.cost(scope, one.cost.at_most)


def _events(scope: Scope, one: Objective) -> Events:
    settings = one.events
    assert settings is not None
    trial = tuple(Stream(item.series, item.good, item.bad) for item in settings.example)
    bad, total = (
        plain_sum(either_edge(text), scope.by()) for text in (settings.bad, settings.total)
    )
    if "".join(bad.split()) == "".join(total.split()):
        raise ValueError("bad and total are the same expression, so that every event is bad")
    return Events(bad, total, settings.unit, "as the expressions are", trial)


def _token_time(scope: Scope, one: Objective) -> Events:
    settings = one.ttft or one.tpot
    assert settings is not None
    return sli.token_time(scope, one.kind, settings.within, settings.by)


_INDICATORS: dict[str, Callable[[Scope, Objective], Events | Slices]] = {
    "availability": _availability,
    "latency": _latency,
    "quantile": _quantile,
    "predictions": lambda scope, _: sli.valid_predictions(scope),
    "features": _features,
    "rules": _rules,
    "performance": _performance,
    "freshness": _freshness,
    "cost": _cost,
    "ttft": _token_time,
    "tpot": _token_time,
    "events": _events,
}
_LABELS = {
    "features": ("model", "version"),
    "rules": ("model", "version"),
    "performance": ("model", "version"),
    "freshness": ("arm",),
    "cost": ("arm",),
}
"""The labels of series that lack some of model, version and arm, by indicator."""
