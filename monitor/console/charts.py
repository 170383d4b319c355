"""Charts of the console: curves as SVG that fills its box, with labels as text of the page.

They are drawn by the helper that draws every figure of the project, on the server: without scripts
they can be read, and a page needs no library from elsewhere. The lines stretch with the page and
the texts do not, so that they can be read at every width. What a script needs to show the values
beside the cursor stands in attributes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from understudy.common.svg import Point, Scale, element, joined, ticks, wrapped
from understudy.common.templates import trusted
from understudy.monitor.console import words

WIDTH, HEIGHT = 600.0, 120.0
COLOURS = 6
"""Lines of one chart that can be told apart, by colour and by dashes."""
_TIME_LABELS = 4
Values = Sequence[float | None]


@dataclass(frozen=True, slots=True)
class Line:
    """One curve: a name, and a value for each time (None: no value)."""

    name: str
    values: Values
    low: Values | None = None
    high: Values | None = None


@dataclass(frozen=True, slots=True)
class Chart:
    """What the template shows. ``labels`` are values of the y axis with their place in percent from
    the top, ``marks`` moments with a name and their place in percent from the left."""

    title: str
    drawing: Any
    labels: list[tuple[str, float]]
    times: list[tuple[float, float]]
    lines: list[Line]
    latest: list[str]
    marks: list[tuple[str, float, float]] = field(default_factory=list)
    empty: bool = False
    since: float = 0.0
    until: float = 0.0


def chart(
    title: str,
    times: Sequence[float],
    lines: Sequence[Line],
    show: Callable[[float | None], str],
    *,
    until: float,
    marks: Iterable[tuple[str, float]] = (),
    limits: Mapping[str, float] | None = None,
    least: float = 0.0,
) -> Chart:
    """A chart over ``times`` (unix seconds, ascending) up to ``until``. ``limits`` are lines across
    with their names; the y axis begins at 0 and reaches at least ``least``."""
    lines = [line for line in lines if any(v is not None for v in line.values)][:COLOURS]
    if not lines or len(times) < 1:
        return Chart(title, "", [], [], [], [], empty=True)
    first = times[0]
    limits = limits or {}
    high = max(
        (v for line in lines for part in (line.values, line.high) for v in part or () if v),
        default=0.0,
    )
    # A limit far above all values would press them to the floor.
    high = max(high, least, *(v for v in limits.values() if v <= 4 * high or not high), 0.0)
    low = min((v for line in lines for v in line.values if v is not None), default=0.0)
    low = min(0.0, low)
    high = high if high > low else low + 1.0
    top = high + 0.04 * (high - low)
    x = Scale(first, max(until, first + 1.0), 0.0, WIDTH)
    y = Scale(low, top, HEIGHT, 0.0, clamp=True)
    parts = []
    shown = [value for value in ticks(low, high, 3) if value <= top]
    for value in shown:
        parts.append(element("line", cls="grid", x1=0.0, x2=WIDTH, y1=y(value), y2=y(value)))
    for name, value in limits.items():
        if low <= value <= top:
            parts.append(
                element("line", title=name, cls="limit", x1=0.0, x2=WIDTH, y1=y(value), y2=y(value))
            )
    placed = [(name, at, 100.0 * x(at) / WIDTH) for name, at in marks if first <= at <= until]
    for name, at, _ in placed:
        parts.append(element("line", title=name, cls="mark", x1=x(at), x2=x(at), y1=0.0, y2=HEIGHT))
    for number, line in enumerate(lines):
        if line.low is not None and line.high is not None:
            parts += _bands(times, line, x, y, number)
        for points in _pieces(times, line.values):
            drawn = [(x(at), y(value)) for at, value in points]
            if len(drawn) == 1:
                # A line without length, with round ends, is a dot.
                drawn = [drawn[0], (drawn[0][0] + 0.1, drawn[0][1])]
            parts.append(element("polyline", cls=f"line c{number}", points=joined(drawn)))
    parts.append(element("line", cls="cursor", x1=-9.0, x2=-9.0, y1=0.0, y2=HEIGHT))
    latest = [show(next((v for v in reversed(line.values) if v is not None), None))
              for line in lines]  # fmt: skip
    label = f"{title}: " + ", ".join(
        f"{line.name} {value}" for line, value in zip(lines, latest, strict=True)
    )
    drawing = wrapped("".join(parts), WIDTH, HEIGHT, label, stretch=True)
    labels = [(show(value), 100.0 * y(value) / HEIGHT) for value in shown]
    ends = [first + (until - first) * k / (_TIME_LABELS - 1) for k in range(_TIME_LABELS)]
    return Chart(
        title,
        trusted(drawing),
        labels,
        [(at, 100.0 * x(at) / WIDTH) for at in ends],
        list(lines),
        latest,
        placed,
        since=first,
        until=until,
    )


def _pieces(times: Sequence[float], values: Values) -> list[list[Point]]:
    """Stretches of a curve without a gap."""
    found: list[list[Point]] = []
    piece: list[Point] = []
    for at, value in zip(times, values, strict=True):
        if value is None:
            if piece:
                found.append(piece)
            piece = []
        else:
            piece.append((float(at), value))
    return [*found, piece] if piece else found


def _bands(times: Sequence[float], line: Line, x: Scale, y: Scale, number: int) -> list[str]:
    points = [
        (x(at), y(low), y(high))
        for at, low, high in zip(times, line.low or (), line.high or (), strict=True)
        if low is not None and high is not None
    ]
    if len(points) < 2:
        return []
    upper = [(at, high) for at, _, high in points]
    lower = [(at, low) for at, low, _ in reversed(points)]
    return [element("polygon", cls=f"band c{number}", points=joined([*upper, *lower]))]


def data_of(one: Chart, times: Sequence[float], show: Callable[[float | None], str]) -> str:
    """Values as JSON, for the cursor: times, names, and texts of each line by time."""
    return orjson.dumps(
        {
            "times": list(times),
            "names": [line.name for line in one.lines],
            "values": [
                [None if v is None else float(f"{v:.4g}") for v in line.values]
                for line in one.lines
            ],
        }
    ).decode()


def spark(values: Values, label: str) -> Any:
    """A small curve beside a number."""
    known = [v for v in values if v is not None]
    if len(known) < 2:
        return ""
    top = max(known) or 1.0
    x = Scale(0.0, float(len(values) - 1), 1.0, 79.0)
    y = Scale(0.0, top, 19.0, 1.0, clamp=True)
    parts = [
        element("polyline", cls="line", points=joined((x(at), y(v)) for at, v in piece))
        for piece in _pieces(range(len(values)), values)
    ]
    return trusted(wrapped("".join(parts), 80.0, 20.0, label, fixed=True, cls="spark"))


# Figures without time -----------------------------------------------------------------------------


def bars(one: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Shares of a column in the baseline and in the window, for bars: at most twelve groups, on
    the value axis for numbers, the most changed first for categories."""
    before, now = one["baseline"], one["window"]
    if one["kind"] == "number":
        names = [f"up to {words.number(upper)}" for upper in one["uppers"]]
        rows = list(zip(names, before, now, strict=False))
        while len(rows) > 12:
            pairs = zip(rows[::2], [*rows[1::2], None] if len(rows) % 2 else rows[1::2],
                        strict=True)  # fmt: skip
            rows = [(b[0], a[1] + b[1], a[2] + b[2]) if b is not None else a for a, b in pairs]
    else:
        rows = list(zip(one["labels"], before, now, strict=False))
        rows = sorted(rows, key=lambda row: -abs(row[2] - row[1]))[:12]
        rows.sort(key=lambda row: -max(row[1], row[2]))
    top = max((max(row[1], row[2]) for row in rows), default=0.0) or 1.0
    return [
        {"name": name, "before": b, "now": n, "before_width": 100.0 * b / top,
         "now_width": 100.0 * n / top}
        for name, b, n in rows
    ]  # fmt: skip


def forest(rows: Sequence[Mapping[str, Any]]) -> Any:
    """One row of a forest plot each: the interval of a difference on an axis of its own, in which
    the margin is at the same place as far as it is known. ``rows`` have low, high, estimate, margin
    and effect, each None where it is not known."""
    found = []
    for row in rows:
        ends = [row[key] for key in ("low", "high", "estimate", "margin", "effect")]
        known = [abs(v) for v in ends if v is not None]
        reach = max(known, default=0.0) or 1.0
        if row["margin"] is not None and row["margin"]:
            # Wide intervals of the beginning leave the drawing, the margin stays in it.
            reach = min(reach, 4.0 * abs(row["margin"]))
        scale = Scale(-1.1 * reach, 1.1 * reach, 0.0, 240.0, clamp=True)
        low = scale(row["low"]) if row["low"] is not None else 0.0
        high = scale(row["high"]) if row["high"] is not None else 240.0
        parts = [element("line", cls="zero", x1=120.0, x2=120.0, y1=0.0, y2=24.0)]
        for key in ("margin", "effect"):
            if row[key] is not None:
                at = scale(row[key])
                parts.append(element("line", cls=key, x1=at, x2=at, y1=0.0, y2=24.0))
        if row["low"] is not None or row["high"] is not None:
            parts.append(element("line", cls="interval", x1=low, x2=high, y1=12.0, y2=12.0))
        if row["estimate"] is not None:
            parts.append(element("circle", cls="estimate", cx=scale(row["estimate"]), cy=12.0,
                                 r=4.0))  # fmt: skip
        drawing = wrapped("".join(parts), 240.0, 24.0, row["label"], fixed=True, cls="spark forest")
        found.append(trusted(drawing))
    return found
