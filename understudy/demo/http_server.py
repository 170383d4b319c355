"""A small HTTP server for the demo's models: keep-alive, Content-Length, chunked answers.

It is as simple as a server for one known client can be. Real model servers are what
``examples/flights`` uses.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

_MOST_BODY = 1 << 20
_REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 500: "Internal Server Error"}


@dataclass(frozen=True, slots=True)
class Answer:
    """A response: JSON, or the events of a stream."""

    status: int
    document: Any = None
    events: AsyncIterator[bytes] | None = None


Handler = Callable[[str, str, bytes], Awaitable[Answer]]
"""Called with the method, the path and the body of a request."""


async def _answer(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, handler: Handler
) -> None:
    with contextlib.suppress(
        asyncio.IncompleteReadError, ConnectionError, asyncio.LimitOverrunError
    ):
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            line, _, lines = head.partition(b"\r\n")
            method, target, _ = line.decode("latin-1").split(" ", 2)
            length = int(lines.lower().partition(b"content-length:")[2].split(b"\r\n")[0] or 0)
            if length > _MOST_BODY:
                break
            body = await reader.readexactly(length)
            answer = await handler(method, target.partition("?")[0], body)
            if answer.events is not None:
                await _stream(writer, answer.events)
                continue
            data = json.dumps(answer.document).encode()
            writer.write(
                f"HTTP/1.1 {answer.status} {_REASONS[answer.status]}\r\n"
                f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n".encode()
                + data
            )
            await writer.drain()
    writer.close()


async def _stream(writer: asyncio.StreamWriter, events: AsyncIterator[bytes]) -> None:
    head = (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    async for event in events:
        writer.write(b"%b%x\r\n%b\r\n" % (head, len(event), event))
        head = b""
        await writer.drain()
    writer.write(b"0\r\n\r\n")
    await writer.drain()


def serve(port: int, handler: Handler, signals: dict[signal.Signals, Callable[[], None]]) -> None:
    """Serve on a port of loopback until SIGTERM or SIGINT; ``signals`` are further handlers."""
    import uvloop

    async def run() -> None:
        ending = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, ending.set)
        for number, act in signals.items():
            loop.add_signal_handler(number, act)
        server = await asyncio.start_server(
            lambda reader, writer: _answer(reader, writer, handler), "127.0.0.1", port, backlog=256
        )
        await ending.wait()
        server.close()

    uvloop.run(run())
