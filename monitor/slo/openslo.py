"""Objectives in OpenSLO v1 and v1alpha, as far as Prometheus can measure them.

A document of v1alpha is rewritten as v1, to which the keys in messages refer.

Where OpenSLO is not specific, these rules apply. A query of a counter is a selector, or the sum of
one, and gets its rate over each window here; a query with ``{{.window}}`` is taken as it is. ``op``
compares the indicator with ``value``, and the event or slice is *good* where that holds. Alert
policies of OpenSLO cannot require that two windows both burn, so they are not used: the alerts are
those of every other objective. Features that Prometheus' rules cannot express are rejected, naming
the key.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from understudy.common.units import DAY, HOUR, MINUTE, duration, number, quantity
from understudy.monitor.slo.burn import Burn, PeriodError, UnreachableError, burns, windows_of
from understudy.monitor.slo.compiled import Compiled
from understudy.monitor.slo.model import WINDOW, Events, Slices, Slo
from understudy.monitor.slo.reading import (
    NAME,
    SCOPE,
    Fault,
    different,
    joined,
    labels_of,
    mapping,
    one_bucket,
    over_windows,
    rest,
    whole,
)

VERSION = "openslo/v1"
ALPHA = "openslo/v1alpha"
_UNITS = {"m": MINUTE, "h": HOUR, "d": DAY, "w": 7 * DAY, "M": 30 * DAY, "Q": 90 * DAY,
          "Y": 365 * DAY}  # fmt: skip
_BAD_WHEN = {"lte": "> bool", "lt": ">= bool", "gte": "< bool", "gt": "<= bool"}
_LESS_IS_BETTER = re.compile(r"latency|duration|seconds|delay|error|fail", re.IGNORECASE)
_BUCKETS = re.compile(r"[a-zA-Z0-9_:]_bucket\s*(?:[\[{)]|$)")
"""The series of a classic histogram's buckets, which hold every response several times."""
_RATIO = "spec.indicator.spec.ratioMetric.{}.metricSource.spec.query"
_NOT_USED = ("AlertPolicy", "AlertCondition", "AlertNotificationTarget", "Service", "DataSource")


def compiled(documents: Sequence[Any], source: str, runbooks: str | None = None) -> Compiled:
    """Every SLO of the documents. Raises ConfigError with all that cannot be compiled."""
    problems: list[tuple[str, str]] = []
    notices: list[str] = []
    indicators: dict[str, Mapping[str, Any]] = {}
    objectives: list[tuple[str, Mapping[str, Any]]] = []
    for number_, one in enumerate(documents):
        where = f"[{number_}]"
        try:
            one = _upgraded(one)
            kind, name, spec = _head(one)
        except Fault as fault:
            problems.append((joined(where, fault.path), str(fault)))
            continue
        if kind == "SLI":
            indicators[name] = spec
        elif kind == "SLO":
            objectives.append((where, one))
        elif kind.startswith("Alert"):
            notices.append(f"{kind} {name}: not used; alerts come from the objective itself")
        elif kind not in _NOT_USED:
            problems.append((f"{where}.kind", f"{kind!r} is not a kind of {VERSION}"))
    slos: list[Slo] = []
    for where, one in objectives:
        try:
            result, slo_notices = _slos(one, indicators)
        except Fault as fault:
            problems.append((joined(where, fault.path), str(fault)))
            continue
        slos += result
        notices += slo_notices
    return whole(slos, notices, problems, source, runbooks)


_LONG_UNITS = {"minute": "m", "hour": "h", "day": "d", "week": "w", "month": "M", "quarter": "Q",
               "year": "Y"}  # fmt: skip


def _upgraded(one: Any) -> Any:
    """A document of v1alpha as v1; any other as it is. Raises Fault."""
    if not isinstance(one, Mapping) or one.get("apiVersion") != ALPHA:
        return one
    spec = {**mapping(one, "spec")}
    if (windows := spec.pop("timeWindows", None)) is not None:
        if not isinstance(windows, list) or not all(isinstance(w, Mapping) for w in windows):
            raise Fault("spec.timeWindows", "must be a list of windows")
        spec["timeWindow"] = [_window(w, f"spec.timeWindows[{n}]") for n, w in enumerate(windows)]
    indicator = spec.get("indicator")
    threshold = indicator.get("thresholdMetric") if isinstance(indicator, Mapping) else None
    if isinstance(threshold, Mapping):
        spec["indicator"] = {"spec": {"thresholdMetric": _source(threshold)}}
    objectives = spec.get("objectives")
    if isinstance(objectives, list):
        spec["objectives"] = [_objective(objective) for objective in objectives]
    return {**one, "apiVersion": VERSION, "spec": spec}


def _window(window: Mapping[str, Any], path: str) -> dict[str, Any]:
    unit, count = str(window.get("unit")), window.get("count")
    letter = _LONG_UNITS.get(unit.lower().removesuffix("s"))
    if letter is None or not isinstance(count, int) or isinstance(count, bool) or count < 1:
        units = ", ".join(name.capitalize() for name in _LONG_UNITS)
        raise Fault(path, f"needs a count of at least 1 and a unit, one of {units}")
    kept = {key: window[key] for key in ("isRolling", "calendar") if key in window}
    return {"duration": f"{count}{letter}", **kept}


def _source(metric: object) -> object:
    if not isinstance(metric, Mapping):
        return metric
    source = {"type": metric.get("source", "prometheus"), "spec": {"query": metric.get("query")}}
    return {"metricSource": source}


def _objective(objective: object) -> object:
    ratio = objective.get("ratioMetrics") if isinstance(objective, Mapping) else None
    if not isinstance(objective, Mapping) or not isinstance(ratio, Mapping):
        return objective
    sources = {key: _source(ratio[key]) for key in ("good", "bad", "total") if key in ratio}
    # Its queries were those of counters, unless they said otherwise.
    counter = ratio.get("counter", ratio.get("incremental", True))
    indicator = {"spec": {"ratioMetric": {"counter": counter, **sources}}}
    rest_of = {key: value for key, value in objective.items() if key != "ratioMetrics"}
    return {**rest_of, "indicator": indicator}


def _head(one: Any) -> tuple[str, str, Mapping[str, Any]]:
    if not isinstance(one, Mapping):
        raise Fault("", "must be a mapping with apiVersion, kind, metadata and spec")
    version = one.get("apiVersion")
    if version != VERSION:
        raise Fault("apiVersion", f"{version!r} is not supported; use {VERSION} or {ALPHA}")
    name = mapping(one, "metadata").get("name")
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise Fault(
            "metadata.name", f"not a valid name: {name!r} (use letters, digits, dots and dashes)"
        )
    return str(one.get("kind")), name, mapping(one, "spec")


def _slos(
    one: Mapping[str, Any], indicators: Mapping[str, Mapping[str, Any]]
) -> tuple[list[Slo], list[str]]:
    _, name, spec = _head(one)
    service = spec.get("service")
    if not isinstance(service, str) or not NAME.fullmatch(service):
        raise Fault("spec.service", f"not a valid name: {service!r}")
    period, notices = _period(spec, name)
    if spec.get("alertPolicies"):
        notices.append(
            f"{name}: alertPolicies are not used; they cannot require that two windows both burn"
        )
    method = spec.get("budgetingMethod", "Occurrences")
    if method not in ("Occurrences", "Timeslices", "RatioTimeslices"):
        raise Fault("spec.budgetingMethod", f"{method!r} is not one of Occurrences, Timeslices, "
                     "RatioTimeslices")  # fmt: skip
    wanted = spec.get("objectives")
    if not isinstance(wanted, list) or not wanted:
        raise Fault("spec.objectives", "must be a list with at least one objective")
    labels = labels_of(mapping(one, "metadata").get("labels"), name, notices)
    slos: list[Slo] = []
    for number_, objective in enumerate(wanted):
        path = f"spec.objectives[{number_}]"
        if not isinstance(objective, Mapping):
            raise Fault(path, "must be a mapping")
        own = objective if "indicator" in objective or "indicatorRef" in objective else spec
        if own is objective and len(wanted) > 1:
            notices.append(f"{name}: objectives of a composite are compiled one by one")
        indicator = _indicator(own, path if own is objective else "spec", indicators)
        target = _target(objective, path)
        sli = _sli(indicator, objective, method, path)
        metric = indicator.get("thresholdMetric")
        if metric and objective.get("op") in ("gte", "gt") and _LESS_IS_BETTER.search(str(metric)):
            notices.append(
                f"{name}: op {objective['op']} means that the indicator is good when it is high; "
                "for latency or errors, that is probably the wrong direction"
            )
        alerts: tuple[Burn, ...] = ()
        try:
            alerts = burns(target, period, windows_of(period))
        except PeriodError as error:
            notices.append(f"{name}: no alerts: a period of {error}")
        except UnreachableError as error:
            raise Fault(f"{path}.target", str(error)) from error
        counted = isinstance(sli, Events) and bool(
            indicator.get("ratioMetric", {}).get("counter", True)
        )
        slos.append(
            Slo(
                service=service,
                name=name if len(wanted) == 1 else f"{name}-{number_ + 1}",
                kind="openslo",
                objective=target,
                period=period,
                sli=sli,
                burns=alerts,
                description=" ".join(str(spec.get("description") or "").split()),
                least_bad=5.0 if counted else 0.0,
                scope=SCOPE,
                labels=labels,
            )
        )
    return slos, notices


def _period(spec: Mapping[str, Any], name: str) -> tuple[float, list[str]]:
    windows = spec.get("timeWindow")
    if windows is None:
        return 30 * DAY, [f"{name}: no timeWindow; using 30 days"]
    if not isinstance(windows, list) or len(windows) != 1 or not isinstance(windows[0], Mapping):
        raise Fault("spec.timeWindow", "must be a list of exactly one window")
    period = _seconds(windows[0].get("duration"), "spec.timeWindow[0].duration")
    if period < HOUR:
        hint = "; a month is 1M" if windows[0].get("duration") == "1m" else ""
        raise Fault("spec.timeWindow[0].duration", f"must be an hour or more{hint}")
    if windows[0].get("calendar") or windows[0].get("isRolling") is False:
        return period, [
            f"{name}: using a rolling window of the same length instead of a calendar window"
        ]
    return period, []


def _seconds(value: object, path: str) -> float:
    result = quantity(value) if isinstance(value, str) else None
    if result is None or not result[0].isdecimal() or result[1] not in _UNITS:
        raise Fault(
            path, f"not a valid duration: {value!r} (units: m, h, d, w, M, Q, Y; example: 4w)"
        )
    return int(result[0]) * _UNITS[result[1]]


def _target(objective: Mapping[str, Any], path: str) -> float:
    given = [key for key in ("target", "targetPercent") if key in objective]
    if len(given) != 1:
        raise Fault(path, "give either target or targetPercent")
    value = objective[given[0]]
    number_ = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number_ or abs(value) > 1e300:
        raise Fault(f"{path}.{given[0]}", f"not a valid number: {value!r}"[:80])
    target = float(f"{value / (100 if given[0] == 'targetPercent' else 1):.12g}")
    if not 0.0 < target < 1.0:
        raise Fault(f"{path}.{given[0]}", f"{value!r} must be between 0 and 100 %, both excluded")
    return target


def _indicator(
    of: Mapping[str, Any], path: str, indicators: Mapping[str, Mapping[str, Any]]
) -> Mapping[str, Any]:
    if "indicatorRef" in of:
        name = of["indicatorRef"]
        if not isinstance(name, str) or name not in indicators:
            raise Fault(f"{path}.indicatorRef", f"the file has no SLI {name!r}")
        return indicators[name]
    return mapping(mapping(of, "indicator", f"{path}."), "spec", f"{path}.indicator.")


def _query(of: Mapping[str, Any], key: str) -> str:
    path = f"spec.indicator.spec.{key}.metricSource"
    source = mapping(mapping(of, key), "metricSource", f"{key}.")
    kind = source.get("type", "prometheus")
    if str(kind).lower() not in ("prometheus", "promql"):
        raise Fault(f"{path}.type", f"{kind!r} is not supported; use prometheus")
    spec = source.get("spec")
    query = spec.get("query", spec.get("promql")) if isinstance(spec, Mapping) else None
    if not isinstance(query, str) or not query.strip():
        raise Fault(f"{path}.spec.query", "must be an expression of Prometheus")
    return query.strip()


def _sli(
    indicator: Mapping[str, Any], objective: Mapping[str, Any], method: str, path: str
) -> Events | Slices:
    if "thresholdMetric" in indicator:
        return _threshold(indicator, objective, path)
    ratio = indicator.get("ratioMetric")
    if not isinstance(ratio, Mapping):
        raise Fault("spec.indicator.spec", "has neither ratioMetric nor thresholdMetric")
    if "raw" in ratio:
        query = _query(ratio, "raw")
        if ratio.get("rawType") not in ("success", "failure"):
            raise Fault("spec.indicator.spec.ratioMetric.rawType", "must be success or failure")
        mean = f"avg({query})"
        bad = mean if ratio["rawType"] == "failure" else f"1 - {mean}"
        return Slices(bad, "a mean of ratios: every evaluation counts the same", unit="of the time")
    if ("good" in ratio) == ("bad" in ratio) or "total" not in ratio:
        raise Fault("spec.indicator.spec.ratioMetric", "needs total, and one of good and bad")
    counter = ratio.get("counter", True) is not False
    total = over_windows(_query(ratio, "total"), counter, _RATIO.format("total"))
    if "bad" in ratio:
        bad = over_windows(_query(ratio, "bad"), counter, _RATIO.format("bad"))
        different(bad, total, _RATIO.format("bad"))
    else:
        query = _query(ratio, "good")
        if _BUCKETS.search(query):
            one_bucket(query, _RATIO.format("good"))
        good = over_windows(query, counter, _RATIO.format("good"))
        different(good, total, _RATIO.format("good"))
        bad = rest(good, total)
    if method == "Occurrences":
        return Events(bad, total, "events", "as the queries are")
    length = _seconds(objective.get("timeSliceWindow"), f"{path}.timeSliceWindow")
    window = duration(length)
    share = f"({bad}) / (({total}) > 0)".replace(WINDOW, window)
    if method == "RatioTimeslices":
        return Slices(share, "a mean of ratios: every slice counts the same")
    wanted = objective.get("timeSliceTarget")
    if not isinstance(wanted, (int, float)) or not 0.0 < wanted <= 1.0:
        raise Fault(f"{path}.timeSliceTarget", f"not a valid share: {wanted!r}")
    allowed = number(1.0 - float(wanted))
    return Slices(f"({share}) > bool {allowed}", f"slices of {window}")


def _threshold(indicator: Mapping[str, Any], objective: Mapping[str, Any], path: str) -> Slices:
    query = _query(indicator, "thresholdMetric")
    operator, value = objective.get("op"), objective.get("value")
    if not isinstance(operator, str) or operator not in _BAD_WHEN:
        raise Fault(f"{path}.op", f"{operator!r} is not one of {', '.join(_BAD_WHEN)}")
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise Fault(f"{path}.value", f"not a valid number: {value!r}")
    return Slices(
        f"max(({query}) {_BAD_WHEN[operator]} {number(float(value))})",
        "one sample per evaluation; the worst series counts",
    )
