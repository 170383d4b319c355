"""The evaluation plane of another container, as the supervisor of the workers sees it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from pathlib import Path

from understudy.monitor.supervisor.limits import Limits
from understudy.monitor.supervisor.peer import LONGEST_LINE, OnEvent, Peer

log = logging.getLogger(__name__)


class RemotePlane(Peer):
    """The evaluation plane of another container, which connects to a socket in the run folder. The
    supervisor there replaces it, and reports that with the event ``down``."""

    def __init__(self, on_event: OnEvent, on_change: Callable[[], None]) -> None:
        super().__init__("evaluation plane", on_event, on_change, Limits())
        self._server: asyncio.Server | None = None
        self._closed = False
        self._gone = asyncio.Event()
        self._gone.set()

    async def open(self, path: Path) -> None:
        """Listen at ``path``. Raises OSError."""
        self._server = await asyncio.start_unix_server(self._serve, path, limit=LONGEST_LINE)
        path.chmod(0o600)

    def check(self, elapsed: float) -> None:
        """Nothing: the supervisor of the other container does."""

    async def stop(self, patience: float) -> None:
        """Have it drained, and wait until it has disconnected, or ``patience`` seconds."""
        self._closed = True
        self.tell({"do": "drain"})
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await self._gone.wait()
        self.kill()
        await self._gone.wait()

    def kill(self) -> None:
        """Close the line; the supervisor there ends it."""
        self._closed = True
        if self._server is not None:
            self._server.close()
        if self._writer is not None:
            self._writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._closed:
            writer.close()
            return
        if self._writer is not None:
            self._writer.close()  # a successor has connected
        self._writer = writer
        self._gone.clear()
        self._on_change()
        try:
            await self._listen(reader)
        except (OSError, ValueError) as error:
            log.error("%s: the control line broke: %s", self.name, error)
        finally:
            writer.close()
            if self._writer is writer:
                self._writer = None
                self._gone.set()
                self.down()

    def down(self) -> None:
        """It has ended, and is started again."""
        if self.ready:
            self.ready = False
            self.restarts += 1
            self._on_change()
