"""One proxied port: bytes go through, and suffer what is asked for."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from typing import Any

from understudy.loadtest.faultproxy.toxics import Closed, Toxic, rest_of, suffer

_PIECE = 65_536


class Proxy:
    """``listen`` and ``upstream`` are host:port; port 0 takes a free one. A disabled proxy refuses
    connections and has cut those that were there."""

    def __init__(self, name: str, listen: str, upstream: str, seed: int = 0) -> None:
        self.name = name
        self.listen = listen
        self.upstream = upstream
        self.toxics: list[Toxic] = []
        self._chance = random.Random(seed)
        self._server: asyncio.Server | None = None
        self._running: set[asyncio.Task[None]] = set()

    @property
    def enabled(self) -> bool:
        """Whether it listens."""
        return self._server is not None

    def to_dict(self) -> dict[str, Any]:
        """As the API's JSON."""
        return {
            "name": self.name,
            "listen": self.listen,
            "upstream": self.upstream,
            "enabled": self.enabled,
            "connections": len(self._running),  # ours; Toxiproxy does not tell
            "toxics": [toxic.to_dict() for toxic in self.toxics],
        }

    async def start(self) -> None:
        """Listen. Raises OSError."""
        if self._server is None:
            host, _, port = self.listen.rpartition(":")
            self._server = await asyncio.start_server(self._accept, host.strip("[]"), int(port))
            found = self._server.sockets[0].getsockname()
            self.listen = f"{host}:{found[1]}"

    async def stop(self) -> None:
        """Refuse connections, and cut those that there are."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for task in list(self._running):
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, _, port = self.upstream.rpartition(":")
        ours: asyncio.StreamWriter | None = None
        try:
            theirs, ours = await asyncio.open_connection(host.strip("[]"), int(port))
            # By connection: which toxics it has is decided once.
            lots: dict[int, float] = {}
            await asyncio.gather(
                self._pump(reader, ours, "upstream", lots),
                self._pump(theirs, writer, "downstream", lots),
            )
        except (OSError, Closed):
            pass
        finally:
            for end in (writer, ours):
                if end is not None:
                    end.close()

    def _having(self, stream: str, lots: dict[int, float]) -> list[Toxic]:
        return [
            toxic
            for toxic in self.toxics
            if toxic.stream == stream
            and lots.setdefault(id(toxic), self._chance.random()) < toxic.toxicity
        ]

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        stream: str,
        lots: dict[int, float],
    ) -> None:
        passed = 0
        while data := await reader.read(_PIECE):
            try:
                pieces = await suffer(self._having(stream, lots), data, passed, self._chance)
            except Closed as closed:
                writer.write(rest_of(closed))
                with contextlib.suppress(OSError):
                    await writer.drain()
                if closed.reset:
                    _reset(writer)
                raise
            for piece in pieces:
                writer.write(piece)
                if len(pieces) > 1:
                    await writer.drain()
                passed += len(piece)
            await writer.drain()
        for toxic in self._having(stream, lots):
            if toxic.type == "slow_close":
                await asyncio.sleep(toxic.attributes["delay"] / 1e3)
        if writer.can_write_eof():
            with contextlib.suppress(OSError):
                writer.write_eof()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close so that the kernel sends a RST."""
    sock = writer.get_extra_info("socket")
    if sock is not None:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
