"""A worker process of the data plane.

It gets its listening socket and a control socket from the supervisor, its plan from a file, and
keeps its numbers in shared memory. See :func:`main` for the command line.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import ssl
import sys
from collections import deque
from collections.abc import Collection, Sequence
from math import inf
from pathlib import Path
from random import Random
from time import monotonic, monotonic_ns
from typing import Any

import uvloop

from understudy.common import compiled
from understudy.monitor.errors import StateError
from understudy.monitor.gc_tuning import freeze_gc
from understudy.monitor.proxy import descriptors
from understudy.monitor.proxy.acceptor import Acceptor
from understudy.monitor.proxy.fields import configure
from understudy.monitor.proxy.handoff import HandOff
from understudy.monitor.proxy.host import Connection
from understudy.monitor.proxy.listening import has_pending_connection, stop_new_connections
from understudy.monitor.proxy.probe import ProbeListener, socket_path
from understudy.monitor.proxy.protocols import Timed
from understudy.monitor.proxy.runtime import Runtime
from understudy.monitor.proxy.tls import LOOK_SECONDS, TlsContext, server_tls
from understudy.monitor.routing.plan import Plan
from understudy.monitor.stats.heartbeat import Heartbeat
from understudy.monitor.stats.shared import SharedStats

_FLUSH_PATIENCE = 5.0
_HANDSHAKE_SECONDS = 0.05
_LATE_SECONDS = 0.1
"""A periodic check that comes later than this follows a pause of this process."""
_LINGERING = 256
"""Most clients that may still send after they were refused. Those beyond are reset at once, and may
miss the response: what each sends takes time and memory of the kernel's."""
_LOOK_SECONDS = 0.1
"""Least time between two searches for idle clients, which look at all of them."""
_SHORT_SECONDS = 15.0
"""How long a shortage of descriptors is reported after the last time that one was missing."""

log = logging.getLogger(__name__)


class Worker:
    """The state that the connections of one process share."""

    def __init__(
        self,
        plan: Plan,
        run_dir: Path,
        run: str,
        slot: int,
        loop: asyncio.AbstractEventLoop,
        heartbeat: Heartbeat | None = None,
    ) -> None:
        self.loop = loop
        self._slot = slot
        self._heartbeat = heartbeat or Heartbeat(None)
        self.draining = False
        self.clients: set[Connection] = set()
        self.opening: set[Connection] = set()
        """Accepted, and not yet served: with TLS, the handshake is in progress."""
        self.lingering = 0
        self._idle: deque[Connection] = deque()
        """Clients that were idle when last searched, the longest first."""
        self._looked = -inf
        self.active: set[Timed] = set()
        self._stats = SharedStats(run_dir / f"worker-{slot}.stats")
        # Its numbers are ids of requests and traces, which clients and model servers see.
        self._random = Random(os.urandom(32))  # noqa: S311  # no secrets
        identity: dict[str, str | int] = {
            "run": run,
            "slot": slot,
            "incarnation": self._stats.incarnation,
        }
        self._handoff = HandOff(run_dir / "records.sock", identity, self._stats, plan.handoff, loop)
        configure(plan.capture.headers, plan.client_request_ids)
        self.runtime = Runtime(plan, self._stats, self._handoff, self.active, self._random, loop)
        self._accepted = self._stats.counter("connections_accepted")
        self._open = self._stats.gauge("connections_open")
        self._connections_limit = self._stats.gauge("connections_limit")
        self._exhausted = [
            self._stats.counter("descriptors_exhausted", {"where": where})
            for where in ("accept", "connect")
        ]
        self._short = self._stats.gauge("descriptors_short")
        self._short_since = -inf
        self._missed = self._misses()
        self._memory = [
            self._stats.gauge(name) for name in ("connection_memory", "connection_memory_limit")
        ]
        self._payloads_dropped = self._stats.counter("payloads_dropped")
        self._room = 0
        """Most descriptors of client connections."""
        self._limit = 0
        """Most client connections that are served."""
        self._set_limits()
        self._swept = 0.0
        self._due = inf
        self._postponed = False
        self._tls: TlsContext | None = None
        self._looked_at = 0.0
        self._listeners: tuple[socket.socket, ...] = ()
        """By slot, of all workers."""
        self._acceptors: dict[int, Acceptor] = {}
        """By slot: where this worker accepts connections."""
        self._door = ProbeListener(self, socket_path(run_dir, slot))

    async def start(self, listeners: Sequence[socket.socket]) -> None:
        """Listen, connect to the evaluation plane, start checking limits. ``listeners`` are those
        of all workers, by slot."""
        plan = self.runtime.plan
        if plan.tls is not None:
            self._tls = server_tls(plan.tls)
        self._handoff.start()
        self._listeners = tuple(listeners)
        self.cover(())
        await self._door.open()
        self._tick()

    def cover(self, slots: Collection[int]) -> None:
        """Accept connections also of the workers with these slots, which do not at present. What
        has been accepted for another worker stays here."""
        if self.draining:
            return
        wanted = {self._slot, *slots} & set(range(len(self._listeners)))
        for slot in set(self._acceptors) - wanted:
            self._acceptors.pop(slot).close()
        tls = self._tls.context if self._tls is not None else None
        for slot in wanted - set(self._acceptors):
            # Another descriptor of the same socket: closing it closes nothing for others.
            acceptor = self._acceptors[slot] = Acceptor(self, self._listeners[slot].dup(), tls)
            acceptor.open()

    def reload(self, plan: Plan) -> None:
        """Go on with another plan. Raises OSError or ssl.SSLError when its certificate is bad."""
        if plan.tls is not None and self._tls is not None:
            self._use_tls(server_tls(plan.tls))
        configure(plan.capture.headers, plan.client_request_ids)
        self.runtime = Runtime(
            plan, self._stats, self._handoff, self.active, self._random, self.loop, self.runtime
        )
        self.runtime.look_at_certificates(monotonic())
        self._set_limits()

    def _set_limits(self) -> None:
        """Share the descriptors between clients and model servers."""
        plan = self.runtime.plan
        most = descriptors.limit()
        self._room = descriptors.for_clients(most, plan.upstream_connections)
        self._limit = min(plan.limits.connections, self._room)
        self._stats.words[self._connections_limit] = self._limit
        if self._limit < plan.limits.connections:
            log.warning(
                "limits.connections is %d, but the limit of %d descriptors leaves room for %d: "
                "raise the hard limit (ulimit -Hn, LimitNOFILE)",
                plan.limits.connections,
                most,
                self._limit,
            )

    async def drain(self) -> None:
        """Stop accepting, let requests in flight finish within the limit, hand over records.

        Connections that wait to be accepted are served, too.
        """
        self.draining = True
        until = monotonic() + self.runtime.plan.limits.drain_timeout
        await self._stop_listening(until)
        self._door.close()
        while (self.active or self.clients or self.opening) and monotonic() < until:
            for client in tuple(self.clients):
                client.expire(monotonic(), self.runtime)
            await asyncio.sleep(0.01)
        # Requests cut off by the limit get their outcome and record before the hand-over.
        while self.active:  # a request that ends may start a mirrored one
            for timed in tuple(self.active):
                timed.stop()
        await asyncio.sleep(0)  # the responses that say so are sent
        for acceptor in self._acceptors.values():
            acceptor.abort()
        for client in tuple(self.clients):
            client.abort()
        await self._handoff.close(_FLUSH_PATIENCE)

    async def _stop_listening(self, until: float) -> None:
        for slot in set(range(len(self._listeners))) - set(self._acceptors):
            self._listeners[slot].close()
        mine = [self._listeners[slot] for slot in self._acceptors]
        stopped = [stop_new_connections(listener) for listener in mine]
        if any(stopped):
            # Handshakes in progress complete meanwhile.
            await asyncio.sleep(min(_HANDSHAKE_SECONDS, self.runtime.plan.limits.drain_timeout))
        while any(map(has_pending_connection, mine)) and monotonic() < until:
            await asyncio.sleep(0.01)  # the loop accepts them
        for acceptor in self._acceptors.values():
            acceptor.close()
        for listener in mine:
            with contextlib.suppress(OSError):  # another worker has
                listener.shutdown(socket.SHUT_RD)  # also where workers that hang have it open
            listener.close()

    # Called by the acceptor ---------------------------------------------------------------------

    def arrived(self, client: Connection, handshake: bool) -> bool:
        """A connection was accepted. False when the limit is reached, even for a 503, which
        would need the handshake first."""
        words = self._stats.words
        words[self._accepted] += 1
        held = len(self.clients) + len(self.opening)
        full = held >= self._room or (handshake and held - self.lingering >= self._limit)
        if full and not self._close_idle():
            self.rejected("connections")
            return False
        words[self._open] += 1
        self.opening.add(client)
        return True

    def failed(self, client: Connection) -> None:
        """The handshake of a connection failed, or did not end in time."""
        if client in self.opening:
            self.opening.discard(client)
            self._stats.words[self._open] -= 1
            self.rejected("handshake")

    def exhausted(self) -> None:
        """There was no descriptor for a connection that waits to be accepted."""
        self._stats.words[self._exhausted[0]] += 1

    # Called by the connections ------------------------------------------------------------------

    def admit(self, client: Connection) -> bool:
        """A client has connected, its handshake included; False when there are too many."""
        self.opening.discard(client)
        self.clients.add(client)
        # Lingering clients do not count: a rejected client must not cause the next rejection.
        return len(self.clients) - self.lingering <= self._limit or self._close_idle()

    def dismiss(self, client: Connection) -> None:
        """A client has disconnected."""
        if client in self.clients:
            self.clients.discard(client)
            self._stats.words[self._open] -= 1
            self.lingering -= client.lingering

    def succeed(self, before: Connection, client: Connection) -> None:
        """The connection of a client goes on as ``client``: it speaks HTTP/2."""
        self.clients.discard(before)
        self.clients.add(client)

    def linger(self) -> bool:
        """Whether one more client may linger to read its response; their number is limited."""
        most = min(self._limit, _LINGERING)
        if self.lingering >= most or len(self.clients) >= self._room:
            return False
        self.lingering += 1
        return True

    def rejected(self, reason: str) -> None:
        """A malformed request was rejected."""
        self._stats.words[self._stats.counter("rejected", {"reason": reason})] += 1

    def _close_idle(self) -> bool:
        """Close the client that has been idle for the longest, in favour of one that has come;
        whether there was one."""
        if not self._idle and monotonic() - self._looked > _LOOK_SECONDS:
            now = self._looked = monotonic()
            idle = [(client.idle(now), client) for client in self.clients]
            longest = sorted(((s, c) for s, c in idle if s), key=lambda pair: pair[0], reverse=True)
            self._idle.extend(client for _, client in longest)
        while self._idle:
            client = self._idle.popleft()
            if client in self.clients and client.idle(monotonic()):
                self._stats.words[self._stats.counter("connections_reclaimed")] += 1
                client.close()
                self.dismiss(client)
                return True
        return False

    def _misses(self) -> int:
        return sum(self._stats.words[index] for index in self._exhausted)

    def _watch_descriptors(self, now: float) -> None:
        """Report a shortage of descriptors, and give back that of an idle client."""
        words = self._stats.words
        missed = self._misses()
        if missed > self._missed:
            if not words[self._short]:
                log.error(
                    "no file descriptor left: %d of %d are taken by clients, and connections wait; "
                    "raise the limit (ulimit -Hn, LimitNOFILE, or fs.file-max of the machine)",
                    len(self.clients) + len(self.opening),
                    descriptors.limit(),
                )
            words[self._short] = 1
            self._short_since = now
            self._missed = missed
            # Not of an idle connection to a model server: the next client would find none.
            self._close_idle()
        elif words[self._short] and now - self._short_since > _SHORT_SECONDS:
            words[self._short] = 0
            log.info("there are file descriptors again")

    def _publish_memory(self) -> None:
        memory, words = self.runtime.memory, self._stats.words
        words[self._memory[0]], words[self._memory[1]] = max(0, memory.used), memory.limit
        words[self._payloads_dropped] += memory.dropped
        memory.dropped = 0

    def _tick(self) -> None:
        """Check limits periodically, for all requests at once: a timer for each request would cost
        more than the request's own bookkeeping.

        After a pause of this process (a frozen machine, a processor quota), what arrived meanwhile
        is read first: neither model servers nor clients are late because they were not read. Once:
        the limits also hold while each check is late.
        """
        now = monotonic()
        self._postponed = now - self._due > _LATE_SECONDS and not self._postponed
        pause = self.runtime.plan.handoff.flush_seconds
        self._due = now + pause
        # First, so that an error does not end the checks; the heartbeat is last, and shows it.
        self.loop.call_later(pause, self._tick)
        if not self._postponed:
            self._check_limits(now)
        self._handoff.flush()
        self._heartbeat.beat()

    def _check_limits(self, now: float) -> None:
        now_ns = monotonic_ns()
        for timed in tuple(self.active):
            timed.check(now_ns)
        if now - self._swept > 0.5:
            self._swept = now
            self.runtime.sweep(now)
            self.runtime.tidy()
            self._watch_descriptors(now)
            if self._tls is not None and now - self._looked_at >= LOOK_SECONDS:
                self._look_at_certificate(self._tls, now)
            self._publish_memory()
            for client in tuple(self.clients):
                client.expire(now, self.runtime)

    def _use_tls(self, tls: TlsContext) -> None:
        """Use it for connections that are accepted from now on."""
        self._tls = tls
        for acceptor in self._acceptors.values():
            acceptor.tls = tls.context

    def _look_at_certificate(self, tls: TlsContext, now: float) -> None:
        """Use the listener's files if they have changed."""
        self._looked_at = now
        try:
            if not tls.changed():
                return
            self._use_tls(tls)
            outcome = "ok"
        except (OSError, ssl.SSLError) as error:
            outcome = "failed"
            log.warning("listen.tls: the files cannot be used, the ones before stay: %s", error)
        labels = {"outcome": outcome}
        self._stats.words[self._stats.counter("certificate_changes", labels)] += 1


class Control:
    """The control connection of the supervisor: JSON lines over a socket pair."""

    def __init__(self, worker: Worker, line: socket.socket) -> None:
        self._worker = worker
        self._line = line

    async def serve(self) -> None:
        """Execute commands until told to drain; end of file means that the supervisor is gone."""
        reader, writer = await asyncio.open_connection(sock=self._line)
        generation = self._worker.runtime.plan.generation
        ready = {"event": "ready", "pid": os.getpid(), "generation": generation}
        self._send(writer, {**ready, "data_plane": str(compiled.form())})
        while line := await reader.readline():
            order: dict[str, Any] = json.loads(line)
            if order.get("do") == "drain":
                break
            if order.get("do") == "cover":
                self._worker.cover(order["slots"])
            if order.get("do") == "reload":
                self._send(writer, self._reload(Path(order["plan"])))
        await self._worker.drain()

    def _reload(self, path: Path) -> dict[str, object]:
        try:
            plan = Plan.from_json(json.loads(path.read_bytes()))
            self._worker.reload(plan)
        except (OSError, ValueError, TypeError, KeyError, StateError) as error:
            return {"event": "reload_failed", "error": f"{type(error).__name__}: {error}"}
        return {"event": "reloaded", "generation": plan.generation}

    @staticmethod
    def _send(writer: asyncio.StreamWriter, message: dict[str, object]) -> None:
        writer.write(json.dumps(message).encode() + b"\n")


async def _run(options: argparse.Namespace) -> None:
    plan = Plan.from_json(json.loads(options.plan.read_bytes()))
    loop = asyncio.get_running_loop()
    heartbeat = Heartbeat(options.heartbeat_fd)
    worker = Worker(plan, options.run_dir, options.run_id, options.slot, loop, heartbeat)
    # The supervisor decides when to stop; a Ctrl-C in its terminal reaches the workers as well.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, lambda: None)
    await worker.start([socket.socket(fileno=number) for number in options.listen_fds])
    freeze_gc()
    await Control(worker, socket.socket(fileno=options.control_fd)).serve()


def main(arguments: list[str] | None = None) -> int:
    """Run a worker; started by the supervisor, not by hand."""
    parser = argparse.ArgumentParser(
        prog="python -m understudy.monitor.proxy.worker", description=main.__doc__
    )
    parser.add_argument("--plan", type=Path, required=True, help="JSON of the plan")
    parser.add_argument("--run-dir", type=Path, required=True, help="shared files of this run")
    parser.add_argument("--run-id", required=True, help="names this run of the supervisor")
    parser.add_argument("--slot", type=int, required=True, help="number of this worker")
    text = "inherited listening sockets of all workers, by slot"
    parser.add_argument("--listen-fds", type=int, nargs="+", required=True, help=text)
    parser.add_argument("--control-fd", type=int, required=True, help="inherited control socket")
    parser.add_argument("--heartbeat-fd", type=int, help="inherited memory of the heartbeat")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_run(parser.parse_args(arguments)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
