"""The report as one self-contained HTML file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from understudy.common.svg import Scale, element, joined, wrapped
from understudy.common.templates import render, trusted

_TEMPLATE = Path(__file__).parent / "templates" / "drift.html"
_WIDTH, _HEIGHT = 460, 130
_MOST_DRAWN = 60


def page(report: Mapping[str, Any], reference: str, current: str) -> str:
    """The page; ``reference`` and ``current`` name the files."""
    drawn = [
        (
            one,
            trusted(_histogram(one["groups"])),
            trusted(_trend(one["timeline"], float(report["smallest_psi"]))),
        )
        for one in report["series"][:_MOST_DRAWN]
    ]
    return render(
        _TEMPLATE,
        report=report,
        reference=reference,
        current=current,
        drawn=drawn,
        shown=lambda value: "–" if value is None else f"{value:.3g}",
    )


def _histogram(groups: Sequence[Mapping[str, Any]]) -> str:
    """Shares of the reference and of the current rows, side by side."""
    if not groups:
        return ""
    top = max(max(g["reference"], g["current"]) for g in groups) or 1.0
    step = (_WIDTH - 20) / len(groups)
    parts = []
    for number, group in enumerate(groups):
        for key, cls, offset in (("reference", "was", 0.05), ("current", "now", 0.5)):
            height = (_HEIGHT - 34) * group[key] / top
            parts.append(
                element(
                    "rect",
                    title=f"{group['label']}: {group[key]:.2%} ({key})",
                    cls=cls,
                    x=10 + (number + offset) * step,
                    width=0.42 * step,
                    y=_HEIGHT - 20 - height,
                    height=height,
                )
            )
    middle = _WIDTH / 2
    parts += [
        element("text", str(groups[0]["label"]), x=10, y=_HEIGHT - 5),
        element("text", str(groups[-1]["label"]), x=_WIDTH - 10, y=_HEIGHT - 5, text_anchor="end"),
        element("rect", cls="was", x=middle - 90, y=2, width=10, height=10),
        element("text", "reference", x=middle - 76, y=11),
        element("rect", cls="now", x=middle + 5, y=2, width=10, height=10),
        element("text", "current", x=middle + 19, y=11),
    ]
    return wrapped("".join(parts), _WIDTH, _HEIGHT, "shares by group", fixed=True)


def _trend(values: Sequence[float | None], smallest: float) -> str:
    """PSI by window."""
    known = [v for v in values if v is not None]
    if len(known) < 2:
        return ""
    x = Scale(0, len(values) - 1, 10, _WIDTH - 10)
    y = Scale(0.0, max(*known, smallest) * 1.1, 84, 14)
    points = [(x(n), y(value)) for n, value in enumerate(values) if value is not None]
    text = f"PSI by window, first to last; at most {max(known):.3g}"
    parts = [
        element("line", cls="axis", x1=10, x2=_WIDTH - 10, y1=84, y2=84),
        element("line", cls="limit", x1=10, x2=_WIDTH - 10, y1=y(smallest), y2=y(smallest)),
        element("polyline", cls="trend", points=joined(points)),
        element("text", text, x=10, y=97),
    ]
    return wrapped("".join(parts), _WIDTH, 100, "PSI by window", fixed=True)
