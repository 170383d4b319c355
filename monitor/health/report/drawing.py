"""The charts of the drift report: shares by value, and the distance of each window."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from understudy.common.svg import Axes, Scale, element, joined, log_ticks, step_of, ticks, wrapped
from understudy.common.units import percent
from understudy.monitor.findings.words import moment
from understudy.monitor.health.report.numbers import shown

WIDTH = 480
_HEIGHT = 190
_MARGINS = (46.0, 12.0, 22.0, 24.0)
_ROW = 26
_LABELS = 120
_LETTERS = 18


def chart_of(histogram: Mapping[str, Any], name: str) -> str:
    """Shares of the reference and of the current rows, by value."""
    shares = [*histogram["reference"], *histogram["current"]]
    if not shares or not max(shares):
        return ""
    if histogram["kind"] == "categories":
        return _rows(histogram, max(shares), name)
    return _columns(histogram, max(shares), name)


def _percent(share: float) -> str:
    return percent(share, 3)


def _legend(x: float) -> str:
    return "".join(
        (
            element("rect", cls="was", x=x, y=4, width=10, height=10),
            element("text", "reference", x=x + 14, y=13),
            element("rect", cls="now", x=x + 80, y=4, width=10, height=10),
            element("text", "current", x=x + 94, y=13),
        )
    )


def _rows(histogram: Mapping[str, Any], top: float, name: str) -> str:
    """One row for each category, with a bar for each side."""
    labels = histogram["labels"]
    height = 20.0 + _ROW * len(labels) + 22.0
    x = Scale(0.0, top, _LABELS, WIDTH - 50.0)
    bottom = height - 20.0
    parts = [_legend(_LABELS)]
    for value in ticks(0.0, top, 4):
        parts.append(element("line", cls="grid", x1=x(value), x2=x(value), y1=20, y2=bottom))
        parts.append(
            element("text", _percent(value), x=x(value), y=height - 6, text_anchor="middle")
        )
    for number, label in enumerate(labels):
        y = 22.0 + number * _ROW
        text = label if len(label) <= _LETTERS else label[: _LETTERS - 1] + "…"
        cls = "new" if histogram["new"][number] else ""
        mark = "new: " if cls else ""
        parts.append(
            element(
                "text", text, title=mark + label, x=_LABELS - 8, y=y + 14, text_anchor="end",
                cls=cls,
            )
        )  # fmt: skip
        for key, style, offset in (("reference", "was", 0.0), ("current", "now", 11.0)):
            share = histogram[key][number]
            parts.append(
                element(
                    "rect", title=f"{mark}{label}: {_percent(share)} ({key})", cls=style,
                    x=_LABELS, y=y + offset, width=max(x(share) - _LABELS, 0.0), height=10,
                )
            )  # fmt: skip
        share = histogram["current"][number]
        largest = max(share, histogram["reference"][number])
        parts.append(element("text", _percent(share), x=x(largest) + 4, y=y + 20))
    return wrapped("".join(parts), WIDTH, height, f"{name}: shares by category")


def _columns(histogram: Mapping[str, Any], top: float, name: str) -> str:
    """Bars over an axis of values."""
    bins = histogram["kind"] == "bins"
    log = bool(histogram.get("log"))
    if bins:
        edges = histogram["edges"]
        ends = (edges[0], edges[-1])
        spans = list(pairwise(edges))
    else:
        values = histogram["at"]
        gap = min((b - a for a, b in pairwise(values)), default=1.0)
        spans = [(v - 0.4 * gap, v + 0.4 * gap) for v in values]
        ends = (values[0] - 0.6 * gap, values[-1] + 0.6 * gap)
    # Values that are far apart are drawn one beside the other.
    spread = not bins and (ends[1] - ends[0]) / gap > 60
    if spread:
        spans = [(n - 0.4, n + 0.4) for n in range(len(spans))]
        ends = (-0.6, len(spans) - 0.4)
    axes = Axes((WIDTH, _HEIGHT), _MARGINS, ends, (0.0, top * 1.05), f"{name}: shares by value")
    x = Scale(*ends, axes.left, axes.right, log=log)
    axes.grid(ticks(0.0, top, 3), _percent)
    axes.parts.append(_legend(axes.left))
    for number, (low, high) in enumerate(spans):
        where = _place(histogram, number, low, high)
        wide = x(high) - x(low)
        for key, cls, offset in (("reference", "was", 0.06), ("current", "now", 0.5)):
            share = histogram[key][number]
            y = axes.y(share)
            axes.add(
                "rect", title=f"{where}: {_percent(share)} ({key})", cls=cls,
                x=x(low) + offset * wide, width=0.44 * wide, y=y, height=axes.bottom - y,
            )  # fmt: skip
    axes.add("line", cls="axis", x1=axes.left, x2=axes.right, y1=axes.bottom, y2=axes.bottom)
    if bins:
        marks = _marks(*ends, log)
        labels = [shown(value) for value in marks]
        at = [x(value) for value in marks]
    else:
        labels = histogram["labels"]
        at = [x((low + high) / 2.0) for low, high in spans]
    _ticks(axes, at, labels)
    return axes.svg()


def _place(histogram: Mapping[str, Any], number: int, low: float, high: float) -> str:
    if histogram["kind"] == "values":
        return str(histogram["labels"][number])
    if number == 0 and histogram["below"]:
        return f"{shown(histogram['least'])} to {shown(high)}"
    if number == len(histogram["current"]) - 1 and histogram["above"]:
        return f"{shown(low)} to {shown(histogram['most'])}"
    return f"{shown(low)} to {shown(high)}"


def _marks(low: float, high: float, log: bool) -> list[float]:
    if log:
        marks = log_ticks(low, high)
        while len(marks) > 7:
            marks = marks[::2]
        return marks or [low, high]
    return ticks(low, high, 5)


def _ticks(axes: Axes, at: Sequence[float], labels: Sequence[str]) -> None:
    """Labels below the axis, as many as there is room for."""
    last = -1e9
    for x, label in zip(at, labels, strict=True):
        half = 3.2 * len(label)
        if x - half < last + 6 or x + half > WIDTH:
            continue
        axes.add("line", cls="axis", x1=x, x2=x, y1=axes.bottom, y2=axes.bottom + 4)
        axes.text(x, axes.bottom + 16, label, "middle")
        last = x + half


def trend_of(
    timeline: Mapping[str, Any] | None, windows: Sequence[Mapping[str, Any]], name: str
) -> str:
    """PSI by window, above the band that chance alone fills."""
    if timeline is None:
        return ""
    points = [(float(n), v) for n, v in enumerate(timeline["psi"]) if v is not None]
    if len(points) < 2:
        return ""
    chance = [v or 0.0 for v in timeline["by_chance"]]
    top = max([v for _, v in points] + chance) * 1.1 or 1.0
    last = len(windows) - 1.0
    axes = Axes(
        (WIDTH, 130), (46.0, 12.0, 22.0, 24.0), (0.0, last), (0.0, top), f"{name}: PSI by window"
    )
    axes.grid(ticks(0.0, top, 2), shown)
    band = [*enumerate(chance), (last, 0.0), (0.0, 0.0)]
    outline = joined(axes.at((float(n), v) for n, v in band))
    axes.add("polygon", title="what chance alone reaches", cls="chance", points=outline)
    axes.curve(points, "trend")
    for n, value in points:
        rows = windows[int(n)]["rows"]
        title = f"{_start(windows, int(n))}, {rows:,} rows: PSI {value:.3g}"
        cls = "beyond" if value > chance[int(n)] else "within"
        x, y = axes.at([(n, value)])[0]
        axes.add("circle", title=title, cls=cls, cx=x, cy=y, r=2.5)
    axes.text(axes.left, 13, "PSI by window; shaded: within chance")
    step = max(1, round(step_of(0.0, max(last, 1.0), 4)))
    marks = list(range(0, len(windows), step))
    _ticks(axes, [axes.x(n) for n in marks], [_start(windows, n) for n in marks])
    return axes.svg()


def _start(windows: Sequence[Mapping[str, Any]], number: int) -> str:
    """Where a window begins: its day and time, or its row."""
    at = windows[number]["at"]
    if at is not None:
        return moment(at)[:16].replace("T", " ")
    return f"row {1 + sum(int(w['rows']) for w in windows[:number]):,}"
