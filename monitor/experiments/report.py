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
from understudy.monitor.experiments.summary import document
from understudy.monitor.experiments.text import interval, scale_of, shown

_TEMPLATE = Path(__file__).parent / "templates" / "experiment.html"


def html(
    live: LiveExperiment,
    audit: Sequence[Mapping[str, Any]],
    now: float,
    worst: Mapping[str, Sequence[Mapping[str, Any]]],
) -> str:
    """Render the report page.

    ``audit`` are the entries of the audit log, ``now`` is unix time in seconds, ``worst`` are the
    largest disagreements by challenger, redacted.
    """
    whole = document(live, now)
    return render(
        _TEMPLATE,
        title=f"Experiment {whole['name']}",
        whole=whole,
        champion=live.arms.champion,
        challengers=[
            _challenger(live, one, worst.get(one["name"], ())) for one in whole["challengers"]
        ],
        audit=audit,
        now=now,
        moment=_time,
    )


def _challenger(
    live: LiveExperiment, one: dict[str, Any], worst: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    requests = one["requests"]
    return {
        **one,
        "served": requests["served"] if one["mode"] == "split" else requests["pairs"],
        "metrics": [_metric(live, one["name"], item) for item in one["metrics"]],
        "worst": [_disagreement(entry) for entry in worst[:10]],
    }


def _metric(live: LiveExperiment, name: str, item: Mapping[str, Any]) -> dict[str, Any]:
    factor, unit = scale_of(item["metric"])
    return {
        **item,
        "champion": shown(item["champion"], factor, unit),
        "challenger": shown(item["challenger"], factor, unit),
        "difference": interval(item["difference"], factor, unit),
        "plot": trusted(_plot(live, name, item["metric"])),
    }


def _plot(live: LiveExperiment, name: str, metric: str) -> str:
    points = _drawable(live.contestants[name].timeline.points, metric)
    if not points:
        return ""
    values = [p["metrics"][metric] for p in points]
    hypothesis = next(h for h in live.experiment.rules.hypotheses if h.name == metric)
    margin = None
    if hypothesis.margin.value and not hypothesis.margin.relative:
        margin = hypothesis.margin.value * (1.0 if hypothesis.lower_is_better else -1.0)
    elif hypothesis.margin.relative and values[-1]["champion"] is not None:
        margin = hypothesis.margin.value * values[-1]["champion"]
        margin *= 1.0 if hypothesis.lower_is_better else -1.0
    factor, unit = scale_of(metric)
    gaps = [
        v["challenger"] - v["champion"]
        if v["challenger"] is not None and v["champion"] is not None
        else None
        for v in values
    ]
    return sequence(
        [p["requests"] for p in points],
        gaps,
        [v["difference"] for v in values],
        margin,
        label=f"{metric}, challenger minus champion",
        factor=factor,
        unit=unit,
    )


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
