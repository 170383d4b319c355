"""The arms in the plane of two metrics, as a page that needs nothing else: who is on the front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from understudy.monitor.config.objective import KNOWN

_STYLE = """
:root{--ink:#1b1f24;--soft:#59636e;--line:#d1d9e0;--arm:#0969da;--bad:#cf222e;--ok:#dafbe1;
--back:#fff}
@media (prefers-color-scheme:dark){:root{--ink:#e6edf3;--soft:#9198a1;--line:#3d444d;--arm:#58a6ff;
--bad:#f85149;--ok:#12261e;--back:#0d1117}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--back);max-width:52rem;
margin:2rem auto;padding:0 1rem}.soft{color:var(--soft)}.bad{color:var(--bad)}
table{border-collapse:collapse;width:100%}td,th{text-align:left;padding:.3rem .7rem .3rem 0;
border-bottom:1px solid var(--line)}svg{width:100%;height:auto}svg text{font:12px system-ui;
fill:var(--soft)}.name{fill:var(--ink)}.axis{stroke:var(--line)}.ok{fill:var(--ok)}
.on{fill:var(--arm)}.off{fill:var(--back);stroke:var(--arm);stroke-width:2}
.bar{stroke:var(--arm);stroke-width:1.5}.limit{stroke:var(--bad);stroke-dasharray:4 3}
"""
_WIDTH, _HEIGHT, _LEFT, _BELOW, _ABOVE = 640, 380, 80, 50, 20


def page(found: Mapping[str, Any]) -> str:
    """Of what GET /v1/objectives says: a drawing for each pair of metrics that two arms have, and a
    table of everything."""
    arms: Sequence[Mapping[str, Any]] = found["arms"]
    known = [m for m in KNOWN if sum(_value(arm, m) is not None for arm in arms) > 0]
    good = [m for m in ("accuracy", "error_rate") if m in known][:1]
    pairs = [(m, good[0]) for m in known if good and m not in (*good, "throughput")]
    wanted = {one["metric"] for one in arms[0]["objectives"]}
    pairs.sort(key=lambda pair: pair[0] not in wanted)
    drawn = [_drawing(arms, x, y) for x, y in pairs[:4]]
    said = [
        f"<p><b>{escape(arm['arm'])}</b> is dominated by {escape(', '.join(arm['dominated_by']))}: "
        "surely worse in something and better in nothing.</p>"
        for arm in arms
        if arm["dominated_by"]
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>Objectives</title><style>{_STYLE}</style></head><body><h1>Objectives</h1>"
        f'<p class="soft">Figures of the last {found["window_seconds"] / 60:g} minutes; (e) is '
        "estimated. A full point is on the Pareto front of everything that is known, a hollow one "
        "is dominated; the shaded part meets both objectives.</p>"
        f"{''.join(said)}{''.join(drawn)}{_table(arms, known)}</body></html>"
    )


def shown(metric: str, value: float | None) -> str:
    """A value as people read it."""
    if value is None:
        return "\u2013"
    if metric.startswith("latency"):
        return f"{value * 1e3:.3g} ms"
    if metric in ("accuracy", "error_rate"):
        return f"{value * 100:.3g} %"
    unit = KNOWN[metric][0] if metric in KNOWN else ""
    return f"{value:.4g}{' ' + unit if unit not in ('', '/s') else unit}"


def _value(arm: Mapping[str, Any], metric: str) -> float | None:
    value = (arm["figures"].get(metric) or {}).get("value")
    return None if value is None else float(value)


def _limit(arms: Sequence[Mapping[str, Any]], metric: str) -> float | None:
    for one in arms[0]["objectives"]:
        if one["metric"] == metric:
            return float(one["limit"])
    return None


def _axis(arms: Sequence[Mapping[str, Any]], metric: str) -> tuple[float, float]:
    values = []
    for arm in arms:
        figure = arm["figures"].get(metric) or {}
        values += [figure.get(key) for key in ("value", "low", "high")]
    values.append(_limit(arms, metric))
    held = [float(v) for v in values if v is not None]
    low, high = min(held), max(held)
    room = (high - low) * 0.12 or abs(high) * 0.1 or 0.1
    return max(0.0, low - room), high + room


def _drawing(arms: Sequence[Mapping[str, Any]], x: str, y: str) -> str:
    (left, right), (low, high) = _axis(arms, x), _axis(arms, y)
    wide, tall = _WIDTH - _LEFT - 40, _HEIGHT - _BELOW - _ABOVE

    def across(value: float) -> float:
        return _LEFT + wide * (value - left) / (right - left)

    def up(value: float) -> float:
        return _HEIGHT - _BELOW - tall * (value - low) / (high - low)

    name = f"{x.replace('_', ' ')} against {y.replace('_', ' ')}"
    parts = [f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(name)}">']
    limits = _limit(arms, x), _limit(arms, y)
    if all(limit is not None for limit in limits):
        a, b = across(limits[0] or 0.0), up(limits[1] or 0.0)
        from_x, to_x = (_LEFT, a) if KNOWN[x][1] else (a, _LEFT + wide)
        from_y, to_y = (b, _HEIGHT - _BELOW) if KNOWN[y][1] else (_ABOVE, b)
        parts.append(
            f'<rect class="ok" x="{from_x:.1f}" y="{from_y:.1f}" width="{to_x - from_x:.1f}" '
            f'height="{to_y - from_y:.1f}"/>'
        )
    parts.append(
        f'<path class="axis" fill="none" d="M{_LEFT} {_ABOVE}V{_HEIGHT - _BELOW}H{_LEFT + wide}"/>'
    )
    for k in range(5):
        at_x, at_y = left + (right - left) * k / 4, low + (high - low) * k / 4
        parts.append(
            f'<text x="{across(at_x):.1f}" y="{_HEIGHT - _BELOW + 18}" text-anchor="middle">'
            f"{shown(x, at_x)}</text>"
            f'<text x="{_LEFT - 8}" y="{up(at_y) + 4:.1f}" text-anchor="end">'
            f"{shown(y, at_y)}</text>"
        )
    if limits[0] is not None:
        at = across(limits[0])
        parts.append(f'<path class="limit" d="M{at:.1f} {_ABOVE}V{_HEIGHT - _BELOW}"/>')
    if limits[1] is not None:
        parts.append(f'<path class="limit" d="M{_LEFT} {up(limits[1]):.1f}H{_LEFT + wide}"/>')
    for arm in arms:
        one, other = _value(arm, x), _value(arm, y)
        if one is None or other is None:
            continue
        at_x, at_y = across(one), up(other)
        for metric, place in ((x, across), (y, up)):
            figure = arm["figures"][metric]
            if figure["low"] is not None and figure["high"] is not None:
                a, b = place(figure["low"]), place(figure["high"])
                line = (
                    f"M{a:.1f} {at_y:.1f}H{b:.1f}"
                    if metric == x
                    else f"M{at_x:.1f} {a:.1f}V{b:.1f}"
                )
                parts.append(f'<path class="bar" d="{line}"/>')
        parts.append(
            f'<circle class="{"on" if arm["pareto"] else "off"}" cx="{at_x:.1f}" cy="{at_y:.1f}" '
            f'r="6"/><text class="name" x="{at_x + 10:.1f}" y="{at_y - 8:.1f}">'
            f"{escape(arm['arm'])}</text>"
        )
    parts.append(
        f'<text x="{_LEFT + wide / 2:.0f}" y="{_HEIGHT - 8}" text-anchor="middle">{escape(name)}'
        "</text></svg>"
    )
    return "".join(parts)


def _table(arms: Sequence[Mapping[str, Any]], known: Sequence[str]) -> str:
    head = "".join(f"<th>{escape(arm['arm'])}</th>" for arm in arms)
    rows = [f"<tr><th>metric</th><th>objective</th>{head}</tr>"]
    limits = {one["metric"]: one for one in arms[0]["objectives"]}
    for metric in dict.fromkeys((*known, *limits)):
        wanted = ""
        if metric in limits:
            sign = "≤" if limits[metric]["at_most"] else "≥"
            wanted = f"{sign} {shown(metric, limits[metric]['limit'])}"
        cells = []
        for arm in arms:
            figure = arm["figures"].get(metric) or {"value": None, "source": "absent"}
            met = next((o["met"] for o in arm["objectives"] if o["metric"] == metric), None)
            mark = " (e)" if figure["source"] == "estimated" else ""
            style = ' class="bad"' if met is False else ""
            cells.append(f"<td{style}>{shown(metric, figure['value'])}{mark}</td>")
        name = escape(metric.replace("_", " "))
        rows.append(f"<tr><td>{name}</td><td>{wanted}</td>{''.join(cells)}</tr>")
    return f"<table>{''.join(rows)}</table>"
