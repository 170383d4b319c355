"""User-facing text is plain English: it has none of the phrases that readers stumbled over.

``FORBIDDEN`` is the one list; add a phrase with what to write instead.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from understudy.loadtest.gate.cli import gate
from understudy.monitor.cli.main import main
from understudy.monitor.slo.catalogue import alerts_of

ROOT = Path(__file__).resolve().parents[2]

FORBIDDEN = {
    r"anew": "again; restart",
    r"whoever": "name the actor",
    r"nobody": "no client, no worker …: name the actor",
    r"somebody (?:else|has to|must)": "name the actor",
    r"(?<!there )(?:is|are) no (?!longer\b)[a-z]+": "is not a …; there is no …",
    r"(?:is|are) said": "each … lists, reports, states",
    r"(?:nothing|what) is said": "no verdict; name what is reported",
    r"mend(?:s|ed|ing)?": "fix",
    r"of (?:one's own|(?:its|their|our) own(?=[.,;:)]))": "custom, separate",
    r"copies of requests|request copies|gets? (?:no )?copies": "mirrored requests",
    r"stands? twice": "duplicate",
    r"again and again": "repeatedly",
    r"any more": "no longer; write the present state",
    r"rests? (?:up)?on": "depends on, is based on",
    r"is asked nothing": "receives no traffic",
}
_FORBIDDEN = re.compile("|".join(rf"\b(?:{phrase})\b" for phrase in FORBIDDEN), re.IGNORECASE)

CHART = ROOT / "helm" / "understudy"
PAGES = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    ROOT / "docs" / "understudy.yaml",
    *sorted((ROOT / "examples").rglob("README.md")),
    CHART / "README.md",
    CHART / "README.head.md",
    CHART / "templates" / "NOTES.txt",
    CHART / "values.yaml",
    CHART / "charts" / "understudy-lib" / "values.yaml",
]

SOURCES = [
    source
    for package in (
        "monitor/baseline",
        "monitor/detectors",
        "monitor/findings",
        "monitor/health",
        "shadow",
    )
    for source in sorted((ROOT / package).rglob("*.py"))
    if source.name not in ("corroborate.py", "notify.py")
]
"""Packages whose docstrings, comments and messages are plain English as well."""


def found_in(text: str) -> list[str]:
    """Forbidden phrases of a text, each with its line. Words may be on two lines."""
    joined = re.sub(r"\n[ \t#>*-]*", lambda match: "\n" + " " * (len(match[0]) - 1), text)
    matches = _FORBIDDEN.finditer(re.sub(r"\s", " ", joined))
    return [f"line {text.count(chr(10), 0, match.start()) + 1}: {match[0]!r}" for match in matches]


def test_the_list_finds_what_it_forbids() -> None:
    text = (
        "a\nthe fault is no\ndrift, and is said anew by whoever\nhas a way of one's own to mend it"
    )
    assert len(found_in(text)) == 6
    assert found_in("there is no\n  traffic; this is no longer true") == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_pages_are_plain_english(page: Path) -> None:
    assert found_in(page.read_text("utf-8")) == []


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: str(source.relative_to(ROOT)))
def test_sources_are_plain_english(source: Path) -> None:
    assert found_in(source.read_text("utf-8")) == []


def _helps(command: click.Command, name: str) -> Iterator[tuple[str, str]]:
    yield name, command.help or ""
    yield name, command.short_help or ""
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            yield f"{name} {parameter.opts[0]}", parameter.help or ""
    if isinstance(command, click.Group):
        context = click.Context(command)
        for inner in command.list_commands(context):
            found = command.get_command(context, inner)
            assert found is not None, inner
            yield from _helps(found, f"{name} {inner}")


def test_helps_are_plain_english() -> None:
    helps = [*_helps(main, "understudy"), *_helps(gate, "gate")]
    assert len(helps) > 100
    assert {name: words for name, text in helps if (words := found_in(text))} == {}


def test_alerts_are_plain_english() -> None:
    for alert in alerts_of({}):
        assert found_in(f"{alert.summary}\n{alert.description}") == [], alert.name
