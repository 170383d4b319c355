"""What the demo tells: on one screen of a terminal, or as one line per event."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from textwrap import wrap
from typing import TYPE_CHECKING, Any, Literal

from understudy.common.terminal import echo
from understudy.common.units import percent, spoken

if TYPE_CHECKING:
    from understudy.common.screen import RenderableType, Table

Kind = Literal["demo", "understudy", "note"]
"""What the demo does, what Understudy says, and what explains either."""
_STYLES: dict[Kind, str] = {"demo": "bold", "understudy": "cyan", "note": "dim"}
_MARKS: dict[Kind, str] = {"demo": "▸", "understudy": "●", "note": " "}
_SPEAKERS: dict[Kind, str] = {"demo": "", "understudy": "Understudy: ", "note": ""}
_TONES = {"good": "bold green", "bad": "bold red", "neutral": "bold yellow"}
LEAST_WIDTH, LEAST_HEIGHT = 80, 24


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened ``at`` seconds from the start; ``after`` is the time in seconds since
    its cause, if it has one. ``tone`` is that of a verdict: good, bad or neutral."""

    at: float
    kind: Kind
    text: str
    after: float | None = None
    tone: str = ""

    @property
    def whole(self) -> str:
        """The text, with the time since the cause."""
        since = f" ({self.after:.1f} s after)" if self.after is not None else ""
        return f"{_SPEAKERS[self.kind]}{self.text}{since}"

    def lines(self, width: int = 0) -> list[str]:
        """The event as lines of at most ``width`` columns; as one line with 0."""
        head = f"{clock(self.at):>5} {_MARKS[self.kind]} "
        if not width:
            return [head + self.whole]
        parts = wrap(self.whole, width - len(head)) or [""]
        return [(" " * len(head) if place else head) + part for place, part in enumerate(parts)]

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {"at": round(self.at, 2), "kind": self.kind, "text": self.text, "after": self.after}


class Story:
    """Collects events; draws them on a terminal, or prints each as a line to standard output, or to
    standard error with ``err``."""

    def __init__(self, scenario: str, *, screen: bool, err: bool = False) -> None:
        self.scenario = scenario
        self.events: list[Event] = []
        self.figures: list[dict[str, str]] = []
        """A row for the clients and for each arm, as texts."""
        self.places: list[tuple[str, str]] = []
        """Where to look: a name and an address."""
        self.ending = "Ctrl-C ends"
        self._started = time.monotonic()
        self._err = err
        self._draw: Callable[[], None] = lambda: None
        self._close: Callable[[], None] = lambda: None
        self.on_screen = screen

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self._started

    def open(self) -> None:
        """Begin to draw, on a terminal."""
        if not self.on_screen:
            return
        from understudy.common.screen import Live, console

        live = Live(console=console(stderr=self._err), auto_refresh=False, transient=True)
        live.start()
        self._draw = lambda: live.update(
            self.view(live.console.width, live.console.height), refresh=True
        )
        self._close = live.stop
        self.draw()

    def close(self) -> None:
        """End the view; what is printed after it stays."""
        self._close()
        self._draw = self._close = lambda: None

    def draw(self) -> None:
        """Refresh the view."""
        self._draw()

    def demo(self, text: str) -> float:
        """The demo does something; returns the time, for :meth:`says`."""
        return self._add("demo", text)

    def says(self, text: str, since: float | None = None, tone: str = "") -> None:
        """Understudy says something; ``since`` is the time of its cause, from :meth:`demo`."""
        after = None if since is None else max(0.0, self.seconds - since)
        self._add("understudy", text, after, tone)

    def note(self, text: str) -> None:
        """What explains an event."""
        self._add("note", text)

    def _add(self, kind: Kind, text: str, after: float | None = None, tone: str = "") -> float:
        event = Event(self.seconds, kind, text, after, tone)
        self.events.append(event)
        if self.on_screen:
            self.draw()
        else:
            self.print(event)
        return event.at

    def print(self, event: Event) -> None:
        """Print an event: folded to the width of a terminal, as one line elsewhere."""
        width = shutil.get_terminal_size().columns - 1 if self.on_screen else 0
        for line in event.lines(width):
            echo(line, err=self._err)

    def view(self, width: int, height: int) -> RenderableType:
        """The screen: the title, the figures, the latest events that fit, and where to look."""
        from understudy.common.screen import Group, Text

        width, height = max(40, width), max(12, height - 1)
        title = f" Understudy demo: {self.scenario}"
        line = Text(title.ljust(width - 7) + f"{clock(self.seconds):>6} ", "bold reverse")
        foot = [
            Text.assemble((f" {name:<17}", "dim"), address, no_wrap=True, overflow="ellipsis")
            for name, address in self.places
        ]
        foot.append(Text(f" {self.ending}", "dim"))
        room = max(3, height - 3 - len(self.figures) - len(foot))
        told = self._told(width, room)
        space = [Text("")] * (room - len(told))
        return Group(line, self._table(), Text(""), *told, *space, *foot)

    def _table(self) -> Table:
        from understudy.common.screen import Table, Text

        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 1), header_style="dim")
        names = list(self.figures[0]) if self.figures else []
        for name in names:
            table.add_column(
                name, justify="left" if name in ("", "does") else "right", no_wrap=True
            )
        for row in self.figures:
            bad = row.get("errors", "").split(" ")[0] not in ("0", "0.0", "", "–")
            style = {"errors": "red" if bad else "green", "": "bold"}
            table.add_row(*(Text(row[name], style.get(name, "")) for name in names))
        return table

    def _told(self, width: int, room: int) -> list[Any]:
        """The latest events as lines, oldest first."""
        from understudy.common.screen import Text

        lines: list[Text] = []
        for event in reversed(self.events):
            style = _TONES.get(event.tone, _STYLES[event.kind])
            block = [Text(line, style) for line in event.lines(width - 1)]
            if len(lines) + len(block) > room:
                break
            lines = block + lines
        return lines


def clock(seconds: float) -> str:
    """``1:05`` of 65 seconds."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def share(part: float, whole: float) -> str:
    """``9.8 %``; a dash when there is nothing to divide by."""
    return percent(part / whole, 3) if whole else "–"


def duration(seconds: float | None) -> str:
    """In two significant digits; a dash for None."""
    return "–" if seconds is None else spoken(float(f"{seconds:.2g}"))
