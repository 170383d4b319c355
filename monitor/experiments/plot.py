"""A confidence sequence over time, drawn as SVG."""

from __future__ import annotations

from collections.abc import Sequence

from understudy.common.svg import Axes, joined, ticks

WIDTH, HEIGHT = 640, 220
_MARGINS = (78, 12, 12, 40)


def sequence(
    xs: Sequence[float],
    estimates: Sequence[float | None],
    intervals: Sequence[Sequence[float | None]],
    margin: float | None,
    *,
    label: str,
    factor: float = 1.0,
    unit: str = "",
) -> str:
    """Draw the estimate as a line within the band of its interval.

    ``xs`` are ascending; an infinite end of an interval is None. ``margin`` is the margin line, in
    the unit of the values; values are shown multiplied by ``factor``, with ``unit``.
    """
    lows = [i[0] for i in intervals]
    highs = [i[1] for i in intervals]
    low, high = _range(estimates, lows, highs, margin)
    first, last = xs[0], max(xs[-1], xs[0] + 1)
    axes = Axes((WIDTH, HEIGHT), _MARGINS, (first, last), (low, high), label)
    upper = axes.at((x, high if h is None else h) for x, h in zip(xs, highs, strict=True))
    lower = axes.at((x, low if v is None else v) for x, v in zip(xs, lows, strict=True))
    axes.add("polygon", cls="band", points=joined([*upper, *reversed(lower)]))
    axes.grid(ticks(low, high, 6), lambda value: f"{value * factor:.4g}{unit}")
    axes.rule(0.0, "zero")
    if margin is not None:
        axes.rule(margin, "margin")
    axes.curve(((x, e) for x, e in zip(xs, estimates, strict=True) if e is not None), "line")
    axes.x_labels(ticks(first, last, 6), lambda value: f"{value:,.0f}", 18)
    return axes.x_name("requests of the challenger").svg()


def _range(
    estimates: Sequence[float | None],
    lows: Sequence[float | None],
    highs: Sequence[float | None],
    margin: float | None,
) -> tuple[float, float]:
    """The range of the axis: that of the later half, since early bands are much wider."""
    half = len(lows) // 2
    seen = [v for v in (*lows[half:], *highs[half:], *estimates, margin, 0.0) if v is not None]
    low, high = min(seen), max(seen)
    room = 0.06 * (high - low) or abs(high) or 1e-6
    return low - room, high + room
