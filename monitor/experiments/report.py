"""The report of an experiment: one HTML file that needs nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from typing import Any

from understudy.monitor.experiments.live import LiveExperiment
from understudy.monitor.experiments.plot import sequence
from understudy.monitor.experiments.summary import document
from understudy.monitor.experiments.text import interval, scale_of, shown

_STYLE = """
:root{--ink:#1b1f24;--soft:#59636e;--line:#d1d9e0;--band:#cfe3ff;--good:#1a7f37;--bad:#cf222e;
--back:#fff;--box:#f6f8fa}
@media (prefers-color-scheme:dark){:root{--ink:#e6edf3;--soft:#9198a1;--line:#3d444d;--band:#1c3557;
--good:#3fb950;--bad:#f85149;--back:#0d1117;--box:#151b23}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--back);max-width:60rem;
margin:2rem auto;padding:0 1rem}h1{font-size:1.5rem;margin-bottom:0}h2{margin-top:2.5rem}
h3{margin:1.8rem 0 .2rem}p{margin:.3rem 0}.soft{color:var(--soft)}table{border-collapse:collapse;
width:100%;font-size:.9rem}td,th{text-align:left;padding:.3rem .6rem .3rem 0;vertical-align:top;
border-bottom:1px solid var(--line)}.verdict{font-weight:600}.promote,.passed{color:var(--good)}
.rollback,.harmed,.invalid{color:var(--bad)}svg{width:100%;height:auto}svg text{font:11px system-ui;
fill:var(--soft)}.band{fill:var(--band)}.line{fill:none;stroke:var(--ink);stroke-width:1.5}
.grid{stroke:var(--line);stroke-width:.5}.zero{stroke:var(--soft);stroke-width:1}
.margin{stroke:var(--bad);stroke-dasharray:5 4}pre{background:var(--box);padding:.6rem;
overflow-x:auto;font-size:.8rem}
"""


def html(live: LiveExperiment, audit: Sequence[Mapping[str, Any]], now: float) -> str:
    """The page; ``audit`` are the entries of the log, ``now`` is unix time."""
    whole = document(live, now)
    title = f"Experiment {whole['name']}"
    body = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="soft">{escape(whole["mode"])}, alpha {whole["alpha"]:g}, begun '
        f"{_time(whole['started'])}, written {_time(now)}. Intervals and verdicts are "
        "anytime-valid: they hold however often you look.</p>",
    ]
    if not whole["split"]["honoured"]:
        body.append(
            '<p class="verdict invalid">Sample ratio mismatch: the split differs from the '
            "configured shares.</p>"
        )
    for one in whole["challengers"]:
        body += _challenger(live, one)
    body += ["<h2>Audit log</h2>", _audit(audit)]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>"
        + "".join(body)
        + "</body></html>"
    )


def _challenger(live: LiveExperiment, one: dict[str, Any]) -> list[str]:
    name = one["name"]
    requests = one["requests"]
    mine = requests["served"] if one["mode"] == "split" else requests["pairs"]
    verdict = one["decision"]
    parts = [
        f"<h2>{escape(name)} against {escape(live.arms.champion)}</h2>",
        f'<p class="verdict {verdict}">{verdict}</p>',
        "<ul>" + "".join(f"<li>{escape(reason)}</li>" for reason in one["reasons"]) + "</ul>",
        f'<p class="soft">{escape(one["phase"].replace("_", " "))} at stage '
        f"{escape(one['stage']['name'])} ({one['stage']['number']} of {one['stage']['of']}), "
        f"{mine:,} requests to the challenger</p>",
        _table(one["metrics"]),
    ]
    for item in one["metrics"]:
        drawn = _plot(live, name, item["metric"])
        if drawn:
            parts += [
                f"<h3>{escape(item['metric'])}</h3>",
                f'<p class="soft">{escape(item["claim"])}: challenger minus champion; the dashed '
                "line is the margin.</p>",
                drawn,
            ]
    worst = live.contestants[name].worst.entries
    if worst:
        parts.append("<h3>Worst disagreements</h3>")
        parts += [_disagreement(entry) for entry in worst[:10]]
    return parts


def _table(metrics: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        "<tr><th>metric</th><th>status</th><th>champion</th><th>challenger</th>"
        "<th>difference</th><th>e-value</th><th>e-value of harm</th></tr>"
    ]
    for item in metrics:
        factor, unit = scale_of(item["metric"])
        rows.append(
            f'<tr><td>{escape(item["metric"])}</td><td class="{item["status"].split()[0]}">'
            f"{escape(item['status'])}</td><td>{shown(item['champion'], factor, unit)}</td>"
            f"<td>{shown(item['challenger'], factor, unit)}</td>"
            f"<td>{interval(item['difference'], factor, unit)}</td>"
            f"<td>{item['e_value']:.3g}</td><td>{item['e_value_harm']:.3g}</td></tr>"
        )
    return f"<table>{''.join(rows)}</table>"


def _plot(live: LiveExperiment, name: str, metric: str) -> str:
    points = _drawable(live.contestants[name].timeline.points, metric)
    if not points:
        return ""
    values = [p["metrics"][metric] for p in points]
    hypothesis = next(h for h in live.experiment.rules.hypotheses if h.name == metric)
    margin = None
    if hypothesis.margin.value and not hypothesis.margin.relative:
        margin = hypothesis.margin.value * (1.0 if hypothesis.lower_is_better else -1.0)
    elif hypothesis.margin.relative and values[-1]["champion"] is not None:
        margin = hypothesis.margin.value * values[-1]["champion"]
        margin *= 1.0 if hypothesis.lower_is_better else -1.0
    factor, unit = scale_of(metric)
    gaps = [
        v["challenger"] - v["champion"]
        if v["challenger"] is not None and v["champion"] is not None
        else None
        for v in values
    ]
    return sequence(
        [p["requests"] for p in points],
        gaps,
        [v["difference"] for v in values],
        margin,
        label=f"{metric}, challenger minus champion",
        factor=factor,
        unit=unit,
    )


def _drawable(points: Sequence[Mapping[str, Any]], metric: str) -> list[Mapping[str, Any]]:
    """The points of the newest mode (shadow or split) of which two or more show an interval."""
    for mode in dict.fromkeys(p["mode"] for p in reversed(points)):
        those = [p for p in points if metric in p["metrics"] and p["mode"] == mode]
        bounded = [p for p in those if p["metrics"][metric]["difference"] != [None, None]]
        if len(bounded) >= 2:
            return those
    return []


def _disagreement(entry: Mapping[str, Any]) -> str:
    text = json.dumps(
        {key: entry[key] for key in ("inputs", "champion", "challenger")}, indent=1, default=str
    )
    return (
        f"<p>{escape(entry['explanation'])} <span class='soft'>({escape(entry['request_id'])})"
        f"</span></p><pre>{escape(text)}</pre>"
    )


def _audit(entries: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        "<tr><th>when</th><th>what</th><th>stage</th><th>share</th><th>who</th><th>why</th></tr>"
    ]
    rows += [
        f"<tr><td>{_time(e['at'])}</td><td>{escape(str(e['kind']).replace('_', ' '))}</td>"
        f"<td>{escape(e['stage'])}</td><td>{e['weight'] * 100:g} %</td>"
        f"<td>{escape(e['who'])}</td><td>{escape(e['why'])}</td></tr>"
        for e in entries
    ]
    return f"<table>{''.join(rows)}</table>"


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
