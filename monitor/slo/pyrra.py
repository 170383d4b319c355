"""Objectives of Pyrra: ``ServiceLevelObjective`` resources of ``pyrra.dev/v1alpha1``.

The service of an objective is its namespace, unless it is given. What Pyrra groups by labels is one
objective here. Names of alerts and other settings are left out and listed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from understudy.common.units import number, seconds
from understudy.monitor.slo.burn import (
    LEAST_BAD,
    PeriodError,
    UnreachableError,
    burns,
    windows_of,
)
from understudy.monitor.slo.model import WINDOW, Events, Slices, Slo
from understudy.monitor.slo.reading import (
    SCOPE,
    Fault,
    different,
    labels_of,
    left_out,
    mapping,
    name_of,
    one_bucket,
    over_windows,
    rest,
    selector_of,
    target_of,
)

VERSION = "pyrra.dev/v1alpha1"
_LABEL = "pyrra.dev/"
"""Prefix of the labels of a resource that its series and alerts get."""


def read(one: Mapping[str, Any], notices: list[str], service: str | None = None) -> list[Slo]:
    """The objective of a document; ``service`` replaces its namespace. Raises Fault."""
    if one.get("apiVersion") != VERSION or one.get("kind") != "ServiceLevelObjective":
        given = f"{one.get('apiVersion')!r} with kind {one.get('kind')!r}"
        raise Fault(
            "apiVersion", f"{given} is not supported; use {VERSION} with ServiceLevelObjective"
        )
    metadata, spec = mapping(one, "metadata"), mapping(one, "spec")
    name = name_of(metadata, "name", "metadata.")
    if service is None:
        if metadata.get("namespace") is None:
            raise Fault("metadata.namespace", "names the service; or give --service")
        service = name_of(metadata, "namespace", "metadata.")
        notices.append(f"{name}: the service is the namespace {service}; --service changes it")
    labels = metadata.get("labels")
    own = {
        key.removeprefix(_LABEL): value
        for key, value in (labels.items() if isinstance(labels, Mapping) else ())
        if str(key).startswith(_LABEL)
    }
    alerting = spec.get("alerting") or {}
    unused = left_out(spec, ("target", "window", "description", "indicator", "alerting"))
    unused += left_out(alerting, ("disabled",), "alerting.")
    if unused:
        notices.append(f"{name}: left out: {', '.join(unused)}")
    target = _target(spec.get("target"))
    try:
        period = seconds(spec.get("window"), long=True)
    except ValueError as error:
        raise Fault("spec.window", str(error)) from error
    if period < 3600.0:
        raise Fault("spec.window", "must be an hour or more")
    try:
        found = burns(target, period, windows_of(period))
    except PeriodError as error:
        raise Fault("spec.window", str(error)) from error
    except UnreachableError as error:
        raise Fault("spec.target", str(error)) from error
    disabled = isinstance(alerting, Mapping) and alerting.get("disabled") is True
    sli = _sli(mapping(spec, "indicator", "spec."), name, notices)
    return [
        Slo(
            service=service,
            name=name,
            kind="pyrra",
            objective=target,
            period=period,
            sli=sli,
            least_bad=LEAST_BAD if isinstance(sli, Events) else 0.0,
            burns=() if disabled else found,
            description=" ".join(str(spec.get("description") or "").split()),
            labels=labels_of(own, name, notices),
            scope=SCOPE,
        )
    ]


def _target(given: object) -> float:
    """A percentage, which Pyrra writes as a text."""
    try:
        percent = float(given) if isinstance(given, (str, int, float)) else 0.0
    except ValueError:
        percent = 0.0
    target = target_of(percent)
    if target is None:
        raise Fault("spec.target", f"{given!r} must be between 0 and 100 %, both excluded")
    return target


def _sli(indicator: Mapping[str, Any], name: str, notices: list[str]) -> Events | Slices:
    kinds = [kind for kind in indicator if indicator[kind] is not None]
    if len(kinds) != 1 or kinds[0] not in _INDICATORS:
        known = ", ".join(dict.fromkeys(_INDICATORS))
        raise Fault("spec.indicator", f"must be one of {known}, not {', '.join(kinds) or 'none'}")
    path = f"spec.indicator.{kinds[0]}"
    one = mapping(indicator, kinds[0], "spec.indicator.")
    if one.get("grouping"):
        groups = ", ".join(map(str, one["grouping"]))
        notices.append(f"{name}: left out: grouping by {groups}; all groups are one objective")
    return _INDICATORS[kinds[0]](one, path)


def _metric(of: Mapping[str, Any], key: str, path: str) -> str:
    one = mapping(of, key, f"{path}.") if key else of
    given = one.get("metric")
    if not isinstance(given, str) or not given.strip():
        raise Fault(f"{path}.{key}.metric", "must be a selector of Prometheus")
    return given.strip()


def _events(of: Mapping[str, Any], key: str, path: str) -> str:
    return over_windows(_metric(of, key, path), True, f"{path}.{key}.metric")


def _ratio(one: Mapping[str, Any], path: str) -> Events:
    bad, total = _events(one, "errors", path), _events(one, "total", path)
    different(bad, total, f"{path}.errors.metric")
    return Events(bad, total, "events", "as the queries are")


def _latency(one: Mapping[str, Any], path: str) -> Events:
    one_bucket(_metric(one, "success", path), f"{path}.success.metric")
    good, total = _events(one, "success", path), _events(one, "total", path)
    different(good, total, f"{path}.success.metric")
    return Events(rest(good, total), total, "responses", "at the boundary of the bucket")


def _native(one: Mapping[str, Any], path: str) -> Events:
    try:
        limit = number(seconds(one.get("latency")))
    except ValueError as error:
        raise Fault(f"{path}.latency", str(error)) from error
    selector = selector_of(_metric(one, "total", path), f"{path}.total.metric")
    rate = f"sum(rate({selector}[{WINDOW}]))"
    total = f"histogram_count({rate})"
    bad = f"{total} * (1 - histogram_fraction(0, {limit}, {rate}))"
    return Events(bad, total, "responses", "interpolated in native buckets")


def _gauge(one: Mapping[str, Any], path: str) -> Slices:
    selector = selector_of(_metric(one, "", path), f"{path}.metric")
    exactness = "a mean of ratios: every evaluation counts the same"
    return Slices(f"1 - avg({selector})", exactness, unit="of the time")


_INDICATORS: dict[str, Callable[[Mapping[str, Any], str], Events | Slices]] = {
    "ratio": _ratio,
    "latency": _latency,
    "latencyNative": _native,
    "latency_native": _native,
    "bool_gauge": _gauge,
    "boolGauge": _gauge,
}
