"""The fault proxy as a process of its own, or in a thread of a test or a gate."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from types import TracebackType

import uvicorn

from loadtest.errors import LoadTestError
from loadtest.faultproxy.api import Room, app_of

PORT = 8474
"""Toxiproxy's own."""


class FaultProxy:
    """``with FaultProxy() as faults:`` serves the API at ``faults.url``."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self.host = host
        self.port = port
        self.room = Room()
        self._ready = threading.Event()
        self._error = ""
        self._server: uvicorn.Server | None = None
        self._thread = threading.Thread(target=self._run, daemon=True, name="fault-proxy")

    @property
    def url(self) -> str:
        """Of the API."""
        return f"http://{self.host}:{self.port}"

    def __enter__(self) -> FaultProxy:
        self._thread.start()
        if not self._ready.wait(10.0) or self._error:
            raise LoadTestError(f"the fault proxy cannot listen on {self.url}: {self._error}")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._server is not None:
            self._server.should_exit = True
        self._thread.join(10.0)

    def _run(self) -> None:
        asyncio.run(self.serve())

    async def serve(self) -> None:
        """Serve until it is told to end."""
        config = uvicorn.Config(
            app_of(self.room), host=self.host, port=self.port, log_level="warning", lifespan="off"
        )
        server = self._server = uvicorn.Server(config)
        task = asyncio.ensure_future(server.serve())
        while not server.started and not task.done():
            await asyncio.sleep(0.01)
        if task.done():
            self._error = "the port is taken, or may not be used"
        else:
            self.port = server.servers[0].sockets[0].getsockname()[1]
        self._ready.set()
        with contextlib.suppress(SystemExit):
            await task
        await self.room.close()
