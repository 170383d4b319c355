"""The report of a gate: a self-contained HTML file with plots."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from understudy.common.templates import render, trusted
from understudy.common.units import percent
from understudy.loadtest.engine.outcome import percentiles
from understudy.loadtest.gate.plots import percentile_plot, plot
from understudy.loadtest.gate.result import Result, StageResult
from understudy.loadtest.gate.stream_times import summary
from understudy.loadtest.gate.stream_words import STREAM_KEYS, STREAM_TIMES
from understudy.loadtest.gate.verdict import Criterion
from understudy.loadtest.gate.words import figure, number, seconds

_TEMPLATE = Path(__file__).parent / "templates" / "gate.html"
_WORDS = {
    "passed": "Passed: ready for production",
    "failed": "Failed: not ready for production",
    "invalid": "Inconclusive: no verdict",
    "not measured": "Not measured: no verdict",
    "shown": "Shown: no verdict was asked for",
}


def page(result: Result) -> str:
    """The result as an HTML page."""
    return render(
        _TEMPLATE,
        result=result,
        words=_WORDS[result.verdict],
        sentence=sentence(result),
        when=time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(result.begun)),
        summary=[_summary(one) for stage in result.stages for one in stage.attempts],
        stages=[_stage(one) for stage in result.stages for one in stage.attempts],
        environment=_environment(result.environment),
        stream_keys=STREAM_KEYS,
        missing=", ".join(result.environment["missing"]),
    )


def sentence(result: Result) -> str:
    """The outcome for a reader who reads no further: how many stages passed, and which did not."""
    last = result.stages
    if not last:
        return f"No stage of {result.plan} was run."
    passed = [one for one in last if one.verdict == "passed"]
    found = f"{len(passed)} of {len(last)} stages passed"
    for verdict, words in (("failed", "failed"), ("invalid", "could not be judged"),
                           ("not measured", "was not measured")):  # fmt: skip
        names = [one.name for one in last if one.verdict == verdict]
        if names:
            found += f"; {', '.join(names)} {words}"
    return f"{found}."


def _summary(stage: StageResult) -> dict[str, Any]:
    outcome = stage.outcome
    cells = ["", "", "", ""]
    if outcome is not None and outcome.count:
        median, tail = outcome.quantile(0.5), outcome.quantile(0.99)
        cells = [
            f"{outcome.count:,}",
            seconds(median) if median is not None else "",
            seconds(tail) if tail is not None and outcome.count >= 100 else "",
            f"{outcome.failed:,}{f', {outcome.retried:,} sent again' if outcome.retried else ''}",
        ]
    return {"name": _name(stage), "verdict": stage.verdict, "cells": cells}


def _name(stage: StageResult) -> str:
    if stage.earlier is None:
        return stage.name
    return f"{stage.name} (repeated{stage.repeated and f' with {stage.repeated}'})"


def _stage(stage: StageResult) -> dict[str, Any]:
    data = stage.data
    return {
        "name": _name(stage),
        "facts": stage.facts,
        "verdict": stage.verdict,
        "why": stage.why,
        "criteria": [_criterion(one) for one in stage.criteria],
        "over_time": _over_time(stage),
        "chaos": _chaos(data["chaos"]) if "chaos" in data else None,
        "capacity": _capacity(data) if "capacity" in data else None,
        "steps": _steps(data["until_break"]) if "until_break" in data else None,
        "plain": [
            _plain(data[name]) for name in ("loadgen", "comparison", "cold_start") if name in data
        ],
        "streams": _streams(stage),
    }


def _criterion(one: Criterion) -> dict[str, Any]:
    ends = ""
    if one.low is not None and one.high is not None:
        ends = f"{figure(one.low, one.unit)} to {figure(one.high, one.unit)}"
    return {
        "name": one.name,
        "limit": figure(one.limit, one.unit),
        "value": figure(one.value, one.unit) if one.value is not None else "–",
        "ends": ends,
        "said": one.verdict,
    }


def _streams(stage: StageResult) -> list[tuple[str, list[str]]]:
    """Times of language models: a row for each, with its percentiles."""
    outcome = stage.outcome
    if outcome is None or not outcome.streams or not outcome.count:
        return []
    found = summary(outcome)
    return [
        (
            words,
            [seconds(v) if (v := found[name].get(key)) is not None else "–" for key in STREAM_KEYS],
        )
        for name, words in STREAM_TIMES.items()
        if found[name]["count"]
    ]


def _over_time(stage: StageResult) -> dict[str, Any] | None:
    outcome = stage.outcome
    if outcome is None or not len(outcome.due):
        return None
    width = max(0.25, outcome.seconds / 240.0)
    points = outcome.series(width)
    if len(points) < 2:
        return None
    at = [float(p["at"]) for p in points]
    values = [float(p[k]) for p in points for k in ("p50", "p99")]
    latency = plot(at, values, "seconds", "latency over time", True, stage.windows, seconds)
    for key in ("p50", "p95", "p99"):
        latency.curve([(t, float(p[key])) for t, p in zip(at, points, strict=True)], key, key)
    limits = [
        (float(one.name[1:]) / 100.0, one.limit, one.name)
        for one in stage.criteria
        if one.name.startswith("p") and one.name[1:].replace(".", "").isdigit()
    ]
    for _, limit, name in limits:
        latency.rule(limit, "limit", f"{name} limit")
    failed = [(t, latency.y.high) for t, p in zip(at, points, strict=True) if p["failed"]]
    latency.dots(failed, "bad")
    rates = [(t, float(p["rate"])) for t, p in zip(at, points, strict=True)]
    rate = plot(at, [r for _, r in rates], "seconds", "requests per second", False, stage.windows)
    rate.curve(rates, "rate")
    tail = percentile_plot(percentiles(outcome), [(p, limit) for p, limit, _ in limits])
    return {
        "faults": bool(stage.windows),
        "latency": trusted(latency.svg()),
        "rate": trusted(rate.svg()),
        "percentiles": trusted(tail),
    }


def _chaos(data: Mapping[str, Any]) -> list[tuple[str, str]]:
    def shown(value: float | None, otherwise: str) -> str:
        return seconds(value) if value is not None and value > 0 else otherwise

    recovered = data["recovered_after"]
    rows = [
        ("time to detect",
         shown(data["detected_after"], "never" if data["detected_after"] is None else "at once")),
        ("time to recover: last bad request after the end of the fault",
         "not before the load ended" if recovered is None else shown(recovered, "none")),
        ("lost requests", f"{data['lost']:,} of {data['requests']:,} during the fault"),
        ("slow requests", f"{data['slow']:,} above {seconds(data['limit'])}"),
        ("depth", f"{percent(data['depth'], 3)} of the requests were bad"),
        ("p99", f"{shown(data['during_p99'], '–')}, {shown(data['normal_p99'], '–')} before"),
        ("steady state while the method ran",
         f"violated at {len(data['hypothesis_broken_at'])} of {data['hypothesis_looks']} checks"),
    ]  # fmt: skip
    if "alert_after" in data:
        rows.append(("alert after", shown(data["alert_after"], "not fired")))
    if "budget_burned" in data:
        rows.append(
            ("error budget burned", f"{percent(data['budget_burned'])} of the period's budget")
        )
    rows += [
        (f"probe: {one['name']}", f"{_short(one['output'])}, {seconds(one['at'])} after the start")
        for one in data["probes"]
    ]
    return rows


def _capacity(data: Mapping[str, Any]) -> dict[str, Any]:
    capacity = data["capacity"]
    low, high = capacity["low"], capacity["high"]
    text = f"{low:,.0f} per second passed" if low is not None else "nothing passed"
    text += f", {high:,.0f} failed" if high is not None else ""
    guess = capacity.get("estimate")
    if guess:
        text += (
            f"; estimate from all probes {guess['value']:,.0f} "
            f"({guess['low']:,.0f} to {guess['high']:,.0f})"
        )
    replicas = ""
    if "replicas" in data:
        one = data["replicas"]
        replicas = (
            f"{one['count']} replicas for {one['traffic']:,.0f} per second, with "
            f"{one['headroom']:.0%} headroom and {one['spare']} to spare."
        )
    memory = data["peak_memory"]
    mib = "–" if memory["value"] is None else f"{memory['value'] / 2**20:,.0f} MiB"
    rows = [
        (
            f"{name.replace('_', ' ')} per prediction",
            "–" if one["value"] is None else number(one["value"]),
            f"{one['source']} {one['note']}",
        )
        for name, one in data["per_prediction"].items()
        if name != "seconds_observed"
    ]
    return {
        "said": text,
        "why": capacity["why"],
        "replicas": replicas,
        "predicted": _predicted(data.get("prediction") or {}),
        "by_rate": trusted(_by_rate(data)),
        "scalability": _scalability(data.get("scalability") or {}),
        "rows": [*rows, ("peak memory", mib, f"{memory['source']} {memory['note']}")],
    }


def _by_rate(data: Mapping[str, Any]) -> str:
    capacity = data["capacity"]
    probes = [p for p in capacity["probes"] if p["p99"] is not None]
    if len(probes) < 2:
        return ""
    predicted = data.get("prediction") or {}
    known = [(one[0], one[1]) for one in predicted.get("points", ())]
    if not known or predicted["percentile"] != 0.99:
        known = []
    rates = [p["rate"] for p in probes]
    known = [one for one in known if one[0] <= 1.5 * max(rates)]
    axes = plot([*rates, *(a for a, _ in known)],
                [*(p["p99"] for p in probes), *(b for _, b in known)], "requests per second",
                "p99 by rate", True, show_y=seconds)  # fmt: skip
    if known:
        axes.curve(known, "p50")
    if capacity["low"] is not None and capacity["high"] is not None:
        axes.stretch(capacity["low"], capacity["high"], "ok", least=1.0)
    for passed, style in ((True, "good"), (False, "bad")):
        axes.dots([(p["rate"], p["p99"]) for p in probes if p["passed"] is passed], style)
    return axes.svg()


def _scalability(usl: Mapping[str, Any]) -> dict[str, Any] | None:
    if not usl.get("points"):
        return None
    points = [(float(n), float(x)) for n, x in usl["points"]]
    axes = plot([n for n, _ in points], [x for _, x in points], "concurrent users",
                "throughput by concurrency")  # fmt: skip
    knee = usl.get("knee")
    text = usl.get("why_not") or ""
    if knee:
        axes.stretch(knee["low"], knee["high"], "ok", least=1.0)
        ends = f"{knee['low']:.0f} to {knee['high']:.0f}"
        text = f"most throughput at {knee['value']:.0f} users ({ends})"
    axes.dots(points, "good")
    if "gamma" in usl:
        highest = max(n for n, _ in points)
        curve = []
        for k in range(1, 81):
            n = highest * k / 80.0
            if n >= 1.0:
                down = 1.0 + usl["alpha"] * (n - 1.0) + usl["beta"] * n * (n - 1.0)
                curve.append((n, usl["gamma"] * n / down))
        axes.curve(curve, "rate")
    return {"text": text, "drawing": trusted(axes.svg())}


def _steps(data: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "rate": number(one["rate"]),
            "p99": seconds(one["p99"]),
            "said": one["said"],
            "why": one["why"],
        }
        for one in data["steps"]
    ]


def _predicted(found: Mapping[str, Any]) -> str:
    if not found:
        return ""
    if found["why_not"]:
        return f"; no prediction: {found['why_not']}"
    best = found["highest_rate"]
    return (
        f"; the line is predicted from service times at {found['from_rate']:,.0f}/s "
        f"({found['servers']} at once, {seconds(found['service_mean'])} each, "
        f"{seconds(found['way'])} network)"
        + (f", which gives a capacity of {best:,.0f}" if best else "")
    )


def _plain(data: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(str(k).replace("_", " "), _short(v)) for k, v in data.items() if v is not None]


def _short(value: Any) -> str:
    if isinstance(value, float):
        return number(value) if abs(value) < 1e12 else str(value)
    if isinstance(value, list):
        return ", ".join(_short(one) for one in value)
    return str(value)


def _environment(data: Mapping[str, Any]) -> list[tuple[str, str]]:
    shown = {k: v for k, v in data.items() if k not in ("missing", "versions") and v is not None}
    shown["versions"] = ", ".join(f"{k} {v}" for k, v in data["versions"].items())
    return _plain(shown)
