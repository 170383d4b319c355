"""A worker process of the data plane.

It gets its listening socket and a control socket from the supervisor, its plan from a file, and
keeps its numbers in shared memory. See :func:`main` for the command line.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import socket
import ssl
import sys
from pathlib import Path
from random import Random
from time import monotonic, monotonic_ns
from typing import Any

import uvloop

from understudy.monitor.errors import StateError
from understudy.monitor.gc_tuning import freeze_gc
from understudy.monitor.proxy.client import QUIET_SECONDS, ClientConnection
from understudy.monitor.proxy.fields import keep_headers
from understudy.monitor.proxy.handoff import HandOff
from understudy.monitor.proxy.host import Connection
from understudy.monitor.proxy.listening import has_pending_connection, stop_new_connections
from understudy.monitor.proxy.probe import ProbeListener, socket_path
from understudy.monitor.proxy.protocols import Timed
from understudy.monitor.proxy.runtime import Runtime
from understudy.monitor.routing.plan import Plan
from understudy.monitor.stats.shared import SharedStats

_FLUSH_PATIENCE = 5.0
_HANDSHAKE_SECONDS = 0.05


class Worker:
    """The state that the connections of one process share."""

    def __init__(
        self, plan: Plan, run_dir: Path, run: str, slot: int, loop: asyncio.AbstractEventLoop
    ) -> None:
        self.loop = loop
        self.draining = False
        self.clients: set[Connection] = set()
        self.lingering = 0
        self.active: set[Timed] = set()
        self._stats = SharedStats(run_dir / f"worker-{slot}.stats")
        self._random = Random(os.urandom(32))
        identity: dict[str, str | int] = {
            "run": run,
            "slot": slot,
            "incarnation": self._stats.incarnation,
        }
        self._handoff = HandOff(run_dir / "records.sock", identity, self._stats, plan.handoff, loop)
        keep_headers(plan.capture.headers)
        self.runtime = Runtime(plan, self._stats, self._handoff, self.active, self._random, loop)
        self._accepted = self._stats.counter("connections_accepted")
        self._open = self._stats.gauge("connections_open")
        self._swept = 0.0
        self._tls: ssl.SSLContext | None = None
        self._server: asyncio.Server | None = None
        self._listener: socket.socket | None = None
        self._door = ProbeListener(self, socket_path(run_dir, slot))

    async def start(self, listener: socket.socket) -> None:
        """Listen, connect to the evaluation plane, start checking limits."""
        plan = self.runtime.plan
        if plan.tls is not None:
            self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._tls.minimum_version = ssl.TLSVersion.TLSv1_2
            self._tls.set_alpn_protocols(["http/1.1"])
            self._tls.load_cert_chain(plan.tls.certificate, plan.tls.key)
        self._handoff.start()
        self._listener = listener
        self._server = await self.loop.create_server(
            lambda: ClientConnection(self),
            sock=listener,
            ssl=self._tls,
            ssl_handshake_timeout=plan.limits.header_timeout if self._tls is not None else None,
        )
        await self._door.open()
        self._tick()

    def reload(self, plan: Plan) -> None:
        """Go on with another plan. Raises OSError or ssl.SSLError when its certificate is bad."""
        if plan.tls is not None and self._tls is not None:
            # The context is kept: connections that are made from now on get the new certificate.
            self._tls.load_cert_chain(plan.tls.certificate, plan.tls.key)
        keep_headers(plan.capture.headers)
        self.runtime = Runtime(
            plan, self._stats, self._handoff, self.active, self._random, self.loop, self.runtime
        )

    async def drain(self) -> None:
        """Stop accepting, let requests in flight finish within the limit, hand over records.

        Connections that wait to be accepted are served, too.
        """
        self.draining = True
        until = monotonic() + self.runtime.plan.limits.drain_timeout
        await self._stop_listening(until)
        self._door.close()
        # A client is none before its handshake is over.
        quiet = monotonic() + QUIET_SECONDS if self._tls is not None else 0.0
        while (self.active or self.clients or monotonic() < quiet) and monotonic() < until:
            for client in tuple(self.clients):
                client.expire(monotonic(), self.runtime)
            await asyncio.sleep(0.01)
        # Requests cut off by the limit get their outcome and record before the hand-over.
        while self.active:  # a request that ends may start a mirrored one
            for timed in tuple(self.active):
                timed.cancel()
        for client in tuple(self.clients):
            client.abort()
        await self._handoff.close(_FLUSH_PATIENCE)

    async def _stop_listening(self, until: float) -> None:
        if self._server is None or self._listener is None:
            return
        if stop_new_connections(self._listener):
            # Handshakes in progress complete meanwhile.
            await asyncio.sleep(min(_HANDSHAKE_SECONDS, self.runtime.plan.limits.drain_timeout))
        while has_pending_connection(self._listener) and monotonic() < until:
            await asyncio.sleep(0.01)  # the loop accepts them
        self._server.close()

    # Called by the connections ------------------------------------------------------------------

    def admit(self, client: Connection) -> bool:
        """A client has connected; False when there are too many."""
        words = self._stats.words
        words[self._accepted] += 1
        words[self._open] += 1
        self.clients.add(client)
        # Lingering clients do not count: a rejected client must not cause the next rejection.
        return len(self.clients) - self.lingering <= self.runtime.plan.limits.connections

    def dismiss(self, client: Connection) -> None:
        """A client has disconnected."""
        self._stats.words[self._open] -= 1
        self.clients.discard(client)
        self.lingering -= client.lingering

    def linger(self) -> bool:
        """Whether one more client may linger to read its response; their number is limited."""
        if self.lingering >= self.runtime.plan.limits.connections:
            return False
        self.lingering += 1
        return True

    def rejected(self, reason: str) -> None:
        """A malformed request was rejected."""
        self._stats.words[self._stats.counter("rejected", {"reason": reason})] += 1

    def _tick(self) -> None:
        """Check limits periodically, for all requests at once: a timer for each request would cost
        more than the request's own bookkeeping."""
        now = monotonic()
        now_ns = monotonic_ns()
        for timed in tuple(self.active):
            timed.check(now_ns)
        self._handoff.flush()
        if now - self._swept > 0.5:
            self._swept = now
            self.runtime.sweep(now)
            self.runtime.tidy()
            for client in tuple(self.clients):
                client.expire(now, self.runtime)
        self.loop.call_later(self.runtime.plan.handoff.flush_seconds, self._tick)


class Control:
    """The control connection of the supervisor: JSON lines over a socket pair."""

    def __init__(self, worker: Worker, line: socket.socket) -> None:
        self._worker = worker
        self._line = line

    async def serve(self) -> None:
        """Execute commands until told to drain; end of file means that the supervisor is gone."""
        reader, writer = await asyncio.open_connection(sock=self._line)
        generation = self._worker.runtime.plan.generation
        self._send(writer, {"event": "ready", "pid": os.getpid(), "generation": generation})
        while line := await reader.readline():
            order: dict[str, Any] = json.loads(line)
            if order.get("do") == "drain":
                break
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
    worker = Worker(plan, options.run_dir, options.run_id, options.slot, loop)
    # The supervisor decides when to stop; a Ctrl-C in its terminal reaches the workers as well.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, lambda: None)
    await worker.start(socket.socket(fileno=options.listen_fd))
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
    parser.add_argument("--listen-fd", type=int, required=True, help="inherited listening socket")
    parser.add_argument("--control-fd", type=int, required=True, help="inherited control socket")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_run(parser.parse_args(arguments)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
