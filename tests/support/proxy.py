"""A real worker between real sockets: scripted upstreams on one side, raw clients on the other."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic_ns
from typing import Any

from tests.support.patience import patient
from understudy.monitor.proxy.breaker import OPEN, Breaker
from understudy.monitor.proxy.exchange import Exchange
from understudy.monitor.proxy.worker import Worker
from understudy.monitor.routing.plan import Challenger, Limits, Model, Plan, Upstream

INFER = "/v2/models/m/infer"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@dataclass
class Message:
    """A request or response as it was on the wire; ``body`` is without chunked framing."""

    head: bytes
    body: bytes
    raw_body: bytes

    @property
    def first(self) -> bytes:
        return self.head.split(b"\r\n")[0]

    @property
    def lines(self) -> list[bytes]:
        return self.head.split(b"\r\n")[1:]

    def header(self, name: str) -> bytes | None:
        values = [
            line.partition(b":")[2].strip()
            for line in self.lines
            if line.partition(b":")[0].lower() == name.encode()
        ]
        return b",".join(values) if values else None

    @property
    def status(self) -> int:
        return int(self.first.split(b" ")[1])


def echo(message: Message) -> bytes:
    """An answer that holds the request's target and body."""
    body = message.first.split(b" ")[1] + b"|" + message.body
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


async def read_message(
    reader: asyncio.StreamReader, request: bool = False, to_head: bool = False
) -> Message:
    """Read one message with its body. Raises IncompleteReadError at the end of the stream."""
    head = (await reader.readuntil(b"\r\n\r\n"))[:-4]
    message = Message(head, b"", b"")
    bodiless = not request and (to_head or message.status < 200 or message.status in (204, 304))
    length = message.header("content-length")
    if bodiless:
        return message
    if (message.header("transfer-encoding") or b"").lower().endswith(b"chunked"):
        while True:
            line = await reader.readuntil(b"\r\n")
            message.raw_body += line
            size = int(line.split(b";")[0], 16)
            if size == 0:
                break
            data = await reader.readexactly(size + 2)
            message.raw_body += data
            message.body += data[:-2]
        while (line := await reader.readuntil(b"\r\n")) != b"\r\n":
            message.raw_body += line
        message.raw_body += b"\r\n"
    elif length is not None:
        message.body = message.raw_body = await reader.readexactly(int(length))
    elif not request:
        message.body = message.raw_body = await reader.read()
    return message


Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Answer = Callable[[Message], bytes]


class Server:
    """An upstream. ``answer`` maps each request to raw bytes, or ``handler`` plays a script."""

    def __init__(self, answer: Answer | bytes = OK, handler: Handler | None = None) -> None:
        self.seen: list[Message] = []
        self.connections = 0
        self.closed = 0
        self.port = 0
        self._answer = answer
        self._handler = handler
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def start(
        self, port: int = 0, tls: Any = None, kernel_buffer: int = 0, host: str = "127.0.0.1"
    ) -> Server:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if kernel_buffer:
            shrink(listener, kernel_buffer)
        listener.bind((host, port))
        self._server = await asyncio.start_server(
            self._serve, sock=listener, ssl=tls, limit=1 << 20
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        try:
            if self._handler is not None:
                await self._handler(reader, writer)
            else:
                while True:
                    message = await read_message(reader, request=True)
                    self.seen.append(message)
                    answer = self._answer
                    writer.write(answer if isinstance(answer, bytes) else answer(message))
                    await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self.closed += 1
            self._writers.discard(writer)
            writer.close()

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            for writer in tuple(self._writers):
                writer.close()
            self._server = None


def reopen(breaker: Breaker) -> None:
    """Let the time pass for which ``breaker`` is open."""
    assert breaker.state == OPEN
    breaker._reopens_at = 0.0


def silent(after: bytes = b"") -> Server:
    """An upstream that reads a request, sends ``after`` and then nothing."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_message(reader, request=True)
        writer.write(after)
        await reader.read()

    return Server(handler=script)


@dataclass
class Sidecar:
    """A worker and its numbers."""

    worker: Worker
    port: int
    folder: Path
    plan: Plan
    _clients: list[asyncio.StreamWriter] = field(default_factory=list)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 20)
        self._clients.append(writer)
        return reader, writer

    async def ask(self, raw: bytes, to_head: bool = False) -> Message:
        """One request on a new connection."""
        reader, writer = await self.connect()
        writer.write(raw)
        try:
            return await read_message(reader, to_head=to_head)
        finally:
            writer.close()

    def counter(self, name: str, **labels: str) -> int:
        """Sum of all counters and sketch counts of that name with those labels."""
        from understudy.monitor.stats.shared import walk

        stats = self.worker._stats
        total = 0
        for entry in walk(stats.words):
            if entry.name == name and labels.items() <= dict(entry.labels).items():
                total += stats.words[entry.offset]
        return total

    async def until(self, condition: Callable[[], bool], seconds: float = 10.0) -> None:
        """Wait until ``condition`` holds; fail after ``seconds``."""
        async with asyncio.timeout(patient(seconds)):
            while not condition():
                await asyncio.sleep(0.005)

    def held(self) -> int:
        """Bytes that the worker itself has taken and not yet passed on, both ways."""
        total = 0
        for client in self.worker.clients:
            total += len(client._buffer) + sum(map(len, client._held))
            if client.transport is not None:
                total += client.transport.get_write_buffer_size()
            if client.exchange is not None:
                kept = client.exchange._captured if client.exchange._gathers else None
                total += sum(map(len, client.exchange._unsent or kept or ()))
        runtime = self.worker.runtime
        others = (*runtime.mirrors, *runtime.serving.values())
        for arm in (runtime.champion, *(other.arm for other in others)):
            for connection in arm.pool.open:
                total += sum(map(len, connection._held))
                if connection.transport is not None:
                    total += connection.transport.get_write_buffer_size()
        return total

    async def stalled(self, progress: Callable[[], int]) -> None:
        """Wait until ``progress`` has stood still for a while, and for many turns of the loop: a
        pause of the machine alone is no turn."""
        last, turns = -1, 0
        while turns < 25:
            last, turns = (last, turns + 1) if progress() == last else (progress(), 0)
            await asyncio.sleep(0.01)

    def later(self, seconds: float) -> None:
        """Check all time limits as in ``seconds`` from now. So a test has limits that no pause of
        the machine exceeds, and need not wait for them."""
        now_ns = monotonic_ns() + int(seconds * 1e9)
        for timed in tuple(self.worker.active):
            timed.check(now_ns)
        for client in tuple(self.worker.clients):
            client.expire(now_ns / 1e9, self.worker.runtime)

    def exchanges(self) -> list[Exchange]:
        """Requests of clients that are under way."""
        return [timed for timed in self.worker.active if isinstance(timed, Exchange)]

    def blocked(self) -> bool:
        """Whether a client cannot send since the model server does not read."""
        return any(exchange._blocked_ns < 0 for exchange in self.exchanges())

    def choked(self) -> bool:
        """Whether a model server cannot send since the client does not read."""
        connections = [exchange._connection for exchange in self.exchanges()]
        return any(one is not None and one.read_paused for one in connections)

    def settled(self) -> bool:
        """Nothing is under way."""
        return not self.worker.active and self.counter("in_flight") == 0


def plan_for(champion: int, *challengers: Challenger, **limits: Any) -> Plan:
    """A plan with one model whose champion is on port ``champion``."""
    quick = {"header_timeout": 30.0, "keepalive_timeout": 60.0, "drain_timeout": 30.0} | limits
    return Plan(
        generation=1,
        champion=Upstream(
            "champion",
            "127.0.0.1",
            champion,
            first_byte_timeout=20.0,
            total_timeout=60.0,
            idle_timeout=60.0,
        ),
        models=(Model("m", "1", "auto", (INFER,)),),
        challengers=challengers,
        limits=Limits(**quick),
    )


def shrink(sock: Any, size: int) -> None:
    """Have the kernel buffer only about ``size`` bytes each way; accepted sockets inherit it."""
    for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        sock.setsockopt(socket.SOL_SOCKET, option, size)


@contextlib.asynccontextmanager
async def sidecar(plan: Plan, kernel_buffer: int = 0) -> AsyncIterator[Sidecar]:
    """A running worker for ``plan``; afterwards nothing must be left under way.

    ``kernel_buffer``: bytes that the kernel buffers at most on the worker's sockets, both ways, so
    that what it cannot send shows in the worker's own buffers; 0 leaves that to the kernel.
    """
    with tempfile.TemporaryDirectory() as name:
        listener = socket.socket()
        if kernel_buffer:
            shrink(listener, kernel_buffer)
        listener.bind(("127.0.0.1", 0))
        listener.listen(256)
        port = listener.getsockname()[1]
        worker = Worker(plan, Path(name), "test", 0, asyncio.get_running_loop())
        await worker.start([listener])
        side = Sidecar(worker, port, Path(name), plan)
        try:
            yield side
        finally:
            for writer in side._clients:
                writer.close()
            await side.until(side.settled)
            worker.draining = True
            for acceptor in worker._acceptors.values():
                acceptor.close()
            await worker._handoff.close(0)
            for client in tuple(worker.clients):
                client.abort()
            await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def worker_process(plan: Plan, folder: Path) -> AsyncIterator[tuple[int, int]]:
    """A worker in a separate process, started as the supervisor does; yields (port, pid)."""
    path = folder / "plan.json"
    path.write_text(json.dumps(dataclasses.asdict(plan)))
    ours, theirs = socket.socketpair()
    with socket.socket() as listener, ours, theirs:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        descriptors = (listener.fileno(), theirs.fileno())
        options = ("--plan", path, "--run-dir", folder, "--run-id", "test", "--slot", 0)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "understudy.monitor.proxy.worker", *map(str, options)),
            *("--listen-fds", str(descriptors[0]), "--control-fd", str(descriptors[1])),
            pass_fds=descriptors,
        )
        theirs.close()
        ours.setblocking(False)
        try:
            said = await asyncio.get_running_loop().sock_recv(ours, 4096)
            assert b'"ready"' in said
            yield listener.getsockname()[1], process.pid
        finally:
            ours.close()  # the end of the line: it drains and ends
            assert await process.wait() == 0


def post(
    body: bytes = b"{}", *lines: bytes, path: str = INFER, framing: bytes | None = None
) -> bytes:
    """A POST with Content-Length, or with the given framing line."""
    framed = framing if framing is not None else b"Content-Length: %d" % len(body)
    head = [b"POST %b HTTP/1.1" % path.encode(), b"Host: here", *lines]
    if framed:
        head.append(framed)
    return b"\r\n".join((*head, b"", body))


def get(path: str = "/x", *lines: bytes, version: bytes = b"1.1", method: bytes = b"GET") -> bytes:
    """A request without a body."""
    return b"\r\n".join(
        (b"%b %b HTTP/%b" % (method, path.encode(), version), b"Host: here", *lines, b"", b"")
    )
