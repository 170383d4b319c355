"""A dashboard as one HTML page that needs nothing else."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from tools.dashboards.preview.charts import Frame, Mark, curves, heat, spark, timeline
from tools.dashboards.preview.values import Json, by_thresholds, color, defaults, shown
from tools.dashboards.prometheus import (
    Prometheus,
    Series,
    Span,
    answers,
    choices,
    filled,
    name_of,
    values_of,
)

WIDTH = 1440
_UNIT, _GAP = 34, 8
_STYLE = """
*{box-sizing:border-box}body{margin:0;background:#f4f5f5;color:#24292e;
font:12.5px/1.35 Inter,system-ui,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
main{width:1440px;padding:14px 16px 18px}h1{font-size:19px;font-weight:600;margin:0}
.note{color:#6b7280;margin:2px 0 8px}.choices{display:flex;gap:8px;margin:0 0 6px;flex-wrap:wrap}
.choices span{background:#fff;border:1px solid #d8dbe0;border-radius:3px;padding:3px 8px}
.choices b{color:#3d71d9;font-weight:600;margin-right:6px}
.marks i{display:inline-block;width:9px;height:9px;border-radius:50%;margin-right:5px}
h2{font-size:14.5px;font-weight:600;margin:10px 2px 6px}
.grid{position:relative}.panel{position:absolute;background:#fff;border:1px solid #e2e4e8;
border-radius:3px;overflow:hidden;padding:7px 9px}
.panel h3{margin:0;font-size:12.5px;font-weight:600;height:20px;white-space:nowrap;
overflow:hidden;text-overflow:ellipsis}
svg{display:block}svg text{font-size:11px;fill:#5a6069}svg text.on{fill:#fff;font-weight:600}
.grid line.grid,svg line.grid{stroke:#e9ebee;stroke-width:1}
.legend{display:flex;flex-wrap:wrap;gap:0 12px;height:16px;line-height:16px;overflow:hidden;
margin-top:2px;color:#464c54;font-size:11.5px}
.legend i{display:inline-block;width:12px;height:4px;border-radius:2px;
margin:0 5px 2.5px 0}
.none{position:absolute;inset:26px 0 0;display:flex;align-items:center;justify-content:center;
color:#8a8f98;font-size:14px}
.stats{position:absolute;inset:24px 9px 6px;display:flex;gap:10px}
.stat{flex:1;position:relative;display:flex;flex-direction:column;align-items:center;
justify-content:center;min-width:0}
.stat b{font-weight:600;line-height:1.1;z-index:1;white-space:nowrap}
.stat small{color:#5a6069;z-index:1;max-width:100%;overflow:hidden;text-overflow:ellipsis;
white-space:nowrap}.spark{position:absolute;left:0;right:0;bottom:0;width:100%;height:45%}
.bar{display:flex;align-items:center;gap:8px}.bar span{width:34%;text-align:right;overflow:hidden;
text-overflow:ellipsis;white-space:nowrap}.bar div{flex:1;background:#eef0f2;border-radius:2px}
.bar i{display:block;height:100%;border-radius:2px;min-width:2px}.bar b{width:64px;font-weight:600}
"""


@dataclass(frozen=True, slots=True)
class Annotations:
    """What was posted to Grafana: the bodies of its annotations API."""

    posted: Sequence[Mapping[str, Any]] = ()

    def within(self, span: Span, tags: Sequence[str], tone: str) -> list[Mark]:
        """Those with the tags, in the time that is shown."""
        marks = []
        for one in self.posted:
            start = one["time"] / 1000
            end = one.get("timeEnd", one["time"]) / 1000
            if set(tags) <= set(one["tags"]) and start < span.end and end > span.start:
                marks.append(Mark(start, end, tone, str(one["text"])))
        return marks


def page(
    dashboard: Json, prometheus: Prometheus, span: Span, annotations: Annotations
) -> tuple[str, list[str]]:
    """The page, and the panels that have nothing to show."""
    values = choices(dashboard, span)
    marks, legend = _marks(dashboard, prometheus, span, values, annotations)
    empty: list[str] = []
    body = []
    for row, panels in _rows(dashboard):
        for own in _repeated(row, dashboard, prometheus, span):
            here = {**values, **own}
            body.append(f"<h2>{escape(filled(row['title'], here))}</h2>")
            top = min((one["gridPos"]["y"] for one in panels), default=0)
            bottom = max((one["gridPos"]["y"] + one["gridPos"]["h"] for one in panels), default=0)
            drawn = []
            for panel in panels:
                text, nothing = _panel(panel, prometheus, span, here, marks, top)
                drawn.append(text)
                empty += [filled(panel["title"], here)] if nothing else []
            high = (bottom - top) * _UNIT
            body.append(f'<div class="grid" style="height:{high}px">{"".join(drawn)}</div>')
    shown_at = time.strftime("%Y-%m-%d %H:%M", time.gmtime(span.start))
    until = time.strftime("%H:%M UTC", time.gmtime(span.end))
    head = (
        f"<h1>{escape(dashboard['title'])}</h1>"
        f'<p class="note">{escape(dashboard["description"])} {shown_at} to {until}. Drawn from the '
        "panels' own queries; Grafana's fonts and details differ.</p>"
        f'<div class="choices">{_choices(dashboard)}<span class="marks">{legend}</span></div>'
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f"<title>{escape(dashboard['title'])}</title><style>{_STYLE}</style></head>"
        f"<body><main>{head}{''.join(body)}</main></body></html>"
    ), empty


def _choices(dashboard: Json) -> str:
    results = []
    for variable in dashboard["templating"]["list"]:
        text = variable["current"].get("text", "")
        if variable["type"] == "datasource":
            text = "Prometheus"
        results.append(f"<span><b>{escape(variable['label'])}</b>{escape(str(text))}</span>")
    return "".join(results)


def _marks(
    dashboard: Json,
    prometheus: Prometheus,
    span: Span,
    values: Mapping[str, str],
    annotations: Annotations,
) -> tuple[list[Mark], str]:
    marks: list[Mark] = []
    legend = []
    for query in dashboard["annotations"]["list"]:
        tone = color(query["iconColor"])
        legend.append(f'<i style="background:{tone}"></i>{escape(query["name"])} &nbsp; ')
        if query["datasource"]["type"] == "grafana":
            marks += annotations.within(span, query["target"]["tags"], tone)
            continue
        for one in prometheus.over(filled(query["expr"], values), span):
            before = -1e18
            for at, _ in one.points:
                if at - before > span.rate_interval + span.step:
                    marks.append(Mark(at, at, tone, query["name"]))
                before = at
    return marks, "".join(legend)


def _rows(dashboard: Json) -> list[tuple[Json, list[Json]]]:
    results: list[tuple[Json, list[Json]]] = []
    for panel in dashboard["panels"]:
        if panel["type"] == "row":
            results.append((panel, list(panel["panels"])))
        else:
            results[-1][1].append(panel)
    return results


def _repeated(
    row: Json, dashboard: Json, prometheus: Prometheus, span: Span
) -> list[dict[str, str]]:
    variable = row.get("repeat")
    if not variable:
        return [{}]
    offered = values_of(prometheus, dashboard, variable, span)
    return [{variable: re.escape(value)} for value in offered] or [{}]


def _panel(
    panel: Json,
    prometheus: Prometheus,
    span: Span,
    values: Mapping[str, str],
    marks: Sequence[Mark],
    top: int,
) -> tuple[str, bool]:
    place = panel["gridPos"]
    column = (WIDTH - 32 + _GAP) / 24
    wide, high = place["w"] * column - _GAP, place["h"] * _UNIT - _GAP
    result = answers(prometheus, panel, values, span)
    named = [(name_of(target, one.labels), one) for target, series in result for one in series]
    named = sorted(named, key=lambda pair: pair[0]) if len(result) == 1 else named
    frame = Frame(wide - 18, high - 58, span, marks)
    kind = panel["type"]
    body = ""
    if named:
        if kind == "timeseries":
            body = curves(panel, named, frame)
        elif kind == "state-timeline":
            body = timeline(panel, named, frame)
        elif kind == "heatmap":
            tall = Frame(wide - 18, high - 38, span, marks)
            body = heat(panel, [one for _, one in named], tall)
        elif kind == "stat":
            body = _stats(panel, named, wide, high)
        else:
            order = sorted(named, key=lambda pair: -pair[1].points[-1][1])
            body = _bars(panel, order, high)
    nothing = not body
    if nothing:
        body = f'<div class="none">{escape(defaults(panel)["noValue"])}</div>'
    style = (
        f"left:{place['x'] * column:.1f}px;top:{(place['y'] - top) * _UNIT}px;"
        f"width:{wide:.1f}px;height:{high}px"
    )
    title = escape(filled(panel["title"], values))
    return f'<div class="panel" style="{style}"><h3>{title}</h3>{body}</div>', nothing


def _stats(panel: Json, named: Sequence[tuple[str, Series]], wide: float, high: float) -> str:
    results = []
    names = panel["options"]["textMode"] == "value_and_name"
    area = panel["options"]["graphMode"] == "area"
    size = min(34.0, high * 0.3) if len(named) < 3 else 18.0
    for name, one in named:
        value = one.points[-1][1]
        text, tone = shown(panel, value)
        tone = tone or by_thresholds(panel, value)
        fits = min(size, 1.6 * (wide - 24) / len(named) / max(len(text), 1))
        label = f"<small>{escape(name)}</small>" if names else ""
        curve = spark(one.points, tone, 200, 40) if area else ""
        results.append(
            f'<div class="stat">{label}<b style="color:{tone};font-size:{fits:.0f}px">'
            f"{escape(text)}</b>{curve}</div>"
        )
    return f'<div class="stats">{"".join(results)}</div>'


def _bars(panel: Json, named: Sequence[tuple[str, Series]], high: float) -> str:
    settings = defaults(panel)
    most = settings.get("max") or max(one.points[-1][1] for _, one in named) or 1.0
    tall = min(34.0, (high - 36) / len(named))
    results = []
    for name, one in named:
        value = one.points[-1][1]
        text, _ = shown(panel, value)
        tone = by_thresholds(panel, value)
        share = min(max(value / most, 0.0), 1.0)
        size = min(12.5, tall * 0.8)
        results.append(
            f'<div class="bar" style="height:{tall:.1f}px;font-size:{size:.1f}px">'
            f'<span>{escape(name)}</span><div style="height:{tall * 0.68:.1f}px">'
            f'<i style="width:{share * 100:.1f}%;background:{tone}"></i></div>'
            f'<b style="color:{tone}">{escape(text)}</b></div>'
        )
    return "".join(results)
