"""Runs a command that ends with the process that started it, also when that one is killed.

``python -I -S tied.py PARENT COMMAND…`` becomes the command: the process id stays the same. On
Linux, the kernel sends it SIGTERM when the thread that started it ends, however that happens;
elsewhere, it is the command alone. The file imports nothing of the package: it starts in
milliseconds.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from pathlib import Path

_PR_SET_PDEATHSIG = 1


def tied(command: list[str]) -> list[str]:
    """``command``, tied to the thread that starts it, such as the main one."""
    file = str(Path(__file__).resolve())
    return [sys.executable, "-I", "-S", file, str(os.getpid()), *command]


def main(parent: int, command: list[str]) -> None:
    """Become ``command``, unless the process ``parent`` has ended already."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
        if os.getppid() != parent:
            sys.exit(128 + signal.SIGTERM)
    try:
        os.execvp(command[0], command)  # noqa: S606
    except OSError as error:
        sys.exit(f"{command[0]}: {error.strerror}")


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
