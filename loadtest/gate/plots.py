"""The plots of a gate's report."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from understudy.common.svg import Axes, log_ticks

SIZE = (720, 240)
_MARGINS = (64, 16, 14, 38)
Points = Sequence[tuple[float, float]]


def seconds(value: float) -> str:
    """A duration with three digits and a unit, such as ``1.25 ms``."""
    if value <= 0.0:
        return "0"
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if value >= size * 0.9995:
            return f"{value / size:.3g} {unit}"
    return f"{value * 1e6:.2g} µs"


def number(value: float) -> str:
    """A number with four significant digits."""
    return f"{value:,.4g}" if value < 1e5 else f"{value:,.0f}"


def plot(
    xs: Sequence[float],
    ys: Sequence[float],
    x_name: str,
    y_name: str,
    log_y: bool = False,
    windows: Sequence[tuple[float, float, str]] = (),
    show_y: Callable[[float], str] = number,
    x_ticks: bool = True,
) -> Axes:
    """Axes that fit the data. ``log_y`` for latencies; ``windows`` (start, end, name) are
    shaded."""
    x_low, x_high = min(xs), max(xs)
    if x_high <= x_low:
        x_high = x_low + 1.0
    positive = [y for y in ys if y > 0.0] or [1.0]
    y_low, y_high = 0.0, max(positive) * 1.1
    marks = [y_high / 1.1 * k / 4 for k in range(5)]
    if log_y:
        y_low, y_high = min(positive) / 1.3, max(positive) * 1.3
        marks = log_ticks(y_low, y_high)
    axes = Axes(SIZE, _MARGINS, (x_low, x_high), (y_low, y_high), y_name, log_y=log_y)
    for begin, end, name in windows:
        axes.stretch(begin, end, "fault", name)
    axes.grid(marks, show_y)
    if x_ticks:
        axes.x_labels([x_low + (x_high - x_low) * k / 5 for k in range(6)], number)
    return axes.x_name(x_name) if x_name else axes


def percentile_plot(pairs: Points, limits: Sequence[tuple[float, float]]) -> str:
    """Latency by percentile; the x axis is logarithmic in 1 - p, so each nine has the same width.

    ``pairs`` are (p, seconds); ``limits`` are (p, seconds) of the objectives.
    """
    if len(pairs) < 2:
        return ""
    points = [(-math.log10(1.0 - p), value) for p, value in pairs]
    values = [value for _, value in points] + [limit for _, limit in limits]
    axes = plot([0.0, max(x for x, _ in points)], values, "", "latency by percentile", True,
                show_y=seconds, x_ticks=False)  # fmt: skip
    axes.curve(points, "p99")
    axes.dots([(-math.log10(1.0 - p), limit) for p, limit in limits], "bad")
    for nines, name in ((0.301, "50 %"), (1.0, "90 %"), (2.0, "99 %"), (3.0, "99.9 %"),
                        (4.0, "99.99 %"), (5.0, "99.999 %")):  # fmt: skip
        if nines in axes.x:
            axes.text(axes.x(nines), axes.height - 8, name, "middle")
    return axes.svg()
