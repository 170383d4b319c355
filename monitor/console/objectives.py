"""A self-contained page that compares the arms by two metrics at a time, with the Pareto front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from understudy.common.svg import Axes
from understudy.common.templates import render, trusted
from understudy.monitor.config.objective import KNOWN, shown

_TEMPLATE = Path(__file__).parent / "templates" / "objectives.html"
_SIZE, _MARGINS = (640, 380), (80, 40, 20, 50)


def page(document: Mapping[str, Any]) -> str:
    """The page for the data of GET /v1/objectives: a chart for each pair of metrics that two arms
    have on the same basis, and a table of all metrics."""
    arms: Sequence[Mapping[str, Any]] = document["arms"]
    known = [m for m in KNOWN if sum(_value(arm, m) is not None for arm in arms) > 0]
    good = [m for m in ("accuracy", "error_rate") if m in known][:1]
    pairs = [(m, good[0]) for m in known if good and m not in (*good, "throughput")]
    wanted = {one["metric"] for one in arms[0]["objectives"]}
    pairs.sort(key=lambda pair: pair[0] not in wanted)
    planes = [(alike, x, y) for x, y in pairs if len(alike := _alike(arms, x, y)) > 1]
    return render(
        _TEMPLATE,
        minutes=f"{document['window_seconds'] / 60:g}",
        arms=arms,
        sentences=sentences(arms),
        drawings=[trusted(_drawing(alike, x, y)) for alike, x, y in planes[:4]],
        rows=_rows(arms, known),
        incomparable=incomparable(document["comparisons"]),
    )


def sentences(arms: Sequence[Mapping[str, Any]]) -> list[str]:
    """A sentence for each arm that has an objective: whether it meets all of them, and which not.
    What is not known yet is neither."""
    found = []
    for arm in arms:
        known = arm["objectives"]
        missed = [one["metric"].replace("_", " ") for one in known if one["met"] is False]
        unknown = sum(one["met"] is None for one in known)
        met = len(known) - len(missed) - unknown
        if missed:
            text = f"{arm['arm']} misses {', '.join(missed)}, and meets {met} of {len(known)}"
        elif met == len(known) and known:
            text = f"{arm['arm']} meets all objectives"
        else:
            text = f"{arm['arm']} meets {met} of {len(known)} objectives"
        if known:
            found.append(f"{text}; {unknown} not known yet." if unknown else f"{text}.")
    return found or ["No objective is configured."]


def incomparable(comparisons: Sequence[Mapping[str, Any]]) -> list[str]:
    """A sentence for each pair of arms and reason why metrics of theirs are not compared."""
    metrics_of: dict[tuple[str, str, str], list[str]] = {}
    for one in comparisons:
        if one["result"] is None:
            key = one["arm"], one["other"], one["why_not"]
            metrics_of.setdefault(key, []).append(one["metric"].replace("_", " "))
    return [
        f"{arm} and {other}: {', '.join(metrics)} not comparable, because {why}"
        for (arm, other, why), metrics in metrics_of.items()
    ]


def _value(arm: Mapping[str, Any], metric: str) -> float | None:
    value = (arm["figures"].get(metric) or {}).get("value")
    return None if value is None else float(value)


def _alike(arms: Sequence[Mapping[str, Any]], x: str, y: str) -> list[Mapping[str, Any]]:
    """The largest group of arms that have both metrics on the same basis."""
    groups: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for arm in arms:
        if _value(arm, x) is not None and _value(arm, y) is not None:
            basis = tuple(arm["figures"][metric].get("basis", "") for metric in (x, y))
            groups.setdefault(basis, []).append(arm)
    return max(groups.values(), key=len, default=[])


def _limit(arms: Sequence[Mapping[str, Any]], metric: str) -> float | None:
    for one in arms[0]["objectives"]:
        if one["metric"] == metric:
            return float(one["limit"])
    return None


def _axis(arms: Sequence[Mapping[str, Any]], metric: str) -> tuple[float, float]:
    values = []
    for arm in arms:
        figure = arm["figures"].get(metric) or {}
        values += [figure.get(key) for key in ("value", "low", "high")]
    values.append(_limit(arms, metric))
    held = [float(v) for v in values if v is not None]
    low, high = min(held), max(held)
    padding = (high - low) * 0.12 or abs(high) * 0.1 or 0.1
    return max(0.0, low - padding), high + padding


def _drawing(arms: Sequence[Mapping[str, Any]], x: str, y: str) -> str:
    name = f"{x.replace('_', ' ')} against {y.replace('_', ' ')}"
    ends_x, ends_y = _axis(arms, x), _axis(arms, y)
    axes = Axes(_SIZE, _MARGINS, ends_x, ends_y, name)
    limit_x, limit_y = _limit(arms, x), _limit(arms, y)
    if limit_x is not None and limit_y is not None:
        across, up = axes.x(limit_x), axes.y(limit_y)
        from_x, to_x = (axes.left, across) if KNOWN[x][1] else (across, axes.right)
        from_y, to_y = (up, axes.bottom) if KNOWN[y][1] else (axes.top, up)
        axes.add("rect", cls="ok", x=from_x, y=from_y, width=to_x - from_x, height=to_y - from_y)
    axes.add("line", cls="axis", x1=axes.left, x2=axes.left, y1=axes.top, y2=axes.bottom)
    axes.add("line", cls="axis", x1=axes.left, x2=axes.right, y1=axes.bottom, y2=axes.bottom)
    axes.x_labels(_fifths(ends_x), lambda value: shown(x, value), 18)
    for value in _fifths(ends_y):
        axes.text(axes.left - 8, axes.y(value) + 4, shown(y, value), "end")
    if limit_x is not None:
        at = axes.x(limit_x)
        axes.add("line", cls="limit", x1=at, x2=at, y1=axes.top, y2=axes.bottom)
    if limit_y is not None:
        axes.rule(limit_y, "limit")
    for arm in arms:
        one, other = _value(arm, x), _value(arm, y)
        if one is None or other is None:
            continue
        at_x, at_y = axes.x(one), axes.y(other)
        if (ends := _interval(arm, x)) is not None:
            axes.add("line", cls="bar", x1=axes.x(ends[0]), x2=axes.x(ends[1]), y1=at_y, y2=at_y)
        if (ends := _interval(arm, y)) is not None:
            axes.add("line", cls="bar", x1=at_x, x2=at_x, y1=axes.y(ends[0]), y2=axes.y(ends[1]))
        axes.add("circle", cls="on" if arm["pareto"] else "off", cx=at_x, cy=at_y, r=6)
        axes.text(at_x + 10, at_y - 8, arm["arm"], cls="name")
    return axes.x_name(name).svg()


def _fifths(ends: tuple[float, float]) -> list[float]:
    return [ends[0] + (ends[1] - ends[0]) * k / 4 for k in range(5)]


def _interval(arm: Mapping[str, Any], metric: str) -> tuple[float, float] | None:
    figure = arm["figures"][metric]
    if figure["low"] is None or figure["high"] is None:
        return None
    return float(figure["low"]), float(figure["high"])


def _rows(arms: Sequence[Mapping[str, Any]], known: Sequence[str]) -> list[dict[str, Any]]:
    rows = []
    limits = {one["metric"]: one for one in arms[0]["objectives"]}
    for metric in dict.fromkeys((*known, *limits)):
        wanted = ""
        if metric in limits:
            sign = "≤" if limits[metric]["at_most"] else "≥"
            wanted = f"{sign} {shown(metric, limits[metric]['limit'])}"
        cells = []
        for arm in arms:
            figure = arm["figures"].get(metric) or {"value": None, "source": "absent"}
            met = next((o["met"] for o in arm["objectives"] if o["metric"] == metric), None)
            mark = " (e)" if figure["source"] == "estimated" else ""
            ends = figure.get("low"), figure.get("high")
            interval = "" if None in ends else " to ".join(shown(metric, end) for end in ends)
            cells.append(
                {
                    "text": shown(metric, figure["value"]) + mark,
                    "missed": met is False,
                    "interval": interval,
                    "basis": figure.get("basis", "") if figure["value"] is not None else "",
                }
            )
        rows.append({"name": metric.replace("_", " "), "wanted": wanted, "cells": cells})
    return rows
