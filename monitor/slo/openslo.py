"""Objectives in OpenSLO v1, as far as Prometheus can measure them.

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
from understudy.monitor.errors import ConfigError
from understudy.monitor.slo.burn import UnreachableError, burns
from understudy.monitor.slo.compile import notices_of
from understudy.monitor.slo.compiled import RUNBOOKS, Compiled
from understudy.monitor.slo.model import WINDOW, Events, Slices, Slo
from understudy.monitor.slo.promql import plain_sum
from understudy.monitor.slo.scope import Scope

VERSION = "openslo/v1"
_RECOGNISED = re.compile(r"^\s*[\"']?apiVersion[\"']?\s*:\s*[\"']?openslo/", re.MULTILINE)
_UNITS = {"m": MINUTE, "h": HOUR, "d": DAY, "w": 7 * DAY, "M": 30 * DAY, "Q": 90 * DAY,
          "Y": 365 * DAY}  # fmt: skip
_SELECTOR = re.compile(r"(?:sum\s*\()?\s*([a-zA-Z_:][a-zA-Z0-9_:]*\s*(?:\{[^{}]*\})?)\s*\)?")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_BAD_WHEN = {"lte": "> bool", "lt": ">= bool", "gte": "< bool", "gt": "<= bool"}
_LESS_IS_BETTER = re.compile(r"latency|duration|seconds|delay|error|fail", re.IGNORECASE)
_SCOPE = Scope(identity=())
"""Queries say themselves which series they are about."""
_NOT_USED = ("AlertPolicy", "AlertCondition", "AlertNotificationTarget", "Service", "DataSource")


def recognised(text: str) -> bool:
    """Whether a text is an OpenSLO document of any version."""
    return _RECOGNISED.search(text) is not None


class _Fault(Exception):
    """An error in a document, with the path of the key."""

    def __init__(self, path: str, message: str) -> None:
        self.path = path
        super().__init__(message)


def compiled(documents: Sequence[Any], source: str, runbooks: str | None = None) -> Compiled:
    """Every SLO of the documents. Raises ConfigError with all that cannot be compiled."""
    problems: list[tuple[str, str]] = []
    notices: list[str] = []
    indicators: dict[str, Mapping[str, Any]] = {}
    objectives: list[tuple[str, Mapping[str, Any]]] = []
    for number_, one in enumerate(documents):
        where = f"[{number_}]"
        try:
            kind, name, spec = _head(one)
        except _Fault as fault:
            problems.append((_join(where, fault.path), str(fault)))
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
        except _Fault as fault:
            problems.append((_join(where, fault.path), str(fault)))
            continue
        slos += result
        notices += slo_notices
    if not slos and not problems:
        problems.append(("", "contains no SLO"))
    ids = [slo.id for slo in slos]
    twice = sorted({one for one in ids if ids.count(one) > 1})
    problems += [("", f"duplicate objective {one!r}") for one in twice]
    if problems:
        raise ConfigError(source, problems)
    notices += [notice for slo in slos for notice in notices_of(slo)]
    return Compiled(
        slos[0].service, tuple(slos), (), tuple(notices), runbooks or RUNBOOKS, scope=_SCOPE
    )


def _join(where: str, path: str) -> str:
    return f"{where}.{path}" if path else where


def _head(one: Any) -> tuple[str, str, Mapping[str, Any]]:
    if not isinstance(one, Mapping):
        raise _Fault("", "must be a mapping with apiVersion, kind, metadata and spec")
    version = one.get("apiVersion")
    if version != VERSION:
        raise _Fault("apiVersion", f"{version!r} is not supported; use {VERSION}")
    name = _mapping(one, "metadata").get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise _Fault(
            "metadata.name", f"not a valid name: {name!r} (use letters, digits, dots and dashes)"
        )
    return str(one.get("kind")), name, _mapping(one, "spec")


def _mapping(of: Mapping[str, Any], key: str, path: str = "") -> Mapping[str, Any]:
    result = of.get(key)
    if not isinstance(result, Mapping):
        raise _Fault(f"{path}{key}", "must be a mapping")
    return result


def _slos(
    one: Mapping[str, Any], indicators: Mapping[str, Mapping[str, Any]]
) -> tuple[list[Slo], list[str]]:
    _, name, spec = _head(one)
    service = spec.get("service")
    if not isinstance(service, str) or not _NAME.fullmatch(service):
        raise _Fault("spec.service", f"not a valid name: {service!r}")
    period, notices = _period(spec, name)
    if spec.get("alertPolicies"):
        notices.append(
            f"{name}: alertPolicies are not used; they cannot require that two windows both burn"
        )
    method = spec.get("budgetingMethod", "Occurrences")
    if method not in ("Occurrences", "Timeslices", "RatioTimeslices"):
        raise _Fault("spec.budgetingMethod", f"{method!r} is not one of Occurrences, Timeslices, "
                     "RatioTimeslices")  # fmt: skip
    wanted = spec.get("objectives")
    if not isinstance(wanted, list) or not wanted:
        raise _Fault("spec.objectives", "must be a list with at least one objective")
    slos: list[Slo] = []
    for number_, objective in enumerate(wanted):
        path = f"spec.objectives[{number_}]"
        if not isinstance(objective, Mapping):
            raise _Fault(path, "must be a mapping")
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
        try:
            alerts = burns(target, period)
        except UnreachableError as error:
            raise _Fault(f"{path}.target", str(error)) from error
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
                scope=_SCOPE,
            )
        )
    return slos, notices


def _period(spec: Mapping[str, Any], name: str) -> tuple[float, list[str]]:
    windows = spec.get("timeWindow")
    if windows is None:
        return 30 * DAY, [f"{name}: no timeWindow; using 30 days"]
    if not isinstance(windows, list) or len(windows) != 1 or not isinstance(windows[0], Mapping):
        raise _Fault("spec.timeWindow", "must be a list of exactly one window")
    period = _seconds(windows[0].get("duration"), "spec.timeWindow[0].duration")
    if period < HOUR:
        raise _Fault("spec.timeWindow[0].duration", "must be an hour or more")
    if windows[0].get("calendar") or windows[0].get("isRolling") is False:
        return period, [
            f"{name}: using a rolling window of the same length instead of a calendar window"
        ]
    return period, []


def _seconds(value: object, path: str) -> float:
    result = quantity(value) if isinstance(value, str) else None
    if result is None or not result[0].isdecimal() or result[1] not in _UNITS:
        raise _Fault(
            path, f"not a valid duration: {value!r} (units: m, h, d, w, M, Q, Y; example: 4w)"
        )
    return int(result[0]) * _UNITS[result[1]]


def _target(objective: Mapping[str, Any], path: str) -> float:
    given = [key for key in ("target", "targetPercent") if key in objective]
    if len(given) != 1:
        raise _Fault(path, "give either target or targetPercent")
    value = objective[given[0]]
    number_ = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number_ or abs(value) > 1e300:
        raise _Fault(f"{path}.{given[0]}", f"not a valid number: {value!r}"[:80])
    target = float(f"{value / (100 if given[0] == 'targetPercent' else 1):.12g}")
    if not 0.0 < target < 1.0:
        raise _Fault(f"{path}.{given[0]}", f"{value!r} must be between 0 and 100 %, both excluded")
    return target


def _indicator(
    of: Mapping[str, Any], path: str, indicators: Mapping[str, Mapping[str, Any]]
) -> Mapping[str, Any]:
    if "indicatorRef" in of:
        name = of["indicatorRef"]
        if not isinstance(name, str) or name not in indicators:
            raise _Fault(f"{path}.indicatorRef", f"the file has no SLI {name!r}")
        return indicators[name]
    return _mapping(_mapping(of, "indicator", f"{path}."), "spec", f"{path}.indicator.")


def _query(of: Mapping[str, Any], key: str) -> str:
    path = f"spec.indicator.spec.{key}.metricSource"
    source = _mapping(_mapping(of, key), "metricSource", f"{key}.")
    kind = source.get("type", "prometheus")
    if str(kind).lower() not in ("prometheus", "promql"):
        raise _Fault(f"{path}.type", f"{kind!r} is not supported; use prometheus")
    spec = source.get("spec")
    query = spec.get("query", spec.get("promql")) if isinstance(spec, Mapping) else None
    if not isinstance(query, str) or not query.strip():
        raise _Fault(f"{path}.spec.query", "must be an expression of Prometheus")
    return query.strip()


def _over_windows(query: str, counter: bool, key: str) -> str:
    """The query as a rate over each window."""
    if WINDOW in query:
        return plain_sum(query)
    path = f"spec.indicator.spec.ratioMetric.{key}.metricSource.spec.query"
    match = _SELECTOR.fullmatch(query)
    if match is None:
        raise _Fault(
            path,
            f"{query!r} has no {WINDOW} and is not a selector or a sum of one, so there is no rate "
            f"over several windows; write it as sum(rate(metric[{WINDOW}]))",
        )
    over = "rate" if counter else "avg_over_time"
    return f"sum({over}({match[1].strip()}[{WINDOW}]))"


def _sli(
    indicator: Mapping[str, Any], objective: Mapping[str, Any], method: str, path: str
) -> Events | Slices:
    if "thresholdMetric" in indicator:
        return _threshold(indicator, objective, path)
    ratio = indicator.get("ratioMetric")
    if not isinstance(ratio, Mapping):
        raise _Fault("spec.indicator.spec", "has neither ratioMetric nor thresholdMetric")
    if "raw" in ratio:
        query = _query(ratio, "raw")
        if ratio.get("rawType") not in ("success", "failure"):
            raise _Fault("spec.indicator.spec.ratioMetric.rawType", "must be success or failure")
        mean = f"avg({query})"
        bad = mean if ratio["rawType"] == "failure" else f"1 - {mean}"
        return Slices(bad, "a mean of ratios: every evaluation counts the same", unit="of the time")
    if ("good" in ratio) == ("bad" in ratio) or "total" not in ratio:
        raise _Fault("spec.indicator.spec.ratioMetric", "needs total, and one of good and bad")
    counter = ratio.get("counter", True) is not False
    total = _over_windows(_query(ratio, "total"), counter, "total")
    if "bad" in ratio:
        bad = _over_windows(_query(ratio, "bad"), counter, "bad")
    else:
        good = _over_windows(_query(ratio, "good"), counter, "good")
        # The series of good events may not exist before the first one.
        bad = f"{total} - ({good} or 0 * {total})"
    if method == "Occurrences":
        return Events(bad, total, "events", "as the queries are")
    length = _seconds(objective.get("timeSliceWindow"), f"{path}.timeSliceWindow")
    window = duration(length)
    share = f"({bad}) / (({total}) > 0)".replace(WINDOW, window)
    if method == "RatioTimeslices":
        return Slices(share, "a mean of ratios: every slice counts the same")
    wanted = objective.get("timeSliceTarget")
    if not isinstance(wanted, (int, float)) or not 0.0 < wanted <= 1.0:
        raise _Fault(f"{path}.timeSliceTarget", f"not a valid share: {wanted!r}")
    allowed = number(1.0 - float(wanted))
    return Slices(f"({share}) > bool {allowed}", f"slices of {window}")


def _threshold(indicator: Mapping[str, Any], objective: Mapping[str, Any], path: str) -> Slices:
    query = _query(indicator, "thresholdMetric")
    operator, value = objective.get("op"), objective.get("value")
    if not isinstance(operator, str) or operator not in _BAD_WHEN:
        raise _Fault(f"{path}.op", f"{operator!r} is not one of {', '.join(_BAD_WHEN)}")
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise _Fault(f"{path}.value", f"not a valid number: {value!r}")
    return Slices(
        f"max(({query}) {_BAD_WHEN[operator]} {number(float(value))})",
        "one sample per evaluation; the worst series counts",
    )
