"""A child process of the supervisor, started again whenever it ends.

Parent and child hold the two ends of a socket pair, the control line. A child that hangs or exceeds
its memory is killed and replaced; see :mod:`understudy.monitor.supervisor.watchdog`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import monotonic

from understudy.monitor.stats import heartbeat
from understudy.monitor.supervisor.limits import Limits
from understudy.monitor.supervisor.peer import HUNG, LONGEST_LINE, MEMORY, OnEvent, Peer
from understudy.monitor.supervisor.watchdog import (
    SUSPECT_SECONDS,
    Silence,
    activity_of,
    private_bytes,
)

log = logging.getLogger(__name__)

Command = Callable[[int, int], Sequence[str]]
"""Builds the command line, given the file descriptors of the control socket and the heartbeat."""


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


class Child(Peer):
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
        limits: Limits | None = None,
        on_killed: Callable[[Child, float], None] = lambda child, seconds: None,
    ) -> None:
        super().__init__(name, on_event, on_change, limits or Limits())
        self._command = command
        self._inherited = tuple(inherited)
        self._on_killed = on_killed
        self._back_off = back_off
        self._variables = dict(variables or {})
        self._heartbeat = heartbeat.create()
        self._watches = 0
        self._silence = Silence()
        self._killing = False
        self._started = 0.0
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(self._keep_running())

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        return self._process.pid if self._process is not None else None

    def check(self, elapsed: float) -> None:
        """Look whether it hangs or takes too much memory, ``elapsed`` seconds after the last time,
        and have it replaced then."""
        self._watches += 1
        heartbeat.watch(self._heartbeat, self._watches)
        process = self._process
        if process is None or self._killing:
            return
        silence, limits = self._silence, self.limits
        pid = process.pid
        silence.observe(heartbeat.beats(self._heartbeat), elapsed, lambda: activity_of(pid))
        if silence.seconds > (limits.silence if self.ready else limits.start):
            activity = activity_of(pid)
            what = activity.text if activity is not None else "it ends"
            self._replace(HUNG, f"did not respond for {silence.seconds:.1f} s ({what})")
        elif limits.memory is not None and (used := private_bytes(pid)) > limits.memory:
            text = f"used {used >> 20} MiB of memory, {limits.memory >> 20} MiB are allowed"
            self._replace(MEMORY, text)
        responsive = silence.seconds < SUSPECT_SECONDS or not self.ready
        if responsive != self.responsive:
            self.responsive = responsive
            log.log(
                logging.INFO if responsive else logging.WARNING,
                "%s (pid %d) %s",
                self.name,
                pid,
                "responds again" if responsive else "does not respond",
            )
            self._on_change()

    def _replace(self, reason: str, text: str) -> None:
        assert self._process is not None
        self._killing = True
        self.killed[reason] += 1
        self.last_kill = {"at": time.time(), "text": f"{self.name} was replaced, since it {text}"}
        log.error("%s (pid %d) %s: killing it", self.name, self._process.pid, text)
        self._process.kill()
        self._on_killed(self, self._responsive_seconds())

    def _responsive_seconds(self) -> float:
        """For how long it has run, without the silence at the end."""
        return monotonic() - self._started - self._silence.seconds

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
            self._started = monotonic()
            ending = await self._run_once()
            if self._stopping.is_set():
                break
            if self._responsive_seconds() > back_off.healthy:
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
        self._silence = Silence()
        self._killing = False
        try:
            with theirs:
                process = self._process = subprocess.Popen(
                    self._command(theirs.fileno(), self._heartbeat),
                    pass_fds=(*self._inherited, theirs.fileno(), self._heartbeat),
                    stdin=subprocess.DEVNULL,
                    env={**self._variables, **os.environ},
                    # Ctrl-C goes to the supervisor only, which stops its children in order.
                    process_group=0,
                )
        except OSError as error:
            ours.close()
            return f"cannot be started: {error}"
        self.limits.apply(process.pid)
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
            self.responsive = True
        code = await self._end_of(process)
        self._process = None
        return f"ended by {_signal(-code)}" if code < 0 else f"ended with exit code {code}"

    async def _converse(self, line: socket.socket) -> None:
        reader, self._writer = await asyncio.open_connection(sock=line, limit=LONGEST_LINE)
        try:
            self._on_change()
            if self._stopping.is_set():
                self.tell({"do": "drain"})
            await self._listen(reader)
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
