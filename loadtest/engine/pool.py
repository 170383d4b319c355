"""Drives a target with several sending processes; each sends a share of the arrivals."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import multiprocessing.context
import os
import signal
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection as Pipe
from multiprocessing.connection import wait
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from understudy.loadtest.engine.arrivals import Profile, arrivals
from understudy.loadtest.engine.closed import Closed
from understudy.loadtest.engine.outcome import Outcome
from understudy.loadtest.engine.recorder import FinishedRequests
from understudy.loadtest.engine.sender import Check, Endpoint, Sender
from understudy.loadtest.engine.timer import now_ns
from understudy.loadtest.errors import LoadTestError, TargetError

_REPORT_SECONDS = 0.2
"""Seconds between two reports of a process to its parent."""
_START_DELAY_SECONDS = 0.4
"""From the last "ready" of a process to the start of the load."""


@dataclass(frozen=True, slots=True)
class Target:
    """The server to load. ``timeout`` limits an exchange, from its due time, in seconds;
    ``ca_file`` is a PEM file of the authority that TLS trusts; ``connections`` limits each
    process."""

    host: str
    port: int
    tls: bool = False
    verify: bool = True
    ca_file: str | None = None
    connections: int = 512
    timeout: float = 30.0

    def endpoint(self) -> Endpoint:
        """For a sender; created in its process, since a TLS context cannot be pickled."""
        context = None
        if self.tls:
            context = ssl.create_default_context(cafile=self.ca_file)
            if not self.verify:
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
        return Endpoint(self.host, self.port, context, self.host, self.connections, self.timeout)


@dataclass(frozen=True, slots=True)
class Open:
    """An open loop: requests are due at given times, independent of responses: by a ``profile``, or
    at the ``moments`` of a trace, in seconds from the start."""

    profile: Profile | None = None
    moments: NDArray[np.float64] | None = None
    kind: Literal["poisson", "even"] = "poisson"
    seed: int = 0

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
            yield from arrivals(self.profile, self.kind, (self.seed, index), 1.0 / processes)
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
Running = dict[Pipe, multiprocessing.context.SpawnProcess]
Watch = Callable[[Outcome], bool]
"""Called with the outcome so far; True ends the load."""


class Progress(Protocol):
    """Called with the outcome so far, a few times per second; ``elapsed`` is in seconds."""

    def __call__(self, outcome: Outcome, elapsed: float) -> None: ...


@dataclass(frozen=True, slots=True)
class Job:
    """What a sending process receives."""

    target: Target
    payloads: tuple[bytes, ...]
    load: Arrivals
    check: Check | None
    index: int
    processes: int
    origin_ns: int


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
) -> Outcome:
    """Load ``target`` with ``payloads`` (whole HTTP requests, sent in turns) and wait for the last
    response.

    ``check`` returns what is wrong with a response; ``watch`` can end the load; ``progress`` is
    called with the outcome so far. ``sink`` receives finished requests as they are reported, which
    are then not kept in the outcome. Raises TargetError when every connection was refused, and
    LoadTestError when a process fails. When the target goes down during the load, its requests are
    counted as failed.
    """
    if not payloads:
        raise LoadTestError("there is nothing to send: no payloads")
    context = multiprocessing.get_context("spawn")
    outcome = Outcome()
    running: Running = {}
    # The common start time is sent once all processes are ready.
    for index in range(processes):
        ours, theirs = context.Pipe()
        for end in (ours, theirs):
            # Under gevent, as in Locust, new sockets are non-blocking.
            os.set_blocking(end.fileno(), True)
        job = Job(target, tuple(payloads), load, check, index, processes, 0)
        process = context.Process(target=_work, args=(theirs, job), daemon=True)
        process.start()
        theirs.close()
        running[ours] = process
    try:
        for pipe in running:
            if not pipe.poll(30.0) or pipe.recv() != "ready":
                raise LoadTestError("a sending process did not start")
        origin = time.monotonic_ns() + int(_START_DELAY_SECONDS * 1e9)
        outcome.begun = time.time() + _START_DELAY_SECONDS
        for pipe in running:
            pipe.send(origin)
        _collect(running, outcome, origin, load, watch, progress, sink)
    except KeyboardInterrupt:
        _broadcast(running, "stop")
        _collect(running, outcome, origin, load, None, None, sink)
        raise
    finally:
        for pipe, process in running.items():
            process.join(1.0)
            if process.is_alive():
                process.kill()
                process.join()
            pipe.close()
    refused = sum(outcome.errors.get(name, 0) for name in ("refused", "unreachable"))
    if outcome.count and refused == outcome.count:
        raise TargetError(
            f"{target.host}:{target.port}: no server listens there: {outcome.count:,} connections "
            "were refused"
        )
    return outcome


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
        for ready in wait(open_pipes, _REPORT_SECONDS):
            assert isinstance(ready, Pipe)
            try:
                message = ready.recv()
            except (EOFError, ConnectionResetError):
                process = running[ready]
                process.join(1.0)
                raise LoadTestError(
                    f"a sending process has ended with exit code {process.exitcode}"
                ) from None
            if isinstance(message, float):
                outcome.cpu_seconds += message
                open_pipes.remove(ready)
            elif isinstance(message, str):
                raise LoadTestError(message)
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


def _work(pipe: Pipe, job: Job) -> None:
    """A process: wait for the start, send, and report."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent says when to stop
    # There are no reference cycles here, and a collection would delay requests.
    gc.freeze()
    gc.disable()
    try:
        if job.check is not None:
            job.check(0, 200, b"{}")  # warm up, so that lazy imports do not delay requests
        pipe.send("ready")
        origin = pipe.recv()
        begun = time.process_time()
        if isinstance(job.load, Open):
            _send(pipe, job, job.load, origin)
        else:
            _loop(pipe, job, job.load, origin)
        pipe.send(float(time.process_time() - begun))
    except (OSError, ValueError) as error:
        pipe.send(f"a sending process failed: {error}")


def _send(pipe: Pipe, job: Job, load: Open, origin: int) -> None:
    sender = Sender(job.target.endpoint(), job.payloads, job.check, job.index, job.processes)
    stopped = False

    def report() -> None:
        nonlocal stopped
        earliest = sender.earliest
        pipe.send((sender.drain(), now_ns() if earliest is None else origin + int(earliest * 1e9)))
        if not stopped and pipe.poll():
            pipe.recv()
            stopped = True
            sender.stop()

    sender.run(load.share(job.index, job.processes), origin, report, _REPORT_SECONDS)
    pipe.send((sender.drain(), now_ns()))


def _loop(pipe: Pipe, job: Job, load: Loop, origin: int) -> None:
    try:
        import uvloop

        runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
    except ImportError:
        runner = asyncio.Runner()
    with runner:
        runner.run(_closed(pipe, job, load, origin))


async def _closed(pipe: Pipe, job: Job, load: Loop, origin: int) -> None:
    own = load.users // job.processes + int(job.index < load.users % job.processes)
    queries = load.queries
    if queries is not None:
        queries = queries // job.processes + int(job.index < queries % job.processes)
    pace = load.at_once * job.processes / load.most
    closed = Closed(job.target.endpoint(), job.payloads, job.check, pace)
    work = asyncio.ensure_future(closed.run(own, load.at_once, queries, origin))
    stopped = False
    while not work.done():
        await asyncio.wait([work], timeout=_REPORT_SECONDS)
        pipe.send((closed.drain(), now_ns()))
        if not stopped and pipe.poll():
            pipe.recv()
            stopped = True
            closed.stop()
    work.result()
    pipe.send((closed.drain(), now_ns()))
