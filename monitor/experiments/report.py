"""The report of an experiment: one self-contained HTML file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from understudy.common.templates import render, trusted
from understudy.monitor.experiments.live import LiveExperiment
from understudy.monitor.experiments.plot import sequence
from understudy.monitor.experiments.summary import document, limits_of
from understudy.monitor.experiments.text import interval, scale_of, shown

Parts = tuple[
    dict[str, Any], Mapping[str, Sequence[Mapping[str, Any]]], Mapping[str, Mapping[str, Any]]
]
"""The document, the timeline by challenger, and the margins by metric."""
_TEMPLATE = Path(__file__).parent / "templates" / "experiment.html"


def parts_of(live: LiveExperiment, now: float) -> Parts:
    """What the page of a running experiment shows."""
    timelines = {name: c.timeline.points for name, c in live.contestants.items()}
    return document(live, now), timelines, limits_of(live)


def html(
    parts: Parts,
    audit: Sequence[Mapping[str, Any]],
    now: float,
    worst: Mapping[str, Sequence[Mapping[str, Any]]],
    ended: Mapping[str, Any] | None = None,
) -> str:
    """Render the report page.

    ``audit`` are the entries of the audit log, ``now`` is unix time in seconds, ``worst`` are the
    largest disagreements by challenger, redacted; ``ended`` is when and why the experiment was
    removed, and by whom.
    """
    whole, timelines, margins = parts
    return render(
        _TEMPLATE,
        title=f"Experiment {whole['name']}",
        whole=whole,
        champion=whole["champion"],
        challengers=[
            _challenger(one, timelines.get(one["name"], ()), margins, worst.get(one["name"], ()))
            for one in whole["challengers"]
        ],
        audit=audit,
        now=now,
        moment=_time,
        ended=ended,
    )


def _challenger(
    one: dict[str, Any],
    points: Sequence[Mapping[str, Any]],
    margins: Mapping[str, Mapping[str, Any]],
    worst: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    requests = one["requests"]
    return {
        **one,
        "served": requests["served"] if one["mode"] == "split" else requests["pairs"],
        "metrics": [
            _metric(item, points, margins.get(item["metric"], {})) for item in one["metrics"]
        ],
        "worst": [_disagreement(entry) for entry in worst[:10]],
    }


def _metric(
    item: Mapping[str, Any], points: Sequence[Mapping[str, Any]], margin: Mapping[str, Any]
) -> dict[str, Any]:
    factor, unit = scale_of(item["metric"])
    return {
        **item,
        "champion": shown(item["champion"], factor, unit),
        "challenger": shown(item["challenger"], factor, unit),
        "difference": interval(item["difference"], factor, unit),
        "plot": plot_of(item["metric"], points, margin),
    }


def plot_of(metric: str, course: Sequence[Mapping[str, Any]], of_metric: Mapping[str, Any]) -> Any:
    """The band of a metric's difference over a timeline, as SVG; empty before it has an interval.
    ``of_metric`` has its margin, as the document's limits."""
    points = _drawable(course, metric)
    if not points:
        return ""
    values = [p["metrics"][metric] for p in points]
    margin = of_metric.get("margin") or None
    if margin is not None and of_metric.get("relative"):
        champion = values[-1]["champion"]
        margin = None if champion is None else margin * champion
    factor, unit = scale_of(metric)
    gaps = [
        v["challenger"] - v["champion"]
        if v["challenger"] is not None and v["champion"] is not None
        else None
        for v in values
    ]
    drawing = sequence(
        [p["requests"] for p in points],
        gaps,
        [v["difference"] for v in values],
        margin,
        label=f"{metric}, challenger minus champion",
        factor=factor,
        unit=unit,
    )
    return trusted(drawing)


def _drawable(points: Sequence[Mapping[str, Any]], metric: str) -> list[Mapping[str, Any]]:
    """The points of the latest mode (shadow or split) that has two or more intervals to draw."""
    for mode in dict.fromkeys(p["mode"] for p in reversed(points)):
        those = [p for p in points if metric in p["metrics"] and p["mode"] == mode]
        bounded = [p for p in those if p["metrics"][metric]["difference"] != [None, None]]
        if len(bounded) >= 2:
            return those
    return []


def _disagreement(entry: Mapping[str, Any]) -> dict[str, Any]:
    values = {key: entry[key] for key in ("inputs", "champion", "challenger")}
    return {
        "explanation": entry["explanation"],
        "request_id": entry["request_id"],
        "text": json.dumps(values, indent=1, default=str),
    }


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
