"""Stops processes again and again, such as the senders of a gate on a machine that is too busy."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType


def senders() -> list[int]:
    """Sending processes that this process has started."""
    found = []
    for task in Path("/proc/self/task").iterdir():
        with suppress(OSError):
            for pid in (task / "children").read_text().split():
                if b"loadtest.engine.process" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    found.append(int(pid))
    return found


class Stalled:
    """While it is open, senders (or other processes, ``pids``) are stopped for ``stopped`` of every
    ``every`` seconds; with ``first``, only those that were started first."""

    def __init__(
        self,
        stopped: float,
        every: float,
        first: bool = False,
        pids: Callable[[], list[int]] = senders,
    ) -> None:
        self._stopped, self._running = stopped, every - stopped
        self._first = first
        self._pids = pids
        self._known: list[int] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Stalled:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(self._running):
            found = self._pids()
            self._known = self._known or found
            pids = self._known if self._first else found
            self._send(pids, signal.SIGSTOP)
            self._over.wait(self._stopped)
            self._send(pids, signal.SIGCONT)

    def _send(self, pids: list[int], number: signal.Signals) -> None:
        for pid in set(pids) & set(self._pids()):
            with suppress(ProcessLookupError):
                os.kill(pid, number)
