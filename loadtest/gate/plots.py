"""The plots of a gate's report."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from understudy.common.svg import Axes, log_ticks
from understudy.loadtest.gate.words import number, seconds

SIZE = (720, 240)
_MARGINS = (64, 16, 14, 38)
Points = Sequence[tuple[float, float]]


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
