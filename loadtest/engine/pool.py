"""Drives a target with several sending processes; each sends a share of the arrivals."""

from __future__ import annotations

import multiprocessing
import os
import posix
import signal
import ssl
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection as Pipe
from multiprocessing.connection import wait
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from understudy.loadtest.engine.answer import Check
from understudy.loadtest.engine.arrivals import ArrivalKind, Profile, arrivals
from understudy.loadtest.engine.outcome import Outcome
from understudy.loadtest.engine.recorder import FinishedRequests
from understudy.loadtest.engine.script import Script
from understudy.loadtest.engine.sender import Endpoint
from understudy.loadtest.errors import GeneratorError, LoadTestError, TargetError

REPORT_SECONDS = 0.2
"""Seconds between two reports of a process to its parent."""
_READY_SECONDS = 30.0
"""For the start of a process."""
_START_DELAY_SECONDS = 0.4
"""From the last "ready" of a process to the start of the load."""


@dataclass(frozen=True, slots=True)
class Target:
    """The server to load. ``timeout`` limits an exchange in seconds; ``ca_file`` is a PEM file of
    the authority that TLS trusts; ``connections`` limits each process. ``http2``: over HTTP/2 by
    prior knowledge, or by ALPN, with ``streams`` requests at a time over a connection."""

    host: str
    port: int
    tls: bool = False
    verify: bool = True
    ca_file: str | None = None
    connections: int = 512
    timeout: float = 30.0
    http2: bool = False
    streams: int = 100

    def endpoint(self) -> Endpoint:
        """For a sender; created in its process, since a TLS context cannot be sent to it."""
        context = None
        if self.tls:
            context = ssl.create_default_context(cafile=self.ca_file)
            if not self.verify:
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
            if self.http2:
                context.set_alpn_protocols(["h2"])
        return Endpoint(
            self.host, self.port, context, self.host, self.connections, self.timeout, self.streams
        )


@dataclass(frozen=True, slots=True)
class Open:
    """An open loop: requests are due at given times, independent of responses: by a ``profile``, or
    at the ``moments`` of a trace, in seconds from the start."""

    profile: Profile | None = None
    moments: NDArray[np.float64] | None = None
    kind: ArrivalKind = "poisson"
    seed: int = 0
    burstiness: float = 1.0
    """Shape of gamma arrivals."""

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        if self.profile is not None:
            return self.profile.seconds
        return float(self.moments[-1]) if self.moments is not None and len(self.moments) else 0.0

    @property
    def count(self) -> float:
        """Expected number of requests."""
        if self.profile is not None:
            return self.profile.count
        return float(len(self.moments)) if self.moments is not None else 0.0

    def share(self, index: int, processes: int) -> Iterator[NDArray[np.float64]]:
        """Due times of process ``index`` of ``processes``, in chunks."""
        if self.profile is not None:
            yield from arrivals(
                self.profile, self.kind, (self.seed, index), 1.0 / processes, self.burstiness
            )
        elif self.moments is not None:
            yield self.moments[index::processes]


@dataclass(frozen=True, slots=True)
class Loop:
    """A closed loop: each of ``users`` sends ``at_once`` requests, waits for all responses, and
    repeats. It ends after ``queries`` of all users together, or ``seconds``. ``most`` limits the
    requests per second, however fast the responses are."""

    users: int
    at_once: int = 1
    queries: int | None = None
    seconds: float = 60.0
    most: float = float("inf")

    @property
    def count(self) -> float:
        """Expected number of requests; infinite when only the time limits it."""
        return float(self.queries * self.at_once) if self.queries is not None else float("inf")


Arrivals = Open | Loop
Watch = Callable[[Outcome], bool]
"""Called with the outcome so far; True ends the load."""


class Progress(Protocol):
    """Called with the outcome so far, a few times per second; ``elapsed`` is in seconds."""

    def __call__(self, outcome: Outcome, elapsed: float) -> None: ...


@dataclass(frozen=True, slots=True)
class Ended:
    """The last report of a sending process: its CPU time, and for how long it was ready to run and
    had no CPU (None where the kernel does not say), in seconds."""

    cpu: float
    waited: float | None


@dataclass(frozen=True, slots=True)
class Job:
    """What a sending process receives."""

    target: Target
    payloads: tuple[bytes, ...]
    load: Arrivals
    check: Check | None
    index: int
    processes: int
    script: Script | None = None


class SenderProcess:
    """A sending process; ``pipe`` is the connection to it, over which it waits for its job.

    It is a module of its own, with its end of the connection as its standard input: what
    multiprocessing starts would run the script of this process again, which may be Locust's. Raises
    GeneratorError if it cannot be started.
    """

    def __init__(self) -> None:
        self.pipe, theirs = multiprocessing.Pipe()
        for end in (self.pipe, theirs):
            # Under gevent, as in Locust, new sockets are non-blocking.
            os.set_blocking(end.fileno(), True)
        command = (sys.executable, "-P", "-m", "understudy.loadtest.engine.process")
        try:
            # Not by way of `os` or `subprocess`, which gevent confines to the main thread.
            self._pid = posix.posix_spawn(
                sys.executable, command, os.environ,
                file_actions=[(os.POSIX_SPAWN_DUP2, theirs.fileno(), 0)],
            )  # fmt: skip
        except OSError as error:
            self.pipe.close()
            raise GeneratorError(f"a sending process cannot start: {error}") from error
        finally:
            theirs.close()
        self._code: int | None = None

    def exit_code(self, timeout: float) -> int | None:
        """Its exit code, once it has ended; None if it still runs after ``timeout`` seconds."""
        until = time.monotonic() + timeout
        while self._code is None:
            try:
                pid, status = posix.waitpid(self._pid, os.WNOHANG)
            except ChildProcessError:
                self._code = 0  # another part of this program has asked for it
                break
            if pid:
                self._code = os.waitstatus_to_exitcode(status)
            elif time.monotonic() > until:
                return None
            else:
                time.sleep(0.005)
        return self._code

    def close(self) -> None:
        """End it, in a second at most by itself, and close the connection."""
        if self.exit_code(1.0) is None:
            os.kill(self._pid, signal.SIGKILL)
            self.exit_code(30.0)
        self.pipe.close()


Running = dict[Pipe, SenderProcess]


def cores() -> int:
    """The default number of processes: one per usable core but one, at least one."""
    return max(1, len(os.sched_getaffinity(0)) - 1)


def drive(
    target: Target,
    payloads: Sequence[bytes],
    load: Arrivals,
    check: Check | None = None,
    processes: int = 1,
    watch: Watch | None = None,
    progress: Progress | None = None,
    sink: Callable[[list[FinishedRequests]], None] | None = None,
    script: Script | None = None,
) -> Outcome:
    """Load ``target`` with ``payloads`` (whole HTTP requests, sent in turns) and wait for the last
    response.

    ``check`` says what is wrong with a response; ``watch`` can end the load; ``progress`` is
    called with the outcome so far. ``sink`` receives finished requests as they are reported, which
    are then not kept in the outcome. ``script`` says what follows a request of an open loop.

    Raises TargetError when every connection was refused, and GeneratorError when a process fails.
    When the target goes down during the load, its requests are counted as failed.
    """
    if not payloads:
        raise LoadTestError("there is nothing to send: no payloads")
    outcome = Outcome(processes=processes)
    running: Running = {}
    origin = 0
    try:
        for _ in range(processes):
            process = SenderProcess()
            running[process.pipe] = process
        for index, pipe in enumerate(running):
            try:
                pipe.send(Job(target, tuple(payloads), load, check, index, processes, script))
            except OSError:
                pass  # it has ended: _await_ready() tells how
        # The common start time is sent once all processes are ready.
        for pipe, process in running.items():
            _await_ready(pipe, process)
        origin = time.monotonic_ns() + int(_START_DELAY_SECONDS * 1e9)
        outcome.begun = time.time() + _START_DELAY_SECONDS
        for pipe in running:
            pipe.send(origin)
        _collect(running, outcome, origin, load, watch, progress, sink)
    except KeyboardInterrupt:
        if origin:
            _broadcast(running, "stop")
            _collect(running, outcome, origin, load, None, None, sink)
        raise
    finally:
        for process in running.values():
            process.close()
    refused = sum(outcome.errors.get(name, 0) for name in ("refused", "unreachable"))
    if outcome.count and refused == outcome.count:
        raise TargetError(
            f"{target.host}:{target.port}: no server listens there: {outcome.count:,} connections "
            "were refused"
        )
    return outcome


def _await_ready(pipe: Pipe, process: SenderProcess) -> None:
    why = f"it was not ready within {_READY_SECONDS:g} s"
    try:
        if pipe.poll(_READY_SECONDS):
            message = pipe.recv()
            if message == "ready":
                return
            why = str(message)
    except (EOFError, ConnectionResetError):
        why = f"it has ended with exit code {process.exit_code(1.0)}"
    raise GeneratorError(f"a sending process did not start: {why}")


def _broadcast(running: Running, message: str) -> None:
    for pipe in running:
        try:
            pipe.send(message)
        except (BrokenPipeError, OSError):
            continue


def _collect(
    running: Running,
    outcome: Outcome,
    origin: int,
    load: Arrivals,
    watch: Watch | None,
    progress: Progress | None,
    sink: Callable[[list[FinishedRequests]], None] | None,
) -> None:
    open_pipes = list(running)
    frontiers: dict[object, int] = {}
    stopped = False
    while open_pipes:
        parts: list[FinishedRequests] = []
        for ready in wait(open_pipes, REPORT_SECONDS):
            assert isinstance(ready, Pipe)
            try:
                message = ready.recv()
            except (EOFError, ConnectionResetError):
                code = running[ready].exit_code(1.0)
                raise GeneratorError(f"a sending process has ended with exit code {code}") from None
            if isinstance(message, Ended):
                outcome.cpu_seconds += message.cpu
                if message.waited is not None:
                    outcome.waited_seconds = (outcome.waited_seconds or 0.0) + message.waited
                open_pipes.remove(ready)
            elif isinstance(message, str):
                raise GeneratorError(message)
            else:
                part, complete = message
                parts.append(part)
                frontiers[ready] = complete
        if parts and sink is not None:
            sink(parts)
        elif parts:
            outcome.add(parts)
            if len(frontiers) == len(running):
                outcome.complete = (min(frontiers.values()) - origin) / 1e9
        elapsed = max(0.0, (time.monotonic_ns() - origin) / 1e9)
        limit = load.seconds
        outcome.seconds = min(elapsed, limit) if limit else elapsed
        if progress is not None:
            progress(outcome, elapsed)
        over = isinstance(load, Loop) and elapsed > load.seconds
        if not stopped and (over or (watch is not None and watch(outcome))):
            stopped = True
            outcome.seconds = elapsed
            _broadcast(running, "stop")
        if stopped:
            outcome.seconds = min(outcome.seconds, elapsed)
    if isinstance(load, Loop):
        outcome.seconds = max(0.0, (time.monotonic_ns() - origin) / 1e9)
        if len(outcome.due):
            outcome.seconds = float((outcome.due + outcome.latency).max())
