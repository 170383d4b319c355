"""Asking Prometheus as Grafana does: variables filled in, over a range or at its end."""

from __future__ import annotations

import json
import math
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Labels = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Span:
    """The time that a dashboard shows: unix seconds, and the distance of points in seconds.

    ``scrape`` is how often Prometheus scrapes, in seconds.
    """

    start: float
    end: float
    step: float
    scrape: float

    @property
    def rate_interval(self) -> float:
        """Grafana's ``$__rate_interval`` in seconds."""
        return max(self.step + self.scrape, 4 * self.scrape)


@dataclass(frozen=True, slots=True)
class Series:
    """A series: its labels, and pairs of unix time and value, without NaN."""

    labels: Labels
    points: Sequence[tuple[float, float]]


class PrometheusError(Exception):
    """Prometheus refused a query; the message says why."""


@dataclass(frozen=True, slots=True)
class Prometheus:
    """A Prometheus at ``url``."""

    url: str

    def ready(self) -> bool:
        """Whether it answers."""
        try:
            with urllib.request.urlopen(self.url + "/-/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def over(self, expr: str, span: Span) -> list[Series]:
        """The series of a query over a span."""
        entry = self._get(
            "query_range", query=expr, start=span.start, end=span.end, step=span.step
        )["result"]
        return [_series(one["metric"], one["values"]) for one in entry]

    def at(self, expr: str, moment: float) -> list[Series]:
        """The series of a query at one moment."""
        entry = self._get("query", query=expr, time=moment)["result"]
        return [_series(one["metric"], [one["value"]]) for one in entry]

    def labels(self, label: str, selector: str, span: Span) -> list[str]:
        """Values of a label of the series that a selector finds."""
        result = self._get(
            f"label/{label}/values", **{"match[]": selector, "start": span.start, "end": span.end}
        )
        return sorted(str(value) for value in result)

    def _get(self, path: str, **query: Any) -> Any:
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            said = json.load(error)
            raise PrometheusError(f"{said.get('error', error)}: {query}") from error


def _series(labels: Labels, values: Sequence[Sequence[Any]]) -> Series:
    points = [(float(at), float(value)) for at, value in values]
    return Series(labels, [(at, value) for at, value in points if not math.isnan(value)])


def filled(text: str, values: Mapping[str, str]) -> str:
    """``text`` with ``$name`` and ``${name}`` replaced; names without a value stay."""

    def one(match: re.Match[str]) -> str:
        return values.get(match[1] or match[2], match[0])

    return re.sub(r"\$(?:\{(\w+)\}|(\w+))", one, text)


def panels(dashboard: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Every panel with queries, those of folded rows too."""
    for panel in dashboard["panels"]:
        if panel["type"] == "row":
            yield from panel["panels"]
        else:
            yield panel


def choices(dashboard: Mapping[str, Any], span: Span) -> dict[str, str]:
    """What the variables stand for when a dashboard is opened."""
    result = {
        "__rate_interval": f"{span.rate_interval * 1000:.0f}ms",
        "__interval": f"{span.step * 1000:.0f}ms",
        "__range": f"{span.end - span.start:.0f}s",
    }
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            result[variable["name"]] = variable["allValue"]
        else:
            result[variable["name"]] = str(variable["current"]["value"])
    return result


def values_of(
    prometheus: Prometheus, dashboard: Mapping[str, Any], name: str, span: Span
) -> list[str]:
    """What a query variable offers."""
    (variable,) = (v for v in dashboard["templating"]["list"] if v["name"] == name)
    match = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"])
    assert match is not None, variable["query"]
    return prometheus.labels(match[2], filled(match[1], choices(dashboard, span)), span)


def answers(
    prometheus: Prometheus, panel: Mapping[str, Any], values: Mapping[str, str], span: Span
) -> list[tuple[dict[str, Any], list[Series]]]:
    """Each query of a panel with what Prometheus says to it."""
    results = []
    for target in panel["targets"]:
        expr = filled(target["expr"], values)
        series = (
            prometheus.at(expr, span.end) if target.get("instant") else prometheus.over(expr, span)
        )
        results.append((target, [one for one in series if one.points]))
    return results


def name_of(target: Mapping[str, Any], labels: Labels) -> str:
    """What the legend calls a series."""
    legend = str(target.get("legendFormat", "__auto"))
    if legend == "__auto":
        named = [f'{key}="{value}"' for key, value in labels.items() if key != "__name__"]
        return labels.get("__name__", "") + (f"{{{', '.join(named)}}}" if named else "")
    return re.sub(r"\{\{(\w+)\}\}", lambda match: labels.get(match[1], ""), legend)
