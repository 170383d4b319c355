"""A sending process: a module of its own, so that it never runs the script that started the load.

``python -P -m understudy.loadtest.engine.process`` with a socket as its standard input, over which
it receives its job and the start time, and reports the requests that have ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection as Pipe

import numpy as np
from numpy.typing import NDArray

from understudy.loadtest.engine.closed import Closed
from understudy.loadtest.engine.pool import REPORT_SECONDS, Ended, Job, Loop, Open
from understudy.loadtest.engine.sender import Sender
from understudy.loadtest.engine.senders import sender_of
from understudy.loadtest.engine.timer import now_ns


def work(pipe: Pipe) -> None:
    """Receive a job, wait for the start, send, and report."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent says when to stop
    job: Job = pipe.recv()
    # There are no reference cycles here, and a collection would delay requests.
    gc.freeze()
    gc.disable()
    try:
        if job.check is not None:
            job.check.prepare()
        pipe.send("ready")
        origin = pipe.recv()
        begun, waited = time.process_time(), _waited()
        if isinstance(job.load, Open):
            _send(pipe, job, job.load, origin)
        else:
            _loop(pipe, job, job.load, origin)
        end = _waited()
        pipe.send(
            Ended(
                time.process_time() - begun,
                end - waited if end is not None and waited is not None else None,
            )
        )
    except (OSError, ValueError) as error:
        pipe.send(f"a sending process failed: {error}")


def _waited() -> float | None:
    """Seconds for which this process has been ready to run and had no CPU, throttling included."""
    try:
        with open("/proc/self/schedstat") as file:
            return int(file.read().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return None


def _send(pipe: Pipe, job: Job, load: Open, origin: int) -> None:
    sender = sender_of(job.target, job.payloads, job.check, job.index, job.processes, job.script)
    _run(pipe, sender, load.share(job.index, job.processes), origin)


def _run(pipe: Pipe, sender: Sender, moments: Iterator[NDArray[np.float64]], origin: int) -> None:
    stopped = False

    def report() -> None:
        nonlocal stopped
        earliest = sender.earliest
        pipe.send((sender.drain(), now_ns() if earliest is None else origin + int(earliest * 1e9)))
        if not stopped and pipe.poll():
            pipe.recv()
            stopped = True
            sender.stop()

    sender.run(moments, origin, report, REPORT_SECONDS)
    pipe.send((sender.drain(), now_ns()))


def _loop(pipe: Pipe, job: Job, load: Loop, origin: int) -> None:
    if job.target.http2:
        from understudy.loadtest.engine.http2_users import Http2Users

        users, queries, pace = _part(job, load)
        sender = Http2Users(
            job.target.endpoint(), job.payloads, job.check, job.index, job.processes,
            users=users, at_once=load.at_once, queries=queries, pace=pace,
        )  # fmt: skip
        _run(pipe, sender, iter(()), origin)
        return
    try:
        import uvloop

        runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
    except ImportError:
        runner = asyncio.Runner()
    with runner:
        runner.run(_closed(pipe, job, load, origin))


def _part(job: Job, load: Loop) -> tuple[int, int | None, float]:
    """Users, queries and seconds between two of them, of one process."""
    users = load.users // job.processes + int(job.index < load.users % job.processes)
    queries = load.queries
    if queries is not None:
        queries = queries // job.processes + int(job.index < queries % job.processes)
    return users, queries, load.at_once * job.processes / load.most


async def _closed(pipe: Pipe, job: Job, load: Loop, origin: int) -> None:
    own, queries, pace = _part(job, load)
    closed = Closed(job.target.endpoint(), job.payloads, job.check, pace, job.index, job.processes)
    work = asyncio.ensure_future(closed.run(own, load.at_once, queries, origin))
    stopped = False
    while not work.done():
        await asyncio.wait([work], timeout=REPORT_SECONDS)
        pipe.send((closed.drain(), now_ns()))
        if not stopped and pipe.poll():
            pipe.recv()
            stopped = True
            closed.stop()
    work.result()
    pipe.send((closed.drain(), now_ns()))


if __name__ == "__main__":
    # The parent, which would receive the report, has ended: stop the load.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError, EOFError):
        work(Pipe(os.dup(0)))
