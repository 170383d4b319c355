"""Objectives of Sloth: ``prometheus/v1`` files and ``PrometheusServiceLevel`` resources.

The queries are taken as they are, with Sloth's ``{{.window}}``; the recorded series have Sloth's
names. The alerts are those of every other objective, unless Sloth's are disabled. What else a file
says, such as names and labels of alerts, is left out and listed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from understudy.common.units import DAY
from understudy.monitor.slo.burn import UnreachableError, burns
from understudy.monitor.slo.model import WINDOW, Events, Slices, Slo
from understudy.monitor.slo.promql import either_edge, plain_sum
from understudy.monitor.slo.reading import (
    SCOPE,
    Fault,
    different,
    labels_of,
    left_out,
    mapping,
    name_of,
    target_of,
)

VERSION = "prometheus/v1"
RESOURCE = "sloth.slok.dev/v1"
PERIOD = 30 * DAY
"""Sloth's default; its files do not name a period."""
_SLICE = "5m"
"""The window of a ratio that is not one of events; Sloth averages it over the period, too."""


def read(one: Mapping[str, Any], notices: list[str]) -> list[Slo]:
    """The objectives of a document. Raises Fault."""
    if one.get("version") == VERSION:
        spec, path = one, ""
    elif one.get("apiVersion") == RESOURCE and one.get("kind") == "PrometheusServiceLevel":
        spec, path = mapping(one, "spec"), "spec."
    else:
        key = "version" if "version" in one else "apiVersion"
        kind = f" with kind {one.get('kind')!r}" if key == "apiVersion" else ""
        found = f"{one.get(key)!r}{kind} is not supported"
        raise Fault(key, f"{found}; use {VERSION}, or {RESOURCE} with PrometheusServiceLevel")
    service = name_of(spec, "service", path)
    slos = spec.get("slos")
    if not isinstance(slos, list) or not slos:
        raise Fault(f"{path}slos", "must be a list with at least one objective")
    unused = left_out(spec, ("version", "service", "labels", "slos"), path)
    notices += [f"{service}: left out: {key}" for key in unused]
    labels = labels_of(spec.get("labels"), service, notices)
    notices.append(f"{service}: a period of 30 days, which is Sloth's default")
    return [
        _slo(item, f"{path}slos[{number}]", service, labels, notices)
        for number, item in enumerate(slos)
    ]


def _slo(one: Any, path: str, service: str, labels: Mapping[str, str], notices: list[str]) -> Slo:
    if not isinstance(one, Mapping):
        raise Fault(path, "must be a mapping")
    name = name_of(one, "name", f"{path}.")
    percent = one.get("objective")
    target = target_of(percent)
    if target is None:
        raise Fault(f"{path}.objective", f"{percent!r} must be between 0 and 100, both excluded")
    alerting = one.get("alerting") or {}
    off, unused = _alerting(alerting, f"{path}.alerting")
    unused += left_out(one, ("name", "objective", "description", "labels", "sli", "alerting"))
    if unused:
        notices.append(f"{name}: left out: {', '.join(unused)}")
    try:
        found = burns(target, PERIOD)
    except UnreachableError as error:
        raise Fault(f"{path}.objective", str(error)) from error
    sli = _sli(mapping(one, "sli", f"{path}."), f"{path}.sli", name, notices)
    return Slo(
        service=service,
        name=name,
        kind="sloth",
        objective=target,
        period=PERIOD,
        sli=sli,
        burns=tuple(burn for burn in found if burn.window.severity not in off),
        description=" ".join(str(one.get("description") or "").split()),
        least_bad=0.0,
        labels={**labels, **labels_of(one.get("labels"), name, notices)},
        scope=SCOPE,
    )


def _either(of: Mapping[str, Any], *names: str) -> Any:
    """The value of the first of these keys that is there: snake case in files, camel in
    resources, and both are found in files."""
    return next((of[name] for name in names if of.get(name) is not None), None)


def _alerting(alerting: Any, path: str) -> tuple[set[str], list[str]]:
    """Severities whose alerts are disabled, and keys that are not used."""
    if not isinstance(alerting, Mapping):
        raise Fault(path, "must be a mapping")
    off: set[str] = set()
    kinds = {"page": ("page_alert", "pageAlert"), "ticket": ("ticket_alert", "ticketAlert")}
    unused = left_out(alerting, [name for names in kinds.values() for name in names], "alerting.")
    for severity, names in kinds.items():
        one = _either(alerting, *names) or {}
        if not isinstance(one, Mapping):
            raise Fault(f"{path}.{names[0]}", "must be a mapping")
        if one.get("disable") is True:
            off.add(severity)
        unused += left_out(one, ("disable",), f"alerting.{names[0]}.")
    return off, unused


def _sli(sli: Mapping[str, Any], path: str, name: str, notices: list[str]) -> Events | Slices:
    if isinstance(events := sli.get("events"), Mapping):
        bad = _query(_either(events, "error_query", "errorQuery"), f"{path}.events.error_query")
        total = _query(_either(events, "total_query", "totalQuery"), f"{path}.events.total_query")
        different(bad, total, f"{path}.events.error_query")
        return Events(plain_sum(bad), plain_sum(total), "events", "as the queries are")
    if isinstance(raw := sli.get("raw"), Mapping):
        given = _either(raw, "error_ratio_query", "errorRatioQuery")
        query = _query(given, f"{path}.raw.error_ratio_query")
        notices.append(f"{name}: a ratio over {_SLICE} at a time: every evaluation counts the same")
        mean = f"avg({query.replace(WINDOW, _SLICE)})"
        return Slices(
            mean, "a mean of ratios: every evaluation counts the same", unit="of the time"
        )
    if "plugin" in sli:
        raise Fault(
            f"{path}.plugin",
            "plugins of Sloth are programs and cannot be read: write their queries as sli.events",
        )
    raise Fault(path, "has neither events nor raw")


def _query(given: Any, path: str) -> str:
    if not isinstance(given, str) or WINDOW not in given:
        raise Fault(path, f"must be an expression of Prometheus with {WINDOW}")
    return either_edge(given.strip())
