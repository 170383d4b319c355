"""A process that undoes faults when the runner is killed.

The runner reports every fault over a pipe, before it starts and after it was undone. When the pipe
closes without an end message, the runner is dead (kill -9 included), and the guard undoes the
remaining faults in reverse order. It runs in a separate session, so it survives signals to the
session of the runner.

    python -m understudy.loadtest.chaos.guard journal.json
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from understudy.loadtest.chaos.undo import Undo, perform

_ATTEMPTS = 5


class Guard:
    """The runner's side. ``journal`` is the file for the report. If the runner dies without
    :meth:`end`, all faults that are not undone are undone."""

    def __init__(self, journal: Path) -> None:
        self.journal = journal
        self._number = 0
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "understudy.loadtest.chaos.guard", str(journal)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        # It must run before the first fault.
        assert self._process.stdout is not None
        self._process.stdout.readline()

    def begin(self, undo: Undo) -> int:
        """Register how to undo a fault, before it starts; return its number."""
        self._number += 1
        self._send({"begin": self._number, "undo": dict(undo)})
        # The fault may start only after the acknowledgement.
        assert self._process.stdout is not None
        self._process.stdout.readline()
        return self._number

    def done(self, number: int) -> None:
        """Report that fault ``number`` was undone."""
        self._send({"done": number})

    def end(self) -> dict[str, Any]:
        """Undo the remaining faults and stop the guard; return its report."""
        self._send({"end": True})
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30.0)
        entries: dict[str, Any] = json.loads(self.journal.read_text())
        return entries

    def _send(self, message: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message).encode() + b"\n")
        self._process.stdin.flush()


def main(journal: Path) -> None:
    """The guard's side; it writes its report to ``journal``."""
    pending: dict[int, Undo] = {}
    orderly = False
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for line in sys.stdin:
        message = json.loads(line)
        if "begin" in message:
            pending[int(message["begin"])] = message["undo"]
            sys.stdout.write("heard\n")
            sys.stdout.flush()
        elif "done" in message:
            pending.pop(int(message["done"]), None)
        elif "end" in message:
            orderly = True
            break
    undone: list[Any] = []
    failed: list[Any] = []
    for number in sorted(pending, reverse=True):
        why = ""
        for attempt in range(_ATTEMPTS):
            why = perform(pending[number])
            if not why:
                break
            time.sleep(0.1 * 2**attempt)
        (failed if why else undone).append(why or dict(pending[number]))
    report = {"orderly": orderly, "undone": undone, "failed": failed, "at": time.time()}
    fresh = journal.with_suffix(".fresh")
    fresh.write_text(json.dumps(report))
    fresh.replace(journal)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
