"""A child process of the supervisor, and the control line of JSON between them.

Parent and child hold the two ends of a socket pair. The parent sends commands, the child sends
events; when one end closes, that process has ended. A child that hangs or exceeds its memory is
killed and replaced; see :mod:`understudy.monitor.supervisor.watchdog`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

from understudy.monitor.stats import heartbeat
from understudy.monitor.supervisor.watchdog import (
    SUSPECT_SECONDS,
    Silence,
    activity_of,
    private_bytes,
)

log = logging.getLogger(__name__)

Command = Callable[[int, int], Sequence[str]]
"""Builds the command line, given the file descriptors of the control socket and the heartbeat."""
OnEvent = Callable[["Peer", dict[str, Any]], None]

LONGEST_LINE = 1 << 20
_LOWEST_PRIORITY = 19
_OOM_SCORE = 300
"""Added for a child with a memory limit, so that the kernel ends it before those without."""
_MOST_OOM_SCORE = 1000
HUNG, MEMORY = "hung", "memory"
"""Reasons to kill a child."""


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


@dataclass(frozen=True, slots=True)
class Limits:
    """What a child may take.

    It is killed and replaced after ``silence`` seconds without a heartbeat, or ``start`` seconds
    when it is not ready yet, and when it has more than ``memory`` private bytes. ``nice`` is
    added to the priority number of this process: a larger number is a lower priority.
    """

    silence: float = 5.0
    start: float = 60.0
    nice: int = 0
    memory: int | None = None

    def apply(self, pid: int) -> None:
        """Set priority and memory limits of a process that has just been started, as far as the
        system allows it."""
        if self.nice:
            with contextlib.suppress(OSError):
                priority = os.getpriority(os.PRIO_PROCESS, 0) + self.nice
                for thread in os.listdir(f"/proc/{pid}/task"):
                    os.setpriority(os.PRIO_PROCESS, int(thread), min(priority, _LOWEST_PRIORITY))
        if self.memory is not None:
            with contextlib.suppress(OSError, ValueError):
                # What grows slowly is noticed by its size; this stops one large allocation.
                _, hard = resource.prlimit(pid, resource.RLIMIT_DATA)
                most = 2 * self.memory + (256 << 20)
                resource.prlimit(pid, resource.RLIMIT_DATA, (most, hard))
            with (
                contextlib.suppress(OSError, ValueError),
                open(f"/proc/{pid}/oom_score_adj", "r+", encoding="ascii") as file,
            ):
                score = min(int(file.read()) + _OOM_SCORE, _MOST_OOM_SCORE)
                file.seek(0)
                file.write(str(score))


class Peer:
    """The other end of a control line: a child, or a process in another container.

    ``limits`` may be replaced; priority and memory are those of the next start then.
    """

    def __init__(
        self, name: str, on_event: OnEvent, on_change: Callable[[], None], limits: Limits
    ) -> None:
        self.name = name
        self.restarts = 0
        self.ready = False
        self.responsive = True
        """False once it has been silent for :data:`SUSPECT_SECONDS`."""
        self.killed = {HUNG: 0, MEMORY: 0}
        """How often it was killed, by reason."""
        self.last_kill: dict[str, Any] | None = None
        """When it was killed the last time (``at``, unix time), and why (``text``)."""
        self.limits = limits
        self._on_event = on_event
        self._on_change = on_change
        self._writer: asyncio.StreamWriter | None = None

    @property
    def works(self) -> bool:
        """Whether it is ready and responds."""
        return self.ready and self.responsive

    def tell(self, message: dict[str, Any]) -> None:
        """Send a command; no effect while the peer is down (it starts with the newest files)."""
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(json.dumps(message).encode() + b"\n")

    def check(self, elapsed: float) -> None:
        """Look whether it hangs or takes too much memory, ``elapsed`` seconds after the last time,
        and have it replaced then."""

    async def stop(self, patience: float) -> None:
        """Drain and end it within ``patience`` seconds."""
        raise NotImplementedError

    def kill(self) -> None:
        """End it at once."""
        raise NotImplementedError

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        """Handle events until the line ends. Raises ValueError when it breaks the protocol."""
        while text := await reader.readline():
            event = json.loads(text)
            if not isinstance(event, dict):
                raise ValueError(f"{text[:80]!r} is not an event")
            if event.get("event") == "ready":
                self.ready = True
            try:
                self._on_event(self, event)
            except Exception:  # an internal error must not end a working peer
                log.exception("%s: %s could not be handled", self.name, event)


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


class RemotePlane(Peer):
    """The evaluation plane of another container, which connects to a socket in the run folder. The
    supervisor there replaces it, and reports that with the event ``down``."""

    def __init__(self, on_event: OnEvent, on_change: Callable[[], None]) -> None:
        super().__init__("evaluation plane", on_event, on_change, Limits())
        self._server: asyncio.Server | None = None
        self._closed = False
        self._gone = asyncio.Event()
        self._gone.set()

    async def open(self, path: Path) -> None:
        """Listen at ``path``. Raises OSError."""
        self._server = await asyncio.start_unix_server(self._serve, path, limit=LONGEST_LINE)
        path.chmod(0o600)

    async def stop(self, patience: float) -> None:
        """Have it drained, and wait until it has disconnected, or ``patience`` seconds."""
        self._closed = True
        self.tell({"do": "drain"})
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await self._gone.wait()
        self.kill()
        await self._gone.wait()

    def kill(self) -> None:
        """Close the line; the supervisor there ends it."""
        self._closed = True
        if self._server is not None:
            self._server.close()
        if self._writer is not None:
            self._writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._closed:
            writer.close()
            return
        if self._writer is not None:
            self._writer.close()  # a successor has connected
        self._writer = writer
        self._gone.clear()
        self._on_change()
        try:
            await self._listen(reader)
        except (OSError, ValueError) as error:
            log.error("%s: the control line broke: %s", self.name, error)
        finally:
            writer.close()
            if self._writer is writer:
                self._writer = None
                self._gone.set()
                self.down()

    def down(self) -> None:
        """It has ended, and is started again."""
        if self.ready:
            self.ready = False
            self.restarts += 1
            self._on_change()


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"  # real-time signals have no names
