"""The model server of the benchmark: as cheap as can be, and correct in its framing.

``python -m benchmarks.proxy.backend COUNTS PORT PORT …`` answers every request on each PORT with
one prediction. Who connects to COUNTS is told how many requests each PORT has answered: what a
proxy forwarded and copied is taken from there, not from what it says of itself.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from collections.abc import Callable
from typing import cast

import httptools
import uvloop

BODY = (
    b'{"model_name":"bench","model_version":"1","id":"0","outputs":'
    b'[{"name":"p","shape":[1],"datatype":"FP64","data":[0.25]}]}'
)
ANSWER = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(BODY)
) + BODY


class Backend(asyncio.Protocol):
    def __init__(self, answered: list[int], index: int) -> None:
        self.answered = answered
        self.index = index

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.parser = httptools.HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_message_complete(self) -> None:
        self.answered[self.index] += 1
        self.transport.write(ANSWER)


class _Counts(asyncio.Protocol):
    def __init__(self, answered: list[int]) -> None:
        self.answered = answered

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        told = cast(asyncio.Transport, transport)
        told.write(json.dumps(self.answered).encode())
        told.close()


def counts(port: int) -> list[int]:
    """Requests answered so far, one number per port of the backend."""
    with socket.create_connection(("127.0.0.1", port), 10) as told:
        text = b""
        while more := told.recv(4096):
            text += more
    numbers: list[int] = json.loads(text)
    return numbers


async def main(counts_port: int, ports: list[int]) -> None:
    loop = asyncio.get_running_loop()
    answered = [0] * len(ports)

    def backend(index: int) -> Callable[[], Backend]:
        return lambda: Backend(answered, index)

    for index, port in enumerate(ports):
        await loop.create_server(backend(index), "127.0.0.1", port, backlog=4096)
    await loop.create_server(lambda: _Counts(answered), "127.0.0.1", counts_port)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), [int(port) for port in sys.argv[2:]]))
