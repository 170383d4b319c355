"""A model server over gRPC that costs little: every call gets the same prepared answer.

``python -m benchmarks.grpc.backend ANSWER_BYTES PORT…``
"""

from __future__ import annotations

import asyncio
import sys

import ngh2
import uvloop

WINDOW = 16 * 1024 * 1024


class Backend(asyncio.Protocol):
    """A connection of a client."""

    answer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._engine = ngh2.Connection(ngh2.Role.SERVER)
        self._engine.initiate_connection({3: 1000, 4: WINDOW})
        self._engine.set_local_window_size(WINDOW)

    def data_received(self, data: bytes) -> None:
        engine = self._engine
        engine.receive_data(data)
        for event in engine.events():
            if isinstance(event, ngh2.DataReceived) and event.end_stream:
                number = event.stream_id
                engine.send_response(
                    number, [(b":status", b"200"), (b"content-type", b"application/grpc")]
                )
                engine.send_data(number, self.answer)
                engine.send_trailers(number, [(b"grpc-status", b"0")])
        self._transport.write(engine.data_to_send())  # type: ignore[attr-defined]


async def _serve(ports: list[int]) -> None:
    loop = asyncio.get_running_loop()
    for port in ports:
        await loop.create_server(Backend, "127.0.0.1", port)
    await asyncio.Event().wait()


if __name__ == "__main__":
    Backend.answer = b"\0" + int(sys.argv[1]).to_bytes(4, "big") + bytes(int(sys.argv[1]))
    uvloop.run(_serve([int(port) for port in sys.argv[2:]]))
