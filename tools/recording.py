"""Records ``understudy demo`` for the documentation: ``python -m tools.recording`` (or ``make recording``).

Writes the terminal of 80 × 24 as text with times (asciicast v2, which ``asciinema play`` shows) to
``docs/recordings/demo.cast``, and a picture of the console, taken while the demo runs, to
``docs/images/page.png``. The picture needs Chromium (`make parts`).
"""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path

import pyte

from tools.parts.debian import environment, find

ROOT = Path(__file__).resolve().parent.parent
CAST = ROOT / "docs" / "recordings" / "demo.cast"
IMAGES = ROOT / "docs" / "images"
COLUMNS, ROWS = 80, 24
LONGEST_PAUSE = 2.0
"""Seconds without a change that a viewer has to sit through."""
FRAME = 0.25
"""Seconds between two frames, at least."""
MOMENT = "serves 50 %"
"""What the demo says when the picture is taken: traffic is split, and a candidate was rolled back."""
_COLOURS = ("black", "red", "green", "brown", "blue", "magenta", "cyan", "white")


class Screen:
    """What a terminal shows, and what of it has changed."""

    def __init__(self) -> None:
        self.screen = pyte.Screen(COLUMNS, ROWS)
        self.stream = pyte.ByteStream(self.screen)
        self._shown = [""] * ROWS

    def changes(self) -> str:
        """What a terminal has to be sent for the lines that have changed since the last call."""
        rows = [self._row(row) for row in range(ROWS)]
        changed = [
            f"\x1b[{row + 1};1H{text}\x1b[0m\x1b[K"
            for row, (text, shown) in enumerate(zip(rows, self._shown, strict=True))
            if text != shown
        ]
        self._shown = rows
        return "".join(changed)

    def _row(self, row: int) -> str:
        """A line with its colours, without spaces at its end."""
        text, style = "", "0"
        for column in range(COLUMNS):
            cell = self.screen.buffer[row][column]
            codes = ["0", *(["1"] if cell.bold else []), *(["3"] if cell.italics else [])]
            bright = cell.fg.startswith("bright")
            name = cell.fg.removeprefix("bright")
            if name in _COLOURS:
                codes.append(str((90 if bright else 30) + _COLOURS.index(name)))
            if ";".join(codes) != style and cell.data.strip():
                style = ";".join(codes)
                text += f"\x1b[{style}m"
            text += cell.data
        return text.rstrip()


def record(command: list[str], camera: Camera) -> list[str]:
    """Run a command in a terminal; the lines of an asciicast v2. Raises RuntimeError if it fails."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    process = subprocess.Popen(
        command, stdin=follower, stdout=follower, stderr=follower, start_new_session=True,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": str(COLUMNS), "LINES": str(ROWS)},
    )  # fmt: skip
    os.close(follower)
    screen, lines, clock, last = Screen(), [], 0.0, time.monotonic()
    try:
        while True:
            try:
                screen.stream.feed(os.read(leader, 65536))
            except OSError:  # the terminal ended with the program
                break
            now = time.monotonic()
            if now - last >= FRAME and (text := screen.changes()):
                clock += min(now - last, LONGEST_PAUSE)
                last = now
                lines.append(json.dumps([round(clock, 2), "o", text], ensure_ascii=False))
                camera.look("\n".join(screen.screen.display))
        if text := screen.changes():
            lines.append(json.dumps([round(clock + FRAME, 2), "o", text], ensure_ascii=False))
        code = process.wait(60)
    finally:
        os.close(leader)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
    if code != 0:
        shown = "\n".join(screen.screen.display)
        raise RuntimeError(f"{command} ended with {code}:\n{shown}")
    head = {
        "version": 2, "width": COLUMNS, "height": ROWS, "title": "understudy demo",
        "env": {"TERM": "xterm-256color", "SHELL": "/bin/bash"},
    }  # fmt: skip
    return [json.dumps(head), *lines]


class Camera(threading.Thread):
    """Takes a picture of the console at the moment, with a browser that waits for it."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.address = ""
        self.moment = threading.Event()

    def look(self, display: str) -> None:
        """Note the address of the page, and notice the moment."""
        found = re.search(r"page +(http://127\.0\.0\.1:\d+/)", display)
        if found is not None:
            self.address = found[1]
        if self.address and MOMENT in display:
            self.moment.set()

    def run(self) -> None:
        """Open a browser, wait, and take the picture."""
        from playwright.sync_api import sync_playwright

        chromium = find("chromium")
        if chromium is None:
            print("NOTICE: Chromium is missing; `make parts` fetches it. No picture is taken")
            return
        flags = ["--headless", "--no-sandbox", "--hide-scrollbars", "--disable-gpu"]
        kept = {key: value for key, value in environment("chromium").items() if key != "DISPLAY"}
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=str(chromium), args=flags, env=dict(kept)
            )
            page = browser.new_page(viewport={"width": 1200, "height": 760})
            if self.moment.wait(300.0):
                page.goto(f"{self.address.rstrip('/')}/?experiment=minutes")
                page.wait_for_timeout(1500)
                page.screenshot(path=str(IMAGES / "page.png"))
            browser.close()


def main() -> int:
    """Record the demo, and take the picture before it ends."""
    camera = Camera()
    camera.start()
    lines = record([sys.executable, "-m", "understudy", "demo"], camera)
    camera.moment.set()
    camera.join(60.0)
    CAST.parent.mkdir(parents=True, exist_ok=True)
    CAST.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{CAST.relative_to(ROOT)} written: {len(lines) - 1} frames")
    return 0


if __name__ == "__main__":
    sys.exit(main())
