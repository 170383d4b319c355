"""The report as one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

_STYLE = """
:root{--ink:#1b1f24;--soft:#59636e;--line:#d1d9e0;--was:#9ec1f7;--now:#f0883e;--good:#1a7f37;
--bad:#cf222e;--back:#fff}
@media (prefers-color-scheme:dark){:root{--ink:#e6edf3;--soft:#9198a1;--line:#3d444d;--was:#2f5c99;
--now:#f0a060;--good:#3fb950;--bad:#f85149;--back:#0d1117}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--back);max-width:66rem;
margin:2rem auto;padding:0 1rem}h1{font-size:1.5rem;margin-bottom:0}h2{margin-top:2.2rem}
h3{margin:1.6rem 0 .1rem}p{margin:.3rem 0}.soft{color:var(--soft)}.bad{color:var(--bad)}
table{border-collapse:collapse;width:100%;font-size:.9rem}td,th{text-align:left;
padding:.25rem .6rem .25rem 0;border-bottom:1px solid var(--line);vertical-align:top}
svg{max-width:100%;height:auto}svg text{font:11px system-ui;fill:var(--soft)}.was{fill:var(--was)}
.now{fill:var(--now)}.trend{fill:none;stroke:var(--now);stroke-width:1.5}
.axis{stroke:var(--line);stroke-width:1}.limit{stroke:var(--bad);stroke-dasharray:4 3}
"""
_WIDTH, _HEIGHT = 460, 130
_MOST_DRAWN = 60


def page(report: Mapping[str, Any], reference: str, current: str) -> str:
    """The page; ``reference`` and ``current`` name the files."""
    drifted = report["drifted"]
    said = (
        f"{len(drifted)} of {len(report['series'])} series have drifted"
        if drifted
        else f"none of {len(report['series'])} series has drifted"
    )
    body = [
        "<h1>Drift report</h1>",
        f'<p class="soft">{escape(current)} ({report["rows"]:,} rows) against '
        f"{escape(reference)} ({report['baseline']['rows']:,} rows)</p>",
        f'<p class="{"bad" if drifted else ""}"><b>{said}.</b> A series has drifted when its '
        f"difference is more than chance (adjusted p below {report['level']:g}, over all series "
        f"together) and large enough to matter (PSI of {report['smallest_psi']:g} or more).</p>",
        *(f'<p class="soft">Assumed: {escape(text)}.</p>' for text in report["assumptions"]),
    ]
    if report["findings"]:
        body += ["<h2>What the watch would have found</h2>", _findings(report["findings"])]
    if report["quality"]:
        body += ["<h2>Data quality</h2>", _quality(report["quality"])]
    body += ["<h2>Series</h2>", _table(report["series"])]
    for one in report["series"][:_MOST_DRAWN]:
        body += [
            f"<h3>{escape(one['series'])}</h3>",
            f'<p class="soft">{escape(one["role"])}, {escape(one["kind"])}: '
            f"{escape(one['verdict'])}</p>",
            _histogram(one["groups"]),
            _trend(one["timeline"], float(report["smallest_psi"])),
        ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>Drift report</title><style>{_STYLE}</style></head><body>{''.join(body)}"
        "</body></html>"
    )


def _findings(findings: Sequence[Mapping[str, Any]]) -> str:
    rows = ["<tr><th>after</th><th>what</th><th>features</th><th>what to look at</th></tr>"]
    for found in findings:
        named = "; ".join(
            f"{f['name']} ({f['share']:.0%}): {f['detail']}" for f in found["features"][:5]
        )
        rows.append(
            f"<tr><td>{found['after_rows']:,} rows</td><td>{escape(found['title'])}</td>"
            f"<td>{escape(named)}</td><td>{escape(found['advice'])}</td></tr>"
        )
    return f"<table>{''.join(rows)}</table>"


def _quality(rates: Sequence[Mapping[str, Any]]) -> str:
    headers = ("feature", "what", "rows", "share", "usual, at most")
    rows = [f"<tr>{''.join(f'<th>{header}</th>' for header in headers)}</tr>"]
    for one in rates:
        bad = "bad" if one["share"] > one["usual"] else ""
        rows.append(
            f"<tr><td>{escape(one['feature'] or 'whole rows')}</td><td>{escape(one['words'])}</td>"
            f'<td>{one["rows"]:,}</td><td class="{bad}">{one["share"]:.2%}</td>'
            f"<td>{one['usual']:.2%}</td></tr>"
        )
    return f"<table>{''.join(rows)}</table>"


def _table(series: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        "<tr><th>series</th><th>verdict</th><th>PSI</th><th>by chance up to</th>"
        "<th>Jensen-Shannon</th><th>Hellinger</th><th>Cramér's V</th><th>adjusted p</th></tr>"
    ]
    for one in series:
        rows.append(
            f"<tr><td>{escape(one['series'])}</td>"
            f'<td class="{"bad" if one["drifted"] else ""}">{escape(one["verdict"])}</td>'
            + "".join(
                f"<td>{_shown(one[key])}</td>"
                for key in ("psi", "psi_by_chance", "js", "hellinger", "cramers_v")
            )
            + f"<td>{_shown(one['adjusted_p_value'])}</td></tr>"
        )
    return f"<table>{''.join(rows)}</table>"


def _histogram(groups: Sequence[Mapping[str, Any]]) -> str:
    """Shares of the reference (behind) and of the current rows (in front), side by side."""
    if not groups:
        return ""
    top = max(max(g["reference"], g["current"]) for g in groups) or 1.0
    step = (_WIDTH - 20) / len(groups)
    bars = []
    for number, group in enumerate(groups):
        x = 10 + number * step
        for key, offset in (("reference", 0.05), ("current", 0.5)):
            height = (_HEIGHT - 34) * group[key] / top
            kind = "was" if key == "reference" else "now"
            bars.append(
                f'<rect class="{kind}" x="{x + offset * step:.1f}" width="{0.42 * step:.1f}" '
                f'y="{_HEIGHT - 20 - height:.1f}" height="{height:.1f}">'
                f"<title>{escape(group['label'])}: {group[key]:.2%} ({key})</title></rect>"
            )
    first, last = escape(groups[0]["label"]), escape(groups[-1]["label"])
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" role="img" '
        f'aria-label="shares by group">{"".join(bars)}'
        f'<text x="10" y="{_HEIGHT - 5}">{first}</text>'
        f'<text x="{_WIDTH - 10}" y="{_HEIGHT - 5}" text-anchor="end">{last}</text>'
        f'<rect class="was" x="{_WIDTH / 2 - 90}" y="2" width="10" height="10"/>'
        f'<text x="{_WIDTH / 2 - 76}" y="11">reference</text>'
        f'<rect class="now" x="{_WIDTH / 2 + 5}" y="2" width="10" height="10"/>'
        f'<text x="{_WIDTH / 2 + 19}" y="11">current</text></svg>'
    )


def _trend(values: Sequence[float | None], smallest: float) -> str:
    """PSI by window."""
    known = [v for v in values if v is not None]
    if len(known) < 2:
        return ""
    top = max(*known, smallest) * 1.1
    step = (_WIDTH - 20) / (len(values) - 1)

    def y(value: float) -> float:
        return 84 - 70 * value / top

    points = " ".join(
        f"{10 + number * step:.1f},{y(value):.1f}"
        for number, value in enumerate(values)
        if value is not None
    )
    return (
        f'<svg viewBox="0 0 {_WIDTH} 100" width="{_WIDTH}" role="img" aria-label="PSI by window">'
        f'<line class="axis" x1="10" x2="{_WIDTH - 10}" y1="84" y2="84"/>'
        f'<line class="limit" x1="10" x2="{_WIDTH - 10}" y1="{y(smallest):.1f}" '
        f'y2="{y(smallest):.1f}"/><polyline class="trend" points="{points}"/>'
        f'<text x="10" y="97">PSI by window, first to last; at most {max(known):.3g}</text></svg>'
    )


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"
