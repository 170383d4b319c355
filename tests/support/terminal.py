"""A program on a terminal of a given size, and what stands on its screen."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
from collections.abc import Callable
from types import TracebackType

import pyte

from tests.support.patience import eventually


class Terminal:
    """Runs a command with a terminal of ``columns`` and ``lines`` as its three streams."""

    def __init__(self, command: list[str], columns: int, lines: int, **environment: str) -> None:
        self._screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self._screen)
        self.raw = b""
        """All that was written."""
        self._ours, theirs = pty.openpty()
        self._set_size(columns, lines)
        known = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES", "NO_COLOR")}
        self.process = subprocess.Popen(
            command,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            # Ctrl-C reaches who has the terminal, and shells ask for it.
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
            env={**known, "TERM": "xterm-256color", **environment},
        )
        os.close(theirs)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._ours)

    def _set_size(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def resize(self, columns: int, lines: int) -> None:
        self._screen.resize(lines, columns)
        self._set_size(columns, lines)

    def press(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    def read(self) -> list[str]:
        """The lines of the screen now."""
        try:
            while select.select([self._ours], [], [], 0.02)[0]:
                data = os.read(self._ours, 65536)
                if not data:
                    break
                self.raw += data
                self._stream.feed(data)
        except OSError:
            pass  # the program has ended
        return [line.rstrip() for line in self._screen.display]

    @property
    def text(self) -> str:
        return "\n".join(self.read())

    def wait_for(self, holds: Callable[[str], object]) -> str:
        """The screen, once it fulfils a condition."""
        found = ""

        def look() -> bool:
            nonlocal found
            found = self.text
            return bool(holds(found))

        eventually(look)
        return found

    def ends(self) -> int:
        """Its exit code, once it has ended."""
        eventually(lambda: (self.read(), self.process.poll() is not None)[1])
        self.read()
        assert self.process.returncode is not None
        return self.process.returncode


def understudy(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "understudy", *arguments]
