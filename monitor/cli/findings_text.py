"""Renders findings for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from understudy.common.screen import Group, Padding, RenderableType, Table, Text
from understudy.common.units import percent
from understudy.monitor.findings import words
from understudy.monitor.findings.finding import Size

_STYLES = {"critical": "bold red", "warning": "yellow", "info": "cyan"}


def table(found: Mapping[str, Any]) -> RenderableType:
    """One line for each finding of the API's list, and how many are open."""
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("id", "severity", "state", "age", "about", "finding"):
        made.add_column(name, wraps=name == "finding")
    for one in found["findings"]:
        about = ", ".join(part for part in (one["model"], one["segment"]) if part)
        made.add_row(
            one["id"],
            Text(one["severity"], style=_STYLES[one["severity"]]),
            _state(one),
            words.span(one["age_seconds"]),
            Text(about),
            Text(one["title"]),
        )
    counts = ", ".join(f"{n} {name}" for name, n in found["open"].items() if n)
    foot = Text(f"open: {counts}" if counts else "nothing is open", style="dim")
    troubles = [
        Text(f"channel {one['name']}: {one['error']}", style="red")
        for one in found["channels"]
        if one["error"]
    ]
    troubles += not_tested(found)
    return Group(made, foot, *troubles) if found["findings"] else Group(foot, *troubles)


def not_tested(document: Mapping[str, Any]) -> list[Text]:
    """One line for each check that is declared and not tested, with the reason."""
    return [
        Text(f"not tested{_of(one['model'])}: {one['words']}", style="yellow")
        for one in document.get("not_tested", ())
    ]


def _of(model: str) -> str:
    return f" ({model})" if model else ""


def incident_table(incidents: Sequence[Mapping[str, Any]]) -> RenderableType:
    """A headline for each incident, and a line for each of its findings."""
    parts: list[RenderableType] = []
    for one in incidents:
        parts.append(_incident_head(one))
        parts.append(Padding(_incident_findings(one), (0, 0, 1, 2)))
    return Group(*parts)


def incident_page(one: Mapping[str, Any]) -> RenderableType:
    """An incident with all details of its findings."""
    parts: list[RenderableType] = [_incident_head(one), Text("")]
    for finding in one["findings"]:
        parts.append(Padding(page(finding), (0, 0, 1, 2)))
    return Group(*parts)


def _incident_head(one: Mapping[str, Any]) -> RenderableType:
    state = ", ".join([one["state"], *(["acknowledged"] if one["acknowledged"] else [])])
    about = ", ".join(part for part in (one["model"], one["version"]) if part)
    began = f", since about {one['since_at']}" if one["since_at"] else ""
    span = words.span(one["age_seconds"])
    return Group(
        Text.assemble((one["severity"], _STYLES[one["severity"]]), "  ", (one["headline"], "bold")),
        Text(f"{one['id']}: {state}, {about}, for {span}{began}", "dim"),
    )


def _incident_findings(one: Mapping[str, Any]) -> Table:
    made = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for wraps in (False, False, False, True):
        made.add_column(wraps=wraps)
    for finding in one["findings"]:
        severity = Text(finding["severity"], style=_STYLES[finding["severity"]])
        made.add_row(finding["id"], severity, _state(finding), Text(finding["title"]))
    return made


def _state(one: Mapping[str, Any]) -> str:
    more = [name for name in ("acknowledged", "silent") if one[name] and one["state"] == "open"]
    return ", ".join([one["state"], *more])


def page(one: Mapping[str, Any]) -> RenderableType:
    """All details of one finding, most important first."""
    parts: list[RenderableType] = [
        Text.assemble((one["severity"], _STYLES[one["severity"]]), "  ", (one["title"], "bold"))
    ]
    parts.append(_facts(one))
    if one["features"]:
        parts += [Text("Features, the most telling first", style="bold"), _features(one)]
    for title, text in (
        ("What to look at next", one["advice"]),
        ("Rule", one["rule"]),
        ("Guarantee", one["guarantee"]),
        ("Assumed", "; ".join(one["assumptions"])),
        ("Example requests", ", ".join(one["examples"])),
    ):
        if text:
            parts += [Text(title, style="bold"), Padding(Text(text), (0, 0, 0, 2))]
    if one["notes"]:
        parts.append(Text("Notes", style="bold"))
        for note in one["notes"]:
            line = f"{words.moment(note['at'])}  {note['who']}: {note['what']}"
            parts.append(Padding(Text(line + (f", {note['why']}" if note["why"] else "")), (0, 2)))
    return Group(*parts)


def _facts(one: Mapping[str, Any]) -> Table:
    facts = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 2))
    facts.add_column(style="dim")
    facts.add_column(wraps=True)
    about = [one["model"], f"version {one['version']}" if one["version"] else "", one["segment"]]
    rows = [
        ("finding", f"{one['id']}  ({one['kind']}, {_state(one)})"),
        ("about", ", ".join(part for part in about if part)),
        ("since about", one["since_at"] or "unknown"),
        ("opened", f"{one['opened_at']}, for {words.span(one['age_seconds'])}"),
        ("size", words.size(Size.from_dict(one["size"])) if one["size"] else ""),
        ("last change", f"{one['event']}: {one['change']}" if one["change"] else one["event"]),
        ("came back", f"{one['reopened']} times" if one["reopened"] else ""),
        ("key", one["key"]),
    ]
    for name, text in rows:
        if text:
            facts.add_row(name, Text(text))
    return facts


def _features(one: Mapping[str, Any]) -> Table:
    made = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 2))
    for wraps in (False, False, False, True):
        made.add_column(wraps=wraps)
    for item in one["features"]:
        bar = "█" * max(1, round(item["share"] * 20))
        made.add_row(Text(item["name"]), percent(item["share"], 2), bar, Text(item["detail"]))
    return made
