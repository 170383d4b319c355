"""Printing on a terminal: all commands print through this module and :mod:`.screen`.

What they print holds texts of others (names of columns and models, categories, errors of peers), so
control characters are escaped here, in one place, and nothing is taken for markup.
"""

from __future__ import annotations

import click

from understudy.common.text import visible


def echo(line: str = "", err: bool = False) -> None:
    """Print one line, on standard error with ``err``; a line break in it is escaped as well."""
    click.echo(visible(line), err=err)


def echo_lines(text: str, err: bool = False, end: str = "\n") -> None:
    """Print a text of several lines, and ``end`` after it."""
    click.echo(visible(text, lines=True) + end, err=err, nl=False)
