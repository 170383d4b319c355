"""Servers whose answers are known: as cheap as can be, stalling on purpose, or a known queue.

``python -m benchmarks.load.server PORT KIND ARGUMENTS``, where KIND is ``plain``, ``stall EVERY
SECONDS`` or ``queue SERVERS SECONDS SEED`` (exponential service times, first come first served).
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import os
import random
import subprocess
import sys
import time
from types import TracebackType
from typing import cast

import httptools
import uvloop

from tests.support.ports import free_port
from understudy.loadtest.engine.timer import Timer, now_ns
from understudy.loadtest.gate.environment import scheduling

_BODY = b'{"predictions": [0.25]}'
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(_BODY) + _BODY


class _Plain(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.parser = httptools.HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_message_complete(self) -> None:
        self.transport.write(ANSWER)


class _Queue:
    """Servers that each take an exponential time; who comes waits for the first that is free."""

    def __init__(self, servers: int, seconds: float, seed: int) -> None:
        self.free = [0] * servers
        self.seconds = seconds
        self.chance = random.Random(seed)
        # An event loop's own timers are late by up to a millisecond; the queue would not know.
        self.timer = Timer()
        self.ends: list[tuple[int, int, asyncio.Transport]] = []
        self.number = 0
        asyncio.get_running_loop().add_reader(self.timer.fd, self.due)

    def due(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self.timer.fd, 8)
        while self.ends and self.ends[0][0] <= now_ns():
            transport = heapq.heappop(self.ends)[2]
            if not transport.is_closing():
                transport.write(ANSWER)
        if self.ends:
            self.timer.set(self.ends[0][0])

    def take(self, transport: asyncio.Transport) -> None:
        first = min(range(len(self.free)), key=self.free.__getitem__)
        ends = max(now_ns(), self.free[first])
        ends += int(self.chance.expovariate(1.0 / self.seconds) * 1e9)
        self.free[first] = ends
        self.number += 1
        heapq.heappush(self.ends, (ends, self.number, transport))
        self.timer.set(self.ends[0][0])

    def protocol(self) -> asyncio.Protocol:
        queue = self

        class Queued(_Plain):
            def on_message_complete(self) -> None:
                queue.take(self.transport)

        return Queued()


async def _main(port: int, kind: str, arguments: list[str]) -> None:
    loop = asyncio.get_running_loop()
    make = _Plain
    if kind == "queue":
        make = _Queue(int(arguments[0]), float(arguments[1]), int(arguments[2])).protocol  # type: ignore[assignment]
    server = await loop.create_server(make, "127.0.0.1", port, backlog=4096)
    if kind == "stall":
        every, seconds = float(arguments[0]), float(arguments[1])
        while True:
            await asyncio.sleep(every - seconds)
            time.sleep(seconds)
    await server.serve_forever()


class Serving:
    """``with Serving("plain") as port:``, pinned to a core."""

    def __init__(self, kind: str, *arguments: object, core: str = "0") -> None:
        self.port = free_port()
        self._command = [
            "taskset", "-c", core, sys.executable, "-m", "benchmarks.load.server", str(self.port),
            kind, *map(str, arguments),
        ]  # fmt: skip
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def scheduled(self) -> dict[str, str]:
        """For the environment of results: how this process, and so the generator that it starts,
        and the server are scheduled. Latencies of microseconds depend on it."""
        assert self.process is not None
        return {"generator": scheduling(), "server": scheduling(self.process.pid)}

    def __enter__(self) -> int:
        import socket

        self.process = subprocess.Popen(self._command)
        until = time.monotonic() + 20.0
        while time.monotonic() < until:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1.0).close()
                return self.port
            except OSError:
                time.sleep(0.05)
        raise RuntimeError("the server did not start")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()


if __name__ == "__main__":
    uvloop.run(_main(int(sys.argv[1]), sys.argv[2], sys.argv[3:]))
