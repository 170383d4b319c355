"""The views of the console: what each reads of the API, and what its template shows."""

from __future__ import annotations

import asyncio
import glob
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode

from understudy.monitor.console import charts, words
from understudy.monitor.console.charts import Chart, Line
from understudy.monitor.console.reading import NotFound, Reading
from understudy.monitor.experiments.limits import absolute
from understudy.monitor.experiments.report import plot_of
from understudy.monitor.experiments.text import interval, scale_of, shown

View = Callable[[Reading], Awaitable[tuple[str, dict[str, Any]]]]

TABS = (
    ("overview", "Overview"),
    ("requests", "Requests"),
    ("system", "System"),
    ("archive", "Archive"),
)
_MOST_RANGE = 2_592_000.0
_ACCURACY = ("accuracy", "accuracy_low", "accuracy_high", "estimated_accuracy")


def view_of(query: Mapping[str, str]) -> str:
    """Which view the query of a page chooses."""
    for name in ("finding", "incident", "experiment", "model"):
        if query.get(name):
            return name
    return query.get("view", "") if query.get("view") in VIEWS else "overview"


def title_of(reading: Reading, name: str) -> str:
    """The title of the page: what is open, and how it is."""
    count = f"({reading.open_count}) " if reading.open_count else ""
    about = reading.query.get(name, "") or ("" if name == "overview" else name)
    return f"{count}{about + ' – ' if about else ''}Understudy: {reading.state[0]}"


# Overview -----------------------------------------------------------------------------------------


async def overview(reading: Reading) -> tuple[str, dict[str, Any]]:
    """Arms, findings, experiments and what happened."""
    if reading.of != "service":
        return _evaluator(reading)
    names = "rate,error_rate,p99"
    arms = reading.arms.get("arms", [])
    course, events, models = await asyncio.gather(
        reading.maybe(f"/v1/history?series={names}&from=-{reading.seconds:g}&fit=true"),
        reading.maybe("/v1/events?limit=30"),
        reading.maybe("/v1/drift"),
    )
    shown = {arm["arm"] for arm in arms}
    sparks = {
        (one["arm"], one["role"]): charts.spark(
            one["values"], f"requests per second of {one['arm']}, the last {reading.range}"
        )
        for one in _merged(course, "rate")
        if one["arm"] in shown
    }
    return "overview.html", {
        "charts": traffic_charts(course, reading, shown),
        "begins": begins(course, reading),
        "sparks": sparks,
        "events": list(reversed(events.get("events", []))),
        "models": models.get("models", []),
        "tokens": reading.language_models,
    }


def begins(course: Mapping[str, Any], reading: Reading) -> float | None:
    """When charts begin, if that is later than the chosen range does."""
    since = course.get("from") if course.get("series") else None
    wanted = reading.now - reading.seconds
    return since if since is not None and since - wanted > 0.02 * reading.seconds else None


def _evaluator(reading: Reading) -> tuple[str, dict[str, Any]]:
    """The evaluator that serves the page, and the group's findings and experiments."""
    waiting: dict[Any, int] = {}
    for topic, messages in reading.evaluator.get("lag", {}).items():
        name, _, partition = topic.rpartition("/")
        if not name.endswith(".evidence"):
            waiting[int(partition)] = waiting.get(int(partition), 0) + messages
    return "evaluator.html", {"waiting": waiting}


def _merged(course: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """Series of one name by arm and role, those of several models added: only for counts."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for one in course.get("series", ()):
        if one["name"] != name:
            continue
        known = found.setdefault((one["arm"], one["role"]), {**one, "values": None})
        before = known["values"]
        known["values"] = one["values"] if before is None else [
            b if a is None else a if b is None else a + b
            for a, b in zip(before, one["values"], strict=True)
        ]  # fmt: skip
    return list(found.values())


def _name(one: Mapping[str, Any], several: bool) -> str:
    mirrored = " (mirrored)" if one["role"] == "mirror" else ""
    return f"{one['arm']}{mirrored}" + (f", {one['model']}" if several and one["model"] else "")


def traffic_charts(
    course: Mapping[str, Any],
    reading: Reading,
    shown: set[str],
    marks: Sequence[tuple[str, float]] = (),
) -> list[Any]:
    """Rate, errors and p99 over time."""
    times = course.get("times") or []
    found = []
    for title, name, show, least in (
        ("Requests per second", "rate", words.rate, 0.0),
        ("Errors", "error_rate", words.share, 0.01),
        ("p99 latency", "p99", words.seconds, 0.0),
    ):
        series = [
            one
            for one in (_merged(course, name) if name == "rate" else course.get("series", ()))
            if one["name"] == name and one["arm"] in shown
        ]
        several = name != "rate" and len({one["model"] for one in series}) > 1
        lines = [Line(_name(one, several), one["values"]) for one in _ranked(series)]
        found.append(
            _drawn(title, times, lines, show, until=course.get("to", reading.now), marks=marks,
                   least=least)
        )  # fmt: skip
    return found


def _ranked(series: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Requests of clients first, then by the largest value: a chart has room for a few."""
    return sorted(
        series,
        key=lambda one: (one["role"] != "primary", -max(v or 0.0 for v in one["values"])),
    )


def _drawn(
    title: str, times: Sequence[float], lines: Sequence[Line], show: Any, **options: Any
) -> tuple[Chart, str, str]:
    drawn = charts.chart(title, times, lines, show, **options)
    kind = {words.seconds: "seconds", words.share: "share", words.rate: "rate"}.get(show, "number")
    return drawn, charts.data_of(drawn, times, show), kind


# Model --------------------------------------------------------------------------------------------


async def model(reading: Reading) -> tuple[str, dict[str, Any]]:
    """Traffic, accuracy and drift of one model; of a language model also its times and tokens."""
    name = reading.query["model"]
    named = quote(name, safe="")
    wanted = reading.query.get("column", "")
    drift, course, quality, shapes, gauges = await asyncio.gather(
        reading.maybe("/v1/drift"),
        reading.maybe(
            f"/v1/history?series=rate,error_rate,p50,p99,p99_9&model={named}"
            f"&from=-{reading.seconds:g}&fit=true"
        ),
        reading.maybe(
            f"/v1/history?series={','.join(_ACCURACY)}&model={named}"
            f"&from=-{reading.seconds:g}&fit=true"
        ),
        reading.maybe(f"/v1/distributions?model={named}&limit=12"
                      + (f"&column={quote(wanted, safe='')}" if wanted else "")),
        reading.maybe(
            f"/v1/history?series=statistic,spread,psi&model={named}"
            f"&column={quote(wanted, safe='')}&from=-{reading.seconds:g}&fit=true"
        ) if wanted else _nothing(),
    )  # fmt: skip
    watched = [one for one in drift.get("models", []) if one["model"] == name]
    incidents = [one for one in reading.incidents if one["model"] == name]
    tokens = [one for one in reading.language_models if one["model"] == name]
    if not watched and not course.get("series") and not incidents and not tokens:
        raise NotFound(f"nothing is known of a model {name!r}")
    series = sorted(
        (one for of in watched for one in of.get("series", ())),
        key=lambda one: (not one["drifted"], -max(one["statistic"], one["spread"])),
    )
    arms = {one["arm"] for one in course.get("series", ())}
    drawn = traffic_charts(course, reading, arms)
    if any(one["values"] for one in quality.get("series", ())):
        drawn.append(_accuracy_chart(quality))
    return "model.html", {
        "name": name,
        "open_incidents": incidents,
        "watched": watched,
        "tokens": tokens,
        "charts": drawn,
        "begins": begins(course, reading),
        "series": series[:50],
        "all_series": len(series),
        "shapes": [(one, charts.bars(one)) for one in shapes.get("columns", ())],
        "column": wanted,
        "drift_chart": _gauge_chart(gauges, f"Drift of {wanted}") if wanted else None,
        "not_tested": [one for one in drift.get("not_tested", ()) if one["model"] == name],
    }


async def _nothing() -> dict[str, Any]:
    return {}


def _accuracy_chart(quality: Mapping[str, Any], marks: Sequence[tuple[str, float]] = ()) -> Any:
    by_name = {one["name"]: one["values"] for one in quality["series"]}
    lines = []
    if "accuracy" in by_name:
        ends = by_name.get("accuracy_low"), by_name.get("accuracy_high")
        lines.append(Line("accuracy by labels", by_name["accuracy"], *ends))
    if "estimated_accuracy" in by_name:
        lines.append(Line("estimated without labels", by_name["estimated_accuracy"]))
    return _drawn("Accuracy", quality["times"], lines, words.share, until=quality["to"],
                  marks=marks, least=1.0)  # fmt: skip


def _gauge_chart(
    gauges: Mapping[str, Any], title: str, marks: Sequence[tuple[str, float]] = ()
) -> Any:
    lines = [
        Line(f"{one['name']} of {one['column']}", one["values"])
        for one in gauges.get("series", ())
        if one["name"] in ("statistic", "spread", "psi")
    ]
    return _drawn(title, gauges.get("times", ()), lines, words.number, until=gauges.get("to", 0.0),
                  marks=marks, limits={"alert at 1": 1.0}, least=1.1)  # fmt: skip


# Finding ------------------------------------------------------------------------------------------


async def finding(reading: Reading) -> tuple[str, dict[str, Any]]:
    """One finding: what, since when, every revision, its examples, and what people can do."""
    id_ = quote(reading.query["finding"], safe="")
    found = await reading.get(f"/v1/findings/{id_}")
    since = found["since"] or found["opened"]
    until = min(reading.now, found["closed"] + 1800.0 if found["closed"] else reading.now)
    begin = max(until - _MOST_RANGE, min(since, found["opened"]) - 1800.0)
    marks = [("found", found["opened"])]
    if found["since"] is not None and abs(found["since"] - found["opened"]) > 1.0:
        marks.insert(0, ("changed", found["since"]))
    if found["closed"] is not None:
        marks.append(("closed", found["closed"]))
    kept = await reading.maybe(f"/v1/history?series=rate&from={begin:.3f}&to={until:.3f}&fit=true")
    # All of its moments stay on the chart, also those of which nothing is kept.
    begin = max(begin, min(kept.get("from", begin), marks[0][1] - 60.0))
    history, records, drawn, incident = await asyncio.gather(
        reading.maybe(f"/v1/findings/{id_}/timeline"),
        reading.maybe(f"/v1/findings/{id_}/records"),
        _chart_of(reading, found, begin, until, marks),
        reading.maybe(f"/v1/incidents/{quote(found['incident'], safe='')}"),
    )
    return "finding.html", {
        "found": found,
        "about": _about(found),
        # Not read as a pattern: it silences this finding and no other.
        "pattern": glob.escape(found["key"]),
        "size": _size(found["size"]),
        "changes": history.get("changes", []),
        "records": records.get("records", [])[:10],
        "gone": records.get("gone", []),
        "chart": drawn,
        "others": [one for one in incident.get("findings", ()) if one["id"] != found["id"]],
    }


def _about(found: Mapping[str, Any]) -> str:
    version = f"version {found['version']}" if found["version"] else ""
    return ", ".join(part for part in (found["model"], version, found["segment"]) if part)


def _size(size: Mapping[str, Any] | None) -> dict[str, str] | None:
    if size is None:
        return None
    unit = f" {size['unit']}" if size["unit"] else ""
    ends = size["low"], size["high"]
    return {
        "name": size["name"],
        "value": f"{size['value']:.4g}{unit}",
        "before": "" if size["baseline"] is None else f"{size['baseline']:.4g}{unit}",
        "interval": "" if None in ends else f"{ends[0]:.4g} to {ends[1]:.4g}",
    }


async def _chart_of(
    reading: Reading,
    found: Mapping[str, Any],
    begin: float,
    until: float,
    marks: Sequence[tuple[str, float]],
) -> Any:
    """The course of what the finding is about, with the moment at which it changed."""
    span = f"&from={begin:.3f}&to={until:.3f}"
    named = f"&model={quote(found['model'], safe='')}" if found["model"] else ""
    if found["kind"] == "performance":
        course = await reading.maybe(f"/v1/history?series={','.join(_ACCURACY)}{named}{span}")
        if any(one["values"] for one in course.get("series", ())):
            return _accuracy_chart(course, marks)
    if found["kind"] in ("drift", "quality") and found["features"]:
        column = found["features"][0]["name"]
        course = await reading.maybe(
            f"/v1/history?series=statistic,spread,psi{named}{span}&column={quote(column, safe='')}"
        )
        if course.get("series"):
            return _gauge_chart(course, f"Drift of {column}", marks)
    course = await reading.maybe(f"/v1/history?series=rate,error_rate,p99{named}{span}")
    arms = {one["arm"] for one in course.get("series", ())}
    drawn = traffic_charts(course, reading, arms, marks)
    latency = "latency" in found["title"].lower() or "latency" in found["rule"].lower()
    return drawn[2 if latency else 1 if found["kind"] == "objective" else 0]


async def incident(reading: Reading) -> tuple[str, dict[str, Any]]:
    """Findings that belong together."""
    id_ = quote(reading.query["incident"], safe="")
    return "incident.html", {"incident": await reading.get(f"/v1/incidents/{id_}")}


# Experiment ---------------------------------------------------------------------------------------


async def experiment(reading: Reading) -> tuple[str, dict[str, Any]]:
    """The verdict, the ladder, the evidence, and what people can order."""
    name = quote(reading.query["experiment"], safe="")
    removed = "?ended=true" if reading.query.get("ended") else ""
    whole = await reading.get(f"/v1/experiments/{name}{removed}")
    timeline, audit, worst = await asyncio.gather(
        reading.maybe(f"/v1/experiments/{name}/timeline{removed}"),
        reading.maybe(f"/v1/experiments/{name}/audit?limit=50"),
        _nothing() if removed else reading.maybe(f"/v1/experiments/{name}/disagreements"),
    )
    limits = whole.get("limits", {})
    return "experiment.html", {
        "whole": whole,
        "challengers": [
            _challenger(one, limits, timeline.get(one["name"], ()), worst.get(one["name"], ()))
            for one in whole["challengers"]
        ],
        "audit": list(reversed(audit.get("entries", []))),
        "damaged": audit.get("first_damaged_line"),
        "report": f"v1/experiments/{name}/report{removed}",
    }


def _challenger(
    one: dict[str, Any],
    limits: Mapping[str, Any],
    points: Sequence[Mapping[str, Any]],
    worst: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    rows, forests = [], []
    for item in one["metrics"]:
        limit = limits.get(item["metric"]) or {}
        factor, unit = scale_of(item["metric"])
        champion = item["champion"]
        known = champion is not None and item["challenger"] is not None
        estimate = item["challenger"] - champion if known else None
        low, high = item["difference"]
        margin = absolute(limit.get("margin"), limit.get("relative"), champion)
        effect = absolute(limit.get("effect"), limit.get("effect_relative"), champion)
        label = f"{item['metric']}: {interval(item['difference'], factor, unit)}"
        forests.append({"low": low, "high": high, "estimate": estimate, "margin": margin or None,
                        "effect": effect, "label": label})  # fmt: skip
        # Reports of experiments that ended before there were thresholds by metric have one for all.
        goal = item.get("log_threshold", limit.get("log_threshold"))
        goal_harm = item.get("log_threshold_harm", limit.get("log_threshold"))
        rows.append(
            {
                **item,
                "champion_shown": shown(champion, factor, unit),
                "challenger_shown": shown(item["challenger"], factor, unit),
                "interval": interval(item["difference"], factor, unit),
                "limits_shown": _limits(item, margin, effect, factor, unit),
                "passing": _part(item["log_e"], goal),
                "harming": _part(item["log_e_harm"], goal_harm),
                "goals": [_e_value(goal), _e_value(goal_harm)],
                "found": [_e_value(item["log_e"]), _e_value(item["log_e_harm"])],
                "open_labels": item.get("unlabelled", {}),
                "plot": plot_of(item["metric"], points, limit),
            }
        )
    for row, drawing in zip(rows, charts.forest(forests), strict=True):
        row["forest"] = drawing
    requests = one["requests"]
    stage = one["stage"]
    ladder = stage.get("all") or [{"name": stage["name"], "weight": one["weight"]}]
    reached = len(ladder) if one["phase"] == "promoted" else stage["number"]
    return {
        **one,
        "rows": rows,
        "served": requests["served"] if one["mode"] == "split" else requests["pairs"],
        "ladder": [
            {**step, "place": "now" if number == reached else
             "done" if number < reached else "next"}
            for number, step in enumerate(ladder, 1)
        ],
        "worst": list(worst)[:5],
        "live": one["phase"] not in ("promoted", "rolled_back", "aborted"),
    }  # fmt: skip


def _limits(
    item: Mapping[str, Any], margin: float | None, effect: float | None, factor: float, unit: str
) -> str:
    """Margin and target of a difference in words, as differences of the champion's value."""
    parts = [f"margin {item['margin']}" if item["margin"] != "0" else "margin 0: must be better"
             if item["role"] == "success" else "margin 0"]  # fmt: skip
    for name, value in (("margin at", margin if "%" in item["margin"] else None),
                        ("target", effect)):  # fmt: skip
        if value:
            parts.append(f"{name} {value * factor:+.4g}{unit}")
    return ", ".join(parts)


def _e_value(log_e: float | None) -> str:
    if log_e is None:
        return ""
    if log_e > 23.0:
        return f"10^{log_e / math.log(10.0):.0f}"
    value = math.exp(log_e)
    return f"{value:,.0f}" if value >= 100.0 else f"{value:.3g}"


def _part(log_e: float | None, goal: float | None) -> float | None:
    """How far evidence has come to its threshold, from 0 to 1."""
    if log_e is None or not goal:
        return None
    return min(1.0, max(0.0, log_e / goal))


# Requests, system, archive ------------------------------------------------------------------------

FILTERS = ("model", "arm", "role", "outcome", "longer", "request_id")
"""Of the view of requests; ``model`` is called ``of``, since a model has a view of its own."""


async def requests(reading: Reading) -> tuple[str, dict[str, Any]]:
    """The last requests, the champion's answers beside the challengers'."""
    chosen = {name: reading.query.get("of" if name == "model" else name, "") for name in FILTERS}
    query = {name: value for name, value in chosen.items() if value}
    if reading.query.get("before"):
        query["before"] = reading.query["before"]
    document = await reading.maybe(f"/v1/records?limit=30&pairs=true&{urlencode(query)}")
    return "requests.html", {
        "chosen": chosen,
        "records": document.get("records", []),
        "following": document.get("next"),
        "arms": sorted(arm["arm"] for arm in reading.arms.get("arms", ())),
    }


async def system(reading: Reading) -> tuple[str, dict[str, Any]]:
    """The service itself."""
    if reading.of != "service":
        return _evaluator(reading)
    status = await reading.get("/v1/status")
    return "system.html", {"status": status, "channels": reading.findings.get("channels", [])}


async def archive(reading: Reading) -> tuple[str, dict[str, Any]]:
    """Ended experiments and closed findings."""
    ended, closed = await asyncio.gather(
        reading.maybe("/v1/experiments?ended=true"),
        reading.maybe("/v1/findings?state=closed&limit=100"),
    )
    return "archive.html", {
        "ended": ended.get("experiments", []),
        "closed": closed.get("findings", []),
    }


VIEWS: dict[str, View] = {
    "overview": overview,
    "model": model,
    "finding": finding,
    "incident": incident,
    "experiment": experiment,
    "requests": requests,
    "system": system,
    "archive": archive,
}
