"""Writes the man page from the commands themselves."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path

import click

from understudy import __version__
from understudy.monitor.cli.exit_codes import GENERAL, SPECIAL
from understudy.monitor.cli.main import COMMANDS, main

ROOT = Path(__file__).resolve().parent.parent
MAN = ROOT / "understudy" / "common" / "understudy.1"


def walk(
    command: click.Command = main, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command that can be run, with its path."""
    if isinstance(command, click.Group):
        context = click.Context(command)
        if path and command.invoke_without_command:
            yield path, command
        names = (
            [one.name for one in COMMANDS] if command is main else command.list_commands(context)
        )
        for name in names:
            inner = command.get_command(context, name)
            assert inner is not None
            yield from walk(inner, (*path, name))
        return
    yield path, command


def _context(path: tuple[str, ...], command: click.Command) -> click.Context:
    context = click.Context(main, info_name="understudy", max_content_width=100)
    for name in path[:-1]:
        context = click.Context(click.Group(name), info_name=name, parent=context)
    return click.Context(command, info_name=path[-1], parent=context)


def _text(command: click.Command) -> tuple[list[str], list[str]]:
    """The paragraphs of a help, and its examples."""
    text, _, examples = inspect.cleandoc(command.help or "").partition("\b\n")
    lines = [line.strip() for line in examples.splitlines()[1:] if line.strip()]
    return [" ".join(part.split()) for part in text.strip().split("\n\n")], lines


def _options(path: tuple[str, ...], command: click.Command) -> Iterator[tuple[str, str]]:
    context = _context(path, command)
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if isinstance(parameter, click.Option) and record is not None and "--help" not in record[0]:
            yield record


def man() -> str:
    """The man page, as roff."""
    lines = [
        '.\\" Written by make docs.',
        f'.TH UNDERSTUDY 1 "" "understudy {__version__}" "User Commands"',
        ".SH NAME",
        "understudy \\- monitor a model in production, and learn whether a new one may replace it",
        ".SH SYNOPSIS",
        ".B understudy",
        "[\\fB\\-\\-version\\fR] [\\fB\\-\\-help\\fR] \\fICOMMAND\\fR [\\fIARGUMENTS\\fR]",
        ".SH COMMANDS",
    ]
    for path, command in walk():
        name = " ".join(path)
        paragraphs, examples = _text(command)
        usage = " ".join(command.collect_usage_pieces(_context(path, command)))
        lines += [f".SS {_roff(f'understudy {name} {usage}'.rstrip())}"]
        for text in paragraphs:
            lines += [".PP", _roff(text)]
        for option, text in _options(path, command):
            lines += [".TP", f"\\fB{_roff(option)}\\fR", _roff(" ".join(text.split()))]
        if examples:
            lines += [".PP", "Examples:", ".PP", ".nf", ".RS", *map(_roff, examples), ".RE", ".fi"]
    lines += [".SH EXIT STATUS"]
    for code, text in GENERAL.items():
        lines += [".TP", f"\\fB{code}\\fR", _roff(text)]
    for name, codes in sorted(SPECIAL.items()):
        for code, text in sorted(codes.items()):
            lines += [".TP", f"\\fB{code}\\fR ({_roff(name)})", _roff(text)]
    lines += [".SH ENVIRONMENT", ".TP", "\\fBUNDERSTUDY_TOKEN\\fR"]
    lines += ["The bearer token of calls to the control API, without \\-\\-token\\-file."]
    for name, meaning in (("NO_COLOR", "Turns colours off."), ("COLUMNS", "The width of tables.")):
        lines += [".TP", f"\\fB{name}\\fR", meaning]
    return "\n".join(lines) + "\n"


def _roff(text: str) -> str:
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{text}" if text.startswith((".", "'")) else text
