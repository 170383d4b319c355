"""Tables and progress bars on a terminal. Imports rich: commands import this when they draw."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table


def console() -> Console:
    """A console, 120 columns wide when standard output is not a terminal."""
    return Console(width=None if sys.stdout.isatty() else 120)


def plain_table(*headers: str) -> Table:
    """A table without lines, with one column for each of ``headers``."""
    return Table(*headers, box=None, pad_edge=False)


def progress_bar() -> Progress:
    """A transient progress bar on standard error; hidden when that is not a terminal."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    )
