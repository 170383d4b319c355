"""The report of a gate: one HTML file with its plots, that needs nothing else."""

from __future__ import annotations

import time
from collections.abc import Mapping
from html import escape
from typing import Any

from understudy.loadtest.engine.outcome import percentiles
from understudy.loadtest.gate.plots import Plot, number, percentile_plot, seconds
from understudy.loadtest.gate.result import Result, StageResult

_STYLE = """
:root{--ink:#1b1f24;--soft:#59636e;--line:#d1d9e0;--a:#0969da;--b:#8250df;--c:#bf8700;--bad:#cf222e;
--good:#1a7f37;--warn:#9a6700;--fault:#ffebe9;--ok:#dafbe1;--back:#fff}
@media (prefers-color-scheme:dark){:root{--ink:#e6edf3;--soft:#9198a1;--line:#3d444d;--a:#58a6ff;
--b:#bc8cff;--c:#d29922;--bad:#f85149;--good:#3fb950;--warn:#d29922;--fault:#3d1d20;--ok:#12261e;
--back:#0d1117}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--back);max-width:60rem;
margin:2rem auto;padding:0 1rem}h1{margin-bottom:.2rem}h2{margin-top:2.4rem;border-top:1px solid
var(--line);padding-top:1rem}.soft{color:var(--soft)}.passed{color:var(--good)}.failed{color:var(--bad)}
.invalid{color:var(--warn)}.shown{color:var(--a)}table{border-collapse:collapse;width:100%;
margin:.6rem 0}
td,th{text-align:left;padding:.25rem .8rem .25rem 0;border-bottom:1px solid var(--line)}
svg{width:100%;height:auto}svg text{font:11px system-ui;fill:var(--soft)}.grid{stroke:var(--line)}
polyline{fill:none;stroke-width:1.6}.p50{stroke:var(--a)}.p95{stroke:var(--b)}.p99{stroke:var(--c)}
.rate{stroke:var(--a)}.bad{fill:var(--bad);stroke:var(--bad)}.good{fill:var(--good)}
.fault{fill:var(--fault)}.ok{fill:var(--ok)}.limit{stroke:var(--bad);stroke-dasharray:4 3}
text.limit{stroke:none;fill:var(--bad)}.key span{margin-right:1.2rem}.key i{display:inline-block;
width:1.2rem;height:.2rem;margin-right:.3rem;vertical-align:middle}
"""
_WORDS = {
    "passed": "Passed: ready for production",
    "failed": "Failed: not ready for production",
    "invalid": "Inconclusive: no verdict",
    "shown": "Shown",
}
_TIMES = ("p", "send lag", "recovers", "first", "alert")
"""How the names of criteria begin whose values are durations."""
_KEY = (
    '<p class="key soft"><span><i style="background:var(--a)"></i>p50</span><span>'
    '<i style="background:var(--b)"></i>p95</span><span><i style="background:var(--c)"></i>p99'
    "</span></p>"
)


def page(result: Result) -> str:
    """The page."""
    when = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(result.begun))
    body = [
        f'<h1 class="{result.verdict}">{_WORDS[result.verdict]}</h1>',
        f'<p class="soft">{escape(result.target)} · {escape(result.plan)} · {when}</p>',
    ]
    if result.broken:
        body.append(f'<p class="invalid">Ended early: {escape(result.broken)}</p>')
    body += [f'<p class="soft">{escape(note)}</p>' for note in result.notes]
    body.append(_stages(result))
    body += [_stage(stage) for stage in result.stages]
    body.append(_environment(result.environment))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>Gate: {escape(result.verdict)}</title><style>{_STYLE}</style></head>"
        f"<body>{''.join(body)}</body></html>"
    )


def _stages(result: Result) -> str:
    rows = [
        "<tr><th>stage</th><th></th><th>requests</th><th>p50</th><th>p99</th><th>failed</th></tr>"
    ]
    for stage in result.stages:
        outcome = stage.outcome
        cells = ["", "", "", ""]
        if outcome is not None and outcome.count:
            median, tail = outcome.quantile(0.5), outcome.quantile(0.99)
            cells = [
                f"{outcome.count:,}",
                seconds(median) if median is not None else "",
                seconds(tail) if tail is not None and outcome.count >= 100 else "",
                f"{outcome.failed:,}",
            ]
        rows.append(
            f'<tr><td>{escape(stage.name)}</td><td class="{stage.verdict}">{stage.verdict}</td>'
            + "".join(f"<td>{cell}</td>" for cell in cells)
            + "</tr>"
        )
    return f"<table>{''.join(rows)}</table>"


def _stage(stage: StageResult) -> str:
    parts = [
        f'<h2>{escape(stage.name)} <span class="{stage.verdict}">{stage.verdict}</span></h2>',
        *(f'<p class="{stage.verdict}">{escape(why)}</p>' for why in stage.why),
    ]
    if stage.criteria:
        rows = ["<tr><th>objective</th><th>limit</th><th>value</th><th>interval</th><th></th></tr>"]
        for one in stage.criteria:
            show = seconds if one.name.startswith(_TIMES) else number
            ends = ""
            if one.low is not None and one.high is not None:
                ends = f"{show(one.low)} to {show(one.high)}"
            value = show(one.value) if one.value is not None else "–"
            rows.append(
                f"<tr><td>{escape(one.name)}</td><td>{show(one.limit)}</td><td>{value}</td>"
                f'<td>{ends}</td><td class="{one.said}">{one.said}</td></tr>'
            )
        parts.append(f"<table>{''.join(rows)}</table>")
    parts.append(_over_time(stage))
    if "chaos" in stage.data:
        parts.append(_chaos(stage.data["chaos"]))
    if "capacity" in stage.data:
        parts.append(_capacity(stage.data))
    if "until_break" in stage.data:
        parts.append(_steps(stage.data["until_break"]))
    for name in ("loadgen", "comparison", "cold_start"):
        if name in stage.data:
            parts.append(_plain(stage.data[name]))
    return "".join(parts)


def _over_time(stage: StageResult) -> str:
    outcome = stage.outcome
    if outcome is None or not len(outcome.due):
        return ""
    width = max(0.25, outcome.seconds / 240.0)
    points = outcome.series(width)
    if len(points) < 2:
        return ""
    at = [float(p["at"]) for p in points]
    values = [float(p[k]) for p in points for k in ("p50", "p99")]
    plot = Plot(at, values, "seconds", "latency over time", True, stage.windows, seconds)
    for key in ("p50", "p95", "p99"):
        plot.line([(t, float(p[key])) for t, p in zip(at, points, strict=True)], key, key)
    for one in stage.criteria:
        if one.name.startswith("p") and one.name[1:].replace(".", "").isdigit():
            plot.limit(one.limit, f"{one.name} limit")
    failed = [(t, plot.y_high) for t, p in zip(at, points, strict=True) if p["failed"]]
    plot.dots(failed, "bad")
    rates = [(t, float(p["rate"])) for t, p in zip(at, points, strict=True)]
    rate = Plot(at, [r for _, r in rates], "seconds", "requests per second", False, stage.windows)
    rate.line(rates, "rate")
    limits = [
        (float(one.name[1:]) / 100.0, one.limit)
        for one in stage.criteria
        if one.name.startswith("p") and one.name[1:].replace(".", "").isdigit()
    ]
    shaded = "; faults are shaded, red dots are failed requests" if stage.windows else ""
    return (
        f'<p class="soft">Latency from the moment at which requests were due{shaded}</p>{_KEY}'
        f'{plot.svg()}<p class="soft">Requests per second</p>{rate.svg()}'
        f'<p class="soft">Latency by percentile</p>{percentile_plot(percentiles(outcome), limits)}'
    )


def _chaos(data: Mapping[str, Any]) -> str:
    def shown(value: float | None, otherwise: str) -> str:
        return seconds(value) if value is not None and value > 0 else otherwise

    recovered = data["recovered_after"]
    rows = [
        ("visible after",
         shown(data["detected_after"], "never" if data["detected_after"] is None else "at once")),
        ("last bad request after the end of the fault",
         "not before the load ended" if recovered is None else shown(recovered, "none")),
        ("lost requests", f"{data['lost']:,} of {data['requests']:,} during the fault"),
        ("slow requests", f"{data['slow']:,} above {seconds(data['limit'])}"),
        ("depth", f"{data['depth']:.1%} of the requests were bad"),
        ("p99", f"{shown(data['during_p99'], '–')}, {shown(data['normal_p99'], '–')} before"),
        ("steady state while the method ran",
         f"violated at {len(data['hypothesis_broken_at'])} of {data['hypothesis_looks']} checks"),
    ]  # fmt: skip
    if "alert_after" in data:
        rows.append(("alert after", shown(data["alert_after"], "not fired")))
    if "budget_burned" in data:
        rows.append(("error budget burned", f"{data['budget_burned']:.2%} of the period's budget"))
    rows += [
        (f"probe: {one['name']}", f"{_short(one['output'])}, {seconds(one['at'])} after the start")
        for one in data["probes"]
    ]
    cells = "".join(f"<tr><td>{escape(a)}</td><td>{escape(b)}</td></tr>" for a, b in rows)
    return f"<table>{cells}</table>"


def _capacity(data: Mapping[str, Any]) -> str:
    found = data["capacity"]
    probes = [p for p in found["probes"] if p["p99"] is not None]
    parts = []
    low, high = found["low"], found["high"]
    said = f"{low:,.0f} per second passed" if low is not None else "nothing passed"
    said += f", {high:,.0f} failed" if high is not None else ""
    guess = found.get("estimate")
    if guess:
        said += (
            f"; estimate from all probes {guess['value']:,.0f} "
            f"({guess['low']:,.0f} to {guess['high']:,.0f})"
        )
    parts.append(f"<p><b>{said}.</b> {escape(found['why'])}</p>")
    if "replicas" in data:
        one = data["replicas"]
        parts.append(
            f"<p>{one['count']} replicas for {one['traffic']:,.0f} per second, with "
            f"{one['headroom']:.0%} headroom and {one['spare']} to spare.</p>"
        )
    if len(probes) > 1:
        predicted = data.get("prediction") or {}
        known = [(one[0], one[1]) for one in predicted.get("points", ())]
        if not known or predicted["percentile"] != 0.99:
            known = []
        rates = [p["rate"] for p in probes]
        known = [one for one in known if one[0] <= 1.5 * max(rates)]
        plot = Plot([*rates, *(a for a, _ in known)],
                    [*(p["p99"] for p in probes), *(b for _, b in known)], "requests per second",
                    "p99 by rate", True, show_y=seconds)  # fmt: skip
        if known:
            plot.line(known, "p50")
        if low is not None and high is not None:
            plot.band(low, high, "ok")
        for passed, style in ((True, "good"), (False, "bad")):
            plot.dots([(p["rate"], p["p99"]) for p in probes if p["passed"] is passed], style)
        parts.append(
            f'<p class="soft">p99 by rate; the capacity lies in the shaded part'
            f"{_predicted(predicted)}</p>{plot.svg()}"
        )
    usl = data.get("scalability") or {}
    if usl.get("points"):
        points = [(float(n), float(x)) for n, x in usl["points"]]
        plot = Plot([n for n, _ in points], [x for _, x in points], "concurrent users",
                    "throughput by concurrency")  # fmt: skip
        if usl.get("knee"):
            plot.band(usl["knee"]["low"], usl["knee"]["high"], "ok")
        plot.dots(points, "good")
        if "gamma" in usl:
            highest = max(n for n, _ in points)
            curve = []
            for k in range(1, 81):
                n = highest * k / 80.0
                if n >= 1.0:
                    down = 1.0 + usl["alpha"] * (n - 1.0) + usl["beta"] * n * (n - 1.0)
                    curve.append((n, usl["gamma"] * n / down))
            plot.line(curve, "rate")
        knee = usl.get("knee")
        text = escape(usl.get("why_not") or "")
        if knee:
            ends = f"{knee['low']:.0f} to {knee['high']:.0f}"
            text = f"most throughput at {knee['value']:.0f} users ({ends})"
        parts.append(f'<p class="soft">Throughput by concurrency: {text}</p>{plot.svg()}')
    rows = "".join(
        f"<tr><td>{escape(name.replace('_', ' '))} per prediction</td><td>"
        f"{'–' if one['value'] is None else number(one['value'])}</td><td class='soft'>"
        f"{escape(one['source'])} {escape(one['note'])}</td></tr>"
        for name, one in data["per_prediction"].items()
        if name != "seconds_observed"
    )
    memory = data["peak_memory"]
    mib = "–" if memory["value"] is None else f"{memory['value'] / 2**20:,.0f} MiB"
    rows += (
        f"<tr><td>peak memory</td><td>{mib}</td>"
        f"<td class='soft'>{escape(memory['source'])} {escape(memory['note'])}</td></tr>"
    )
    return "".join(parts) + f"<table>{rows}</table>"


def _steps(data: Mapping[str, Any]) -> str:
    rows = "".join(
        f"<tr><td>{number(one['rate'])}/s</td><td>{seconds(one['p99'])}</td>"
        f'<td class="{one["said"]}">{one["said"]}</td><td>{escape(one["why"])}</td></tr>'
        for one in data["steps"]
    )
    return f"<table><tr><th>step</th><th>p99</th><th></th><th></th></tr>{rows}</table>"


def _predicted(found: Mapping[str, Any]) -> str:
    if not found:
        return ""
    if found["why_not"]:
        return f"; no prediction: {escape(found['why_not'])}"
    best = found["highest_rate"]
    return (
        f"; the line is predicted from service times at {found['from_rate']:,.0f}/s "
        f"({found['servers']} at once, {seconds(found['service_mean'])} each, "
        f"{seconds(found['way'])} network)"
        + (f", which gives a capacity of {best:,.0f}" if best else "")
    )


def _plain(data: Mapping[str, Any]) -> str:
    rows = "".join(
        f"<tr><td>{escape(str(k).replace('_', ' '))}</td><td>{escape(_short(v))}</td></tr>"
        for k, v in data.items()
        if v is not None
    )
    return f"<table>{rows}</table>"


def _short(value: Any) -> str:
    if isinstance(value, float):
        return number(value) if abs(value) < 1e12 else str(value)
    if isinstance(value, list):
        return ", ".join(_short(one) for one in value)
    return str(value)


def _environment(data: Mapping[str, Any]) -> str:
    shown = {k: v for k, v in data.items() if k not in ("missing", "versions") and v is not None}
    shown["versions"] = ", ".join(f"{k} {v}" for k, v in data["versions"].items())
    missing = ", ".join(data["missing"])
    note = f'<p class="soft">Not known: {escape(missing)}</p>' if missing else ""
    return f"<h2>Environment</h2>{_plain(shown)}{note}"
