"""Ends processes when their parent is dead: ``python reaper.py`` reads ``+pid`` and ``-pid``.

At the end of its input, which comes even when the parent was killed, it kills what is left.
"""

from __future__ import annotations

import os
import signal
import sys


def main() -> None:
    left: set[int] = set()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for line in sys.stdin:
        (left.add if line[0] == "+" else left.discard)(int(line[1:]))
    for pid in left:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


if __name__ == "__main__":
    main()
