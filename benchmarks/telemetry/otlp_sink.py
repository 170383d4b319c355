"""A receiver of OTLP over HTTP that discards: ``python -m benchmarks.telemetry.otlp_sink PORT``.

It costs as little as it can, and counts requests and bytes, which ``GET /`` tells. ``--pause S``
waits before each answer, ``--status N`` answers with another status.
"""

from __future__ import annotations

import argparse
import asyncio
import json


class Sink:
    def __init__(self, pause: float, status: int) -> None:
        self._pause, self._status = pause, status
        self.requests = self.bytes = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                answer = b""
                if head.startswith(b"get"):
                    answer = json.dumps({"requests": self.requests, "bytes": self.bytes}).encode()
                else:
                    self.requests += 1
                    self.bytes += await self._body(head, reader)
                    await asyncio.sleep(self._pause)
                status = 200 if answer else self._status
                writer.write(
                    b"HTTP/1.1 %d -\r\ncontent-length: %d\r\n\r\n" % (status, len(answer)) + answer
                )
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def _body(self, head: bytes, reader: asyncio.StreamReader) -> int:
        for line in head.split(b"\r\n"):
            if line.startswith(b"content-length:"):
                return len(await reader.readexactly(int(line.partition(b":")[2])))
        total = 0
        while size := int((await reader.readline()).strip(), 16):
            total += len(await reader.readexactly(size + 2)) - 2
        await reader.readline()
        return total


async def main(port: int, pause: float, status: int) -> None:
    sink = Sink(pause, status)
    server = await asyncio.start_server(sink.serve, "127.0.0.1", port, limit=1 << 20)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("--pause", type=float, default=0.0)
    parser.add_argument("--status", type=int, default=200)
    options = parser.parse_args()
    asyncio.run(main(options.port, options.pause, options.status))
