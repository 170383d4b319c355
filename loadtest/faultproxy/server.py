"""The fault proxy as a separate process, or in a thread of a test or gate."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable
from types import TracebackType

import uvicorn

from understudy.loadtest.errors import LoadTestError
from understudy.loadtest.faultproxy.api import ProxyRegistry, app_of


class FaultProxy:
    """``with FaultProxy() as faults:`` serves the API at ``faults.url``."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self.host = host
        self.port = port
        self.registry = ProxyRegistry()
        self._ready = threading.Event()
        self._error = ""
        self._server: uvicorn.Server | None = None
        self._thread = threading.Thread(target=self._run, daemon=True, name="fault-proxy")

    @property
    def url(self) -> str:
        """The address of the API."""
        return f"http://{self.host}:{self.port}"

    def __enter__(self) -> FaultProxy:
        self._thread.start()
        if not self._ready.wait(10.0) or self._error:
            raise LoadTestError(self._error or "the fault proxy did not start within 10 s")
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
        try:
            asyncio.run(self.serve(lambda _: self._ready.set()))
        except LoadTestError as error:
            self._error = str(error)
            self._ready.set()

    async def serve(self, ready: Callable[[str], None]) -> None:
        """Serve until cancelled; ``ready`` is called with the address once it listens. Raises
        LoadTestError if it cannot listen."""
        # Bound here, since uvicorn ends the process if the bind fails.
        listening = self._listen()
        self.port = listening.getsockname()[1]
        config = uvicorn.Config(app_of(self.registry), log_level="warning", lifespan="off")
        server = self._server = uvicorn.Server(config)
        task = asyncio.ensure_future(server.serve(sockets=[listening]))
        while not server.started and not task.done():
            await asyncio.sleep(0.01)
        ready(self.url)
        with contextlib.suppress(SystemExit):
            await task
        await self.registry.close()

    def _listen(self) -> socket.socket:
        try:
            family, _, _, _, sockaddr = socket.getaddrinfo(
                self.host, self.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            return socket.create_server(sockaddr, family=family, backlog=128)
        except (OSError, OverflowError) as error:
            why = getattr(error, "strerror", None) or error
            raise LoadTestError(f"the fault proxy cannot listen on {self.url}: {why}") from error
