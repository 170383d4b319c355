"""Writes ``docs/commands.md`` from the commands themselves, and ``docs/runbooks.md`` from the runbooks.

The entries are what ``--help`` prints, as tables: usage, meaning, examples, arguments and options.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import click

from understudy.monitor.cli.exit_codes import GENERAL, SPECIAL
from understudy.monitor.cli.main import COMMANDS, main
from understudy.monitor.slo.catalogue import installation_alerts, service_alerts
from understudy.monitor.slo.rules import ALERT
from understudy.monitor.slo.scope import Scope

ROOT = Path(__file__).resolve().parent.parent
RUNBOOKS = ROOT / "docs" / "runbooks"
INTRODUCTION = """\
<!-- Written by `make docs` from the commands' own help; change that instead. -->
# Commands

Every command has `--help`, with examples. For the files that they read, see [configuration](configuration.md),
[experiments](experiments.md), [gate](gate.md) and [SLOs](slo.md); for numbers, [units](units.md).

`man understudy` prints all of this on a terminal: the man page is part of the package.

## Completion by Tab

```sh
understudy completion --install
```

writes the script for the shell in `$SHELL` (bash, zsh or fish) to the home folder and loads it from `.bashrc` or
`.zshrc`; fish finds it by itself. `understudy completion zsh` prints it, for packages and other places.

## Live views

`understudy top`, `understudy experiment watch` and `understudy findings watch` refresh on a terminal of any size from
60 columns. Arrows, `j` and `k` scroll by a line, space and `b` by a page, `g` and `G` go to the start and the end, `q`
or Ctrl-C ends. Where the output is not a terminal, or with `--once`, they print one frame. Tables that are wider than
the terminal are printed as blocks, one for each row; set `COLUMNS` for the width of files and pipes (120). `NO_COLOR`
turns colours off.

## JSON

`--json` means the same everywhere: standard output has one JSON document and nothing else, also when the exit code is
not 0. Streams (`experiment watch`, `findings watch`, `records show`, `try`) are JSON lines: one document in each line. Notes
and errors go to standard error. When a command fails before there is a result, standard output is empty. `serve` and
`evaluate` print no result; `--log-format json` makes their log JSON lines.

## All commands

| command | purpose |
| --- | --- |
"""
RUNBOOKS_INTRODUCTION = """\
<!-- Written by `make docs` from the pages in docs/runbooks; change these instead. -->
# Runbooks

One page for each alert that Understudy generates: what it means, what to check, what to do, how to silence it.
Alerts link to their page by the annotation `runbook_url`; [SLOs and alerts](slo.md#other-alerts) says how to
use your own pages instead.
"""


def commands() -> str:
    """The text of ``docs/commands.md``."""
    lines = [
        f"| [`understudy {one.name}`](#understudy-{one.name}) | {_cell(one.help)} |"
        for one in COMMANDS
    ]
    lines += ["", "## Exit codes", "", *_exit_codes()]
    context = click.Context(main, info_name="understudy")
    for entry in COMMANDS:
        command = main.get_command(context, entry.name)
        assert command is not None, entry.name
        lines += ["", *_section(command, context, entry.name, 2)]
    return INTRODUCTION + re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).rstrip("\n") + "\n"


def _exit_codes() -> Iterator[str]:
    yield "| command | code | meaning |"
    yield "| --- | --- | --- |"
    for code, text in GENERAL.items():
        yield f"| any | {code} | {_cell(text)} |"
    for name, codes in sorted(SPECIAL.items()):
        for code, text in sorted(codes.items()):
            yield f"| `{name}` | {code} | {_cell(text)} |"


def _section(command: click.Command, parent: click.Context, name: str, level: int) -> Iterator[str]:
    context = click.Context(command, info_name=name, parent=parent)
    text, _, examples = inspect.cleandoc(command.help or "").partition("\n\b\nExample")
    yield f"{'#' * level} `{context.command_path}`"
    yield ""
    yield from _paragraphs(text)
    if not isinstance(command, click.Group) or command.invoke_without_command:
        yield f"Usage: `{context.command_path} {' '.join(command.collect_usage_pieces(context))}`"
        yield ""
    example_lines = [line.strip() for line in examples.splitlines()[1:] if line.strip()]
    if example_lines:
        yield "```text"
        yield from example_lines
        yield "```"
        yield ""
    rows = [_option(one, context) for one in command.params]
    rows = [row for row in rows if row]
    if rows:
        yield "| option | meaning |"
        yield "| --- | --- |"
        yield from rows
        yield ""
    if isinstance(command, click.Group):
        for inner in command.list_commands(context):
            found = command.get_command(context, inner)
            if found is not None and not found.hidden:
                yield from _section(found, context, inner, level + 1)


def _paragraphs(text: str) -> Iterator[str]:
    """Paragraphs in one line each; those after a ``\\b`` keep their lines."""
    for paragraph in text.strip().split("\n\n"):
        if not paragraph.strip():
            continue
        if paragraph.startswith("\b\n"):
            yield "```text"
            yield paragraph.removeprefix("\b\n")
            yield "```"
        else:
            yield _plain(" ".join(paragraph.split()))
        yield ""


def _option(parameter: click.Parameter, context: click.Context) -> str:
    if not isinstance(parameter, click.Option) or parameter.hidden:
        return ""
    record = parameter.get_help_record(context)
    if record is None:
        return ""
    names, text = record
    return f"| `{names.replace('|', '/')}` | {_cell(' '.join(text.split()))} |"


def _plain(text: str) -> str:
    """Text of a help as Markdown: nothing in it is markup but code in backticks."""
    parts = text.split("`")
    return "`".join(
        part if number % 2 else re.sub(r"([<>*_\[\]])", r"\\\1", part)
        for number, part in enumerate(parts)
    )


def _cell(text: str) -> str:
    return _plain(text).replace("|", "\\|")


def _joined(text: str) -> str:
    """A page with each paragraph in one line."""
    return "\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))


def runbooks() -> str:
    """The text of ``docs/runbooks.md``."""
    scope = Scope()
    service = {alert.name for alert in service_alerts(scope)}
    installation = {alert.name for alert in installation_alerts(scope)}
    pages = {path.stem: path.read_text(encoding="utf-8") for path in RUNBOOKS.glob("*.md")}
    lines = [RUNBOOKS_INTRODUCTION.rstrip("\n")]
    for title, names in (
        ("Objectives", {ALERT}),
        ("Models, findings and experiments", service),
        ("Sidecars, evaluators and Kafka", installation),
    ):
        lines += ["", f"## {title}", "", "| alert | fires |", "| --- | --- |"]
        for name in sorted(names):
            found = re.search(
                r"^\*\*(.*?)\*\* (when .*?)(?:[.;:](?= |$)|$)", _joined(pages[name]), re.M
            )
            assert found is not None, name
            text = f"{found[1].lower()} {found[2]}".replace("|", "\\|")
            lines.append(f"| [{name}](runbooks/{name}.md) | {text} |")
    return "\n".join(lines) + "\n"
