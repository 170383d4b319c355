"""Every command of ``understudy``, and the command lines of its help."""

from __future__ import annotations

import inspect
import shlex
from collections.abc import Iterator

import click

from understudy.monitor.cli.main import COMMANDS, main


def walk(command: click.Command = main, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The path of every command and group."""
    yield path
    if isinstance(command, click.Group):
        context = click.Context(command)
        names = [c.name for c in COMMANDS] if command is main else command.list_commands(context)
        for name in names:
            inner = command.get_command(context, name)
            assert inner is not None, name
            yield from walk(inner, (*path, name))


def find(path: tuple[str, ...]) -> click.Command:
    command: click.Command = main
    for name in path:
        assert isinstance(command, click.Group)
        found = command.get_command(click.Context(command), name)
        assert found is not None
        command = found
    return command


PATHS = list(walk())


def examples(command: click.Command) -> list[list[str]]:
    """The command lines of a help, as words: what a shell would give to ``understudy``."""
    _, _, text = inspect.cleandoc(command.help or "").partition("\b\nExample")
    found = []
    for line in text.splitlines():
        if line.strip().startswith("understudy "):
            words = shlex.split(line)
            ends = [words.index(mark) for mark in ("|", ">") if mark in words]
            found.append(words[: min(ends, default=len(words))])
    return found


def parse(words: list[str]) -> click.Context:
    """Parse a command line down to the command that would run, and run nothing."""
    command: click.Command = main
    context: click.Context | None = None
    while True:
        context = command.make_context(words[0], words[1:], parent=context)
        rest = [*context._protected_args, *context.args]
        if not isinstance(command, click.Group) or not rest:
            return context
        name, inner, rest = command.resolve_command(context, rest)
        assert inner is not None
        assert name is not None
        command, words = inner, [name, *rest]
