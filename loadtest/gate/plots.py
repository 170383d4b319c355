"""Plots as SVG that needs nothing else: no scripts, no fonts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape

WIDTH, HEIGHT = 720, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 16, 14, 38
Scale = Callable[[float], float]
Points = Sequence[tuple[float, float]]


def seconds(value: float) -> str:
    """A duration as people read it."""
    if value <= 0.0:
        return "0"
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if value >= size * 0.9995:
            return f"{value / size:.3g} {unit}"
    return f"{value * 1e6:.2g} µs"


def number(value: float) -> str:
    """A plain number."""
    return f"{value:,.4g}" if value < 1e5 else f"{value:,.0f}"


class Plot:
    """Axes with room for lines. ``log_y`` for latencies; ``windows`` are shaded, with names."""

    def __init__(
        self,
        xs: Sequence[float],
        ys: Sequence[float],
        x_name: str,
        y_name: str,
        log_y: bool = False,
        windows: Sequence[tuple[float, float, str]] = (),
        show_y: Callable[[float], str] = number,
        x_ticks: bool = True,
    ) -> None:
        self.x_low, self.x_high = min(xs), max(xs)
        if self.x_high <= self.x_low:
            self.x_high = self.x_low + 1.0
        positive = [y for y in ys if y > 0.0] or [1.0]
        self.log_y = log_y
        if log_y:
            self.y_low, self.y_high = min(positive) / 1.3, max(positive) * 1.3
        else:
            self.y_low, self.y_high = 0.0, max(positive) * 1.1
        self._parts = [
            f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(y_name)}">'
        ]
        for begin, end, name in windows:
            a, b = self.x(max(begin, self.x_low)), self.x(min(end, self.x_high))
            if b > a:
                self._parts.append(
                    f'<rect class="fault" x="{a:.1f}" y="{_TOP}" width="{b - a:.1f}" '
                    f'height="{HEIGHT - _TOP - _BOTTOM}"><title>{escape(name)}</title></rect>'
                )
        for value in self._ticks():
            at = self.y(value)
            self._parts.append(
                f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{at:.1f}" '
                f'y2="{at:.1f}"/>'
                f'<text x="{_LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{show_y(value)}</text>'
            )
        for k in range(6 if x_ticks else 0):
            value = self.x_low + (self.x_high - self.x_low) * k / 5
            self._parts.append(
                f'<text x="{self.x(value):.1f}" y="{HEIGHT - _BOTTOM + 16}" text-anchor="middle">'
                f"{number(value)}</text>"
            )
        self._parts.append(
            f'<text x="{WIDTH / 2:.0f}" y="{HEIGHT - 6}" text-anchor="middle">{escape(x_name)}'
            "</text>"
        )

    def x(self, value: float) -> float:
        """Across, in the drawing's own units."""
        part = (value - self.x_low) / (self.x_high - self.x_low)
        return _LEFT + (WIDTH - _LEFT - _RIGHT) * part

    def y(self, value: float) -> float:
        """Up, in the drawing's own units."""
        if self.log_y:
            span = math.log(self.y_high / self.y_low)
            part = math.log(max(value, self.y_low) / self.y_low) / span
        else:
            part = (value - self.y_low) / (self.y_high - self.y_low)
        return HEIGHT - _BOTTOM - (HEIGHT - _TOP - _BOTTOM) * min(max(part, 0.0), 1.0)

    def _ticks(self) -> list[float]:
        if not self.log_y:
            return [self.y_high / 1.1 * k / 4 for k in range(5)]
        first, last = math.floor(math.log10(self.y_low)), math.ceil(math.log10(self.y_high))
        steps = (1.0,) if last - first > 3 else (1.0, 2.0, 5.0)
        found = [s * 10.0**e for e in range(first, last + 1) for s in steps]
        return [v for v in found if self.y_low <= v <= self.y_high]

    def line(self, points: Points, style: str, name: str = "") -> Plot:
        """A line through points."""
        path = " ".join(f"{self.x(a):.1f},{self.y(b):.1f}" for a, b in points)
        title = f"<title>{escape(name)}</title>" if name else ""
        self._parts.append(f'<polyline class="{style}" points="{path}">{title}</polyline>')
        return self

    def dots(self, points: Points, style: str) -> Plot:
        """A dot at each point."""
        for a, b in points:
            self._parts.append(
                f'<circle class="{style}" cx="{self.x(a):.1f}" cy="{self.y(b):.1f}" r="3.5"/>'
            )
        return self

    def band(self, low: float, high: float, style: str) -> Plot:
        """A stretch across, from ``low`` to ``high``."""
        a, b = self.x(max(low, self.x_low)), self.x(min(high, self.x_high))
        if b >= a:
            self._parts.append(
                f'<rect class="{style}" x="{a:.1f}" y="{_TOP}" width="{max(b - a, 1.0):.1f}" '
                f'height="{HEIGHT - _TOP - _BOTTOM}"/>'
            )
        return self

    def limit(self, value: float, name: str) -> Plot:
        """A dashed line at a height."""
        if self.y_low <= value <= self.y_high:
            at = self.y(value)
            self._parts.append(
                f'<line class="limit" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{at:.1f}" '
                f'y2="{at:.1f}"/><text class="limit" x="{WIDTH - _RIGHT - 4}" y="{at - 4:.1f}" '
                f'text-anchor="end">{escape(name)}</text>'
            )
        return self

    def svg(self) -> str:
        """The drawing."""
        return "".join(self._parts) + "</svg>"


def percentile_plot(pairs: Points, limits: Sequence[tuple[float, float]]) -> str:
    """Latency against the percentile, with as much room for each nine as for the one before."""
    if len(pairs) < 2:
        return ""
    points = [(-math.log10(1.0 - p), value) for p, value in pairs]
    values = [value for _, value in points] + [limit for _, limit in limits]
    plot = Plot([0.0, max(x for x, _ in points)], values, "", "latency by percentile", True,
                show_y=seconds, x_ticks=False)  # fmt: skip
    parts = plot.line(points, "p99")
    for p, limit in limits:
        parts.dots([(-math.log10(1.0 - p), limit)], "bad")
    text = parts.svg().removesuffix("</svg>")
    for nines, name in ((0.301, "50 %"), (1.0, "90 %"), (2.0, "99 %"), (3.0, "99.9 %"),
                        (4.0, "99.99 %"), (5.0, "99.999 %")):  # fmt: skip
        if nines <= plot.x_high:
            text += (
                f'<text x="{plot.x(nines):.1f}" y="{HEIGHT - 8}" text-anchor="middle">{name}</text>'
            )
    return text + "</svg>"
