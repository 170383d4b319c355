"""A child process of the supervisor, and the control line of JSON between them.

Parent and child hold the two ends of a socket pair. The parent sends commands, the child sends
events; when one end closes, that process has ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any

log = logging.getLogger(__name__)

Command = Callable[[int], Sequence[str]]
"""Builds the command line, given the number of the control socket's file descriptor."""
OnEvent = Callable[["Child", dict[str, Any]], None]

_LONGEST_LINE = 1 << 20


@dataclass(frozen=True, slots=True)
class BackOff:
    """Seconds to wait before a restart: from ``first``, doubling up to ``longest``.

    After ``healthy`` seconds of running the wait is ``first`` again. A child that has closed its
    control line has ``linger`` seconds to end.
    """

    first: float = 0.1
    longest: float = 5.0
    healthy: float = 10.0
    linger: float = 10.0


BACK_OFF = BackOff()


class Child:
    """Keeps one command running until told to stop.

    ``variables`` are environment variables of this child; those that the user has set win.
    """

    def __init__(
        self,
        name: str,
        command: Command,
        inherited: Sequence[int],
        on_event: OnEvent,
        on_change: Callable[[], None],
        back_off: BackOff = BACK_OFF,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.restarts = 0
        self.ready = False
        self._command = command
        self._inherited = tuple(inherited)
        self._on_event = on_event
        self._on_change = on_change
        self._back_off = back_off
        self._variables = dict(variables or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._stopping = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(self._keep_running())

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        return self._process.pid if self._process is not None else None

    def tell(self, message: dict[str, Any]) -> None:
        """Send a command; no effect while the child is down (it starts with the newest files)."""
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(json.dumps(message).encode() + b"\n")

    async def stop(self, patience: float) -> None:
        """Drain and end the child; kill it after ``patience`` seconds."""
        self._stopping.set()
        self.tell({"do": "drain"})
        _, late = await asyncio.wait((self._task,), timeout=patience)
        if late:
            log.warning("%s did not end within %.0f s: killing it", self.name, patience)
            self.kill()
        await asyncio.gather(self._task, return_exceptions=True)

    def kill(self) -> None:
        """Kill the child at once."""
        self._stopping.set()
        if self._process is not None:
            self._process.kill()

    async def _keep_running(self) -> None:
        back_off = self._back_off
        wait = back_off.first
        while not self._stopping.is_set():
            started = monotonic()
            ending = await self._run_once()
            if self._stopping.is_set():
                break
            if monotonic() - started > back_off.healthy:
                wait = back_off.first
            log.error("%s %s; restarting in %.1f s", self.name, ending, wait)
            self.restarts += 1
            self._on_change()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), wait)
            wait = min(wait * 2, back_off.longest)

    async def _run_once(self) -> str:
        """Start the child and wait until it has ended; return how it ended."""
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                process = self._process = subprocess.Popen(
                    self._command(theirs.fileno()),
                    pass_fds=(*self._inherited, theirs.fileno()),
                    stdin=subprocess.DEVNULL,
                    env={**self._variables, **os.environ},
                    # Ctrl-C goes to the supervisor only, which stops its children in order.
                    process_group=0,
                )
        except OSError as error:
            ours.close()
            return f"cannot be started: {error}"
        try:
            await self._converse(ours)
        except OSError:
            pass  # it died with commands unread
        except ValueError as error:
            log.error("%s: the control line broke: %s", self.name, error)
            process.kill()
        finally:
            self._writer = None
            self.ready = False
        code = await self._end_of(process)
        self._process = None
        return f"ended by {_signal(-code)}" if code < 0 else f"ended with exit code {code}"

    async def _converse(self, line: socket.socket) -> None:
        reader, self._writer = await asyncio.open_connection(sock=line, limit=_LONGEST_LINE)
        try:
            self._on_change()
            if self._stopping.is_set():
                self.tell({"do": "drain"})
            while text := await reader.readline():
                event = json.loads(text)
                if not isinstance(event, dict):
                    raise ValueError(f"{text[:80]!r} is not an event")
                if event.get("event") == "ready":
                    self.ready = True
                try:
                    self._on_event(self, event)
                except Exception:  # an internal error must not end a working child
                    log.exception("%s: %s could not be handled", self.name, event)
        finally:
            self._writer.close()

    async def _end_of(self, process: subprocess.Popen[bytes]) -> int:
        """The exit code. The line has ended, so the process has ended, or must end."""
        waiting = asyncio.create_task(asyncio.to_thread(process.wait))
        _, late = await asyncio.wait((waiting,), timeout=self._back_off.linger)
        if late:
            log.error("%s has closed its control line but still runs: killing it", self.name)
            process.kill()
        return await waiting


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"  # real-time signals have no names
