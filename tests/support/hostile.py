"""Peers whose messages have as many pieces as can be: answers of a model server, and a client.

``python -m tests.support.hostile PORT KIND PATH CONNECTIONS`` is such a client: on each connection, it
sends requests of one KIND as fast as the other end reads, and connects again whenever that closes
it. ``--idle`` gives it the processor time only that nothing else wants.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys

_CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
_STREAM = _CHUNKED.replace(b"\r\n\r\n", b"\r\nContent-Type: text/event-stream\r\n\r\n")
_TINY = b"1\r\na\r\n" * 32768
_EXTENDED = (b"1;a=" + b"b" * 900 + b"\r\na\r\n") * 256
_LINES = b"".join(b"x%d: y\r\n" % number for number in range(6000))

ANSWERS: dict[str, tuple[bytes, bytes]] = {
    "interim": (b"", b"HTTP/1.1 103 Early Hints\r\n\r\n" * 8192),
    "one_byte_chunks": (_CHUNKED, _TINY),
    "tiny_events": (_STREAM, b"9\r\ndata: x\n\n\r\n" * 16384),
    "single_events": (_STREAM, b"9\r\ndata: x\n\n\r\n"),
    "extensions": (_CHUNKED, _EXTENDED),
    "header_lines": (b"HTTP/1.1 200 OK\r\n%bContent-Length: 2\r\n\r\nok" % _LINES, b""),
    "endless_head": (b"HTTP/1.1 200 OK\r\n", b"X-A: b\r\n" * 32768),
}
"""The start of an answer, and what follows without end."""

PATH = b"/v2/models/m/infer"
_POST = b"POST %b HTTP/1.1\r\nHost: here\r\n" % PATH
_UPLOAD = _POST + b"Transfer-Encoding: chunked\r\n\r\n"

REQUESTS: dict[str, tuple[bytes, bytes]] = {
    "one_byte_chunks": (_UPLOAD, _TINY),
    "single_chunks": (_UPLOAD, b"1\r\na\r\n"),
    "extensions": (_UPLOAD, _EXTENDED),
    "header_lines": (_POST + _LINES[:28_000] + b"\r\nContent-Length: 2\r\n\r\n{}", b""),
    "empty_lines": (b"", b"\r\n" * 65536),
    "endless_answer": (b"GET /hostile/one_byte_chunks HTTP/1.1\r\nHost: here\r\n\r\n", b""),
    "endless_events": (b"GET /hostile/single_events HTTP/1.1\r\nHost: here\r\n\r\n", b""),
}
"""The start of what a client sends, and what follows without end."""


async def send(writer: asyncio.StreamWriter, start: bytes, block: bytes) -> None:
    """Send ``start``, then ``block`` again and again. Raises ConnectionError when it is closed."""
    writer.write(start)
    await writer.drain()
    while block:
        writer.write(block)
        await writer.drain()
        await asyncio.sleep(0)


def yield_to_others() -> None:
    """Run only when the processor has nothing else to do."""
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


async def _ask(port: int, start: bytes, block: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    sender = asyncio.ensure_future(send(writer, start, block))
    try:
        while await reader.read(1 << 16):
            pass
    finally:
        sender.cancel()
        with contextlib.suppress(asyncio.CancelledError, OSError):
            await sender
        writer.close()


async def _again_and_again(port: int, start: bytes, block: bytes) -> None:
    while True:
        with contextlib.suppress(OSError):
            await _ask(port, start, block)
        await asyncio.sleep(0.001)


async def main(port: int, kind: str, path: str, connections: int) -> None:
    start, block = REQUESTS[kind]
    start = start.replace(PATH, path.encode())
    await asyncio.gather(*(_again_and_again(port, start, block) for _ in range(connections)))


if __name__ == "__main__":
    if "--idle" in sys.argv:
        yield_to_others()
    asyncio.run(main(int(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])))
