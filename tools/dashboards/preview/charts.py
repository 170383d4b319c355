"""Curves, heat maps and time lines as SVG."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from tools.dashboards.preview.values import (
    Json,
    color_of,
    defaults,
    lines_at,
    shown,
    text_of,
)
from tools.dashboards.prometheus import Series, Span
from understudy.common.svg import Scale, coordinate, element, step_of, wrapped

_LEFT, _RIGHT, _TOP, _BOTTOM = 66.0, 10.0, 8.0, 22.0
Named = Sequence[tuple[str, Series]]


@dataclass(frozen=True, slots=True)
class Mark:
    """An annotation: a moment, or a stretch, in unix seconds."""

    start: float
    end: float
    color: str
    text: str


@dataclass(frozen=True, slots=True)
class Frame:
    """Where to draw: ``width`` and ``height`` in pixels, the time, and the marks in it."""

    width: float
    height: float
    span: Span
    marks: Sequence[Mark]

    def x(self, at: float) -> float:
        """Where a moment is."""
        share = (at - self.span.start) / (self.span.end - self.span.start)
        return _LEFT + (self.width - _LEFT - _RIGHT) * min(max(share, 0.0), 1.0)

    def y(self, share: float) -> float:
        """Where a share of the height is; 0 is below."""
        return self.height - _BOTTOM - (self.height - _TOP - _BOTTOM) * share

    def svg(self, body: str) -> str:
        """The drawing, with the time axis and the marks."""
        body = f"{self._times()}{body}{self._marked()}"
        return wrapped(body, round(self.width), round(self.height), fixed=True)

    def _times(self) -> str:
        length = self.span.end - self.span.start
        wanted = length / max(2.0, (self.width - _LEFT) / 90.0)
        steps = (10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21600, 43200, 86400)
        step = next((one for one in steps if one >= wanted), 86400)
        form = "%H:%M:%S" if step < 60 else "%H:%M"
        results = []
        at = math.ceil(self.span.start / step) * step
        while at < self.span.end:
            x = self.x(at)
            label = time.strftime(form, time.gmtime(at))
            bottom = self.height - _BOTTOM
            results.append(element("line", cls="grid", x1=x, x2=x, y1=_TOP, y2=bottom))
            if _LEFT + 16 < x < self.width - 24:
                results.append(element("text", label, x=x, y=self.height - 6, text_anchor="middle"))
            at += step
        return "".join(results)

    def _marked(self) -> str:
        results = []
        top, bottom = _TOP, self.height - _BOTTOM
        for mark in self.marks:
            x, end = self.x(mark.start), self.x(mark.end)
            if end - x > 2:
                size: dict[str, Any] = {"width": end - x, "height": bottom - top}
                results.append(element("rect", x=x, y=top, **size, fill=mark.color, opacity=".14"))
            dashed = {"stroke": mark.color, "stroke_dasharray": "4 3", "opacity": ".8"}
            results += [
                element("line", x1=at, x2=at, y1=top, y2=bottom + 3, **dashed) for at in {x, end}
            ]
            arrow = f"M{coordinate(x - 4)} {coordinate(bottom + 6)}h8l-4 -6z"
            results.append(element("path", title=mark.text, d=arrow, fill=mark.color))
        return "".join(results)

    def ticks(self, at: Sequence[tuple[float, str]]) -> str:
        """Labels of the value axis: shares of the height and texts."""
        right = self.width - _RIGHT
        return "".join(
            element("line", cls="grid", x1=_LEFT, x2=right, y1=self.y(share), y2=self.y(share))
            + element("text", text, x=_LEFT - 6, y=self.y(share) + 4, text_anchor="end")
            for share, text in at
        )


def _pieces(points: Sequence[tuple[float, float]], step: float) -> list[list[tuple[float, float]]]:
    """Stretches without a hole."""
    results: list[list[tuple[float, float]]] = []
    for at, value in points:
        if not results or at - results[-1][-1][0] > 1.5 * step:
            results.append([])
        results[-1].append((at, value))
    return results


def _linear(low: float, high: float) -> list[float]:
    if high <= low:
        high = low + (abs(low) or 1.0)
    step = step_of(low, high, 4, (1, 2, 2.5, 5))
    first = math.floor(low / step + 1e-9)
    last = math.ceil(high / step - 1e-9)
    return [number * step for number in range(first, last + 1)]


def curves(panel: Json, series: Named, frame: Frame) -> str:
    """The panel of curves, with its legend."""
    settings = defaults(panel)
    custom = settings.get("custom", {})
    unit = settings.get("unit", "none")
    stacked = custom.get("stacking", {}).get("mode") == "normal"
    log = custom.get("scaleDistribution", {}).get("type") == "log"
    stepped = custom.get("lineInterpolation") == "stepAfter"
    drawn = [(name, list(one.points)) for name, one in series]
    if stacked:
        drawn = _stacked(drawn)
    values = [value for _, points in drawn for _, value in points if math.isfinite(value)]
    limits = lines_at(panel)
    low, high = min(values, default=0.0), max(values, default=1.0)
    if log:
        values = [value for value in values if value > 0] or [1.0]
        bottom = math.floor(math.log10(min(values)) + 1e-9)
        top = max(bottom + 1, math.ceil(math.log10(max(values)) - 1e-9))
        every = max(1, (top - bottom) // 6)
        at = [(k, 10.0**k) for k in range(bottom, top + 1, every)]
        ticks = [((k - bottom) / (top - bottom), text_of(v, unit)) for k, v in at]

        def share(value: float) -> float:
            return (math.log10(max(value, 10.0**bottom)) - bottom) / (top - bottom)
    else:
        low, high = settings.get("min", low), settings.get("max", high)
        for limit, _ in limits:
            if limit <= max(high * 2, 1e-9):
                low, high = min(low, limit), max(high, limit)
        marks = _linear(low, high)
        first, last = marks[0], marks[-1]
        ticks = [((one - first) / (last - first), text_of(one, unit)) for one in marks]

        def share(value: float) -> float:
            return (value - first) / (last - first)

    body = [frame.ticks(ticks)]
    body += [_limit(frame, share(value), color) for value, color in limits]
    before: list[tuple[float, float]] = []
    for number, (name, points) in enumerate(drawn):
        tone = color_of(panel, name, number)
        for piece in _pieces(points, frame.span.step):
            body.append(_curve(piece, share, frame, tone, stepped, before if stacked else None))
        before = points if stacked else before
    legend = "".join(
        f'<span><i style="background:{color_of(panel, name, number)}"></i>{escape(name)}</span>'
        for number, (name, _) in enumerate(series)
    )
    return frame.svg("".join(body)) + f'<div class="legend">{legend}</div>'


def _limit(frame: Frame, share: float, color: str) -> str:
    if not 0.0 <= share <= 1.0:
        return ""
    across: dict[str, Any] = {
        "x1": _LEFT,
        "x2": frame.width - _RIGHT,
        "y1": frame.y(share),
        "y2": frame.y(share),
    }
    return element("line", **across, stroke=color, stroke_dasharray="9 6", stroke_width=1.3)


def _stacked(
    drawn: Sequence[tuple[str, list[tuple[float, float]]]],
) -> list[tuple[str, list[tuple[float, float]]]]:
    sums: dict[float, float] = {}
    results: list[tuple[str, list[tuple[float, float]]]] = []
    for name, points in drawn:
        for at, value in points:
            sums[at] = sums.get(at, 0.0) + value
        results.append((name, [(at, sums[at]) for at, _ in points]))
    return results


def _curve(
    piece: Sequence[tuple[float, float]],
    share: Callable[[float], float],
    frame: Frame,
    tone: str,
    stepped: bool,
    below: Sequence[tuple[float, float]] | None,
) -> str:
    path = _path(piece, share, frame, stepped)
    if len(piece) == 1:
        at, value = piece[0]
        return element("circle", cx=frame.x(at), cy=frame.y(share(value)), r=2, fill=tone)
    under = dict(below or ())
    bottom = [(at, under.get(at)) for at, _ in reversed(piece)]
    floor = [
        f"{coordinate(frame.x(at))} {coordinate(frame.y(share(v) if v is not None else 0.0))}"
        for at, v in bottom
    ]
    area = f"{path}L{'L'.join(floor)}z"
    opacity = ".35" if below is not None else ".06"
    return element("path", d=area, fill=tone, opacity=opacity) + element(
        "path", d=path, fill="none", stroke=tone, stroke_width=1.6
    )


def _path(
    piece: Sequence[tuple[float, float]],
    share: Callable[[float], float],
    frame: Frame,
    stepped: bool,
) -> str:
    results: list[str] = []
    last = ""
    for at, value in piece:
        x = coordinate(frame.x(at))
        y = coordinate(frame.y(min(max(share(value), -0.02), 1.02)))
        if not results:
            results.append(f"M{x} {y}")
        elif stepped and y != last:
            results.append(f"L{x} {last}L{x} {y}")
        else:
            results.append(f"L{x} {y}")
        last = y
    return "".join(results)


_SCHEMES = {
    "Spectral": (
        "#3b528b", "#3288bd", "#66c2a5", "#abdda4", "#fee08b", "#fdae61", "#f46d43", "#d53e4f",
    ),
    "Blues": ("#1c3a5e", "#2a5a8f", "#3b7ab8", "#5b9bd5", "#8abce8", "#b8d8f5", "#dcecfb"),
}  # fmt: skip


def heat(panel: Json, series: Sequence[Series], frame: Frame) -> str:
    """The panel of a histogram's buckets over time."""
    edges = sorted({float(one.labels["le"]) for one in series})
    unit = panel["options"]["yAxis"]["unit"]
    counts: dict[tuple[float, float], float] = {}
    rows: dict[float, dict[float, float]] = {}
    for one in series:
        for at, value in one.points:
            rows.setdefault(at, {})[float(one.labels["le"])] = value
    for at, row in rows.items():
        before = 0.0
        for edge in edges:
            now = row.get(edge, before)
            counts[at, edge] = max(0.0, now - before)
            before = max(before, now)
    used = [number for number, e in enumerate(edges) if any(counts[at, e] > 1e-9 for at in rows)]
    if not used:
        return ""
    first, last = max(0, used[0] - 1), used[-1]
    kept = edges[first : last + 1]
    most = max(counts.values())
    tones = _SCHEMES["Blues" if panel["options"]["color"]["scheme"] == "Blues" else "Spectral"]
    wide = frame.x(frame.span.start + frame.span.step) - frame.x(frame.span.start)
    tall = (frame.y(0) - frame.y(1)) / len(kept)
    body = []
    for (at, edge), count in counts.items():
        if count <= 1e-9 or edge not in kept or at - frame.span.step < frame.span.start:
            continue
        level = math.sqrt(count / most)
        tone = tones[min(len(tones) - 1, int(level * len(tones)))]
        y = frame.y((kept.index(edge) + 1) / len(kept))
        size: dict[str, Any] = {"width": max(wide - 0.5, 0.8), "height": tall - 1}
        body.append(element("rect", x=frame.x(at) - wide, y=y + 0.5, **size, fill=tone))
    every = max(1, round(len(kept) / 12))
    ticks = [
        ((number + 1) / len(kept), "+∞" if math.isinf(edge) else text_of(edge, unit))
        for number, edge in enumerate(kept)
        if number % every == 0 or number == len(kept) - 1
    ]
    return frame.svg(frame.ticks(ticks) + "".join(body))


def timeline(panel: Json, series: Named, frame: Frame) -> str:
    """What was the case when, a row for each series."""
    rows = list(series)
    space = max(90.0, min(0.34 * frame.width, 6.6 * max(len(name) for name, _ in rows)))
    tall = min(30.0, (frame.height - _BOTTOM - _TOP) / len(rows))
    scale = (frame.width - space - _RIGHT) / (frame.width - _LEFT - _RIGHT)

    def x(at: float) -> float:
        return space + (frame.x(at) - _LEFT) * scale

    body, words = [], dict[str, str]()
    size = min(11.0, tall * 0.62)
    for number, (name, one) in enumerate(rows):
        y = _TOP + number * tall
        middle = y + tall / 2 + size / 3
        font = f"font-size:{size:.1f}px"
        body.append(element("text", name, x=space - 6, y=middle, text_anchor="end", style=font))
        for piece in _pieces(one.points, frame.span.step):
            for start, end, value in _runs(piece, frame.span.step):
                text, tone = shown(panel, value)
                words[text] = tone or "#888"
                left, right = x(start), x(end)
                box: dict[str, Any] = {
                    "x": left,
                    "y": y + 1,
                    "width": max(right - left, 1),
                    "height": tall - 2,
                }
                body.append(element("rect", **box, fill=tone, opacity=".85", rx=1))
                if right - left > 7 * len(text) + 8 and size > 8:
                    body.append(element("text", text, cls="on", x=left + 5, y=middle, style=font))
    legend = "".join(
        f'<span><i style="background:{tone}"></i>{escape(text)}</span>'
        for text, tone in words.items()
    )
    empty = Frame(frame.width, frame.height, frame.span, ())
    drawn = f"{_axis(empty, x)}{''.join(body)}"
    drawing = wrapped(drawn, round(frame.width), round(frame.height), fixed=True)
    return f'{drawing}<div class="legend">{legend}</div>'


def _axis(frame: Frame, x: Callable[[float], float]) -> str:
    length = frame.span.end - frame.span.start
    results = []
    for number in range(1, 5):
        at = frame.span.start + length * number / 5
        label = time.strftime("%H:%M:%S" if length < 1200 else "%H:%M", time.gmtime(at))
        results.append(element("text", label, x=x(at), y=frame.height - 6, text_anchor="middle"))
    return "".join(results)


def _runs(piece: Sequence[tuple[float, float]], step: float) -> list[tuple[float, float, float]]:
    """Stretches of one value: start, end, value."""
    results: list[tuple[float, float, float]] = []
    for at, value in piece:
        if results and results[-1][2] == value:
            results[-1] = (results[-1][0], at + step, value)
        else:
            if results:
                results[-1] = (results[-1][0], at, results[-1][2])
            results.append((at, at + step, value))
    return results


def spark(points: Sequence[tuple[float, float]], tone: str, width: float, height: float) -> str:
    """A small curve without axes."""
    if len(points) < 2:
        return ""
    values = [value for _, value in points]
    low, high = min(values), max(values)
    reach = (high - low) or 1.0
    across = Scale(points[0][0], points[-1][0], 0.0, width)
    up = Scale(low, low + reach, height - 2, 2.0)
    line = "L".join(f"{coordinate(across(at))} {coordinate(up(value))}" for at, value in points)
    area = f"M0 {coordinate(height)}L{line}L{coordinate(width)} {coordinate(height)}z"
    body = element("path", d=area, fill=tone, opacity=".15") + element(
        "path", d=f"M{line}", fill="none", stroke=tone, stroke_width=1.2
    )
    return wrapped(body, width, height, cls="spark", stretch=True)
