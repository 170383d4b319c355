"""A confidence sequence over time as an SVG drawing of its own, without scripts or fonts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

WIDTH, HEIGHT = 640, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 78, 12, 12, 40


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
    """The estimate as a line within the band of its interval.

    ``xs`` rise; an infinite end is None. ``margin`` is the line that must not be reached, in the
    unit of the values; these are shown times ``factor``, as ``unit``.
    """
    lows = [i[0] for i in intervals]
    highs = [i[1] for i in intervals]
    low, high = _range(estimates, lows, highs, margin)
    first, last = xs[0], max(xs[-1], xs[0] + 1)

    def x_of(value: float) -> float:
        return _LEFT + (WIDTH - _LEFT - _RIGHT) * (value - first) / (last - first)

    def y_of(value: float) -> float:
        at = min(max(value, low), high)
        return HEIGHT - _BOTTOM - (HEIGHT - _TOP - _BOTTOM) * (at - low) / (high - low)

    upper = [
        f"{x_of(x):.1f},{y_of(high if h is None else h):.1f}"
        for x, h in zip(xs, highs, strict=True)
    ]
    lower = [
        f"{x_of(x):.1f},{y_of(low if v is None else v):.1f}" for x, v in zip(xs, lows, strict=True)
    ]
    line = [
        f"{x_of(x):.1f},{y_of(e):.1f}" for x, e in zip(xs, estimates, strict=True) if e is not None
    ]
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">',
        f'<polygon class="band" points="{" ".join([*upper, *reversed(lower)])}"/>',
    ]
    for value in _ticks(low, high):
        y = y_of(value)
        parts.append(
            f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        )
        parts.append(
            f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">'
            f"{value * factor:.4g}{escape(unit)}</text>"
        )
    if low <= 0.0 <= high:
        parts.append(_rule("zero", y_of(0.0)))
    if margin is not None and low <= margin <= high:
        parts.append(_rule("margin", y_of(margin)))
    parts.append(f'<polyline class="line" points="{" ".join(line)}"/>')
    for value in _ticks(first, last):
        parts.append(
            f'<text x="{x_of(value):.1f}" y="{HEIGHT - 22}" text-anchor="middle">'
            f"{value:,.0f}</text>"
        )
    middle = (_LEFT + WIDTH - _RIGHT) / 2
    parts.append(
        f'<text x="{middle:.0f}" y="{HEIGHT - 6}" text-anchor="middle">'
        "requests of the challenger</text>"
    )
    parts.append("</svg>")
    return "".join(parts)


def _rule(kind: str, y: float) -> str:
    return f'<line class="{kind}" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'


def _range(
    estimates: Sequence[float | None],
    lows: Sequence[float | None],
    highs: Sequence[float | None],
    margin: float | None,
) -> tuple[float, float]:
    """What the axis shows: the later half of the bands, or the early ones would dwarf the rest."""
    half = len(lows) // 2
    seen = [v for v in (*lows[half:], *highs[half:], *estimates, margin, 0.0) if v is not None]
    low, high = min(seen), max(seen)
    room = 0.06 * (high - low) or abs(high) or 1e-6
    return low - room, high + room


def _ticks(low: float, high: float) -> list[float]:
    """About five round numbers."""
    step = 10.0 ** math.floor(math.log10((high - low) / 4))
    for factor in (1, 2, 5, 10):
        if (high - low) / (step * factor) <= 6:
            step *= factor
            break
    first = math.ceil(low / step)
    return [i * step for i in range(first, math.floor(high / step) + 1)]
