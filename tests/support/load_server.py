"""A model server for tests of the load generator: real sockets, times that are known."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.patience import patient
from tests.support.ports import free_port

_SERVER = """
import asyncio, gzip, itertools, os, random, sys
port, slots, seconds, kind = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), sys.argv[4]
last = int(sys.argv[5])
chance = random.Random(1)
number = itertools.count(1)
async def main():
    free = asyncio.Semaphore(slots)
    async def serve(reader, writer):
        try:
            while True:
                head = await reader.readuntil(b"\\r\\n\\r\\n")
                length = 0
                for line in head.split(b"\\r\\n"):
                    if line.lower().startswith(b"content-length:"):
                        length = int(line.split(b":")[1])
                body = await reader.readexactly(length)
                if next(number) == last:
                    os._exit(1)
                path = head.split(b" ")[1]
                async with free:
                    took = seconds * (chance.expovariate(1.0) if kind == "exponential" else 1.0)
                    if took:
                        await asyncio.sleep(took)
                status = b"503 no" if path.startswith(b"/broken") else b"200 OK"
                more = b""
                if path.startswith(b"/redirect"):
                    status, more = b"307 Elsewhere", b"location: /elsewhere?token=t0psecret\\r\\n"
                if path.startswith(b"/flaky") and chance.random() < 0.5:
                    status = b"500 no"
                if path.startswith(b"/auth") and b"authorization: Bearer t0psecret\\r\\n" not in head:
                    status = b"401 Unauthorized"
                if path.startswith(b"/missing"):
                    status = b"404 Not Found"
                answer = b"no json" if path.startswith(b"/text") else b'{"predictions": [0.5]}'
                if b'"inputs"' in body:
                    answer = (b'{"outputs": [{"name": "y", "shape": [1], "datatype": "FP64", '
                              b'"data": [0.5]}]}')
                if path.startswith(b"/echo"):
                    answer = body
                if path.startswith(b"/error"):
                    answer = b'{"error": "CUDA out of memory"}'
                if path.startswith(b"/gzip"):
                    answer, more = gzip.compress(answer), b"content-encoding: gzip\\r\\n"
                if not status.startswith(b"2"):
                    answer = b"headers: " + head
                if path.startswith(b"/hang"):
                    await asyncio.sleep(3600)
                writer.write(b"HTTP/1.1 %s\\r\\n%scontent-length: %d\\r\\n\\r\\n%s"
                             % (status, more, len(answer), answer))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()
    server = await asyncio.start_server(serve, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()
asyncio.run(main())
"""


class Served:
    """A context in which a command serves at ``port``."""

    def __init__(self, *arguments: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        script, *rest = arguments
        self.command = [sys.executable, "-c", script, str(self.port), *rest]
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.process = subprocess.Popen(self.command)
        until = time.monotonic() + patient(20)
        while time.monotonic() < until:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1.0).close()
                return self
            except OSError:
                time.sleep(0.05)
        raise AssertionError("the server did not start")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()


class Server(Served):
    """``slots`` requests are worked on at the same time, ``seconds`` each. It dies of request number
    ``last``; 0: of none."""

    def __init__(
        self, slots: int = 64, seconds: float = 0.0, kind: str = "fixed", last: int = 0
    ) -> None:
        super().__init__(_SERVER, str(slots), str(seconds), kind, str(last))


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path
