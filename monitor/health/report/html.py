"""The report as one self-contained HTML file."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from understudy.common.templates import render, trusted
from understudy.common.units import percent
from understudy.monitor.health.report.drawing import chart_of, trend_of

_TEMPLATE = Path(__file__).parent / "templates" / "drift.html"
_MOST_DRAWN = 60


def page(report: Mapping[str, Any], reference: str, current: str) -> str:
    """The page; ``reference`` and ``current`` name the files."""
    by_column: dict[str, list[dict[str, Any]]] = {}
    drawn = 0
    for one in report["columns"]:
        mine = [s for s in report["series"] if s["column"] == one["column"]]
        for series in mine:
            drawn += 1
            wanted = drawn <= _MOST_DRAWN
            name = series["series"]
            chart = chart_of(series["histogram"], name) if wanted else ""
            trend = trend_of(series["timeline"], report["windows"], name) if wanted else ""
            charts = {"chart": trusted(chart), "trend": trusted(trend)}
            by_column.setdefault(one["column"], []).append({**series, **charts})
    return render(
        _TEMPLATE,
        report=report,
        reference=reference,
        current=current,
        series=by_column,
        percent=partial(percent, digits=3),
        shown=lambda value: "–" if value is None else f"{value:.3g}",
    )
