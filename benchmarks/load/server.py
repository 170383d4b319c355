"""Servers whose answers are known: as cheap as can be, stalling on purpose, or a known queue.

``python -m benchmarks.load.server PORT KIND ARGUMENTS``, where KIND is ``plain``, ``stall EVERY
SECONDS`` or ``queue SERVERS SECONDS SEED`` (exponential service times, first come first served).
"""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import time
from types import TracebackType
from typing import cast

import httptools
import uvloop

from tests.plane_process import free_port

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
        self.free = [0.0] * servers
        self.seconds = seconds
        self.chance = random.Random(seed)

    def protocol(self) -> asyncio.Protocol:
        queue = self

        class Queued(_Plain):
            def on_message_complete(self) -> None:
                loop = asyncio.get_running_loop()
                now = loop.time()
                first = min(range(len(queue.free)), key=queue.free.__getitem__)
                begins = max(now, queue.free[first])
                ends = begins + queue.chance.expovariate(1.0 / queue.seconds)
                queue.free[first] = ends
                loop.call_at(ends, self.transport.write, ANSWER)

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
