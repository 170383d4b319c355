"""A process that undoes faults when the runner has been killed before it could.

It is told of every fault before it begins and after it was undone, over a pipe. When the pipe ends
without a word of goodbye, whoever held it is dead, kill -9 included, and what is left is undone,
the last one first. Being in a session of its own, it does not die with the runner's.

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

_TRIES = 5


class Guard:
    """The runner's end. Without :meth:`end` everything that was begun and not undone is undone."""

    def __init__(self, journal: Path) -> None:
        self.journal = journal
        self._number = 0
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "understudy.loadtest.chaos.guard", str(journal)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        # It must be there before the first fault.
        assert self._process.stdout is not None
        self._process.stdout.readline()

    def begin(self, undo: Undo) -> int:
        """Say how a fault will be undone, before it begins; its number."""
        self._number += 1
        self._say({"begin": self._number, "undo": dict(undo)})
        # Only when it has been heard may the fault begin.
        assert self._process.stdout is not None
        self._process.stdout.readline()
        return self._number

    def done(self, number: int) -> None:
        """A fault has been undone."""
        self._say({"done": number})

    def end(self) -> dict[str, Any]:
        """Undo what is left, and end; what was undone, and what could not be."""
        self._say({"end": True})
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30.0)
        found: dict[str, Any] = json.loads(self.journal.read_text())
        return found

    def _say(self, what: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(what).encode() + b"\n")
        self._process.stdin.flush()


def main(journal: Path) -> None:
    """The guard's own end."""
    pending: dict[int, Undo] = {}
    orderly = False
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for line in sys.stdin:
        said = json.loads(line)
        if "begin" in said:
            pending[int(said["begin"])] = said["undo"]
            sys.stdout.write("heard\n")
            sys.stdout.flush()
        elif "done" in said:
            pending.pop(int(said["done"]), None)
        elif "end" in said:
            orderly = True
            break
    undone: list[Any] = []
    failed: list[Any] = []
    for number in sorted(pending, reverse=True):
        why = ""
        for attempt in range(_TRIES):
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
