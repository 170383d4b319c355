"""Tables, styled text and live views on a terminal. Imports rich: import this when drawing.

These are rich's own classes, except that no text is markup and control characters are escaped.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import Any

from rich.console import Console as _Console
from rich.console import ConsoleOptions, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.segment import Segment
from rich.style import Style
from rich.table import Table
from rich.text import Text as _Text

from understudy.common.text import visible

__all__ = [
    "Console",
    "Group",
    "Live",
    "Padding",
    "RenderableType",
    "Table",
    "Text",
    "console",
    "plain_table",
    "progress_bar",
]


class Text(_Text):
    """Text with styles; control characters in it are escaped."""

    def __init__(self, text: str = "", style: str | Style = "", **options: Any) -> None:
        super().__init__(visible(text), style, **options)

    def append(self, text: _Text | str, style: str | Style | None = None) -> Text:
        """Add ``text`` at the end."""
        super().append(visible(text) if isinstance(text, str) else text, style)
        return self

    @classmethod
    def assemble(cls, *parts: Any, **options: Any) -> Text:
        """Several parts in a row: strings, texts, and pairs of a string and its style."""
        text = cls(**options)
        for part in parts:
            text.append(*part) if isinstance(part, tuple) else text.append(part)
        return text


class Console(_Console):
    """A console that takes no text for markup, and escapes what is drawn however it came here."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, markup=False, emoji=False, highlight=False)

    def render_str(self, text: str, **options: Any) -> _Text:
        """Plain strings, as in the cells of a table."""
        return super().render_str(visible(text), **options)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """The last resort, for texts that were made by other means."""
        for segment in super().render(renderable, options):
            if segment.control or segment.text.isprintable():
                yield segment
            else:
                yield Segment(visible(segment.text, lines=True), segment.style)


def console(stderr: bool = False, width: int = 120) -> Console:
    """A console, ``width`` columns wide when it is not a terminal and COLUMNS is not set."""
    stream = sys.stderr if stderr else sys.stdout
    known = stream.isatty() or "COLUMNS" in os.environ
    return Console(stderr=stderr, width=None if known else width)


def plain_table(*headers: str) -> Table:
    """A table without lines, with one column for each of ``headers``."""
    return Table(*headers, box=None, pad_edge=False)


def progress_bar() -> Progress:
    """A transient progress bar on standard error; hidden when that is not a terminal."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %", markup=False),
        TimeRemainingColumn(),
        console=console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    )
