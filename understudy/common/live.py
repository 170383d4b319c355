"""Live views on a terminal: they refresh, scroll by keys, and end with q.

Imports rich: import this when drawing.
"""

from __future__ import annotations

import os
import queue
import select
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from understudy.common.screen import (
    Console,
    ConsoleOptions,
    Live,
    RenderableType,
    RenderResult,
    Segment,
    Text,
)

Frame = Callable[[], tuple[RenderableType, bool]]
"""What to show now, and whether it is the last frame."""

_KEYS = {
    b"q": "quit", b"Q": "quit", b"\x03": "quit",
    b"j": "down", b"\x1b[B": "down", b"\x1bOB": "down", b"\r": "down", b"\n": "down",
    b"k": "up", b"\x1b[A": "up", b"\x1bOA": "up",
    b" ": "page down", b"f": "page down", b"\x1b[6~": "page down",
    b"b": "page up", b"\x1b[5~": "page up",
    b"g": "start", b"\x1b[H": "start", b"\x1b[1~": "start", b"\x1bOH": "start",
    b"G": "end", b"\x1b[F": "end", b"\x1b[4~": "end", b"\x1bOF": "end",
}  # fmt: skip
_LONGEST = max(map(len, _KEYS))
_SLICE_SECONDS = 0.25
"""Between two looks at the size of the terminal."""


def keys_in(data: bytes) -> Iterator[str]:
    """The known keys among the bytes of a terminal; the others are skipped."""
    while data:
        for length in range(min(_LONGEST, len(data)), 0, -1):
            if data[:length] in _KEYS:
                yield _KEYS[data[:length]]
                break
        else:
            length = 1
        data = data[length:]


class Window:
    """The part of a frame that the screen holds, and a last line that names the keys."""

    def __init__(self) -> None:
        self.frame: RenderableType = ""
        self._first = 0
        self._page = 1
        self._lines = 0

    def press(self, key: str) -> None:
        """Scroll."""
        page = max(1, self._page - 1)
        step = {"down": 1, "up": -1, "page down": page, "page up": -page}.get(key, 0)
        self._first = {"start": 0, "end": self._lines}.get(key, self._first + step)
        self._clamp()

    def _clamp(self) -> None:
        self._first = max(0, min(self._first, self._lines - self._page))

    def __rich_console__(self, console: Any, options: ConsoleOptions) -> RenderResult:
        height = options.height or console.height
        whole = options.update(height=None)
        lines = console.render_lines(self.frame, whole, pad=False)
        while lines and not any(segment.text.strip() for segment in lines[-1]):
            lines.pop()
        self._lines, self._page = len(lines), max(1, height - 1)
        self._clamp()
        shown = lines[self._first : self._first + self._page]
        for line in shown:
            yield from line
            yield Segment.line()
        for _ in range(self._page - len(shown)):
            yield Segment.line()
        foot = "q quit"
        if self._lines > self._page:
            last = self._first + len(shown)
            foot += f"   ↑ ↓ space b scroll   lines {self._first + 1}–{last} of {self._lines}"
        yield Text(foot, "reverse", no_wrap=True, overflow="ellipsis", end="")


@contextmanager
def _keyboard() -> Iterator[Callable[[float], list[str]]]:
    """A function that waits so many seconds for keys; without a terminal there are none."""
    try:
        at = sys.stdin.fileno()
    except (OSError, ValueError):
        at = -1
    if at < 0 or not os.isatty(at):
        yield _asleep
        return
    import termios
    import tty

    def wait(seconds: float) -> list[str]:
        ready, _, _ = select.select([at], [], [], seconds)
        return list(keys_in(os.read(at, 256))) if ready else []

    before = termios.tcgetattr(at)
    tty.setcbreak(at)
    try:
        yield wait
    finally:
        termios.tcsetattr(at, termios.TCSADRAIN, before)


def _asleep(seconds: float) -> list[str]:
    time.sleep(seconds)
    return []


class _Fetching:
    """Asks for the next frame in a thread, so that keys work while a service does not answer."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame
        self._found: queue.Queue[tuple[RenderableType, bool] | BaseException] = queue.Queue()
        self.pending = False

    def start(self) -> None:
        """Ask, unless an answer is awaited already."""
        if not self.pending:
            self.pending = True
            threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        try:
            self._found.put(self._frame())
        except BaseException as error:  # raised where it can be seen
            self._found.put(error)

    def take(self) -> tuple[RenderableType, bool] | None:
        """The frame, if it has come. Raises what the function has raised."""
        try:
            found = self._found.get_nowait()
        except queue.Empty:
            return None
        self.pending = False
        if isinstance(found, BaseException):
            raise found
        return found


def show(frame: Frame, interval: float, console: Console, *, once: bool = False) -> None:
    """Show frames every ``interval`` seconds until the last one, q or Ctrl-C.

    The last frame stays on the screen. With ``once``, the first one is printed; where the output is
    not a terminal, only the last one is.
    """
    if once or not console.is_terminal or console.is_dumb_terminal:
        shown, over = frame()
        while not (once or over):
            time.sleep(interval)
            shown, over = frame()
        console.print(shown)
        return
    try:
        last = _live(frame, interval, console)
    except KeyboardInterrupt:
        return
    if last is not None:
        console.print(last)


def _live(frame: Frame, interval: float, console: Console) -> RenderableType | None:
    """The last frame, or None when the user has ended it."""
    window = Window()
    window.frame, over = frame()
    if over:
        return window.frame
    fetching = _Fetching(frame)
    size = console.size
    due = time.monotonic() + interval
    with (
        _keyboard() as wait,
        Live(window, console=console, screen=True, auto_refresh=False) as live,
    ):
        live.refresh()
        while True:
            left = max(0.0, due - time.monotonic())
            changed = False
            for key in wait(min(_SLICE_SECONDS, left or 0.05)):
                if key == "quit":
                    return None
                window.press(key)
                changed = True
            if time.monotonic() >= due:
                fetching.start()
            found = fetching.take()
            if found is not None:
                window.frame, over = found
                if over:
                    return window.frame
                due = time.monotonic() + interval
                changed = True
            if changed or console.size != size:
                size = console.size
                live.refresh()
