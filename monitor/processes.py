"""A child process of the supervisor, and the line of JSON that ties it to its parent.

Parent and child hold the two ends of a socket pair. The parent gives orders, the child reports
events; when either end closes, the other side is gone.
"""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import socket
import subprocess
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any

log = logging.getLogger(__name__)

BACK_OFF_SECONDS = (0.1, 5.0)
HEALTHY_SECONDS = 10.0
"""After this long a child counts as healthy again and its next restart is quick."""

Command = Callable[[int], Sequence[str]]
"""Builds the command line, given the number of the control socket's file descriptor."""
OnEvent = Callable[["Child", dict[str, Any]], None]


class Child:
    """Keeps one command running until told to stop."""

    def __init__(
        self,
        name: str,
        command: Command,
        inherited: Sequence[int],
        on_event: OnEvent,
        on_change: Callable[[], None],
    ) -> None:
        self.name = name
        self.restarts = 0
        self.ready = False
        self.exit_code: int | None = None
        self._command = command
        self._inherited = tuple(inherited)
        self._on_event = on_event
        self._on_change = on_change
        self._process: subprocess.Popen[bytes] | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._stopping = False
        self._stopped = asyncio.Event()
        self._wake = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(self._keep_running())

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        return self._process.pid if self._process is not None else None

    def tell(self, message: dict[str, Any]) -> None:
        """Send an order; no effect while the child is away (it starts with the newest plan)."""
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(json.dumps(message).encode() + b"\n")

    async def stop(self, patience: float) -> None:
        """Have it drain and end; kill it after ``patience`` seconds."""
        self._stopping = True
        self._wake.set()
        self.tell({"do": "drain"})
        try:
            async with asyncio.timeout(patience):
                await self._stopped.wait()
        except TimeoutError:
            log.warning("%s did not end within %.0f s and is killed", self.name, patience)
            self.kill()
            await self._stopped.wait()

    def kill(self) -> None:
        """End it at once."""
        self._stopping = True
        self._wake.set()
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)

    async def _keep_running(self) -> None:
        wait = BACK_OFF_SECONDS[0]
        while not self._stopping:
            started = monotonic()
            try:
                await self._run_once()
            except OSError as error:
                log.error("%s cannot be started: %s", self.name, error)
            if self._stopping:
                break
            if monotonic() - started > HEALTHY_SECONDS:
                wait = BACK_OFF_SECONDS[0]
            log.error(
                "%s ended with %s; restarting in %.1f s", self.name, _ending(self.exit_code), wait
            )
            self.restarts += 1
            self._on_change()
            try:
                async with asyncio.timeout(wait):
                    await self._wake.wait()
            except TimeoutError:
                pass
            wait = min(wait * 2, BACK_OFF_SECONDS[1])
        self._stopped.set()

    async def _run_once(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            process = subprocess.Popen(
                self._command(theirs.fileno()),
                pass_fds=(*self._inherited, theirs.fileno()),
                stdin=subprocess.DEVNULL,
            )
        self._process = process
        self._on_change()
        reader, self._writer = await asyncio.open_connection(sock=ours)
        if self._stopping:
            self.tell({"do": "drain"})
        try:
            while line := await reader.readline():
                event = json.loads(line)
                if event.get("event") == "ready":
                    self.ready = True
                self._on_event(self, event)
        except OSError:
            pass  # it died with orders unread
        except ValueError as error:
            log.error("%s: the control line broke: %s", self.name, error)
            process.kill()
        finally:
            self._writer.close()
            self._writer = None
            self.ready = False
        # The line has ended, so the process ends by itself, or has ended.
        self.exit_code = await asyncio.to_thread(process.wait)
        self._process = None


def _ending(code: int | None) -> str:
    if code is not None and code < 0:
        return f"signal {signal.Signals(-code).name}"
    return f"exit code {code}"
