"""User-facing text is plain English: it has none of the phrases that readers stumbled over.

``FORBIDDEN`` is the one list; add a phrase with what to write instead. ``SOURCES`` lists the product
code whose strings, docstrings and comments are checked as well.
"""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from understudy.loadtest.gate.cli import gate
from understudy.monitor.cli.main import main
from understudy.monitor.slo.catalogue import alerts_of
from understudy.monitor.slo.scope import Scope

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
    *sorted((ROOT / "loadtest").rglob("*.py")),
    *sorted((ROOT / "tools").rglob("*.py")),
    *sorted((ROOT / "examples").rglob("*.py")),
    *sorted((ROOT / "deploy").rglob("*.py")),
    *sorted((ROOT / "understudy" / "common").glob("*.py")),
]

SOURCES = sorted(
    path
    for package in (
        "cli",
        "codecs",
        "config",
        "evidence",
        "experiments",
        "inject",
        "labels",
        "proxy",
        "routing",
        "slo",
        "stats",
    )
    for path in (ROOT / "monitor" / package).rglob("*.py")
) + sorted((ROOT / "monitor").glob("*.py"))

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


def _words(source: Path) -> Iterator[str]:
    """Forbidden phrases in strings and comments, each with the line on which its text begins."""
    with tokenize.open(source) as file:
        text = file.read()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in (tokenize.STRING, tokenize.COMMENT):
            yield from (f"{token.start[0]}: {phrase}" for phrase in found_in(token.string))


def test_sources_are_plain_english() -> None:
    assert len(SOURCES) > 100
    found = {str(source.relative_to(ROOT)): [*_words(source)] for source in SOURCES}
    assert {name: phrases for name, phrases in found.items() if phrases} == {}


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
    for alert in alerts_of(Scope()):
        assert found_in(f"{alert.summary}\n{alert.description}") == [], alert.name


_TEXT = {
    tokenize.COMMENT,
    tokenize.STRING,
    getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING),  # Python 3.12 and later
}


def _texts(source: str) -> str:
    """The comments and strings of a module; everything else is blank, so lines keep their number."""
    lines = [""] * (source.count("\n") + 2)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in _TEXT:
            for offset, part in enumerate(token.string.split("\n")):
                lines[token.start[0] - 1 + offset] += f" {part}"
    return "\n".join(lines)


def test_texts_of_a_module_are_its_comments_and_strings() -> None:
    source = 'anew = nobody  # whoever reads\ntext = f"mended {path}"\n"""begins\nanew"""\n'
    assert [hit.partition(":")[0] for hit in found_in(_texts(source))] == [
        "line 1",
        "line 2",
        "line 4",
    ]


@pytest.mark.parametrize("module", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_strings_and_comments_are_plain_english(module: Path) -> None:
    assert found_in(_texts(module.read_text("utf-8"))) == []
