"""Load over gRPC: a few connections, each with a fixed number of calls at a time.

``python -m benchmarks.grpc.load PORT CONNECTIONS CALLS SECONDS BYTES`` prints JSON: calls, failed
ones, and latencies in milliseconds.
"""

from __future__ import annotations

import asyncio
import json
import sys
from time import perf_counter

import ngh2
import uvloop

PATH = b"/inference.GRPCInferenceService/ModelInfer"
WINDOW = 16 * 1024 * 1024


class Connection(asyncio.Protocol):
    """A connection. ``until`` is when no more calls are made."""

    def __init__(self, calls: int, message: bytes, until: float) -> None:
        self.latencies: list[float] = []
        self.failed = 0
        self.done = asyncio.get_running_loop().create_future()
        self._began: dict[int, float] = {}
        self._calls = calls
        self._message = message
        self._until = until
        self._fields = [
            (b":method", b"POST"),
            (b":scheme", b"http"),
            (b":authority", b"bench"),
            (b":path", PATH),
            (b"te", b"trailers"),
            (b"content-type", b"application/grpc"),
            (b"grpc-timeout", b"20S"),
            (b"user-agent", b"bench"),
        ]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._engine = ngh2.Connection(ngh2.Role.CLIENT)
        self._engine.initiate_connection({4: WINDOW})
        self._engine.set_local_window_size(WINDOW)
        for _ in range(self._calls):
            self._call()
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        self.failed += len(self._began)
        self._end()

    def data_received(self, data: bytes) -> None:
        engine = self._engine
        engine.receive_data(data)
        now = perf_counter()
        for event in engine.events():
            if isinstance(event, ngh2.StreamClosed):
                self.latencies.append(now - self._began.pop(event.stream_id))
                self.failed += event.error_code != 0
                if now < self._until:
                    self._call()
                elif not self._began:
                    self._end()
            elif isinstance(event, ngh2.TrailersReceived):
                self.failed += (b"grpc-status", b"0") not in event.headers
        self._flush()

    def _call(self) -> None:
        number = self._engine.send_request(self._fields)
        self._engine.send_data(number, self._message, end_stream=True)
        self._began[number] = perf_counter()

    def _flush(self) -> None:
        self._transport.write(self._engine.data_to_send())  # type: ignore[attr-defined]

    def _end(self) -> None:
        if not self.done.done():
            self.done.set_result(None)


async def _load(port: int, connections: int, calls: int, seconds: float, size: int) -> None:
    loop = asyncio.get_running_loop()
    message = b"\0" + size.to_bytes(4, "big") + bytes(size)
    until = perf_counter() + seconds
    made = [
        (await loop.create_connection(lambda: Connection(calls, message, until), "127.0.0.1", port))
        for _ in range(connections)
    ]
    await asyncio.gather(*(protocol.done for _, protocol in made))
    latencies = sorted(one for _, protocol in made for one in protocol.latencies)
    count = len(latencies)
    at = {share: latencies[min(count - 1, int(share * count))] * 1e3 for share in (0.5, 0.99)}
    failed = sum(protocol.failed for _, protocol in made)
    print(json.dumps({"calls": count, "failed": failed, "p50": at[0.5], "p99": at[0.99]}))


if __name__ == "__main__":
    given = sys.argv[1:]
    uvloop.run(_load(int(given[0]), int(given[1]), int(given[2]), float(given[3]), int(given[4])))
