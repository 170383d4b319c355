"""Tables, styled text and live views on a terminal. Imports rich: import this when drawing.

These are rich's own classes, except that no text is markup and control characters are escaped.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from rich.console import Console as _Console
from rich.console import ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.padding import Padding
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.segment import Segment
from rich.style import Style
from rich.table import Table as _Table
from rich.text import Text as _Text

from understudy.common.text import visible

__all__ = [
    "Console",
    "ConsoleOptions",
    "Group",
    "Live",
    "Padding",
    "RenderResult",
    "RenderableType",
    "Segment",
    "Table",
    "Text",
    "console",
    "plain_table",
    "progress_bar",
    "shortened",
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


_NARROWEST = 24
"""Columns for a text that wraps, at least: fewer cut it into syllables."""


class Table(_Table):
    """A table whose cells stay whole.

    Columns do not wrap, but for those that are added with ``wraps`` (sentences, at words). Where
    the table is wider than the screen, each row is written as a block instead: its first cell, then
    the others with their headers.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._wrapping: list[bool] = []

    def add_column(self, header: Any = "", *args: Any, wraps: bool = False, **options: Any) -> None:
        """Add a column; ``wraps``: its cells are sentences that may take several lines."""
        self._wrapping.append(wraps)
        options.setdefault("no_wrap", not wraps)
        super().add_column(header, *args, **options)

    def fits(self, console: _Console, width: int) -> bool:
        """Whether every cell that does not wrap is whole within ``width``, and texts have room."""
        widest = console.options.update(width=10_000, height=None)
        needed = self._extra_width
        for column, wraps in zip(self.columns, self._wrapping, strict=True):
            measured = self._measure_column(console, widest, column)
            enough = max(measured.minimum, min(_NARROWEST, measured.maximum))
            needed += enough if wraps else measured.maximum
        return needed <= width

    def __rich_console__(self, console: _Console, options: ConsoleOptions) -> RenderResult:
        if not self.columns or self.fits(console, options.max_width):
            yield from super().__rich_console__(console, options)
        else:
            yield from self._blocks(console, options.max_width)

    def _blocks(self, console: _Console, width: int) -> Iterator[RenderableType]:
        if self.title:
            yield _Text(str(self.title), "bold")
        headers = [str(column.header) for column in self.columns]
        for cells in zip(*(column.cells for column in self.columns), strict=True):
            texts = [
                cell if isinstance(cell, _Text) else console.render_str(str(cell)) for cell in cells
            ]
            first, *rest = zip(headers, texts, self._wrapping, strict=True)
            title = first[1].copy()
            title.stylize("bold")
            title.no_wrap = False
            yield title
            yield from _packed(rest, width)
        if self.caption:
            yield _Text(str(self.caption), "italic")


def _packed(
    items: Iterable[tuple[str, _Text, bool]], width: int, indent: str = "  "
) -> Iterator[RenderableType]:
    """Headers and cells side by side, as many as a line holds; sentences on lines of their own."""
    line = _Text()
    for header, text, wraps in items:
        if not text.plain.strip():
            continue
        item = _Text.assemble((f"{header} " if header else "", "dim"), text)
        if line.plain and (wraps or line.cell_len + 3 + item.cell_len > width - len(indent)):
            yield Padding(line, (0, 0, 0, len(indent)), expand=False)
            line = _Text()
        if wraps:
            yield Padding(item, (0, 0, 0, len(indent)), expand=False)
            continue
        line = _Text.assemble(line, "   ", item) if line.plain else item
    if line.plain:
        yield Padding(line, (0, 0, 0, len(indent)), expand=False)


def plain_table(*headers: str, wraps: Sequence[str] = ()) -> Table:
    """A table without lines, with one column for each of ``headers``; those of ``wraps`` hold
    sentences."""
    table = Table(box=None, pad_edge=False)
    for header in headers:
        table.add_column(header, wraps=header in wraps)
    return table


def shortened(name: str, width: int) -> str:
    """A name of at most ``width`` characters: the middle gives way, since names differ at ends."""
    if len(name) <= width:
        return name
    tail = (width - 1) // 2
    return f"{name[: width - 1 - tail]}…{name[len(name) - tail :]}"


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
