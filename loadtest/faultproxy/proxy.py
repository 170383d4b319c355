"""One proxied port, whose toxics are applied to the bytes that pass."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from typing import Any

from understudy.loadtest.faultproxy.toxics import Closed, Toxic, apply_toxics, rest_of

_READ_BYTES = 65_536


class Proxy:
    """Forwards from ``listen`` to ``upstream``, both host:port; port 0 takes a free one. Disabling
    it cuts its connections and refuses new ones."""

    def __init__(self, name: str, listen: str, upstream: str, seed: int = 0) -> None:
        self.name = name
        self.listen = listen
        self.upstream = upstream
        self.toxics: list[Toxic] = []
        self._chance = random.Random(seed)  # noqa: S311  # toxics have to be repeatable
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
            "connections": len(self._running),  # an addition to Toxiproxy's API
            "toxics": [toxic.to_dict() for toxic in self.toxics],
        }

    async def start(self) -> None:
        """Listen. Raises OSError."""
        if self._server is None:
            host, _, port = self.listen.rpartition(":")
            self._server = await asyncio.start_server(self._accept, host.strip("[]"), int(port))
            address = self._server.sockets[0].getsockname()
            self.listen = f"{host}:{address[1]}"

    async def stop(self) -> None:
        """Refuse new connections, and cut the open ones."""
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
            # Which toxics a connection has is drawn once.
            draws: dict[int, float] = {}
            await asyncio.gather(
                self._pump(reader, ours, "upstream", draws),
                self._pump(theirs, writer, "downstream", draws),
            )
        except (OSError, Closed):
            pass
        finally:
            for end in (writer, ours):
                if end is not None:
                    end.close()

    def _active_toxics(self, stream: str, draws: dict[int, float]) -> list[Toxic]:
        return [
            toxic
            for toxic in self.toxics
            if toxic.stream == stream
            and draws.setdefault(id(toxic), self._chance.random()) < toxic.toxicity
        ]

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        stream: str,
        draws: dict[int, float],
    ) -> None:
        forwarded = 0
        while data := await reader.read(_READ_BYTES):
            try:
                pieces = await apply_toxics(
                    self._active_toxics(stream, draws), data, forwarded, self._chance
                )
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
                forwarded += len(piece)
            await writer.drain()
        for toxic in self._active_toxics(stream, draws):
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
